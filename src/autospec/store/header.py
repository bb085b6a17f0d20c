"""What a spectra file says beside its layers' arrays: its run, its groups and layers, and the curves of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import numpy.typing as npt

from autospec.store.schema import (
    GROUP_IS_MARGIN,
    GROUP_MEMBERS,
    GROUP_NAMES,
    GROUP_SIZES,
    LAYERS,
    TRAINING_CURVES,
    TRAINING_EPOCHS,
    layer_of_folder,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StoredHeader:
    """What was read of a file's header.

    Attributes:
        attributes: What the file says of its run, by name.
        group_names: Its groups; the first is ``all``, the whole batch.
        sizes: The subjects or samples in each group; NaN where the writer did not know.
        members: Of each group the disjoint groups that it is made of: itself, or the parts of a margin.
        is_margin: (group,) whether each is a margin.
        shapes: Of each layer, in the model's order, the shape (outputs, inputs) of its weight's matrix.
    """

    attributes: dict[str, Any]
    group_names: list[str]
    sizes: dict[str, float]
    members: dict[str, frozenset[str]]
    is_margin: npt.NDArray[np.bool_]
    shapes: dict[str, tuple[int, ...]]


def read_header(file: h5py.File) -> StoredHeader:
    """Read what a file says beside its arrays.

    Args:
        file: A spectra file, opened for reading.

    Returns:
        Its attributes, groups and layers.
    """
    names = [name.decode() for name in file[GROUP_NAMES][()]]
    # both are missing where the writer had nothing to say: a file without margins, groups of unknown size
    sizes = file[GROUP_SIZES][()] if GROUP_SIZES in file else np.full(len(names), np.nan)
    parts = file[GROUP_MEMBERS][()] if GROUP_MEMBERS in file else np.eye(len(names), dtype=bool)
    every = np.array(names)
    members = {name: frozenset(every[row].tolist()) for name, row in zip(names, parts, strict=True)}
    shapes = {
        layer_of_folder(key): tuple(map(int, folder.attrs.get("shape", ())))
        for key, folder in file.get(LAYERS, {}).items()
    }
    return StoredHeader(
        attributes=dict(file.attrs),
        group_names=names,
        sizes=dict(zip(names, sizes.tolist(), strict=True)),
        members=members,
        is_margin=file[GROUP_IS_MARGIN][()],
        shapes=shapes,
    )


def read_training(file: h5py.File) -> pd.DataFrame:
    """Read the curves of training.

    Args:
        file: A spectra file, opened for reading.

    Returns:
        One row per epoch, by its number or step; a column for each curve that was given.
    """
    import pandas as pd

    curves = {field.path.replace("/", "_"): file[field.path][()] for field in TRAINING_CURVES if field.path in file}
    epochs = file[TRAINING_EPOCHS.path][()] if TRAINING_EPOCHS.path in file else np.empty(0, dtype=np.int64)
    return pd.DataFrame(curves, index=pd.Index(epochs, name="epoch"))
