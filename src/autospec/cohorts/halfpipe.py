"""Time-courses that HALFpipe has taken out of scans: one table per subject, one column per component or region."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autospec.cohorts.exclusions import Account
from autospec.cohorts.options import Options
from autospec.cohorts.source_files import Folder, Source, find_files
from autospec.cohorts.subject_file import Part
from autospec.cohorts.tables import parse_number, read_cells
from autospec.errors import AutoSpecError

END = "_timeseries.tsv"
PATTERNS = (
    "sub-{id}/func/sub-{id}*_timeseries.tsv",
    "sub-{id}/func/*/sub-{id}*_timeseries.tsv",
    "sub-{id}/ses-*/func/sub-{id}*_timeseries.tsv",
    "sub-{id}/ses-*/func/*/sub-{id}*_timeseries.tsv",
)


def recognises(folder: Path) -> bool:
    """Whether a folder holds time-courses of HALFpipe.

    Args:
        folder: A folder of files.

    Returns:
        True where a file's name has a feature and ends as HALFpipe's do.
    """
    return any(folder.glob(f"sub-*/**/*_feature-*{END}"))


def find_sources(options: Options, account: Account) -> Folder:
    """Find one table per subject; ``--scans`` chooses where HALFpipe made several features.

    Args:
        options: What the user asks for.
        account: Takes a line for every subject left out.

    Returns:
        The sources and the phenotype table.

    Raises:
        AutoSpecError: There is no table.
    """
    patterns = [options.scans] if options.scans else PATTERNS
    sources = find_files(options.folder, patterns, account, (END,), not_these="confounds")
    account.note(f"{options.folder.name}: time-courses as HALFpipe has cleaned them, {len(sources)} subjects")
    return Folder("halfpipe", sources, options.phenotype or options.folder / "participants.tsv", options.columns)


def read(source: Source, options: Options, with_maps: bool = True) -> Part:
    """Read a subject's time-courses; a first row of text is a header.

    Args:
        source: The subject's table.
        options: Ignored.
        with_maps: Ignored, since there are no maps.

    Returns:
        Time-courses (time, components).

    Raises:
        AutoSpecError: A cell is no number.
    """
    cells = read_cells(source.file).to_numpy(dtype=str)
    if any(parse_number(text) is None for text in cells[0]):
        cells = cells[1:]
    values = np.array([[parse_number(text) for text in row] for row in cells], dtype=object)
    if not len(values) or any(value is None for value in values.ravel()):
        raise AutoSpecError(f"{source.file}: must hold numbers, one column per component and one row per volume")
    return Part(values.astype(np.float64))
