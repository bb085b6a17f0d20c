"""Whether the inputs of a panel's groups differ, by the permutations that their spectra are tested with."""

from __future__ import annotations

import numpy as np
import pandas as pd

from autospec.analysis.nan_statistics import Floats
from autospec.analysis.plain_tests import plain_tests
from autospec.experiments import datasets
from autospec.experiments.config.schema import ExperimentConfig, Task
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.permutation_design import run_permutations
from autospec.experiments.report.retraining import quietly
from autospec.experiments.retraining.design import retraining_design
from autospec.store.permuted_pairs import PermutationDesign


def inputs_tests(config: ExperimentConfig) -> pd.DataFrame:
    """Test the inputs of every pair whose spectra are tested.

    Args:
        config: The configuration of a panel's run.

    Returns:
        The rows of ``plain_tests``; none where no pair is tested.
    """
    introspection = config.introspection
    if not introspection.permutations and not introspection.retrain:
        return pd.DataFrame()
    with quietly():
        data = datasets.load(config.dataset)
    design = run_permutations(config, data)
    parts = [plain_tests(subject_inputs(data, design), design.pairs)]
    if config.task is Task.classification and introspection.retrain:
        learned = retraining_design(config, data, introspection.retrain).design
        parts.append(plain_tests(subject_inputs(data, learned), learned.pairs))
    return pd.concat([part for part in parts if len(part)]) if any(map(len, parts)) else parts[0]


def subject_inputs(data: Dataset, design: PermutationDesign) -> Floats:
    """Return what each training subject's inputs are, the mean over samples where there are several.

    Args:
        data: The data set.
        design: Says whose each training sample is.

    Returns:
        (subject, value).
    """
    flat = data.inputs[data.training].reshape(len(design.subject), -1).astype(np.float64)
    sums = np.zeros((design.subjects, flat.shape[1]))
    np.add.at(sums, design.subject, flat)
    return sums / np.bincount(design.subject)[:, None]
