"""How far two groups are apart in a layer under every partition of their subjects: studentised distances.

Every quantity is studentised over all partitions of a pair, the observed one among them. What is left out is left out
of every partition alike, so that the choice depends on no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from autospec.analysis.nan_statistics import Floats, mean, median
from autospec.analysis.p_values import studentise
from autospec.store.groups import Pair
from autospec.store.permutations import PermutationRatios

Mask = npt.NDArray[np.bool_]

TESTS = {
    "permutation": "singular values of the mean gradient",
    "permutation_scale": "norm of the mean gradient",
    "permutation_loss": "mean loss",
    "permutation_shape": "singular values over the norm",
    "permutation_rank": "effective rank",
}
"""The primary test, then tests of its components: scale (norm, loss) and shape (σ over the norm, effective rank)."""

CANCELLED = 0.05
"""Cancellation below which two groups' gradients cannot be told apart.

``|‖∇_a‖ - ‖∇_b‖| ≤ ‖∇_a + ∇_b‖``, and likewise each singular value, by Weyl's inequality: where ``‖∇_a + ∇_b‖`` is
less than 5 % of ``‖∇_a‖ + ‖∇_b‖``, the raw norms agree within a factor of 1.05/0.95 whatever the groups are, and the
scaled ones differ by the ratio of group sizes.
"""
CANCEL = "not testable: gradients cancel"
NO_LOSSES = "the losses of samples were not given (batch.losses)"


@dataclass(frozen=True)
class Distances:
    """Studentised distances of one layer, pair and test.

    Attributes:
        layer: The layer's name.
        pair: The two groups.
        test: One of ``TESTS``.
        z2: (epoch, partition, index) squared z of the log2 ratio; NaN where values cannot be compared.
        ratio: (epoch, index) the observed log2 ratio.
        excess: (epoch, index) the observed log2 ratio less its mean over partitions.
        deviations: (epoch, partition, index) every partition's log2 ratio less its mean over partitions.
        cancellation: (epoch,) median cancellation of the pair's gradients over partitions.
        note: Why there is no distance at all; empty where there is one.
    """

    layer: str
    pair: Pair
    test: str
    z2: Floats
    ratio: Floats
    excess: Floats
    deviations: npt.NDArray[np.float32]
    cancellation: Floats
    note: str = ""

    def along(self, per: str) -> Floats:
        """Average the squared z.

        Args:
            per: trajectory (over epochs and indices), epoch (over indices) or index (over epochs).

        Returns:
            (partition, place) distances; NaN without values.
        """
        if per == "index":
            return mean(self.z2, 0)
        of_epochs = mean(self.z2, 2)
        return (of_epochs if per == "epoch" else mean(of_epochs, 0)[None]).T


def distances(permutations: PermutationRatios, layer: str, pair: Pair, test: str) -> Distances:
    """Compute the studentised distances of one layer, pair and test.

    Args:
        permutations: The ratios of one run.
        layer: One of its layers.
        pair: One of its permuted pairs.
        test: One of ``TESTS``.

    Returns:
        The distances under every partition.
    """
    place = permutations.pairs.index(pair)
    values = {name: array[:, place].astype(np.float64) for name, array in permutations.ratios[layer].items()}
    loss = None if permutations.loss is None else permutations.loss[:, place].astype(np.float64)
    ratio = _quantity(test, values, loss)
    cancellation = median(values["cancellation"], 1)
    if test == "permutation_loss":  # a loss is no sum of vectors
        cancellation = np.full_like(cancellation, np.nan)
    cancels = cancellation < CANCELLED
    # a value is compared under every partition or under none, so that the choice depends on no labels
    known: Mask = np.asarray(np.isfinite(ratio).all(1, keepdims=True))
    comparable = known & ~cancels[:, None, None]
    z, excess = studentise(np.where(comparable, ratio, np.nan), 1)
    used: Mask = np.asarray(np.isfinite(z).any(1))
    note = "" if used.any() else _explain(ratio, comparable, cancels)
    if test == "permutation_loss" and loss is None:
        note = NO_LOSSES
    observed = np.where(used, ratio[:, 0], np.nan)
    deviations = np.where(used[:, None], excess, np.nan)
    kept = deviations.astype(np.float32)
    return Distances(layer, pair, test, z**2, observed, deviations[:, 0], kept, cancellation, note)


def _quantity(test: str, values: dict[str, Floats], loss: Floats | None) -> Floats:
    """(epoch, partition, index): the log2 ratio that a test is about."""
    if test == "permutation":
        return values["log_ratio"]
    if test == "permutation_shape":
        return values["log_ratio"] - values["log_norm"][..., None]
    if test == "permutation_loss":
        return (np.full_like(values["log_norm"], np.nan) if loss is None else loss)[..., None]
    return values["log_norm" if test == "permutation_scale" else "log_effective_rank"][..., None]


def average(of_seeds: Sequence[Distances]) -> Distances:
    """Average the distances of runs that differ in their seed.

    Each run permuted the same subjects in the same way, so that a partition is the same one in all of them.

    Args:
        of_seeds: Distances of the same layer, pair and test, one per run.

    Returns:
        Their mean; NaN only where every run has NaN.
    """
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
        deviations=over_seeds("deviations").astype(np.float32),
        cancellation=over_seeds("cancellation"),
        note=notes[0] if len(notes) == len(of_seeds) else "",
    )


def _explain(ratio: Floats, comparable: Mask, cancels: Mask) -> str:
    """Say why a layer and pair has no distance at all."""
    if cancels.all():
        return CANCEL
    if not np.isfinite(ratio).any():
        return "no value of either group lies above its noise floor"
    if not comparable.any():
        return f"no value lies above the noise floor in every partition{', or gradients cancel' * bool(cancels.any())}"
    return "the values do not vary over partitions"
