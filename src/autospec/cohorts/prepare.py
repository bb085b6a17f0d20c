"""The preparation of a cohort from start to end: files and subjects found, parts made, the whole written."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.cohorts import cobre_hdf5, gift, gift_maps, halfpipe
from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.folder_layouts import SCAN_LAYOUTS, find_sources
from autospec.cohorts.joining import join_by_id, per_session
from autospec.cohorts.motion import read_motion
from autospec.cohorts.options import Options
from autospec.cohorts.phenotype import read_phenotype
from autospec.cohorts.prepared_file import Origin, Rows, write_cohort
from autospec.cohorts.source_files import Folder, Source, add_motion, find_listed_scans
from autospec.cohorts.subject_file import POOR_MATCH, TOO_GOOD_MATCH, Part, poor_matches, read_part, too_good_matches
from autospec.errors import AutoSpecError

log = logging.getLogger(__name__)

LABELS = ("diagnosis", "sex", "site")
"""Columns whose values the account counts, so that a value that nobody has mapped is seen at once."""

READERS: dict[str, Callable[[Source, Options, bool], Part]] = {
    "gift": gift.read,
    "halfpipe": halfpipe.read,
    "hdf5": cobre_hdf5.read,
}


@dataclass(frozen=True)
class Grid:
    """Where maps lie: the mask (x, y, z), voxel indices to mm, and the template's maps in the mask if there is one."""

    mask: npt.NDArray[np.bool_]
    affine: npt.NDArray[np.float64]
    template: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Parts:
    """The part of each subject of a phenotype table, loaded when asked for: ``load(id, with maps)``."""

    subjects: pd.DataFrame
    load: Callable[[str, bool], Part]
    grid: Grid | None = None


def prepare(options: Options) -> Account:
    """Write the prepared cohort that the options ask for.

    Args:
        options: What the user asks for.

    Returns:
        The account of who is in it, which is in the file too.

    Raises:
        AutoSpecError: Names the option, file or subject at fault.
    """
    options.check()
    account = Account()
    with account.told_on_error(log):
        _prepare(options, account)
    return account


def _prepare(options: Options, account: Account) -> None:
    """Find files and subjects, make the parts, write the whole."""
    folder = find_sources(options, account)
    if folder.layout in SCAN_LAYOUTS and options.template is None and options.atlas is None:
        raise AutoSpecError(
            "--template: the NeuroMark template (a 4-D NIfTI of 53 maps) is needed for scans, or --atlas"
        )
    subjects = folder.subjects if folder.subjects is not None else _subjects(folder, options, account)
    sources = list(folder.sources)
    if options.files_column:
        sources = find_listed_scans(options.folder, subjects, options.files_column, account)
    if options.motion:
        sources = add_motion(options.folder, sources, options.motion, account)
    ids = [source.id for source in sources]
    if options.all_sessions:
        subjects = per_session(subjects, ids)
    subjects = join_by_id(subjects, ids, account, options.folder.resolve().name, options.id_pattern)
    # from here on every subject has the id of the phenotype table
    sources = [replace(sources[row], id=subject) for subject, row in zip(subjects["id"], subjects["row"], strict=True)]
    parts = (_of_scans if folder.layout in SCAN_LAYOUTS else _ready)(subjects, sources, folder, options, account)
    _write(parts, folder, options, account)


def _subjects(folder: Folder, options: Options, account: Account) -> pd.DataFrame:
    table = folder.phenotype
    if table is None or not table.is_file():
        raise AutoSpecError(f"--phenotype: there is no table of subjects {table}; name it")
    columns = {"id": "participant_id", **folder.columns}
    return read_phenotype(table, columns, ("id", *options.columns), account, "--column ")


def _of_scans(
    subjects: pd.DataFrame, sources: list[Source], folder: Folder, options: Options, account: Account
) -> Parts:
    """Constrained ICA of every scan."""
    # scikit-learn and nilearn are loaded for this alone
    from autospec.cohorts.scan_components import fit_atlas, fit_model, prepare_parts
    from autospec.cohorts.scan_survey import keep_usable

    sources = keep_usable(sources, options, account)
    times_s = {source.id: np.nan if source.tr_s is None else source.tr_s for source in sources}
    subjects = subjects.assign(repetition_time_s=[times_s.get(subject, np.nan) for subject in subjects["id"]])
    if options.atlas is not None:
        regions = fit_atlas(sources, options)
        files = prepare_parts(sources, regions, options, account)
        account.note(f"atlas: {len(regions.names_)} regions of {options.atlas.name}")
        if regions.absent_:
            account.warn(f"atlas: no voxel on the scans' grid for {list_names(regions.absent_)}; they are left out")
        return Parts(subjects[subjects["id"].isin(files)], lambda subject, maps: read_part(files[subject], maps))
    model = fit_model(sources, options)
    files = prepare_parts(sources, model, options, account)
    mask = np.asarray(model.mask_img_.dataobj, dtype=bool)
    account.note(f"mask: {mask.sum()} voxels" + ("" if options.mask else ", bright in the first volume of every scan"))
    grid = Grid(mask, np.asarray(model.mask_img_.affine), model.references_)
    return Parts(subjects[subjects["id"].isin(files)], lambda subject, maps: read_part(files[subject], maps), grid)


