"""What the scans of a cohort are, before any is decomposed: grid, repetition time, task, session, left and right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.motion import read_motion
from autospec.cohorts.options import Options
from autospec.cohorts.source_files import Source
from autospec.errors import AutoSpecError
from autospec.neuroimaging.orientation import forms_differ, orient
from autospec.neuroimaging.repetition_time import repetition_time_s
from autospec.neuroimaging.scans import bright_voxels, grid_of, load_image, open_scan, same_grid

SAME_TIME_S = 0.01


@dataclass(frozen=True)
class Scan:
    """A scan that can be used, its voxels not read: ``image`` gives its grid."""

    source: Source
    image: Any
    n_volumes: int
    entities: Mapping[str, str]


def keep_usable(sources: Sequence[Source], options: Options, account: Account) -> list[Source]:
    """The scans that can be opened, tell their repetition time and share the most common grid; the others are named.

    Args:
        sources: Every subject's scan.
        options: What the user asks for.
        account: Takes a line for every subject left out.

    Returns:
        The usable sources, with their repetition times.

    Raises:
        AutoSpecError: No scan can be used, or scans differ in what must be allowed to differ.
    """
    scans = []
    for source in sources:
        try:
            scans.append(_survey(source, options, account))
        except AutoSpecError as error:
            account.drop(source.id, _by_options(str(error)))
    if not scans:
        raise AutoSpecError(
            f"no scan can be used: {list(account.dropped.values())[-1] if sources else 'there is none'}"
        )
    scans = _of_one_grid(scans, account)
    _note_times(scans, options, account)
    for entity in ("task",) if options.all_sessions else ("task", "session"):
        _note_entity(scans, entity, options, account)
    return [scan.source for scan in scans]


def _survey(source: Source, options: Options, account: Account) -> Scan:
    """What a scan is; AutoSpecError where it cannot be used."""
    places = load_image(options.template or options.atlas, "template")
    image = orient(open_scan(source.file), options.orientation, places)
    if options.mask is None and options.atlas is None:
        bright_voxels(image)
    if forms_differ(image):
        account.note(f"{source.id}: sform and qform put its voxels at different places; the sform is used")
    _check_motion(source, options, image.shape[3])
    return Scan(
        replace(source, tr_s=_repetition_time_s(image, options)), image, image.shape[3], entities_of(source.file.name)
    )


def _check_motion(source: Source, options: Options, n_volumes: int) -> None:
    """AutoSpecError for a file of motion of another length, before a minute is spent on the scan."""
    parameters = read_motion(source.confounds, options.motion_format).parameters
    if parameters is not None and len(parameters) != n_volumes:
        raise AutoSpecError(f"{source.confounds}: motion of {len(parameters)} volumes, the scan has {n_volumes}")


def _repetition_time_s(image: Any, options: Options) -> float | None:
    if options.tr_s is not None:
        return options.tr_s
    needed = options.clean and options.low_pass_hz is not None
    try:
        return repetition_time_s(image)
    except AutoSpecError:
        if needed:
            raise
        return None


def entities_of(name: str) -> dict[str, str]:
    """The task and the session in a BIDS file name.

    Args:
        name: Such as ``sub-01_ses-2_task-rest_bold.nii.gz``.

    Returns:
        Values by ``task`` and ``session``, empty where the name lacks one; without leading zeros.
    """
    keys = {"task": "task", "session": "ses"}
    matches = {entity: re.search(rf"(?:^|_){key}-([A-Za-z0-9]+)", name) for entity, key in keys.items()}
    return {entity: "" if match is None else match.group(1).lstrip("0") for entity, match in matches.items()}


def _of_one_grid(scans: list[Scan], account: Account) -> list[Scan]:
    """The scans on the grid that most have; the account names the others."""
    grids: list[list[Scan]] = []
    for scan in scans:
        group = next((group for group in grids if same_grid(group[0].image, scan.image)), None)
        if group is None:
            grids.append([scan])
        else:
            group.append(scan)
    common = max(grids, key=len)
    for group in grids:
        if group is not common:
            for scan in group:
                grid, usual = grid_of(scan.image), grid_of(common[0].image)
                account.drop(scan.source.id, f"the scan's grid is {grid}, not {usual} as most have")
    return common


def _note_times(scans: Sequence[Scan], options: Options, account: Account) -> None:
    """Say the repetition times; AutoSpecError where they differ and nobody allowed it."""
    times = Counter(round(scan.source.tr_s, 3) for scan in scans if scan.source.tr_s is not None)
    if not times:
        account.note("repetition time: not known")
        return
    told = ", ".join(f"{time:g} s {count}" for time, count in sorted(times.items()))
    account.note(f"repetition time: {told}")
    if max(times) - min(times) > SAME_TIME_S and "tr" not in options.allow:
        raise AutoSpecError(
            f"repetition times differ ({told}): a volume is not the same time in everybody, and slower scans alias "
            "what faster ones filter out; --allow tr takes them all the same, --tr says that the headers are wrong"
        )


def _note_entity(scans: Sequence[Scan], entity: str, options: Options, account: Account) -> None:
    """Say the tasks or sessions; AutoSpecError where they differ and nobody allowed it."""
    counts = Counter(scan.entities[entity] or "none named" for scan in scans)
    if set(counts) == {"none named"}:
        return
    told = ", ".join(f"{value} {count}" for value, count in sorted(counts.items()))
    account.note(f"{entity}: {told}")
    if len(counts) > 1 and entity not in options.allow:
        rare = min(counts, key=lambda value: (counts[value], value))
        who = list_names(scan.source.id for scan in scans if (scan.entities[entity] or "none named") == rare)
        raise AutoSpecError(
            f"{entity}s differ ({told}; {rare}: {who}): choose with --scans, or --allow {entity} takes them all"
        )


def _by_options(text: str) -> str:
    """A message of the library with the options of the command."""
    for ours, theirs in (
        ("give tr_s", "give --tr"), ("give a mask", "give --mask"), ("give orientation (", "give --orientation ("),
        ("orientation=template", "--orientation template"),
    ):  # fmt: skip
        text = text.replace(ours, theirs)
    return text
