"""Whether the inputs of a panel's groups differ, by the permutations that their spectra are tested with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from autospec.analysis.nan_statistics import Floats
from autospec.analysis.plain_tests import plain_tests
from autospec.experiments import datasets
from autospec.experiments.config.schema import ExperimentConfig, Task
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.launch.console import quietly
from autospec.experiments.permutation_design import run_permutations
from autospec.experiments.retraining.design import retraining_design
from autospec.store.permuted_pairs import PermutationDesign


def load_inputs(configs: Iterable[ExperimentConfig]) -> dict[str, Dataset]:
    """Load the data of panels whose inputs are tested, each set once: most figures have one for all panels.

    Args:
        configs: The configurations of the panels whose groups are compared.

    Returns:
        The data sets, by the text of their configuration (``repr``).
    """
    wanted = {repr(config.dataset): config.dataset for config in configs if _are_tested(config)}
    with quietly():
        return {text: datasets.load(dataset) for text, dataset in wanted.items()}


def _are_tested(config: ExperimentConfig) -> bool:
    return bool(config.introspection.permutations or config.introspection.retrain)


def inputs_tests(config: ExperimentConfig, data: Mapping[str, Dataset]) -> pd.DataFrame:
    """Test the inputs of every pair whose spectra are tested.

    Args:
        config: The configuration of a panel's run.
        data: What ``load_inputs`` returned.

    Returns:
        The rows of ``plain_tests``; none where no pair is tested.
    """
    if not _are_tested(config):
        return pd.DataFrame()
    return _tests_of(config, data[repr(config.dataset)])


def _tests_of(config: ExperimentConfig, data: Dataset) -> pd.DataFrame:
    retrain = config.introspection.retrain
    designs = [run_permutations(config, data)]
    if config.task is Task.classification and retrain:
        designs.append(retraining_design(config, data, retrain).design)
    parts = [plain_tests(subject_inputs(data, design), design.pairs) for design in designs]
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
    # unlike +=, which counts one sample alone of a subject with several
    np.add.at(sums, design.subject, flat)
    return sums / np.bincount(design.subject)[:, None]
