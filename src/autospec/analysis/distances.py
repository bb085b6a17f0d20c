"""How far two groups of people are apart in a layer, for every partition of them: studentised distances.

Every quantity is studentised over all partitions of a pair, the observed one among them, and left out or kept by rules
that treat every partition alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autospec.analysis.nan_statistics import Floats, mean, median
from autospec.analysis.p_values import studentised
from autospec.store.permutations import Pair, PermutationRatios

Mask = npt.NDArray[np.bool_]

TESTS = {
    "permutation": "singular values of the mean gradient",
    "permutation_scale": "norm of the mean gradient",
    "permutation_loss": "mean loss",
    "permutation_shape": "singular values over the norm",
    "permutation_rank": "effective rank",
}
"""The primary test, and those of what it is made of: scale (norm, loss) and shape (σ over the norm, effective rank)."""

CANCELLED = 0.05
"""Cancellation below which two groups' gradients say nothing apart.

``|‖∇_a‖ - ‖∇_b‖| ≤ ‖∇_a + ∇_b‖``, and likewise each singular value, by Weyl's inequality: where ``‖∇_a + ∇_b‖`` is
less than 5 % of ``‖∇_a‖ + ‖∇_b‖``, the raw norms agree within a factor of 1.05/0.95 whatever the groups are, and the
scaled ones differ by the ratio of group sizes.
"""
CANCEL = "not testable: gradients cancel"


@dataclass(frozen=True)
class Distances:
    """Studentised distances of one layer, pair and test: ``z2`` (epoch, partition, index), NaN where not comparable.

    ``excess`` and ``ratio`` (epoch, index) are the observed log2 ratio less its mean over partitions, and itself.
    """

    layer: str
    pair: Pair
    test: str
    z2: Floats
    ratio: Floats
    excess: Floats
    cancellation: Floats
    note: str = ""

    def along(self, per: str) -> Floats:
        """(partition, places): the distance of the trajectory, of each epoch, or of each index; NaN without values."""
        if per == "index":
            return mean(self.z2, 0)
        of_epochs = mean(self.z2, 2)
        return (of_epochs if per == "epoch" else mean(of_epochs, 0)[None]).T


def distances(null: PermutationRatios, layer: str, pair: Pair, test: str) -> Distances:
    """The studentised distances of one layer, pair and test of one run."""
    place = null.pairs.index(pair)
    values = {name: array[:, place].astype(np.float64) for name, array in null.ratios[layer].items()}
    ratio = _quantity(test, values, None if null.loss is None else null.loss[:, place].astype(np.float64))
    cancellation = median(values["cancellation"], 1)
    if test == "permutation_loss":  # a loss is no sum of vectors
        cancellation = np.full_like(cancellation, np.nan)
    cancels = cancellation < CANCELLED
    # every partition decides alike whether a value can be compared: the choice knows nothing of the labels
    known = np.isfinite(ratio).all(1, keepdims=True) & ~cancels[:, None, None]
    z, excess = studentised(np.where(known, ratio, np.nan), 1)
    used = np.isfinite(z).any(1)
    note = "" if used.any() else _why(ratio, known, cancels)
    observed = np.where(used, ratio[:, 0], np.nan)
    return Distances(layer, pair, test, z**2, observed, np.where(used, excess[:, 0], np.nan), cancellation, note)


def _quantity(test: str, values: dict[str, Floats], loss: Floats | None) -> Floats:
    """(epoch, partition, index): the log2 ratio that a test is about."""
    if test == "permutation":
        return values["log_ratio"]
    if test == "permutation_shape":
        return values["log_ratio"] - values["log_norm"][..., None]
    if test == "permutation_loss":
        return (np.full_like(values["log_norm"], np.nan) if loss is None else loss)[..., None]
    return values["log_norm" if test == "permutation_scale" else "log_effective_rank"][..., None]


def averaged(of_seeds: Sequence[Distances]) -> Distances:
    """Runs of several seeds as one: people are relabelled in the same way in each, so distances may be averaged."""
    if len(of_seeds) == 1:
        return of_seeds[0]

    def over_seeds(name: str) -> Floats:
        return mean(np.stack([getattr(one, name) for one in of_seeds]), 0)

    notes = [one.note for one in of_seeds if one.note]
    return replace(
        of_seeds[0],
        z2=over_seeds("z2"),
        ratio=over_seeds("ratio"),
        excess=over_seeds("excess"),
        cancellation=over_seeds("cancellation"),
        note=notes[0] if len(notes) == len(of_seeds) else "",
    )


def _why(ratio: Floats, known: Mask, cancels: Mask) -> str:
    """Why a layer and pair has no distance at all."""
    if cancels.all():
        return CANCEL
    if not np.isfinite(ratio).any():
        return "no value of either group lies above its noise floor"
    if not known.any():
        return f"no value lies above the noise floor in every partition{', or gradients cancel' * bool(cancels.any())}"
    return "the values do not vary over partitions"
