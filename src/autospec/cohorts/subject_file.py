"""One subject's share of a cohort: in memory, and as a file that a later run takes up again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from autospec.cohorts.tables import plain_id
from autospec.errors import DamagedFile
from autospec.store.atomic import remove_leftovers, write_atomically
from autospec.store.checksums import CHECKED, FORMAT, seal, write_digest
from autospec.store.contents import PART
from autospec.store.opening import open_as

log = logging.getLogger(__name__)


NUMBERS = ("motion_mm", "regressors", "closeness", "mirrored")
"""What a part says of its subject in one number each."""

TOO_GOOD_MATCH = 0.98
"""Maps whose mean correlation with the template is above this are probably the template itself."""

POOR_MATCH = 0.2
"""A correlation of a map with its template map below this calls for a look."""


@dataclass(frozen=True)
class Part:
    """Time-courses (time, components); maps (components, voxels of the mask) and their match, where there are any."""

    timecourses: npt.NDArray[np.floating]
    maps: npt.NDArray[np.floating] | None = None
    match: npt.NDArray[np.floating] | None = None
    motion_mm: float = float("nan")
    regressors: int = 0
    """How many confounds were regressed out of the time-courses."""
    closeness: float = float("nan")
    mirrored: float = float("nan")
    """How much of the template, and of the mirrored one, the scan can make up."""


def part_file(folder: Path, subject: str) -> Path:
    """Where a subject's part lies; ids that differ in odd characters alone do not share a file.

    Args:
        folder: The folder of parts.
        subject: The subject's id.

    Returns:
        The file.
    """
    key = plain_id(subject)
    return folder / f"{re.sub(r'[^A-Za-z0-9-]', '_', key)}-{hashlib.sha256(key.encode()).hexdigest()[:8]}.h5"


def part_key(files: Mapping[str, Path | None], settings: Mapping[str, Any]) -> str:
    """What a part was made of: size and time of each file, and the settings; a part with another key is made anew.

    Args:
        files: Files by what they are; None for none.
        settings: As JSON can hold them.

    Returns:
        The key.
    """
    stamps = {}
    for name, path in files.items():
        if path is not None:
            status = path.stat()
            stamps[name] = [path.name, status.st_size, status.st_mtime_ns]
    return json.dumps([stamps, dict(settings)], sort_keys=True)


def write_part(file: Path, part: Part, key: str) -> None:
    """Write a part whole or not at all.

    Args:
        file: Where to write.
        part: What to write.
        key: See ``part_key``.
    """
    remove_leftovers(file)
    with write_atomically(file) as temporary:
        with h5py.File(temporary, "w", libver=FORMAT) as root:
            root.attrs.update(key=key, **{name: getattr(part, name) for name in NUMBERS})
            root.create_dataset("timecourses", data=part.timecourses, **(CHECKED if part.timecourses.size else {}))
            for name, values in (("maps", part.maps), ("match", part.match)):
                if values is not None:
                    root.create_dataset(name, data=values.astype(np.float32), **(CHECKED if values.size else {}))
            write_digest(root)
        seal(temporary)


def has_part(file: Path, key: str) -> bool:
    """Whether a part with this key is there and whole.

    Args:
        file: The part's file.
        key: See ``part_key``.

    Returns:
        True where it need not be made anew; one that is damaged is named in the log.
    """
    if not file.exists():
        return False
    try:
        with _open(file) as root:
            if root.attrs.get("key") != key:
                return False
        read_part(file)  # a checksum shows its damage only where values are read
    except DamagedFile as error:
        log.warning("%s; it is made anew", error)
        return False
    return True


def read_part(file: Path, with_maps: bool = True) -> Part:
    """A part that ``has_part`` has found.

    Args:
        file: The part's file.
        with_maps: Whether maps are wanted.

    Returns:
        The part.

    Raises:
        AutoSpecError: It cannot be read any more.
    """
    with _open(file) as root:
        return Part(
            root["timecourses"][:],
            root["maps"][:] if with_maps and "maps" in root else None,
            root["match"][:] if "match" in root else None,
            **{name: root.attrs[name].item() for name in NUMBERS},
        )


def _open(file: Path) -> contextlib.AbstractContextManager[h5py.File]:
    return open_as(file, PART, "a subject's part")


def poor_matches(subjects: Sequence[str], match: npt.NDArray[np.floating]) -> list[str]:
    """The subjects with a map that correlates with its template map below ``POOR_MATCH``.

    Args:
        subjects: Ids.
        match: (subjects, components).

    Returns:
        Their ids.
    """
    return [subject for subject, row in zip(subjects, match, strict=True) if row.min() < POOR_MATCH]


def too_good_matches(subjects: Sequence[str], match: npt.NDArray[np.floating]) -> list[str]:
    """The subjects whose maps are the template's own: of too few voxels, or of a scan that is the template.

    Args:
        subjects: Ids.
        match: (subjects, components).

    Returns:
        Their ids.
    """
    return [subject for subject, row in zip(subjects, match, strict=True) if np.median(row) > TOO_GOOD_MATCH]
