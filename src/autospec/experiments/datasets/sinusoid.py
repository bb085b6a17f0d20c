"""Sine waves, one frequency per class: a numerical data set, generated from a seed."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from autospec.cohorts.exclusions import Account
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import SinusoidConfig
from autospec.experiments.datasets.dataset import Dataset, Float32s, Integers, hold_out
from autospec.experiments.datasets.scaling import check_scaling, scale
from autospec.experiments.datasets.simulation.subjects import check_finite

SIMULATION = "sinusoid 1"
"""Raised when the same configuration gives other numbers."""

log = logging.getLogger(__name__)


def sources(config: SinusoidConfig) -> list[Path]:
    """No file: the series are generated.

    Args:
        config: The data set's configuration.

    Returns:
        The files in a fixed order.

    Raises:
        AutoSpecError: A file is not there, or keys contradict each other.
    """
    if config.path is not None:
        raise AutoSpecError(f"dataset.path={config.path}: the sinusoids are generated; there is no file to read")
    return []


def load(config: SinusoidConfig) -> Dataset:
    """Generate the series of the chosen classes, ``per_class`` of each; every class is a group.

    Args:
        config: The data set's configuration.

    Returns:
        Series (n, time, channels).

    Raises:
        AutoSpecError: Names the file or key at fault.
    """
    check(config)
    label = np.repeat(np.array(config.classes, dtype=np.int64), config.per_class)
    names = tuple(str(name) for name in config.classes)
    target = np.repeat(np.arange(len(names), dtype=np.int64), config.per_class)
    subjects = tuple(f"series-{number:05d}" for number in range(1, len(label) + 1))
    training = hold_out(subjects, [str(name) for name in label], config.holdout, config.holdout_seed)
    account = Account([f"simulated: {len(subjects)} sinusoids of {len(names)} classes"])
    account.log(log)
    result = scale(_series(label, config), config.scaling, training)
    return Dataset(
        inputs=result.inputs,
        target=target,
        classes=names,
        group=target,
        groups=names,
        subjects=subjects,
        training=training,
        source="simulated sinusoids",
        simulated=True,
        scaling=result.fitted,
        account=account.text(),
    )


def _series(label: Integers, config: SinusoidConfig) -> Float32s:
    """sin(2π (k + 1) t / T + phase) + noise, for class k, t = 0 … T - 1, every channel with a phase of its own.

    The paper gives class k the frequency k; one more cycle keeps class 0 from being a constant.
    """
    phases, noises = np.random.default_rng(config.seed).spawn(2)
    time = np.arange(config.time_points)[None, :, None] / config.time_points
    phase = phases.uniform(0, 2 * np.pi, size=(len(label), 1, config.channels))
    noise = noises.standard_normal((len(label), config.time_points, config.channels))
    cycles = label[:, None, None] + 1
    return (np.sin(2 * np.pi * cycles * time + phase) + config.noise_sd * noise).astype(np.float32)


def check(config: SinusoidConfig) -> None:
    """Refuse a value that cannot be generated.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    check_scaling(config.scaling)
    sources(config)
    check_finite(config)
    for key in ("per_class", "channels"):
        if getattr(config, key) < 1:
            raise AutoSpecError(f"dataset.{key}={getattr(config, key)}: must be 1 or more")
    if config.noise_sd < 0:
        raise AutoSpecError(f"dataset.noise_sd={config.noise_sd}: must be 0 or more")
    if not config.classes or len(set(config.classes)) < len(config.classes) or min(config.classes) < 0:
        raise AutoSpecError(f"dataset.classes={config.classes}: must be distinct numbers from 0 up")
    # a frequency needs more than two samples a cycle, or it looks like a lower one
    if 2 * (max(config.classes) + 1) >= config.time_points:
        raise AutoSpecError(
            f"dataset.time_points={config.time_points}: too few for the {max(config.classes) + 1} cycles of class "
            f"{max(config.classes)}; more than {2 * (max(config.classes) + 1)} are needed"
        )
    if config.target != "class" or config.group_by != ["class"]:
        raise AutoSpecError(
            f"dataset.target={config.target}, dataset.group_by={config.group_by}: the sinusoids have only class"
        )
