"""The NeuroMark components as the simulated cohorts use them: counts by domain, places, couplings."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError
from autospec.neuroimaging.domains import DOMAINS as TEMPLATE_DOMAINS
from autospec.neuroimaging.domains import N_COMPONENTS

DOMAINS = {domain.abbreviation: len(domain.indices) for domain in TEMPLATE_DOMAINS}
"""Components of each domain, in the template's order."""

COMPONENTS = N_COMPONENTS

DOMAIN_OF = np.repeat(np.arange(len(DOMAINS)), list(DOMAINS.values()))
"""(53,) The index of each component's domain."""

CENTRES_MM = {
    "SC": [(10, 12, 4), (24, 4, -2), (12, -16, 8), (16, -24, 4), (20, -4, -12)],
    "AU": [(52, -20, 8), (58, -32, 12)],
    "SM": [
        (52, -10, 30), (38, -24, 56), (6, -24, 66), (24, -40, 64), (58, -16, 20), (12, -10, 70), (30, -50, 60),
        (44, -34, 48), (18, -26, 62),
    ],
    "VI": [
        (8, -78, 6), (14, -94, 4), (28, -92, -4), (22, -74, 30), (42, -70, -8), (30, -56, -14), (10, -66, -2),
        (44, -76, 8), (16, -86, 28),
    ],
    "CC": [
        (46, 18, 4), (38, 20, -6), (44, 28, 24), (30, 50, 22), (6, 24, 40), (4, 4, 56), (46, -50, 44), (34, -60, 48),
        (56, -44, 30), (26, 6, 56), (38, 8, 40), (52, 12, 18), (8, 40, 30), (28, -20, -16), (42, 2, 2), (36, 40, -10),
        (58, -50, 4),
    ],
    "DM": [(4, -54, 26), (4, -66, 40), (6, -46, 10), (4, 50, 8), (6, 34, -8), (44, -62, 32), (4, -34, 34)],
    "CB": [(12, -52, -20), (30, -66, -32), (8, -72, -34), (36, -50, -40)],
}  # fmt: skip
"""Where the components of a simulated map lie (MNI, right side; mirrored to the left): a rough sketch of each domain's
anatomy, chosen for this simulation and not the template's own coordinates."""


def couplings(values: Mapping[str, float], key: str) -> npt.NDArray[np.float64]:
    """A symmetric matrix from entries such as ``SC-SM`` (between) and ``SC`` (within), 0 elsewhere.

    Args:
        values: Couplings by domain or pair of domains.
        key: Where they stand in the configuration.

    Returns:
        (7, 7).

    Raises:
        AutoSpecError: A domain is unknown.
    """
    names = list(DOMAINS)
    matrix = np.zeros((len(names), len(names)))
    for pair, value in values.items():
        parts = pair.split("-")
        if len(parts) > 2 or not set(parts) <= set(names):
            raise AutoSpecError(
                f"dataset.{key}.{pair}: unknown; allowed are {', '.join(names)} and pairs such as SC-SM"
            )
        first, last = names.index(parts[0]), names.index(parts[-1])
        matrix[first, last] = matrix[last, first] = value
    return matrix
