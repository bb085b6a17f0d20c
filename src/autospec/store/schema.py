"""The HDF5 schema of ``spectra.h5`` as data: paths, dimensions, version.

Standard library only, since recording and reading both import it. ``docs/spectra-file.md`` explains the table.
Additions keep ``SCHEMA_VERSION``; readers ignore what they do not know.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

SCHEMA_VERSION = 1

ALL = "all"
"""The reserved name of the first group: the whole batch."""

UNGROUPED = -1
"""The label of a sample that is in no group: it counts in ``all`` only."""

EPOCH = "epoch"
TRAINING_EPOCH = "training_epoch"
PERMUTATION_EPOCH = "null_epoch"
GROUP = "group"
OTHER_GROUP = "other_group"
INDEX = "index"
POSITION = "position"
SIDE = "side"
ANGLE = "angle"
SIDES = ("output", "input")
"""The two sides of a weight: left singular vectors are directions of outputs, right ones of inputs."""
PAIR = "pair"
PARTITION = "partition"


@dataclass(frozen=True)
class Field:
    """One dataset of the file.

    Attributes:
        path: Its path in the file.
        dimensions: Labels of its axes.
        dtype: The NumPy dtype it is stored in.
    """

    path: str
    dimensions: tuple[str, ...]
    dtype: str = "float64"

    @property
    def per_record(self) -> bool:
        """Whether one slice is appended each time spectra are taken."""
        return self.dimensions[:1] == (EPOCH,)

    @property
    def per_epoch(self) -> bool:
        """Whether one value is appended each epoch, recorded or not."""
        return self.dimensions[:1] == (TRAINING_EPOCH,)

    @property
    def per_permutation(self) -> bool:
        """Whether one slice is appended each time labels are permuted."""
        return self.dimensions[:1] == (PERMUTATION_EPOCH,)


GRADIENT, ACTIVATION, ADJOINT, RANK, TIED = "gradient", "activation", "adjoint", "rank", "tied"
SPECTRUM_NAMES = (GRADIENT, ACTIVATION, ADJOINT)
"""The statistics that are one spectrum per group."""
SUBSPACE = "subspace"
STATISTIC_NAMES = (*SPECTRUM_NAMES, RANK, TIED, SUBSPACE)
"""What a user may ask for."""
MEASURE_NAMES = ("collapse", "alignment", "diffusion_entropy", "noise_scale", "tail_exponent", "weight_update")
"""And these, which are registered as a user's own statistics are."""

RECORDED_EPOCHS = Field("epoch", (EPOCH,), "int64")
GROUP_ROWS = Field("groups/rows", (EPOCH, GROUP), "int64")
GROUP_WEIGHT = Field("groups/weight", (EPOCH, GROUP))
GROUP_LOSS = Field("groups/loss", (EPOCH, GROUP))

GROUP_NAMES = "groups/name"
GROUP_SIZES = "groups/size"
GROUP_IS_MARGIN = "groups/margin"
GROUP_MEMBERS = "groups/members"
"""(group, other_group): which disjoint groups each group is made of."""

TRAINING_EPOCHS = Field("training/epoch", (TRAINING_EPOCH,), "int64")
TRAINING_CURVES = tuple(
    Field(f"{part}/{curve}", (TRAINING_EPOCH,)) for part in ("training", "validation") for curve in ("loss", "metric")
)

