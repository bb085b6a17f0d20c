"""How many subjects an effect needs, from a pilot: what labels give by chance there, less with more subjects."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pandas as pd

from autospec.analysis.distances import distances
from autospec.analysis.intervals import LEVEL, effects
from autospec.errors import AutoSpecError
from autospec.store.permutations import PermutationRatios

COLUMNS = {
    "layer": "The layer.",
    "group_a": "The first group of the pair.",
    "group_b": "The second group of the pair.",
    "subjects": "Subjects of both groups in the pilot.",
    "effect": "The effect that is to be found, a log2 ratio: the one asked for, or the pilot's own.",
    "sd": "SD of the effects of permuted labels in the pilot.",
    "power": "Share of studies of the pilot's size whose 95 % interval would exclude 0.",
    "needed": "Subjects of both groups, in the pilot's proportion, for the power asked for.",
}
"""Every column of the table and what it means."""


def power_table(permutations: PermutationRatios, effect: float | None = None, power: float = 0.8) -> pd.DataFrame:
    """Compute the subjects that an effect needs in every layer and pair.

    The SD of what labels give by chance is taken to fall as one over the root of the number of subjects, in groups of
    the pilot's proportion and a network trained as the pilot's; an effect is found where its interval excludes 0.

    Args:
        permutations: The pilot's.
        effect: The log2 ratio that is to be found; None takes the pilot's own in each layer, which is uncertain: see
            its interval.
        power: The share of studies that are to find it.

    Returns:
        A row for each layer and pair, with the columns of ``COLUMNS``; NaN where nothing can be compared.

    Raises:
        AutoSpecError: The pilot permuted no pair, or a number is out of its range.
    """
    if not permutations.pairs:
        reasons = "; ".join(f"{a} and {b}: {why}" for (a, b), why in permutations.refused.items())
        raise AutoSpecError(f"power: the pilot's labels were not permuted ({reasons})")
    if effect is not None and not (math.isfinite(effect) and effect != 0):
        raise AutoSpecError(f"power: effect={effect}: must be a log2 ratio other than 0")
    if not 0.05 < power < 1:
        raise AutoSpecError(f"power: power={power}: must be between 0.05 and 1")
    rows = []
    for layer in permutations.ratios:
        for (a, b), subjects in zip(permutations.pairs, permutations.subjects.sum(axis=1), strict=True):
            of_partitions = effects(distances(permutations, layer, (a, b), "permutation").deviations)
            # without the observed partition, which holds the difference that is looked for
            sd, sought = float(of_partitions[1:].std()), float(of_partitions[0] if effect is None else effect)
            rows.append((layer, a, b, int(subjects), sought, sd, *_power(sought, sd, int(subjects), power)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _power(effect: float, sd: float, subjects: int, power: float) -> tuple[float, float]:
    """The power at the pilot's size, and the subjects for the power asked for."""
    if not (math.isfinite(effect) and math.isfinite(sd)) or sd == 0 or effect == 0:
        return np.nan, np.nan
    normal, z = NormalDist(), NormalDist().inv_cdf((1 + LEVEL) / 2)
    ratio = abs(effect) / sd
    now = normal.cdf(ratio - z) + normal.cdf(-ratio - z)
    return now, float(math.ceil(subjects * ((z + normal.inv_cdf(power)) / ratio) ** 2))
