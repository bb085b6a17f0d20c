"""Whole runs with permuted labels: the test of groups that are what a network is trained to tell apart.

There weights depend on the compared labels, so that permuting labels at fixed weights is no test. Training anew with
every permutation is one: without a group difference the run with the observed labels is one of 1 + P exchangeable runs.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from autospec.analysis.permutation import permutation_tests
from autospec.errors import AutoSpecError
from autospec.experiments import datasets, models
from autospec.experiments.config.schema import ExperimentConfig, Task
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.parts import optimizer_of, schedule_of, task_of
from autospec.experiments.permutation_design import permutation_design
from autospec.experiments.runs.progress import duration
from autospec.experiments.training.determinism import make_deterministic
from autospec.experiments.training.devices import device_name
from autospec.experiments.training.loop import Training
from autospec.experiments.training.samples import Samples
from autospec.recording.recorder import SpectralRecorder
from autospec.recording.schedule import Schedule
from autospec.store.permutations import PermutationRatios
from autospec.store.permuted_pairs import FEWEST_PERMUTATIONS, PairPermutations, PermutationDesign
from autospec.store.schema import PERMUTATION_LOSS, PERMUTATION_RATIOS, permutation_field

log = logging.getLogger(__name__)


def retrain(config: ExperimentConfig, permutations: int) -> pd.DataFrame:
    """Test a run's groups by ``1 + permutations`` runs, in one process; nothing is stored.

    Labels of the target are permuted together with the groups, as one partition for each pair of classes.

    Args:
        config: The run's configuration.
        permutations: How often labels are permuted.

    Returns:
        The permutation tests, with the columns of ``analysis.permutation.COLUMNS``.

    Raises:
        AutoSpecError: The groups are not the classes of a classifier, no pair can be tested, permutations are so few
            that no p could be small, or these runs cannot record what the configuration asks for.
    """
    ratios = permute_and_retrain(config, permutations)
    return permutation_tests([ratios], list(ratios.ratios), list(ratios.pairs))


def permute_and_retrain(config: ExperimentConfig, permutations: int) -> PermutationRatios:
    """Compute what the two groups differ in under every partition, each from a run of its own.

    Args:
        config: The run's configuration.
        permutations: How often labels are permuted.

    Returns:
        The ratios of one pair, the two classes.

    Raises:
        AutoSpecError: As ``retrain``.
    """
    if permutations < FEWEST_PERMUTATIONS:
        raise AutoSpecError(
            f"retrain: permutations={permutations}: with fewer than {FEWEST_PERMUTATIONS} no p can reach 0.05"
        )
    _check_introspection(config)
    device = device_name(config.device)
    data = datasets.load(config.dataset)
    _check(config, data)
    introspection = replace(config.introspection, permutations=permutations, permutation_pairs=None)
    every = max(1, (config.epochs - 1) // max(introspection.permutation_epochs - 1, 1))
    schedule = Schedule(every, config.epochs)
    recorded = [epoch for epoch in range(config.epochs) if schedule.takes(epoch)]
    # as if the labels took no part: which labels may be permuted does not depend on it
    residualized = getattr(config.dataset, "residualize", ())
    design = permutation_design(data, introspection, config.dataset.group_by, None, recorded, residualized)
    if not design.pairs:
        raise AutoSpecError(f"retrain: {'; '.join(design.refused.values())}")
    observed = design.pairs[0]
    runs: list[SpectralRecorder] = []
    with make_deterministic(config.threads):
        for number, members in enumerate(observed.members):
            started = time.monotonic()
            runs.append(_run(config, data, design, members, every, device))
            if number < 2:  # the first run warms up, so the second corrects what it says
                rest_s = (time.monotonic() - started) * (permutations - number)
                log.info("retrain: %d runs with permuted labels take about %s", permutations, duration(rest_s))
    return _side_by_side(runs, observed, design.epochs)


def _check_introspection(config: ExperimentConfig) -> None:
    """AutoSpecError for what a run records elsewhere and these runs cannot."""
    introspection = config.introspection
    if introspection.engine != "hooks":
        raise AutoSpecError(
            f"introspection.engine={introspection.engine}: retrain compares subjects, which only hooks tell apart"
        )
    if introspection.leading is not None:
        raise AutoSpecError(
            f"introspection.leading={introspection.leading}: retrain stores no spectra and compares every index; "
            "leave it out"
        )


def _check(config: ExperimentConfig, data: Dataset) -> None:
    """AutoSpecError where the groups are not the two classes of a classifier."""
    target = config.dataset.target
    if config.task is not Task.classification:
        raise AutoSpecError(
            f"retrain: task={config.task.value} learns no labels, so its groups are tested at fixed weights; "
            "see introspection.permutations"
        )
    if len(data.classes) != 2:
        raise AutoSpecError(f"retrain: compares two classes, but {target} has {len(data.classes)}")
    if data.groups != data.classes:
        raise AutoSpecError(
            f"retrain: compares the classes {' and '.join(data.classes)}, but the groups are "
            f"{', '.join(data.groups)}; add dataset.group_by=[{target}]"
        )


def _run(
    config: ExperimentConfig,
    data: Dataset,
    design: PermutationDesign,
    members: npt.NDArray[np.int8],
    every: int,
    device: str,
) -> SpectralRecorder:
    """One run with the labels of one partition, whose ratios are taken at some epochs."""
    label = members[design.subject].astype(np.int64) - 1
    model = models.build(config, data.inputs.shape[1:], len(data.classes)).to(device)
    pair = PairPermutations(data.groups[0], data.groups[1], (), members[None])
    recorder = SpectralRecorder(
        model,
        groups=data.groups,
        every=every,
        epochs=config.epochs,
        layers=config.introspection.layers,
        floor=config.introspection.floor,
        permutation_design=PermutationDesign((pair,), {}, design.subject, design.epochs),
    )
    chosen = (torch.from_numpy(values).to(device) for values in (data.inputs[data.training], label, label))
    samples = Samples(*chosen)
    with recorder:
        optimizer = optimizer_of(config, model)
        schedule = schedule_of(config, optimizer)
        task = task_of(config)
        training = Training(model, task, samples, None, recorder, optimizer, schedule, config.batch_size, config.seed)
        training.run(config.epochs, lambda loss: None)
    return recorder


def _side_by_side(
    runs: Sequence[SpectralRecorder], observed: PairPermutations, epochs: tuple[int, ...]
) -> PermutationRatios:
    """The runs side by side, as partitions of one pair."""
    ratios = {
        layer: {name: _beside(runs, permutation_field(layer, name).path) for name in PERMUTATION_RATIOS}
        for layer in runs[0].layers
    }
    loss = _beside(runs, PERMUTATION_LOSS.path)
    subjects = np.array([[int((observed.members[0] == code).sum()) for code in (1, 2)]])
    strata = (", ".join(observed.strata),)
    return PermutationRatios(np.array(epochs), ((observed.a, observed.b),), subjects, strata, {}, "", ratios, loss)


def _beside(runs: Sequence[SpectralRecorder], path: str) -> npt.NDArray[np.float32]:
    """(epoch, pair, partition, ...): an array of every run, one run's partition after another's."""
    return np.concatenate([run.table[path] for run in runs], axis=2).astype(np.float32)
