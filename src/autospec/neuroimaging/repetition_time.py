"""The repetition time of a scan, from its BIDS sidecar or its NIfTI header.

BIDS 1.9, "Task (including resting state) imaging data" and "The Inheritance Principle".
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autospec.errors import AutoSpecError
from autospec.foreign.files import read_text

log = logging.getLogger(__name__)

UNITS_S = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
PLAUSIBLE_S = (0.05, 30.0)
ROOT_FILES = ("dataset_description.json", "participants.tsv")
AGREEMENT_S = 1e-3


def repetition_time_s(image: Any) -> float:
    """Seconds between the volumes of a scan.

    A sidecar (``RepetitionTime``; beside the scan, or inherited from a folder above it within the BIDS dataset) wins
    over the header; where they differ, that is logged. A header without a unit of time is believed, and that is
    logged. A header that says 1 is not, with seconds as its unit or with none: programs write that when they do not
    know.

    Args:
        image: A path or a nibabel image.

    Returns:
        The repetition time in seconds.

    Raises:
        AutoSpecError: Neither tells, a sidecar cannot be read, or the time cannot be meant.
    """
    from autospec.neuroimaging.scans import load_image

    image = load_image(image, "scan")
    path = image.get_filename()
    noted, header_s = _from_sidecar(Path(path)) if path else None, _from_header(image)
    if noted is None:
        return _plausible(header_s, f"the header of {path or 'the scan in memory'}")
    sidecar_s, sidecar = noted
    if header_s is not None and abs(header_s - sidecar_s) > AGREEMENT_S:
        log.warning("%s says %g s, the header of %s %g s: the sidecar is taken", sidecar, sidecar_s, path, header_s)
    return _plausible(sidecar_s, str(sidecar))


def _plausible(time_s: float | None, source: str) -> float:
    if time_s is None:
        raise AutoSpecError(f"{source}: the repetition time is not known, and no BIDS sidecar tells; give tr_s")
    if not PLAUSIBLE_S[0] <= time_s <= PLAUSIBLE_S[1]:
        raise AutoSpecError(f"{source}: a repetition time of {time_s:g} s cannot be meant; give tr_s")
    return time_s


def _from_header(image: Any) -> float | None:
    zooms = image.header.get_zooms()
    if len(zooms) < 4 or not hasattr(image.header, "get_xyzt_units"):
        return None
    # float32 in the file: 0.72 would read 0.720000029
    step, unit = round(float(zooms[3]), 6), image.header.get_xyzt_units()[1]
    if step == 1.0 and unit in ("sec", "unknown"):
        # what programs write when they do not know; who has scans of 1 s says so
        return None
    if unit in UNITS_S:
        return step * UNITS_S[unit] or None
    if unit != "unknown" or step == 0.0:
        return None
    log.warning("%s: no unit of time in the header; %g taken as seconds", image.get_filename() or "scan", step)
    return step


def _from_sidecar(scan: Path) -> tuple[float, Path] | None:
    for sidecar in _sidecars(scan):
        time_s = _content(sidecar).get("RepetitionTime")
        if isinstance(time_s, int | float):
            return float(time_s), sidecar
        if time_s is not None:
            raise AutoSpecError(f"{sidecar}: RepetitionTime is {time_s!r}, not a number of seconds")
    return None


def _sidecars(scan: Path) -> Iterator[Path]:
    """The JSON files that describe a scan: nearest first, and in one folder the most specific first."""
    entities = scan.name.removesuffix(".gz").removesuffix(".nii").split("_")
    for folder in _folders(scan.absolute().parent):
        named = [(path.stem.split("_"), path) for path in sorted(folder.glob(f"*{entities[-1]}.json"))]
        fitting = [(parts, path) for parts, path in named if parts[-1] == entities[-1] and set(parts) <= set(entities)]
        yield from (path for _, path in sorted(fitting, key=lambda sidecar: -len(sidecar[0])))


def _folders(start: Path) -> list[Path]:
    """The scan's folder and those above it up to the root of its BIDS dataset; without a root, only its own."""
    above = [start, *start.parents]
    roots = [depth for depth, folder in enumerate(above) if any((folder / name).is_file() for name in ROOT_FILES)]
    return above[: roots[0] + 1] if roots else [start]


def _content(sidecar: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_text(sidecar))
    except (ValueError, RecursionError) as error:
        raise AutoSpecError(f"{sidecar}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise AutoSpecError(f"{sidecar}: is a JSON {type(content).__name__}, not a sidecar")
    return content
