"""Reading what a spectra file holds of relabelled partitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from autospec.store.read import opened
from autospec.store.schema import (
    NULL,
    NULL_EPOCHS,
    NULL_LOSS,
    NULL_PAIRS,
    NULL_PEOPLE,
    NULL_RATIOS,
    NULL_REASONS,
    NULL_REFUSED,
    NULL_STRATA,
    null_field,
)

Floats = npt.NDArray[np.float32]
Pair = tuple[str, str]


@dataclass(frozen=True)
class NullSpectra:
    """What two groups differ in under every partition of their people, the observed one first.

    ``ratios[layer][name]`` (epoch, pair, partition, ...) are the ``NULL_RATIOS`` of a layer, ``loss`` (epoch, pair,
    partition) that of the mean losses, or None. ``pairs`` with ``people`` in each group and the ``strata`` that labels
    were exchanged within; ``refused`` says of each other pair why it was not relabelled. ``relabellings`` is the same
    for runs that exchanged the same people in the same way.
    """

    epochs: npt.NDArray[np.int64]
    pairs: tuple[Pair, ...]
    people: npt.NDArray[np.int64]
    strata: tuple[str, ...]
    refused: Mapping[Pair, str]
    relabellings: str
    ratios: Mapping[str, Mapping[str, Floats]]
    loss: Floats | None

    @property
    def permutations(self) -> int:
        """The number of relabellings of each pair, the observed partition not counted."""
        first = next(iter(self.ratios.values()), None)
        return 0 if first is None else first["log_norm"].shape[2] - 1


def read_null(path: Path | bytes, layers: list[str]) -> NullSpectra | None:
    """The relabelled partitions of a file; None where its writer knew nothing of people."""
    with opened(path) as file:
        if NULL_PAIRS not in file:
            return None
        refused = zip(_pairs(file, NULL_REFUSED), _texts(file, NULL_REASONS), strict=True)
        relabelled = [layer for layer in layers if null_field(layer, "log_ratio").path in file]
        ratios = {layer: {name: file[null_field(layer, name).path][()] for name in NULL_RATIOS} for layer in relabelled}
        return NullSpectra(
            epochs=file[NULL_EPOCHS.path][()] if NULL_EPOCHS.path in file else np.empty(0, dtype=np.int64),
            pairs=tuple(_pairs(file, NULL_PAIRS)) if relabelled else (),
            people=file[NULL_PEOPLE][()],
            strata=tuple(_texts(file, NULL_STRATA)),
            refused=dict(refused),
            relabellings=str(file[NULL].attrs["relabellings"]),
            ratios=ratios,
            loss=file[NULL_LOSS.path][()] if NULL_LOSS.path in file else None,
        )


def _texts(file: h5py.File, path: str) -> list[str]:
    return [text.decode() for text in file[path][()]]


def _pairs(file: h5py.File, path: str) -> list[Pair]:
    return [(a.decode(), b.decode()) for a, b in file[path][()]]
