"""Permutation tests of group differences over subjects: every test of a run, or of runs of several seeds.

Labels are permuted at fixed weights where the label took no part in training; elsewhere each permutation is a run of
its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.analysis.distances import TESTS, Distances, average, distances
from autospec.analysis.intervals import interval
from autospec.analysis.joint_tests import JOINT_TESTS, joint_tests
from autospec.analysis.nan_statistics import median
from autospec.analysis.p_values import benjamini_hochberg, p_values, studentise
from autospec.analysis.plain_tests import PLAIN_TESTS
from autospec.store.groups import Pair
from autospec.store.permutations import PermutationRatios

NO_PERMUTATIONS = "the file holds no permutations (the recorder's permutations=1000 takes them)"

COLUMNS = {
    "layer": "The layer, by the name of its weight.",
    "statistic": "gradient, whose spectra are taken under every permutation; or inputs, whose values are.",
    "group_a": "The first group of the pair; of omnibus all groups, of covariate its name.",
    "group_b": "The second group of the pair; empty for omnibus and covariate.",
    "test": "; ".join(f"{name}: {what}" for name, what in {**TESTS, **JOINT_TESTS, **PLAIN_TESTS}.items())
    + ". Labels of subjects are permuted.",
    "kind": "inferential: one distance over all epochs and indices; exploratory: anything finer.",
    "per": "What one row is about: the trajectory, an epoch (over indices) or an index (over epochs).",
    "at": "The epoch, or the index of the singular value (from 1); NaN for the trajectory.",
    "n": "Values (epochs × indices) that the distance is made of.",
    "distance": "Squared z of the log2 ratio over all partitions, mean over indices and epochs, itself studentised.",
    "relabellings": "P, the number of permutations of the subjects' labels; the observed partition counts beside them.",
    "networks": "1: labels are permuted at the weights of the run's own network; 1 + P: each permutation is a network "
    "of its own, trained anew with the permuted labels.",
    "strata": "Columns within which labels were permuted.",
    "p": "Share of the 1 + P partitions whose distance is as large as the observed one; NaN where it is not defined.",
    "p_family": "Family-wise: the same for the largest distance among all layers and pairs of the panel, and all its "
    "epochs where per is epoch.",
    "q": "Exploratory rows: Benjamini-Hochberg over all those of one panel, test and per.",
    "log2_ratio": "Median log2 ratio, first group over second, of the observed groups.",
    "excess_log2_ratio": "The same less its mean over all partitions: the effect. Of omnibus the SD over groups of "
    "log2 of their singular values, each less its mean over all partitions; median over epochs and indices.",
    "rank_correlation": "Of covariate: median over epochs and indices of Spearman's rank correlation, less its mean "
    "over all partitions: the effect.",
    "low": "Lower end of the effect's 95 % interval (intervals.py); trajectories alone have one.",
    "high": "Upper end of that interval.",
    "larger": "The group whose values are larger, by the sign of that effect; of omnibus the largest.",
    "cancellation": "Median of the pair's ‖∇_a + ∇_b‖ / (‖∇_a‖ + ‖∇_b‖): near 0 the two are opposite.",
    "seeds": "Runs with other initialisations whose distances were averaged, the same permutations in each.",
    "note": "Why p is NaN, where it is.",
}
"""Every column of the table and what it means."""


def permutation_tests(
    runs: Sequence[PermutationRatios | None],
    layers: list[str],
    pairs: list[Pair],
    finer: bool = True,
    retrained: bool = False,
) -> pd.DataFrame:
    """Make every permutation test of every layer and pair.

    Args:
        runs: The permutations of a run, or of runs that differ in their seed; None for a run without any.
        layers: The layers.
        pairs: The pairs of groups.
        finer: Whether epochs and indices have exploratory rows of their own.
        retrained: Whether each partition is a network of its own.

    Returns:
        A row per test with the columns of ``COLUMNS``. A layer and pair without a test has one row that says why.
    """
    permuted = [run for run in runs if run is not None]
    if not permuted:
        return _table([_refusals(layers, dict.fromkeys(pairs, NO_PERMUTATIONS), 0)])
    first = permuted[0]
    refused = {pair: reason for pair in pairs if (reason := _reason(runs, pair))}
    tested = [pair for pair in first.pairs if pair in pairs and pair not in refused]
    every = [
        average([distances(run, layer, pair, test) for run in permuted])
        for test in TESTS
        # the loss is of the whole network: one layer stands for all
        for layer in (layers if test != "permutation_loss" else layers[:1])
        for pair in tested
        if layer in first.ratios
    ]
    # a pair without a test has rows, too, so that nobody takes it for one that showed nothing
    parts = [_refusals(layers, refused, len(permuted))]
    for test in TESTS:
        family = [one for one in every if one.test == test]
        parts += [_rows(family, per, first, len(permuted)) for per in _granularities(test)[: None if finer else 1]]
    parts.append(joint_tests(permuted, layers))
    table = _table(parts)
    networks = 1 + table["relabellings"] if retrained else 1.0
    return table.assign(networks=np.where(table["relabellings"] > 0, networks, np.nan))


def _rows(family: Sequence[Distances], per: str, permutations: PermutationRatios, seeds: int) -> pd.DataFrame:
    """The rows of one test over one panel: its layers and pairs are one family."""
    if not family:
        return pd.DataFrame()
    along = [one.along(per) for one in family]
    p, p_family = p_values(along)
    parts = [
        _member_rows(one, per, permutations).assign(distance=studentise(z, 0)[0][0])
        for one, z in zip(family, along, strict=True)
    ]
    table = pd.concat(parts, ignore_index=True).assign(seeds=seeds, p=np.concatenate(p), q=np.nan)
    table["kind"] = "inferential" if per == "trajectory" else "exploratory"
    table["p_family"] = np.nan if per == "index" else np.concatenate(p_family)
    if per != "trajectory":
        table["q"] = benjamini_hochberg(np.concatenate(p))
    unknown = table["p"].isna() & (table["note"] == "")
    return table.assign(note=table["note"].mask(unknown, "nothing here can be compared in every partition"))


def _member_rows(one: Distances, per: str, permutations: PermutationRatios) -> pd.DataFrame:
    axis = {"trajectory": None, "epoch": 1, "index": 0}[per]
    excess = np.atleast_1d(median(one.excess, axis))
    low, high = interval(one.deviations) if per == "trajectory" else (np.nan, np.nan)
    return pd.DataFrame(
        {
            "layer": one.layer if one.test != "permutation_loss" else "",
            "group_a": one.pair[0],
            "group_b": one.pair[1],
            "test": one.test,
            "per": per,
            "at": _at(one, per, permutations),
            "n": np.atleast_1d(np.isfinite(one.excess).sum(axis)),
            "relabellings": permutations.permutations,
            "strata": permutations.strata[permutations.pairs.index(one.pair)],
            "log2_ratio": np.atleast_1d(median(one.ratio, axis)),
            "excess_log2_ratio": excess,
            "low": low,
            "high": high,
            "larger": [_larger(one.pair, value) for value in excess],
            "cancellation": one.cancellation if per == "epoch" else median(one.cancellation, None),
            "note": one.note,
        }
    )


def _granularities(test: str) -> tuple[str, ...]:
    return ("trajectory", "epoch", "index") if test in ("permutation", "permutation_shape") else ("trajectory", "epoch")


def _at(one: Distances, per: str, permutations: PermutationRatios) -> npt.NDArray:
    if per == "trajectory":
        return np.array([np.nan])
    return permutations.epochs if per == "epoch" else np.arange(1, one.z2.shape[2] + 1)


def _larger(pair: Pair, excess: float) -> str:
    return "" if not np.isfinite(excess) or excess == 0 else pair[0] if excess > 0 else pair[1]


def _reason(runs: Sequence[PermutationRatios | None], pair: Pair) -> str:
    """Why a pair has no test in these runs; empty where it has one."""
    for run in runs:
        if run is None or runs[0] is None:
            return NO_PERMUTATIONS
        if pair not in run.pairs:
            return run.refused.get(pair, NO_PERMUTATIONS)
        # seeds are averaged partition by partition, so that each must be the same one in all of them
        if run.permutation_design != runs[0].permutation_design or not np.array_equal(run.epochs, runs[0].epochs):
            return "the runs of several seeds did not permute the same subjects in the same way"
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
    table = [_complete(part.assign(statistic="gradient")) for part in parts if len(part)]
    return pd.concat(table, ignore_index=True) if table else pd.DataFrame(columns=list(COLUMNS))


def _complete(part: pd.DataFrame) -> pd.DataFrame:
    missing = {name: "" if name in _TEXTS else np.nan for name in COLUMNS if name not in part.columns}
    numbers = [name for name in COLUMNS if name not in _TEXTS]
    return part.assign(**missing)[list(COLUMNS)].astype(dict.fromkeys(numbers, np.float64))
