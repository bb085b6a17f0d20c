"""The networks that a figure's panels are tested by, where the groups are what is learned: made once and kept."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import joblib
import numpy as np

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import ExperimentConfig, Task
from autospec.experiments.launch.console import quietly
from autospec.experiments.launch.workers import end_with_parent
from autospec.experiments.plan import Plan
from autospec.experiments.runs.progress import duration
from autospec.store.atomic import write_atomically
from autospec.store.permutations import PermutationRatios

log = logging.getLogger(__name__)

VERSION = 1
"""Raised when a change of the program changes what is kept."""
WORTH_PROCESSES_S = 20
"""Work of less time is done sooner than processes are begun for it."""


def is_retrained(plan: Plan) -> bool:
    """Whether the groups of a run are tested by networks that are trained anew."""
    config = plan.config
    return config.task is Task.classification and config.introspection.retrain > 0


def ratios_path(plan: Plan) -> Path:
    """Return where the ratios of a run's networks are kept."""
    config = plan.config
    text = f"{VERSION} {config.introspection.retrain} {config.figure.pairs}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return Path(config.output_dir) / "retrain" / f"{plan.folder.run_id}-{digest}.npz"


def retrain_missing(plans: Collection[Plan], jobs: int) -> None:
    """Train what is missing of the networks with permuted labels, and say beforehand what it costs.

    Args:
        plans: The runs whose groups are tested; one that is not complete yet is passed over.
        jobs: How many processes.

    Raises:
        AutoSpecError: A run's groups cannot be permuted, or a file cannot be written.
    """
    for plan in plans:
        if is_retrained(plan) and plan.done and not ratios_path(plan).exists():
            retrained_ratios(plan, jobs)


def kept_ratios(plan: Plan) -> PermutationRatios | None:
    """Read the ratios of a run's networks.

    Args:
        plan: The run.

    Returns:
        The ratios; None where its groups are not tested by networks that are trained anew.

    Raises:
        AutoSpecError: They are missing, or cannot be read.
    """
    return read_ratios(ratios_path(plan)) if is_retrained(plan) else None


def retrained_ratios(plan: Plan, jobs: int) -> PermutationRatios:
    """Return the ratios of a run's networks; they are trained where that has not been done.

    Args:
        plan: The run, whose ``introspection.retrain`` says how many networks there are beside the observed one.
        jobs: How many processes.

    Returns:
        The ratios.

    Raises:
        AutoSpecError: A run's groups cannot be permuted, or a file cannot be read or written.
    """
    path, config, name = ratios_path(plan), plan.config, plan.folder.run_id
    if path.exists():
        return read_ratios(path)
    from autospec.experiments.retraining.retrained import Retraining  # brings torch

    make_folder(path.parent)  # before anything is trained
    with quietly():
        retraining = Retraining(config, config.introspection.retrain)
        expected_s = retraining.expected_s()
    jobs = jobs if expected_s > WORTH_PROCESSES_S else 1
    log.info(
        "%s: %d networks with permuted labels take about %s (introspection.retrain=0 leaves them out)",
        *(name, config.introspection.retrain, duration(expected_s / jobs)),
    )
    started = time.monotonic()
    shares = [range(len(retraining.blocks))[at::jobs] for at in range(jobs)]
    work = (joblib.delayed(_train)(config, share) for share in shares if share)
    parts: dict[int, Any] = {}
    for of_share in joblib.Parallel(n_jobs=jobs)(work):
        parts |= of_share
    ratios = retraining.join([parts[place] for place in sorted(parts)])
    write_ratios(ratios, path)
    log.info("%s: they took %s", name, duration(time.monotonic() - started))
    return ratios


def _train(config: ExperimentConfig, blocks: Collection[int]) -> dict[int, Any]:
    """What some blocks of networks give, by their number; in a process of its own."""
    from autospec.experiments.retraining.retrained import Retraining

    end_with_parent()
    with quietly():
        retraining = Retraining(config, config.introspection.retrain)
    return {number: retraining.train(retraining.blocks[number]) for number in blocks}


def write_ratios(ratios: PermutationRatios, path: Path) -> None:
    """Keep ratios in a file.

    Args:
        ratios: What the networks gave.
        path: The file, by NumPy's format.

    Raises:
        AutoSpecError: The file cannot be written.
    """
    make_folder(path.parent)
    arrays: dict[str, Any] = {
        "epochs": ratios.epochs,
        "pairs": np.array(ratios.pairs, dtype=str).reshape(-1, 2),
        "subjects": ratios.subjects,
        "strata": np.array(ratios.strata, dtype=str),
        "refused": np.array([[a, b, why] for (a, b), why in ratios.refused.items()], dtype=str).reshape(-1, 3),
        "design": np.array(ratios.permutation_design),
    }
    arrays |= {f"ratio {name} {layer}": values for layer, own in ratios.ratios.items() for name, values in own.items()}
    arrays |= {} if ratios.loss is None else {"loss": ratios.loss}
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def make_folder(folder: Path) -> None:
    """Make a folder below ``output_dir``.

    Args:
        folder: The folder.

    Raises:
        AutoSpecError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AutoSpecError(f"output_dir: cannot write {folder}: {error.strerror}") from error


def read_ratios(path: Path) -> PermutationRatios:
    """Read what ``write_ratios`` kept.

    Args:
        path: The file.

    Returns:
        The ratios.

    Raises:
        AutoSpecError: The file is damaged.
    """
    try:
        with np.load(path) as file:
            return _ratios({name: file[name] for name in file.files})
    except (OSError, ValueError, KeyError) as error:
        raise AutoSpecError(
            f"{path}: cannot be read ({error}); remove it, and its networks are trained anew"
        ) from error


def _ratios(arrays: Mapping[str, Any]) -> PermutationRatios:
    ratios: dict[str, dict[str, Any]] = {}
    for key, values in arrays.items():
        kind, _, rest = key.partition(" ")
        if kind == "ratio":
            name, _, layer = rest.partition(" ")
            ratios.setdefault(layer, {})[name] = values
    return PermutationRatios(
        epochs=arrays["epochs"],
        pairs=tuple((str(a), str(b)) for a, b in arrays["pairs"]),
        subjects=arrays["subjects"],
        strata=tuple(map(str, arrays["strata"])),
        refused={(str(a), str(b)): str(why) for a, b, why in arrays["refused"]},
        permutation_design=str(arrays["design"]),
        ratios=ratios,
        loss=arrays.get("loss"),
    )
