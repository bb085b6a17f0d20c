"""Statistics that are registered from outside: a name, dimensions, what they need, and a function of a layer's record.

No torch here: the configuration asks for the names, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from autospec.errors import AutoSpecError
from autospec.store.schema import ACTIVATION, ADJOINT, EPOCH, GRADIENT, GROUP, MEASURE_NAMES, STATISTIC_NAMES

ROWS, ROW_SUMS, SAMPLE_NORMS, WEIGHT = "rows", "row_sums", "sample_norms", "weight"
NEEDS: Mapping[str, str] = {
    GRADIENT: "record.gradients, record.spectra('gradient')",
    ACTIVATION: "record.gram('activation'), record.spectra('activation')",
    ADJOINT: "record.gram('adjoint'), record.spectra('adjoint')",
    ROW_SUMS: "record.row_sums",
    ROWS: "record.rows, record.row_group: every row of A, kept in memory for the length of a record",
    SAMPLE_NORMS: "record.sample_norms",
    WEIGHT: "record.weight, record.weight_before",
}
"""What a statistic may ask for, and what of its layer's record it can then use."""

TAKEN = frozenset({*STATISTIC_NAMES, "floor", "cosine", "cancellation", "rows", "own_rows", "uses", "shape"})
"""Names of datasets that a layer has already."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class RegisteredStatistic:
    """A statistic of one's own.

    Attributes:
        name: what ``statistics=[...]`` asks for, and what it is called in the file.
        dimensions: the names of the axes of its values; ``group`` is every reported group, ``all`` first.
        needs: which of ``NEEDS`` it uses.
        function: (``LayerRecord``) → a number, or a tensor of those axes.
    """

    name: str
    dimensions: tuple[str, ...]
    needs: frozenset[str]
    function: Callable[[Any], Any]


REGISTERED: dict[str, RegisteredStatistic] = {}


def register_statistic(
    name: str,
    function: Callable[[Any], Any],
    *,
    dimensions: Iterable[str] = (GROUP,),
    needs: Iterable[str] = (GRADIENT,),
) -> None:
    """Make a statistic known, so that ``SpectralRecorder(..., statistics=[name])`` records it of every layer.

    >>> register_statistic("largest", lambda record: record.spectra("gradient")[:, 0])

    Args:
        name: small letters, digits and underscores; not that of another statistic that there is.
        function: (``autospec.LayerRecord``) → a number or a tensor with one axis for each of ``dimensions``.
        dimensions: names of those axes: ``group``, ``other_group``, ``index``, or others of a length that stays the
            same; none for a single number.
        needs: what is summed up for it: gradient, activation, adjoint, row_sums, rows, sample_norms, weight.

    Raises:
        AutoSpecError: for a name that is taken or cannot be one, and for needs that there are not.
    """
    axes, wanted = _listed("dimensions", dimensions), frozenset(_listed("needs", needs))
    if not _NAME.fullmatch(name):
        raise AutoSpecError(f"{name!r} cannot name a statistic: small letters, digits and underscores, a letter first")
    if name in TAKEN or (name in REGISTERED and not _is_again(REGISTERED[name].function, function)):
        raise AutoSpecError(f"there is a statistic {name!r} already; choose another name")
    if unknown := sorted(wanted - set(NEEDS)):
        raise AutoSpecError(f"statistic {name!r} needs {unknown[0]!r}; what can be had is {', '.join(NEEDS)}")
    if not all(_NAME.fullmatch(axis) for axis in axes) or EPOCH in axes:
        raise AutoSpecError(f"statistic {name!r}: dimensions={axes}: names in small letters, {EPOCH!r} not among them")
    if not callable(function):
        raise AutoSpecError(f"statistic {name!r}: {function!r} is no function of a layer's record")
    REGISTERED[name] = RegisteredStatistic(name, axes, wanted, function)


def _is_again(before: Callable[[Any], Any], now: Callable[[Any], Any]) -> bool:
    """Whether a function is the one that was registered, as its module, or a notebook's cell, runs again."""
    origins = [(getattr(f, "__module__", None), getattr(f, "__qualname__", None)) for f in (before, now)]
    return before is now or (origins[0] == origins[1] and None not in origins[0])


def _listed(key: str, names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise AutoSpecError(f"{key}={names!r}: a list of names is needed, such as [{names!r}]")
    return tuple(names)


def statistic_names() -> tuple[str, ...]:
    """Everything that can be recorded by now: what comes with the package, then what was registered."""
    return tuple(dict.fromkeys((*STATISTIC_NAMES, *MEASURE_NAMES, *REGISTERED)))
