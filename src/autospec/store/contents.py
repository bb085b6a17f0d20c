"""What a file may hold, as data: its paths, their types and dimensions, and limits; for spectra and for cohorts.

``validation`` holds a file against it before anything is read. A path that is not described is an addition: it must
keep the limits, and readers ignore it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from autospec.store.schema import (
    EPOCH,
    GROUP,
    GROUP_IS_MARGIN,
    GROUP_LOSS,
    GROUP_MEMBERS,
    GROUP_NAMES,
    GROUP_ROWS,
    GROUP_SIZES,
    GROUP_WEIGHT,
    INDEX,
    JOINT_TEXTS,
    JOINT_VALUES,
    LAYERS,
    OTHER_GROUP,
    PAIR,
    PERMUTATION_EPOCHS,
    PERMUTATION_LOSS,
    PERMUTATION_PAIRS,
    PERMUTATION_RATIOS,
    PERMUTATION_REASONS,
    PERMUTATION_REFUSED,
    PERMUTATION_ROOT,
    PERMUTATION_STRATA,
    PERMUTATION_SUBJECTS,
    RECORDED_EPOCHS,
    SPECTRUM_NAMES,
    TRAINING_CURVES,
    TRAINING_EPOCHS,
    joint_path,
)

WHOLE, NUMBER, TRUTH, TEXT, LABEL = "whole numbers", "numbers", "truth values", "text", "text or numbers"
FOLDER = "a folder"
TYPES = {FOLDER: "", WHOLE: "iu", NUMBER: "fiu", TRUTH: "biu", TEXT: "SO", LABEL: "SOfiub"}
"""The kinds of NumPy's types that each name stands for."""

MOST_DIMENSIONS = 8
MOST_OBJECTS = 1_000_000
DEEPEST = 32
"""Levels of folders."""
MOST_UNPACKED = 1032
"""How many bytes gzip can make of one."""
FILTERS = frozenset({1, 2, 3})
"""Gzip, shuffle and fletcher32: part of HDF5 itself. Any other would load code from the user's machine."""


@dataclass(frozen=True)
class Content:
    """A dataset, or an attribute (``path@name``), that a file may hold.

    Attributes:
        path: Its path; ``*`` stands for any text.
        type: What its values are: a key of ``TYPES``.
        dimensions: Names of its axes; axes of one name are equally long throughout the file, but for those that
            begin with an underscore. None is any number of axes.
    """

    path: str
    type: str
    dimensions: tuple[str, ...] | None = ()