def _ready(subjects: pd.DataFrame, sources: list[Source], folder: Folder, options: Options, account: Account) -> Parts:
    """Components that are there already, read anew whenever asked for; whoever's file cannot be used is named."""
    by_id = {source.id: source for source in sources}

    def load(subject: str, with_maps: bool) -> Part:
        part = READERS[folder.layout](by_id[subject], options, with_maps)
        return replace(part, motion_mm=read_motion(by_id[subject].confounds).mean_displacement_mm)

    for subject in by_id:
        try:
            _check(subject, load(subject, True), account)
        except AutoSpecError as error:
            account.drop(subject, str(error))
    usable = subjects[~subjects["id"].isin(account.dropped)]
    place = gift_maps.common_grid([by_id[subject] for subject in usable["id"]], options)
    return Parts(usable, load, None if place is None else Grid(*place))


def _check(subject: str, part: Part, account: Account) -> None:
    """AutoSpecError for time-courses with gaps or without variance; gaps in maps, for figure 8 alone, are noted."""
    missing = int((~np.isfinite(part.timecourses)).sum())
    if missing:
        raise AutoSpecError(f"{missing} values of the time-courses are NaN or infinite")
    still = np.flatnonzero(np.ptp(part.timecourses, axis=0) == 0)
    if still.size:
        raise AutoSpecError(
            f"the time-course of component {list_names(str(one + 1) for one in still)} (from 1) is constant"
        )
    gaps = 0 if part.maps is None else int((~np.isfinite(part.maps)).sum())
    if gaps:
        account.note(f"{subject}: {gaps} values of the maps are NaN or infinite; figure 8 will leave {subject} out")


def _write(parts: Parts, folder: Folder, options: Options, account: Account) -> None:
    """The prepared file: every subject's time-courses at one length, maps and their maximum one subject at a time."""
    subjects, volumes = _of_one_length(parts, options.volumes, account)
    ids = list(subjects["id"])
    loaded = {subject: parts.load(subject, False) for subject in ids}
    courses = np.stack([loaded[subject].timecourses[:volumes] for subject in ids]).astype(np.float32)
    data: dict[str, npt.NDArray | Rows] = {"timecourses": courses}
    if parts.grid is not None:
        data |= _map_data(parts, ids, courses.shape[2], options.maps)
    if all(part.match is not None for part in loaded.values()):
        data["template_match"] = match = np.stack([np.asarray(loaded[subject].match) for subject in ids])
        _note_matches(ids, loaded, match, account)
        poor = poor_matches(ids, match)
        if poor:
            account.warn(f"a map correlates weakly with the template's (r below {POOR_MATCH}): {', '.join(poor)}")
    if folder.layout in SCAN_LAYOUTS and options.clean:
        _note_regressors(ids, loaded, account)
    subjects = _with_motion(subjects, [loaded[subject].motion_mm for subject in ids], account)
    for column in LABELS:
        if column in subjects.columns:
            counts = Counter(str(text) or "missing" for text in subjects[column])
            account.note(f"{column}: {', '.join(f'{text} {count}' for text, count in sorted(counts.items()))}")
    account.note(f"prepared: {len(ids)} subjects, {courses.shape[2]} components, {volumes} volumes")
    origin = Origin(_source(folder, options), settings=_settings(folder, options), account=account.text())
    options.make_folder(options.output.parent)
    write_cohort(options.output, subjects.drop(columns="row"), data, origin)


def _note_matches(ids: list[str], loaded: dict[str, Part], match: npt.NDArray, account: Account) -> None:
    """Warn of subjects whose maps are the template's own, and of those who match it better with sides exchanged."""
    account.note(f"template match: median {np.median(match):.2f}, lowest subject {np.median(match, axis=1).min():.2f}")
    same = too_good_matches(ids, match)
    if same:
        account.warn(
            f"maps equal the template's (median r above {TOO_GOOD_MATCH}): {list_names(same)}; look at the mask"
        )
    mirrored = [subject for subject in ids if loaded[subject].mirrored > loaded[subject].closeness]
    if mirrored:
        account.warn(f"left and right may be exchanged: the mirrored template fits better for {list_names(mirrored)}")


def _note_regressors(ids: list[str], loaded: dict[str, Part], account: Account) -> None:
    """Say of how many subjects motion was regressed out, and who else there is."""
    without = [subject for subject in ids if not loaded[subject].regressors]
    counts = sorted({loaded[subject].regressors for subject in ids} - {0})
    if counts:
        told = " or ".join(map(str, counts))
        account.note(
            f"motion: {told} confounds regressed out of the time-courses of {len(ids) - len(without)} subjects"
        )
    displacement = [subject for subject in without if np.isfinite(loaded[subject].motion_mm)]
    if displacement:
        account.warn(f"motion is not regressed out, as the files hold displacement alone: {list_names(displacement)}")
    nothing = [subject for subject in without if subject not in displacement]
    if counts and nothing:
        account.warn(f"motion is not regressed out, as there is no file of it: {list_names(nothing)}")