PERMUTATION_ROOT = "null"
PERMUTATION_EPOCHS = Field("null/epoch", (PERMUTATION_EPOCH,), "int64")
PERMUTATION_PAIRS = "null/pair"
PERMUTATION_SUBJECTS = "null/people"
PERMUTATION_STRATA = "null/strata"
PERMUTATION_REFUSED = "null/refused"
PERMUTATION_REASONS = "null/reason"
PERMUTATION_LOSS = Field("null/log_loss", (PERMUTATION_EPOCH, PAIR, PARTITION), "float32")
PERMUTATION_RATIOS = {
    "log_ratio": (PERMUTATION_EPOCH, PAIR, PARTITION, INDEX),
    "log_norm": (PERMUTATION_EPOCH, PAIR, PARTITION),
    "log_effective_rank": (PERMUTATION_EPOCH, PAIR, PARTITION),
    "cancellation": (PERMUTATION_EPOCH, PAIR, PARTITION),
}
"""Arrays stored of each layer's permuted partitions, the observed partition first."""
OMNIBUS, COVARIATE = "omnibus", "covariate"
"""Further questions that permutations answer: three or more groups at once, and covariates of subjects."""
OMNIBUS_PARTITION = "omnibus_partition"
"""All groups are permuted less often than pairs."""
JOINT_VALUES: dict[str, dict[str, tuple[str, ...]]] = {
    OMNIBUS: {
        "dispersion": (PERMUTATION_EPOCH, OMNIBUS_PARTITION, INDEX),
        "log_excess": (PERMUTATION_EPOCH, OMNIBUS, INDEX),
    },
    COVARIATE: {"rank_correlation": (PERMUTATION_EPOCH, COVARIATE, PARTITION, INDEX)},
}
"""The arrays stored of each layer for either, the observed partition first; an axis of groups, or of covariates."""
JOINT_TEXTS = ("name", "strata", "refused", "reason")
"""What is said of either: of what there are permutations, within which columns, of what there are none and why."""

LAYERS = "layers"


SLASH, ESCAPED_SLASH = "/", "%2F"
"""A layer is one folder of the file, also where its name has a slash."""


USES = "/uses/"
"""Between a layer and one use of it, which lies in the layer's folder."""


def layer_folder(layer: str) -> str:
    """Return the path of the folder of a layer, or of one use of it, below that of all layers.

    >>> layer_folder("net.a/b")
    'net.a%2Fb'
    """
    return USES.join(part.replace(SLASH, ESCAPED_SLASH) for part in layer.split(USES, 1))


def layer_of_folder(folder: str) -> str:
    """Return the layer that a folder is of."""
    return folder.replace(ESCAPED_SLASH, SLASH)


def is_text(name: str) -> bool:
    """Return whether a name can be stored: UTF-8 knows no halves of surrogate pairs."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def layer_path(layer: str, dataset: str = "") -> str:
    """Return the path of a layer's folder in the file, or of one dataset in it."""
    return f"{LAYERS}/{layer_folder(layer)}/{dataset}".rstrip("/")


@lru_cache(maxsize=4096)
def layer_field(layer: str, statistic: str, dimensions: tuple[str, ...], dtype: str = "float64") -> Field:
    """Return the field of a layer's statistic.

    Args:
        layer: The layer's name.
        statistic: The dataset's path below the layer.
        dimensions: Labels of the axes after the recorded epoch.
        dtype: The dtype it is stored in.
    """
    return Field(layer_path(layer, statistic), (EPOCH, *dimensions), dtype)


def permutation_field(layer: str, name: str) -> Field:
    """Return the field of one of a layer's ``PERMUTATION_RATIOS``."""
    return Field(f"{PERMUTATION_ROOT}/{LAYERS}/{layer_folder(layer)}/{name}", PERMUTATION_RATIOS[name], "float32")


def joint_path(kind: str, name: str) -> str:
    """Return the path of one of ``JOINT_TEXTS``."""
    return f"{PERMUTATION_ROOT}/{kind}/{name}"


def joint_field(layer: str, kind: str, name: str) -> Field:
    """Return the field of one of a layer's ``JOINT_VALUES``."""
    path = f"{PERMUTATION_ROOT}/{kind}/{LAYERS}/{layer_folder(layer)}/{name}"
    return Field(path, JOINT_VALUES[kind][name], "float32")


_WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module")


def layer_name(parameter: str) -> str:
    """Return the name a weight is stored under: without wrappers' prefixes and a trailing ``.weight``.

    >>> layer_name("module.encoder.0.weight"), layer_name("lstm.weight_hh_l0"), layer_name("weight")
    ('encoder.0', 'lstm.weight_hh_l0', 'weight')
    """
    parts = [part for part in parameter.split(".") if part not in _WRAPPERS]
    while len(parts) > 1 and parts[0] == "module":  # DataParallel and DistributedDataParallel wrap the root only
        parts.pop(0)
    if len(parts) > 1 and parts[-1] == "weight":
        parts.pop()
    return ".".join(parts)
