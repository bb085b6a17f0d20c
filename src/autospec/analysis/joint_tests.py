"""Tests of three or more groups at once, and of covariates: one p for each layer, family-wise over layers.

As ``permutation`` makes those of pairs: every value is studentised over all partitions, the observed one among them,
squared, and averaged over groups, indices and epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from autospec.analysis.nan_statistics import Floats, mean, median
from autospec.analysis.p_values import p_values, studentise
from autospec.store.permutations import JointValues, PermutationRatios
from autospec.store.schema import COVARIATE, OMNIBUS

JOINT_TESTS = {
    OMNIBUS: "dispersion of the singular values of three or more groups' mean gradients, all labels permuted at once",
    COVARIATE: "rank correlation of a covariate with what each subject adds to the singular values of all subjects' "
    "gradient, the covariate permuted over subjects",
}
"""Further tests of a file that was recorded with them; ``group_a`` names all groups, or the covariate."""
NOTHING = "nothing here can be compared in every partition"
OTHER_SEEDS = "the runs of several seeds did not permute the same subjects in the same way"
_OF_KIND: dict[str, Callable[[PermutationRatios], JointValues | None]] = {
    OMNIBUS: lambda run: run.omnibus,
    COVARIATE: lambda run: run.covariates,
}


@dataclass(frozen=True)
class _Member:
    """What one layer and question gives: distances, effect, number of values, and the group that is larger."""

    layer: str
    asked: str
    strata: str
    distance: Floats
    effect: float
    values: int
    larger: str


def joint_tests(runs: Sequence[PermutationRatios], layers: Sequence[str]) -> pd.DataFrame:
    """Make the tests of all groups at once and of covariates, as far as the runs permuted them.

    Args:
        runs: The permutations of a run, or of runs that differ in their seed.
        layers: The layers; those of one test are a family, covariates together.

    Returns:
        A row for each layer and test, with the columns of ``permutation.COLUMNS`` that it has a value for; no row for
        what nobody asked for.
    """
    parts = [_of_kind(kind, runs, layers) for kind in _OF_KIND]
    return pd.concat(parts, ignore_index=True) if any(map(len, parts)) else pd.DataFrame()


def joint_sentences(tests: pd.DataFrame) -> tuple[str, ...]:
    """Say what all groups at once and covariates gave, for a caption.

    Args:
        tests: A table with the columns of ``permutation.COLUMNS``.

    Returns:
        A sentence for each question that has a p.
    """
    sentences = []
    rows = tests[tests["test"].isin(JOINT_TESTS) & tests["p_family"].notna()]
    for (test, asked), own in rows.groupby(["test", "group_a"], sort=False):
        words = "; ".join(f"{layer} p = {p:.3f}" for layer, p in zip(own["layer"], own["p_family"], strict=True))
        at_once = f"All {str(asked).count(', ') + 1} groups at once"
        what = at_once if test == OMNIBUS else f"Subjects' {asked}, within groups"
        sentences.append(f"{what} (permuted at fixed weights, family-wise over layers): {words}.")
    return tuple(sentences)


def _of_kind(kind: str, runs: Sequence[PermutationRatios], layers: Sequence[str]) -> pd.DataFrame:
    of_runs = [_OF_KIND[kind](run) for run in runs]
    joint = [one for one in of_runs if one is not None]
    if not joint:
        return pd.DataFrame()
    refused = dict(joint[0].refused)
    if (
        len({run.permutation_design for run in runs}) > 1
        or len({one and (one.names, one.strata) for one in of_runs}) > 1
    ):
        # seeds are averaged partition by partition, so that each must be the same one in all of them
        asked = [", ".join(joint[0].names)] if kind == OMNIBUS else list(joint[0].names)
        refused |= dict.fromkeys(filter(None, asked), OTHER_SEEDS)
        joint = []
    members = _members(kind, joint, [layer for layer in layers if all(layer in one.values for one in joint)])
    rows = [_row(kind, one) for one in members]
    if members:
        p, p_family = p_values([one.distance[:, None] for one in members])
        for place, row in enumerate(rows):
            row |= {"p": p[place][0], "p_family": p_family[place][0]}
            row["note"] = "" if np.isfinite(p[place][0]) else NOTHING
    rows += [
        {"layer": layer, "group_a": name, "test": kind, "n": 0, "relabellings": 0, "note": note}
        for name, note in refused.items()
        for layer in layers
    ]
    if not rows:
        return pd.DataFrame()
    return pd.DataFrame(rows).assign(kind="inferential", per="trajectory", seeds=len(runs), group_b="")


def _members(kind: str, joint: Sequence[JointValues], layers: Sequence[str]) -> list[_Member]:
    if not joint or not joint[0].names:
        return []
    of_kind = _of_groups if kind == OMNIBUS else _of_covariates
    return [member for layer in layers for member in of_kind(joint, layer)]


def _of_groups(joint: Sequence[JointValues], layer: str) -> Iterator[_Member]:
    """All groups at once in one layer, seeds averaged."""
    first, of_seeds = joint[0], [one.values[layer] for one in joint]
    z2, excess = (mean(np.stack([own[name] for own in of_seeds]), 0) for name in ("dispersion", "log_excess"))
    of_group = np.array([median(own, None) for own in np.moveaxis(excess, 1, 0)])
    spread = np.sqrt(mean(excess**2, 1))
    larger = first.names[int(of_group.argmax())] if np.isfinite(of_group).all() else ""
    effect, count = float(median(spread, None)), int(np.isfinite(spread).sum())
    yield _Member(layer, ", ".join(first.names), first.strata[0], _distance(z2), effect, count, larger)


def _of_covariates(joint: Sequence[JointValues], layer: str) -> Iterator[_Member]:
    """Each covariate in one layer, seeds averaged."""
    of_seeds = [_studentised(one.values[layer]["rank_correlation"]) for one in joint]
    z2, excess = (mean(np.stack(part), 0) for part in zip(*of_seeds, strict=True))
    for place, (name, strata) in enumerate(zip(joint[0].names, joint[0].strata, strict=True)):
        own = excess[:, place]
        effect, count = float(median(own, None)), int(np.isfinite(own).sum())
        yield _Member(layer, name, strata, _distance(z2[:, place]), effect, count, "")


def _studentised(values: np.ndarray) -> tuple[Floats, Floats]:
    """(epoch, covariate, partition, index) squared z, and (epoch, covariate, index) the observed excess."""
    known = np.isfinite(values).all(axis=(1, 2), keepdims=True)
    z, deviation = studentise(np.where(known, values.astype(np.float64), np.nan), 2)
    return z**2, np.where(np.isfinite(z).any(axis=2), deviation[:, :, 0], np.nan)


def _distance(z2: Floats) -> Floats:
    """(partition,): the mean over indices, then epochs, of (epoch, partition, index)."""
    return mean(mean(z2, 2), 0)


def _row(kind: str, one: _Member) -> dict[str, object]:
    effect = "excess_log2_ratio" if kind == OMNIBUS else "rank_correlation"
    return {
        "layer": one.layer,
        "group_a": one.asked,
        "test": kind,
        "n": one.values,
        "distance": studentise(one.distance[:, None], 0)[0][0, 0],
        "relabellings": len(one.distance) - 1,
        "strata": one.strata,
        effect: one.effect,
        "larger": one.larger,
    }
