"""The curves of training: losses and metrics, a value per epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np

from autospec.store.schema import TRAINING_CURVES, TRAINING_EPOCHS

if TYPE_CHECKING:
    import pandas as pd


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
