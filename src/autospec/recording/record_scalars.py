"""The last record as a flat dict of numbers, for whoever watches a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from autospec.spectra.groups import Grouping
from autospec.spectra.rank import effective_rank
from autospec.store.schema import (
    ACTIVATION,
    EPOCH,
    GRADIENT,
    GROUP_LOSS,
    GROUP_WEIGHT,
    LAYERS,
    SPECTRUM_NAMES,
    TRAINING_CURVES,
    layer_path,
)
from autospec.store.table import SpectraTable

Scalars = dict[str, float]
OnRecord = Callable[[Scalars], object]


def record_scalars(table: SpectraTable, grouping: Grouping) -> Scalars:
    """The last record of a table.

    Args:
        table: everything recorded so far.
        grouping: the groups.

    Returns:
        ``epoch`` (or the step), ``training_loss`` and the other curves as far as given, and by layer and group

        - ``<layer>/<group>/<statistic>_sigma1``: the largest singular value, scaled as pictures are;
        - ``<layer>/<group>/<statistic>_effective_rank``: of the values above the noise floor;
        - ``<layer>/cosine/<group> - <group>``: between the gradients of disjoint groups;
        - ``<layer>/cancellation``: of all groups, 0 where they are opposite;
        - ``loss/<group>``: its mean loss, where losses were given.

        What is not known is left out, so that every value is a finite number.
    """
    found: Scalars = {EPOCH: float(table.epochs[-1])}
    for curve in TRAINING_CURVES:
        if curve.path in table:
            found[curve.path.replace("/", "_")] = float(table[curve.path][-1])
    if GROUP_LOSS.path in table:
        found |= {f"loss/{name}": float(x) for name, x in zip(grouping.names, table[GROUP_LOSS.path][-1], strict=True)}
    for layer in _layers(table):
        found |= _of_layer(table, layer, grouping)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _layers(table: SpectraTable) -> list[str]:
    """The names of the layers that have spectra, without the uses of shared weights."""
    paths = [array.field.path for array in table if array.field.path.startswith(f"{LAYERS}/")]
    names = [path.removeprefix(f"{LAYERS}/").rpartition("/") for path in paths]
    return list(dict.fromkeys(layer for layer, _, name in names if name in SPECTRUM_NAMES and "/" not in layer))


def _of_layer(table: SpectraTable, layer: str, grouping: Grouping) -> Scalars:
    found: Scalars = {}
    for statistic in SPECTRUM_NAMES:
        path = layer_path(layer, statistic)
        if path not in table:
            continue
        raw = table[path][-1].astype(np.float64)
        scaled = raw[:, 0] * _scale(table, layer, statistic)
        floor = table[layer_path(layer, f"floor/{statistic}")][-1].astype(np.float64)
        ranks = effective_rank(torch.from_numpy(raw), torch.from_numpy(floor)).tolist()
        for group, sigma1, rank in zip(grouping.names, scaled.tolist(), ranks, strict=True):
            found[f"{layer}/{group}/{statistic}_sigma1"] = sigma1
            found[f"{layer}/{group}/{statistic}_effective_rank"] = rank
    return found | _between_groups(table, layer, grouping)


def _between_groups(table: SpectraTable, layer: str, grouping: Grouping) -> Scalars:
    found: Scalars = {}
    if (path := layer_path(layer, "cosine")) in table:
        cosines = table[path][-1]
        for a, b in combinations(range(1, 1 + grouping.disjoint), 2):
            found[f"{layer}/cosine/{grouping.names[a]} - {grouping.names[b]}"] = float(cosines[a, b])
    if (path := layer_path(layer, "cancellation")) in table:
        found[f"{layer}/cancellation"] = float(table[path][-1])
    return found


def _scale(table: SpectraTable, layer: str, statistic: str) -> npt.NDArray[np.float64]:
    """(group,) as ``store.layer_arrays.scale_of``; NaN where a group had no sample."""
    weight = table[GROUP_WEIGHT.path][-1].astype(np.float64)
    weight = np.where(weight > 0, weight, np.nan)
    if statistic == GRADIENT:
        return 1 / weight
    own = layer_path(layer, "own_rows")
    counted = table[own if own in table else layer_path(layer, "rows")][-1].astype(np.float64)
    rows = np.sqrt(np.where(counted > 0, counted, np.nan))
    return 1 / rows if statistic == ACTIVATION else rows / weight
