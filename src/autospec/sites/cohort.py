"""A simulated cohort with a ``site`` column, to try sites on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

FEATURES = 66
"""As many as an ``asegstats2table`` table has columns."""

EFFECT, SITE_SHIFT = 0.8, 0.4
"""What a diagnosis and a site do to some of the features, in SD."""


def simulated_cohort(people: Mapping[str, int], seed: int = 314159) -> pd.DataFrame:
    """People of several sites: ``site``, ``diagnosis`` (0 or 1) and 66 correlated features, all simulated.

    Args:
        people: how many each site has.
        seed: of everything that is drawn.

    Returns:
        One row per person, in the order of the sites.
    """
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((8, FEATURES))
    affected, moved = random.standard_normal(FEATURES) > 1, random.standard_normal((len(people), FEATURES))
    site = np.repeat(np.arange(len(people)), list(people.values()))
    diagnosis = random.integers(0, 2, len(site))
    features = (random.standard_normal((len(site), 8)) @ mixing + random.standard_normal((len(site), FEATURES))) / 3
    features += EFFECT * np.outer(diagnosis, affected) + SITE_SHIFT * moved[site]
    table = pd.DataFrame(features, columns=[f"volume_{index:02d}" for index in range(FEATURES)])
    table.insert(0, "diagnosis", diagnosis)
    table.insert(0, "site", np.array(list(people))[site])
    return table