def _with_motion(subjects: pd.DataFrame, displacement_mm: list[float], account: Account) -> pd.DataFrame:
    """The subjects with a motion column: the phenotype table's own, or the displacement of their files of motion."""
    has_motion = np.isfinite(displacement_mm)
    if not has_motion.any():
        return subjects
    if "motion" in subjects.columns:
        account.note("motion: the phenotype table's column; displacements in files of motion are not used for it")
        return subjects
    account.note(
        f"motion: mean framewise displacement of {has_motion.sum()} of {len(subjects)} subjects, from their files"
    )
    if not has_motion.all():
        account.warn(f"motion is not known for {', '.join(subjects['id'][~has_motion])}")
    return subjects.assign(motion=displacement_mm)


def _of_one_length(parts: Parts, wanted: int | None, account: Account) -> tuple[pd.DataFrame, int]:
    """The subjects with enough volumes, and how many: as asked for, or what most have; longer scans are cut."""
    lengths = {subject: parts.load(subject, False).timecourses.shape for subject in parts.subjects["id"]}
    if not lengths:
        raise AutoSpecError(
            f"no subject is left: {'; '.join(f'{a}: {b}' for a, b in list(account.dropped.items())[:3])}"
        )
    volumes = wanted or _common_length([shape[0] for shape in lengths.values()])
    components = Counter(shape[1] for shape in lengths.values()).most_common(1)[0][0]
    for subject, (n_times, n_components) in lengths.items():
        if n_components != components:
            account.drop(subject, f"has {n_components} components, not {components} as most have")
        elif n_times < volumes:
            account.drop(subject, f"has {n_times} volumes, fewer than {volumes}")
        elif n_times > volumes:
            account.note(f"{subject}: the first {volumes} of {n_times} volumes are used")
    kept = parts.subjects[~parts.subjects["id"].isin(account.dropped)]
    if kept.empty:
        longest = max(shape[0] for shape in lengths.values())
        raise AutoSpecError(f"--volumes {volumes}: no subject has so many; the longest scan has {longest}")
    return kept.reset_index(drop=True), volumes


def _common_length(lengths: list[int]) -> int:
    """How many volumes most have; AutoSpecError where that many would leave out more than half of the subjects."""
    volumes = Counter(lengths).most_common(1)[0][0]
    shorter = sum(length < volumes for length in lengths)
    if 2 * shorter > len(lengths):
        counts = ", ".join(f"{length}: {count}" for length, count in sorted(Counter(lengths).items()))
        raise AutoSpecError(
            f"--volumes: no length is most common, and {volumes} would leave out {shorter} of {len(lengths)} subjects "
            f"(volumes: subjects are {counts}); say how many to use of everybody"
        )
    return volumes


def _map_data(parts: Parts, ids: list[str], components: int, with_maps: bool) -> dict[str, npt.NDArray | Rows]:
    grid = parts.grid
    assert grid is not None

    def maps(index: int) -> npt.NDArray:
        maps_of_subject = parts.load(ids[index], True).maps
        assert maps_of_subject is not None
        return maps_of_subject

    def maximum(index: int) -> npt.NDArray:
        volume = np.zeros(grid.mask.shape, dtype=np.float32)
        volume[grid.mask] = maps(index).max(axis=0)
        return volume

    data: dict[str, npt.NDArray | Rows] = {
        "map_maximum": Rows((len(ids), *grid.mask.shape), maximum),
        "mask": grid.mask.astype(np.uint8),
        "affine": grid.affine,
    }
    if with_maps:
        data["maps"] = Rows((len(ids), components, int(grid.mask.sum())), maps)
    if grid.template is not None:
        data["template"] = grid.template.astype(np.float32)
    return data


def _source(folder: Folder, options: Options) -> str:
    kinds = {"gift": "GIFT components", "halfpipe": "HALFpipe time-courses", "hdf5": "COBRE components"}
    scans = "NeuroMark components of scans" if options.atlas is None else f"regions of {options.atlas.name} in scans"
    return f"{kinds.get(folder.layout, scans)} in {options.folder.resolve().name}"


def _settings(folder: Folder, options: Options) -> str:
    """How the cohort was prepared, as JSON: names of files, not their places, and no time of day."""
    files: dict[str, Any] = {
        name: getattr(options, name) for name in ("template", "atlas", "mask", "ids", "labels", "components")
    }
    names = {name: path.name for name, path in files.items() if path is not None}
    given = {"autospec": version("autospec-torch"), "layout": folder.layout, "motion": options.motion}
    return json.dumps({**given, **names, **options.settings()}, sort_keys=True)
