"""Permutation tests of group differences over people (DESIGN: at fixed weights, where the label took no part).

Every quantity is studentised over all partitions of a pair, the observed one among them, by rules that treat every
partition alike; so under the null the observed distance is one of 1 + P exchangeable ones and
``p = #{distance ≥ observed} / (P + 1)`` is exact (Phipson & Smyth 2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.store.null import NullSpectra, Pair

Floats = npt.NDArray[np.float64]
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
SMALLEST_SD = 1e-6
"""A log2 ratio that varies less than this over all partitions does not vary: it is stored in float32."""
TIE = 1e-5
"""Distances that agree to this are ties, and count against the observed one."""
NO_RELABELLINGS = "the file holds no relabelled partitions"
CANCEL = "not testable: gradients cancel"

COLUMNS = {
    "layer": "The layer, by the name of its weight.",
    "statistic": "gradient, the one whose relabelled spectra are taken.",
    "group_a": "The first group of the pair.",
    "group_b": "The second group of the pair.",
    "test": "; ".join(f"{name}: {what}" for name, what in TESTS.items()) + ". Labels of people are exchanged.",
    "kind": "inferential: one distance over all epochs and indices; exploratory: anything finer.",
    "per": "What one row is about: the trajectory, an epoch (over indices) or an index (over epochs).",
    "at": "The epoch, or the index of the singular value (from 1); NaN for the trajectory.",
    "n": "Values (epochs × indices) that the distance is made of.",
    "distance": "Squared z of the log2 ratio over all partitions, mean over indices and epochs, itself studentised.",
    "relabellings": "P: people's labels were exchanged so often; the observed partition is counted beside them.",
    "strata": "Columns within which labels were exchanged.",
    "p": "Share of the 1 + P partitions whose distance is as large as the observed one; NaN where it is not defined.",
    "p_family": "Family-wise: the same for the largest distance among all layers and pairs of the panel, and all its "
    "epochs where per is epoch.",
    "q": "Exploratory rows: Benjamini-Hochberg over all those of one panel, test and per.",
    "log2_ratio": "Median log2 ratio, first group over second, of the observed groups.",
    "excess_log2_ratio": "The same less its mean over all partitions: the effect.",
    "larger": "The group whose values are larger, by the sign of that effect.",
    "cancellation": "Median of the pair's ‖∇_a + ∇_b‖ / (‖∇_a‖ + ‖∇_b‖): near 0 the two are opposite.",
    "seeds": "Runs with other initialisations whose distances were averaged, the same relabelling in each.",
    "note": "Why p is NaN, where it is.",
}
"""Every column of the table and what it means."""


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
            return _mean(self.z2, 0)
        of_epochs = _mean(self.z2, 2)
        return (of_epochs if per == "epoch" else _mean(of_epochs, 0)[None]).T


def permutation_tests(
    runs: Sequence[NullSpectra | None], layers: list[str], pairs: list[Pair], finer: bool = True
) -> pd.DataFrame:
    """Every test of every layer and pair of a run, or of runs that differ in their seed: ``COLUMNS``.

    A layer and pair without a test has one row that says why. Without ``finer`` the exploratory rows are left out.
    """
    known = [run for run in runs if run is not None]
    if not known:
        return _table([_refusals(layers, dict.fromkeys(pairs, NO_RELABELLINGS), 0)])
    first = known[0]
    refused = {pair: _reason(known, pair) for pair in pairs if _reason(known, pair)}
    tested = [pair for pair in first.pairs if pair in pairs and pair not in refused]
    found = [
        _averaged([distances(run, layer, pair, test) for run in known])
        for test in TESTS
        for layer in (layers if test != "permutation_loss" else layers[:1])
        for pair in tested
        if layer in first.ratios
    ]
    parts = [_refusals(layers, refused, len(known))]
    for test in TESTS:
        family = [one for one in found if one.test == test]
        parts += [_rows(family, per, first, len(known)) for per in _places(test)[: None if finer else 1]]
    return _table(parts)


def distances(null: NullSpectra, layer: str, pair: Pair, test: str) -> Distances:
    """The studentised distances of one layer, pair and test of one run."""
    place = null.pairs.index(pair)
    values = {name: array[:, place].astype(np.float64) for name, array in null.ratios[layer].items()}
    ratio = _quantity(test, values, None if null.loss is None else null.loss[:, place].astype(np.float64))
    cancellation = _median(values["cancellation"], 1)
    cancels = cancellation < CANCELLED if test != "permutation_loss" else np.zeros(len(cancellation), dtype=bool)
    # every partition decides alike whether a value can be compared: the choice knows nothing of the labels
    known = np.isfinite(ratio).all(1, keepdims=True) & ~cancels[:, None, None]
    z, excess = _studentised(np.where(known, ratio, np.nan), 1)
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


def _studentised(values: Floats, axis: int) -> tuple[Floats, Floats]:
    """z over partitions, and the deviation from their mean; NaN where the partitions do not vary."""
    deviation = values - values.mean(axis, keepdims=True)
    sd = np.sqrt((deviation**2).mean(axis, keepdims=True))
    # not a comparison with >, so that NaN stays NaN without a warning
    return deviation / np.where(sd > SMALLEST_SD, sd, np.nan), deviation


def _averaged(of_seeds: Sequence[Distances]) -> Distances:
    """Runs of several seeds as one: people are relabelled in the same way in each, so distances may be averaged."""
    if len(of_seeds) == 1:
        return of_seeds[0]

    def mean(name: str) -> Floats:
        return _mean(np.stack([getattr(one, name) for one in of_seeds]), 0)

    notes = [one.note for one in of_seeds if one.note]
    return replace(
        of_seeds[0],
        z2=mean("z2"),
        ratio=mean("ratio"),
        excess=mean("excess"),
        cancellation=mean("cancellation"),
        note=notes[0] if len(notes) == len(of_seeds) else "",
    )


def _rows(family: Sequence[Distances], per: str, null: NullSpectra, seeds: int) -> pd.DataFrame:
    """The rows of one test over one panel: its layers and pairs are one family."""
    if not family:
        return pd.DataFrame()
    along = [one.along(per) for one in family]
    p, p_family = p_values(along)
    parts = [
        _of_one(one, per, null).assign(distance=_studentised(z, 0)[0][0]) for one, z in zip(family, along, strict=True)
    ]
    table = pd.concat(parts, ignore_index=True).assign(seeds=seeds, p=np.concatenate(p), q=np.nan)
    table["kind"] = "inferential" if per == "trajectory" else "exploratory"
    table["p_family"] = np.nan if per == "index" else np.concatenate(p_family)
    if per != "trajectory":
        table["q"] = benjamini_hochberg(np.concatenate(p))
    unknown = table["p"].isna() & (table["note"] == "")
    return table.assign(note=table["note"].mask(unknown, "nothing here can be compared in every partition"))


def _of_one(one: Distances, per: str, null: NullSpectra) -> pd.DataFrame:
    axis = {"trajectory": None, "epoch": 1, "index": 0}[per]
    excess = np.atleast_1d(_median(one.excess, axis))
    return pd.DataFrame(
        {
            "layer": one.layer if one.test != "permutation_loss" else "",
            "group_a": one.pair[0],
            "group_b": one.pair[1],
            "test": one.test,
            "per": per,
            "at": _at(one, per, null),
            "n": np.atleast_1d(np.isfinite(one.excess).sum(axis)),
            "relabellings": null.permutations,
            "strata": null.strata[null.pairs.index(one.pair)],
            "log2_ratio": np.atleast_1d(_median(one.ratio, axis)),
            "excess_log2_ratio": excess,
            "larger": [_larger(one.pair, value) for value in excess],
            "cancellation": one.cancellation if per == "epoch" else _median(one.cancellation, None),
            "note": one.note,
        }
    )


def p_values(family: Sequence[Floats]) -> tuple[list[Floats], list[Floats]]:
    """p of distances (partition, places) of each member of a family, and family-wise p by the largest of all."""
    studentised = [_studentised(distance, 0)[0] for distance in family]
    # the distances of every layer, pair and place on one scale: the largest is compared with the largest
    largest = _largest(np.concatenate(studentised, axis=1))[:, None]
    whole = [exceedance(np.broadcast_to(largest, z.shape), z[0]) for z in studentised]
    return [exceedance(z) for z in studentised], whole


def exceedance(z: Floats, observed: Floats | None = None) -> Floats:
    """The share of partitions (partition, places) at or above the observed one, which is the first and counted.

    The p-value of ``scipy.stats.permutation_test`` with ``alternative="greater"``, (1 + #{≥}) / (P + 1). NaN where
    nothing could be compared.
    """
    value = z[0] if observed is None else observed
    at_least = np.where(np.isnan(z), False, z >= value - TIE * np.maximum(1.0, np.abs(value)))
    at_least[0] = True
    return np.where(np.isfinite(value), at_least.mean(0), np.nan)


def benjamini_hochberg(p: Floats) -> Floats:
    """``scipy.stats.false_discovery_control`` over the p that are defined, NaN for the others."""
    from scipy.stats import false_discovery_control

    q = np.full_like(p, np.nan)
    defined = np.isfinite(p)
    if defined.any():
        q[defined] = false_discovery_control(p[defined])
    return q


def _largest(z: Floats) -> Floats:
    """(partition,): the largest distance of each partition, NaN where nothing could be compared."""
    defined = np.isfinite(z).all(0)
    return z[:, defined].max(1) if defined.any() else np.full(len(z), np.nan)


def _places(test: str) -> tuple[str, ...]:
    return ("trajectory", "epoch", "index") if test in ("permutation", "permutation_shape") else ("trajectory", "epoch")


def _at(one: Distances, per: str, null: NullSpectra) -> npt.NDArray:
    if per == "trajectory":
        return np.array([np.nan])
    return null.epochs if per == "epoch" else np.arange(1, one.z2.shape[2] + 1)


def _larger(pair: Pair, excess: float) -> str:
    return "" if not np.isfinite(excess) or excess == 0 else pair[0] if excess > 0 else pair[1]


def _why(ratio: Floats, known: Mask, cancels: Mask) -> str:
    """Why a layer and pair has no distance at all."""
    if cancels.all():
        return CANCEL
    if not np.isfinite(ratio).any():
        return "no value of either group lies above its noise floor"
    if not known.any():
        return f"no value lies above the noise floor in every partition{', or gradients cancel' * bool(cancels.any())}"
    return "the values do not vary over partitions"


def _reason(runs: Sequence[NullSpectra], pair: Pair) -> str:
    """Why a pair has no test in these runs; empty where it has one."""
    for run in runs:
        if pair not in run.pairs:
            return run.refused.get(pair, NO_RELABELLINGS)
        if run.relabellings != runs[0].relabellings or not np.array_equal(run.epochs, runs[0].epochs):
            return "the runs of several seeds did not relabel the same people in the same way"
    return ""


def _refusals(layers: list[str], refused: dict[Pair, str], seeds: int) -> pd.DataFrame:
    rows = [
        {"layer": layer, "group_a": a, "group_b": b, "test": "permutation", "per": "trajectory", "note": note}
        for (a, b), note in refused.items()
        for layer in layers
    ]
    return pd.DataFrame(rows).assign(kind="inferential", seeds=seeds, n=0, relabellings=0) if rows else pd.DataFrame()


_TEXTS = ("layer", "statistic", "group_a", "group_b", "test", "kind", "per", "strata", "larger", "note")


def _table(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all parts with every column; text is empty and numbers are NaN where a part has none."""
    table = [_completed(part.assign(statistic="gradient")) for part in parts if len(part)]
    return pd.concat(table, ignore_index=True) if table else pd.DataFrame(columns=list(COLUMNS))


def _completed(part: pd.DataFrame) -> pd.DataFrame:
    missing = {name: "" if name in _TEXTS else np.nan for name in COLUMNS if name not in part.columns}
    numbers = [name for name in COLUMNS if name not in _TEXTS]
    return part.assign(**missing)[list(COLUMNS)].astype(dict.fromkeys(numbers, np.float64))


def _mean(values: Floats, axis: int) -> Floats:
    """The mean of what is not NaN along an axis, NaN where nothing is."""
    known = np.isfinite(values)
    n = known.sum(axis)
    return np.where(n > 0, np.where(known, values, 0.0).sum(axis) / np.maximum(n, 1), np.nan)


def _median(values: Floats, axis: int | None) -> Floats:
    """The median of what is not NaN, NaN where nothing is."""
    some = np.isfinite(values).any(axis, keepdims=True)
    return np.nanmedian(np.where(some, values, 0.0), axis) + np.where(some, 0.0, np.nan).squeeze(axis)
