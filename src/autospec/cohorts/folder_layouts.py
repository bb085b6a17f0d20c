"""The layouts of folders that users hold, and how each is recognised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autospec.cohorts import cobre_hdf5, gift, halfpipe
from autospec.cohorts.exclusions import Account
from autospec.cohorts.options import Options
from autospec.cohorts.source_files import Folder, find_scans
from autospec.errors import AutoSpecError

OURS = {"id": "participant_id"}
INDI_COLUMNS = {"id": "", "age": "Current Age", "sex": "Gender", "diagnosis": "Subject Type"}
NIAK_COLUMNS = {"id": "ID", "age": "Current Age", "sex": "Gender", "diagnosis": "Subject Type", "motion": "FD"}


@dataclass(frozen=True)
class Layout:
    """A folder of scans: where they lie, what the phenotype table is called, our names → its columns."""

    phenotype: str
    patterns: Sequence[str]
    columns: Mapping[str, str] = field(default_factory=lambda: OURS)


SCAN_LAYOUTS = {
    "niak": Layout("phenotypic_data.tsv.gz", ("fmri_{id}.nii*", "*/fmri_{id}.nii*"), NIAK_COLUMNS),
    "indi": Layout("COBRE_phenotypic_data.csv", ("{id}/session_*/rest_*/*.nii*", "{id}/rest*.nii*"), INDI_COLUMNS),
    "fmriprep": Layout(
        "participants.tsv",
        (
            "sub-{id}/func/sub-{id}*_space-MNI152*_desc-preproc_bold.nii*",
            "sub-{id}/ses-*/func/sub-{id}*_space-MNI152*_desc-preproc_bold.nii*",
        ),
    ),
    "bids": Layout(
        "participants.tsv",
        (
            "sub-{id}/func/sub-{id}*_bold.nii*",
            "sub-{id}/ses-*/func/sub-{id}*_bold.nii*",
            "func/sub-{id}*_bold.nii*",
            "sub-{id}*_bold.nii*",
        ),
    ),
}
READY_LAYOUTS: dict[str, Callable[[Options, Account], Folder]] = {
    "gift": gift.find_sources,
    "halfpipe": halfpipe.find_sources,
    "hdf5": cobre_hdf5.find_sources,
}
"""Layouts whose files hold components already."""

LAYOUTS = ("auto", *SCAN_LAYOUTS, *READY_LAYOUTS)


def find_sources(options: Options, account: Account) -> Folder:
    """Every subject's files in the folder.

    Args:
        options: What the user asks for.
        account: Takes a line for every subject left out.

    Returns:
        The layout, its sources and its phenotype table.

    Raises:
        AutoSpecError: The folder, its layout or its files are not there.
    """
    if not options.folder.is_dir():
        raise AutoSpecError(f"{options.folder}: there is no such folder")
    try:
        next(options.folder.iterdir(), None)
    except OSError as error:
        raise AutoSpecError(f"{options.folder}: cannot be read: {error.strerror}") from error
    name = recognise_layout(options.folder) if options.layout == "auto" else options.layout
    if name in READY_LAYOUTS:
        return READY_LAYOUTS[name](options, account)
    layout = SCAN_LAYOUTS[name]
    table = options.phenotype or _table_of(options.folder, layout.phenotype)
    patterns = [options.scans] if options.scans else layout.patterns
    # subjects whose scans a column of the table names are looked up once the table has been read
    sources = [] if options.files_column else find_scans(options.folder, patterns, account, options.all_sessions)
    return Folder(name, sources, table, {**layout.columns, **options.columns})


def _table_of(folder: Path, name: str) -> Path:
    """The table of subjects in the folder, or in the BIDS dataset whose ``derivatives/<pipeline>`` the folder is."""
    if not (folder / name).is_file() and folder.resolve().parent.name == "derivatives":
        above = folder.resolve().parent.parent / name
        return above if above.is_file() else folder / name
    return folder / name


def recognise_layout(folder: Path) -> str:
    """The layout of a folder, by the files that only it has.

    Args:
        folder: A folder of files.

    Returns:
        A key of ``SCAN_LAYOUTS`` or ``READY_LAYOUTS``.

    Raises:
        AutoSpecError: No layout fits.
    """
    for name in ("niak", "indi"):
        if (folder / SCAN_LAYOUTS[name].phenotype).is_file():
            return name
    if halfpipe.recognises(folder):
        return "halfpipe"
    if any(folder.glob("sub-*/**/func/*_space-MNI152*_desc-preproc_bold.nii*")):
        return "fmriprep"
    if gift.recognises(folder):
        return "gift"
    if cobre_hdf5.recognises(folder):
        return "hdf5"
    if (folder / SCAN_LAYOUTS["bids"].phenotype).is_file() or any(folder.glob("sub-*")):
        return "bids"
    raise AutoSpecError(f"{folder}: its layout is not recognised; choose --layout {', '.join(LAYOUTS[1:])}")