SPECTRA = (
    Content("@schema_version", WHOLE),
    Content("@run_id", TEXT),
    Content("@source", TEXT),
    Content("@config", TEXT),
    Content("@complete", TRUTH),
    Content("@simulated", TRUTH),
    Content(RECORDED_EPOCHS.path, WHOLE, RECORDED_EPOCHS.dimensions),
    Content(TRAINING_EPOCHS.path, WHOLE, TRAINING_EPOCHS.dimensions),
    *(Content(curve.path, NUMBER, curve.dimensions) for curve in TRAINING_CURVES),
    Content(GROUP_NAMES, TEXT, (GROUP,)),
    Content(GROUP_SIZES, NUMBER, (GROUP,)),
    Content(GROUP_IS_MARGIN, TRUTH, (GROUP,)),
    Content(GROUP_MEMBERS, TRUTH, (GROUP, GROUP)),
    *(Content(field.path, NUMBER, field.dimensions) for field in (GROUP_ROWS, GROUP_WEIGHT, GROUP_LOSS)),
    Content(f"{LAYERS}/*@shape", WHOLE, None),
    # a star takes slashes, too: what is narrower stands above what is wider
    *(Content(f"{LAYERS}/*/floor/{name}", NUMBER, (EPOCH, GROUP)) for name in SPECTRUM_NAMES),
    Content(f"{LAYERS}/*/bound/*", NUMBER, (EPOCH, GROUP, f"_{INDEX}")),
    *(Content(f"{LAYERS}/*/uses/*/{name}", NUMBER, (EPOCH, GROUP, f"_{INDEX}")) for name in SPECTRUM_NAMES),
    Content(f"{LAYERS}/*/tied/*", NUMBER, None),
    *(Content(f"{LAYERS}/*/{name}", NUMBER, (EPOCH, GROUP, f"_{INDEX}")) for name in SPECTRUM_NAMES),
    Content(f"{LAYERS}/*/cosine", NUMBER, (EPOCH, GROUP, GROUP)),
    Content(f"{LAYERS}/*/rows", NUMBER, (EPOCH, GROUP)),
    Content(f"{LAYERS}/*/*", NUMBER, None),
    Content(f"{LAYERS}/*", FOLDER),
    Content(f"{PERMUTATION_ROOT}@relabellings", TEXT),
    Content(PERMUTATION_EPOCHS.path, WHOLE, PERMUTATION_EPOCHS.dimensions),
    Content(PERMUTATION_PAIRS, TEXT, (PAIR, "_two")),
    Content(PERMUTATION_SUBJECTS, WHOLE, (PAIR, "_two")),
    Content(PERMUTATION_STRATA, TEXT, (PAIR,)),
    Content(PERMUTATION_REFUSED, TEXT, ("refused", "_two")),
    Content(PERMUTATION_REASONS, TEXT, ("refused",)),
    Content(PERMUTATION_LOSS.path, NUMBER, PERMUTATION_LOSS.dimensions),
    *(
        Content(
            f"{PERMUTATION_ROOT}/{LAYERS}/*/{name}", NUMBER, tuple(f"_{one}" if one == INDEX else one for one in axes)
        )
        for name, axes in PERMUTATION_RATIOS.items()
    ),
    *(
        Content(
            f"{PERMUTATION_ROOT}/{kind}/{LAYERS}/*/{name}",
            NUMBER,
            tuple(f"_{one}" if one == INDEX else one for one in axes),
        )
        for kind, arrays in JOINT_VALUES.items()
        for name, axes in arrays.items()
    ),
    *(
        Content(joint_path(kind, text), TEXT, (axis.format(kind),))
        for kind in JOINT_VALUES
        for text, axis in zip(JOINT_TEXTS, ("{}", "_strata", "refused {}", "refused {}"), strict=True)
    ),
)
"""The first that fits counts."""

SUBJECT = "subject"

PART = (
    Content("@key", TEXT),
    Content("@motion_mm", NUMBER),
    Content("@regressors", WHOLE),
    Content("@closeness", NUMBER),
    Content("@mirrored", NUMBER),
    Content("timecourses", NUMBER, ("_time", "component")),
    Content("maps", NUMBER, ("component", "_voxel")),
    Content("match", NUMBER, ("component",)),
)
"""One subject's share of a cohort, while the others are prepared; ``cohorts.subject_file`` explains it."""

COHORT = (
    Content("@schema_version", WHOLE),
    Content("@source", TEXT),
    Content("@simulated", TRUTH),
    Content("@settings", TEXT),
    Content("people/*", LABEL, (SUBJECT,)),
    Content("timecourses", NUMBER, (SUBJECT, "_time", "_component")),
    Content("map_maximum", NUMBER, (SUBJECT, "_x", "_y", "_z")),
    Content("maps", NUMBER, (SUBJECT, "_component", "_voxel")),
    Content("template_match", NUMBER, (SUBJECT, "_component")),
    Content("template", NUMBER, ("_component", "_voxel")),
    Content("affine", NUMBER, ("_row", "_column")),
    Content("mask", TRUTH, ("_x", "_y", "_z")),
    Content("account", TEXT, ("_line",)),
)
"""The first that fits counts; ``cohorts.prepared_file`` explains it."""


LABELLED = f"{LAYERS}/*/*"
"""Datasets whose axes must carry names: readers go by these."""
SHARED_AXES = {EPOCH: EPOCH, GROUP: GROUP, OTHER_GROUP: GROUP}
"""Names of axes that are as long as each other throughout a file of spectra."""


def described(path: str, contents: tuple[Content, ...]) -> Content | None:
    """Return the description of a dataset or attribute, or None for an addition.

    Args:
        path: Its path in the file, without a slash at the beginning; of an attribute ``path@name``.
        contents: What the file may hold.
    """
    for content in contents:
        if ("@" in content.path) == ("@" in path) and fnmatchcase(path, content.path):
            return content
    return None
