"""The two plain tests beside ours: whether the inputs themselves differ between groups, by the same relabellings.

Spectra that differ are no news about training where the data differ already. So every tested pair has a test of the
difference of means and one of the difference of covariances of what the network is fed with.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.analysis.nan_statistics import Floats
from autospec.analysis.p_values import p_values, studentise
from autospec.store.permuted_pairs import Members, PairPermutations

INPUTS = "inputs"
"""What the statistic of these tests is called: no layer's, but what the network is fed with."""
PLAIN_TESTS = {
    "inputs_mean": "squared difference of the groups' mean inputs, each value over its SD in the pair, summed",
    "inputs_covariance": "squared difference of the groups' covariances of inputs, each value over its SD, summed",
}
"""The tests and what each is about."""


def plain_tests(inputs: npt.NDArray, pairs: tuple[PairPermutations, ...]) -> pd.DataFrame:
    """Test whether the inputs of groups differ, by the permutations of their spectra's test.

    Args:
        inputs: (subject, ...) each subject's input, the mean over samples where there are several.
        pairs: The permuted pairs, the observed partition first.

    Returns:
        A row for each test and pair, with the columns of ``permutation.COLUMNS`` that it has a value for.
    """
    flat = np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1)
    rows: list[dict[str, object]] = []
    for name in PLAIN_TESTS:
        distances = [input_distances(name, flat, pair.members)[:, None] for pair in pairs]
        p, p_family = p_values(distances) if distances else ([], [])
        for place, pair in enumerate(pairs):
            rows.append(
                {
                    **_about(pair, name),
                    "distance": studentise(distances[place], 0)[0][0, 0],
                    "p": p[place][0],
                    "p_family": p_family[place][0],
                    "note": "" if np.isfinite(p[place][0]) else "the inputs do not vary over partitions",
                }
            )
    return pd.DataFrame(rows)


def _about(pair: PairPermutations, test: str) -> Mapping[str, object]:
    return {
        "layer": "",
        "statistic": INPUTS,
        "group_a": pair.a,
        "group_b": pair.b,
        "test": test,
        "kind": "inferential",
        "per": "trajectory",
        "relabellings": len(pair.members) - 1,
        "strata": ", ".join(pair.strata),
    }


def input_distances(test: str, flat: Floats, members: Members) -> Floats:
    """Compute how far the groups' inputs are apart under every partition.

    Args:
        test: One of ``PLAIN_TESTS``.
        flat: (subject, value) each subject's input.
        members: (partition, subject) 1 for the first group, 2 for the second, 0 for neither.

    Returns:
        (partition,).
    """
    # labels are handed out within the pair: who is in neither group is so under every partition
    used = members[0] > 0
    values, members = flat[used], members[:, used]
    sd = values.std(axis=0)
    z = (values - values.mean(axis=0))[:, sd > 0] / sd[sd > 0]
    a, b = ((members == code) / (members == code).sum(axis=1, keepdims=True) for code in (1, 2))
    return mean_distances(z, a, b) if test == "inputs_mean" else covariance_distances(z, a, b)


def mean_distances(z: Floats, a: Floats, b: Floats) -> Floats:
    """Compute ``‖m_a − m_b‖²`` under every partition.

    Args:
        z: (subject, value) standardised inputs.
        a: (partition, subject) each subject's share of the first group's mean.
        b: Likewise of the second group's.

    Returns:
        (partition,).
    """
    gram = z @ z.T
    return ((a - b) @ gram * (a - b)).sum(axis=1)


def covariance_distances(z: Floats, a: Floats, b: Floats) -> Floats:
    """Compute ``‖S_a − S_b‖²`` (Frobenius) under every partition, each covariance about its group's own mean.

    With K the subjects' Gram matrix ``z zᵀ`` and ``S_a = zᵀ (diag(a) − a aᵀ) z``, it is ``tr((D K)²)`` with
    ``D = diag(a − b) − a aᵀ + b bᵀ``: no covariance is formed, however many values an input has.

    Args:
        z: (subject, value) standardised inputs.
        a: (partition, subject) each subject's share of the first group's mean.
        b: Likewise of the second group's.

    Returns:
        (partition,).
    """
    gram = z @ z.T
    w, gram_a, gram_b = a - b, a @ gram, b @ gram
    diagonal = (w @ gram**2 * w).sum(axis=1)
    mixed = 2 * ((w * gram_b**2).sum(axis=1) - (w * gram_a**2).sum(axis=1))
    a_a, b_b, a_b = ((x * y).sum(axis=1) for x, y in ((gram_a, a), (gram_b, b), (gram_a, b)))
    return diagonal + mixed + a_a**2 + b_b**2 - 2 * a_b**2
