"""What a user asks of a recorder; every mistake in one line, before anything is changed on the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from autospec.capture.engines import HOOKS, check_engine
from autospec.errors import AutoSpecError
from autospec.recording.permutation_request import PermutationRequest, permutation_request
from autospec.recording.schedule import Schedule
from autospec.spectra.groups import Grouping, checked_grouping
from autospec.spectra.settings import CALIBRATED, FORMULA, RecorderSettings, check_settings, tolerance_mistake
from autospec.spectra.statistics import Statistic, chosen_statistics


@dataclass(frozen=True)
class RecordingRequest:
    """The arguments of ``SpectralRecorder`` that say what is recorded, and when.

    Attributes:
        settings: Those that have a range of their own.
        grouping: The groups and their margins.
        schedule: When spectra are taken.
        statistics: What is computed of every layer.
        permutations: How labels are permuted; None where they are not, or were designed beforehand.
    """

    settings: RecorderSettings
    grouping: Grouping
    schedule: Schedule
    statistics: Sequence[Statistic]
    permutations: PermutationRequest | None


def recording_request(
    groups: Sequence[str],
    margins: Mapping[str, Sequence[str]],
    settings: Mapping[str, Any],
    permutations: Mapping[str, Any],
    is_designed: bool,
) -> RecordingRequest:
    """Check what a recorder was given.

    Args:
        groups: the disjoint groups.
        margins: by name the groups that are put together.
        settings: the fields of ``RecorderSettings``; ``floor`` may be None.
        permutations: the arguments of ``permutation_request`` that are not among the settings.
        is_designed: whether permutations were designed beforehand.

    Raises:
        AutoSpecError: for arguments that do not fit, or do not go together.
    """
    statistics = settings["statistics"]
    if isinstance(statistics, str):
        raise AutoSpecError(f"statistics={statistics!r}: a list is needed, statistics=[{statistics!r}]")
    # measuring a floor costs what the engines beside hooks are chosen to save
    floor = settings["floor"] or (CALIBRATED if settings["engine"] == HOOKS else FORMULA)
    checked = check_settings(RecorderSettings, {**settings, "floor": floor})
    grouping = checked_grouping(groups, margins)
    schedule = Schedule(checked.every, checked.epochs)
    chosen = chosen_statistics(checked.statistics)
    if mistake := tolerance_mistake(checked.tolerance, checked.leading, checked.statistics):
        raise AutoSpecError(mistake)
    check_engine(checked.engine, checked.statistics, checked.check_every)
    permuted = None
    if checked.permutations:
        if is_designed or checked.engine != HOOKS:
            other = "permutation_design=..." if is_designed else f"engine={checked.engine!r}"
            raise AutoSpecError(f"permutations={checked.permutations} and {other} do not go together")
        permuted = permutation_request(
            checked.permutations, grouping, schedule, count=checked.permutation_epochs, **permutations
        )
    elif without := next((name for name in ("omnibus", "covariates") if permutations[name]), None):
        raise AutoSpecError(f"{without}=...: needs permutations=1000 (or more)")
    return RecordingRequest(checked, grouping, schedule, chosen, permuted)


def check_model(model: object) -> None:
    """AutoSpecError for what is no model."""
    if not isinstance(model, nn.Module):
        raise AutoSpecError(
            f"model={type(model).__module__}.{type(model).__name__}: the model itself is needed, a torch.nn.Module"
        )


def file_path(path: str | Path | None) -> Path | None:
    """The path of a file to write, or None for none; AutoSpecError for what cannot be one."""
    if not (path is None or isinstance(path, str | os.PathLike)):
        raise AutoSpecError(f"path={path!r}: must be a path as text, or None to keep the spectra in memory")
    if path is not None and Path(path).is_dir():
        raise AutoSpecError(f"path={str(path)!r} is a folder; name a file in it, such as {Path(path, 'spectra.h5')}")
    return None if path is None else Path(path)


def check_group_sizes(group_sizes: Sequence[int] | None, grouping: Grouping) -> None:
    """AutoSpecError where there is not one size per reported group."""
    if group_sizes is not None and len(group_sizes) != grouping.reported:
        raise AutoSpecError(
            f"group_sizes has {len(group_sizes)} numbers, but there are {grouping.reported} groups to report: "
            f"{', '.join(grouping.names)}"
        )


def check_callback(on_record: object) -> None:
    """AutoSpecError for what cannot be called with a record's numbers."""
    if on_record is not None and not callable(on_record):
        raise AutoSpecError(f"on_record={on_record!r}: must be a function of a dict of numbers")
