"""The rows of one study: a p for every test that a reader might rely on, at each stage of training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from autospec.analysis.distances import TESTS, distances
from autospec.analysis.intervals import FEWEST_PARTITIONS, interval
from autospec.analysis.joint_tests import joint_tests
from autospec.analysis.p_values import benjamini_hochberg, p_values
from autospec.analysis.paper_tests import student
from autospec.analysis.plain_tests import PLAIN_TESTS, input_distances
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.report.inputs import subject_inputs
from autospec.store.permutations import JointValues, PermutationRatios
from autospec.store.permuted_pairs import PermutationDesign

WHOLE = "all epochs"
STAGES = {"early": slice(0, 3), "late": slice(-3, None), WHOLE: slice(None)}
"""The permuted epochs of each stage of training, out of the six of a study; the table of a run is of all epochs."""
STUDY_COLUMNS = ("test", "stage", "p")
Row = tuple[str, str, float]


def of_permutations(permutations: PermutationRatios) -> Iterator[Row]:
    """Make the rows of every permutation test, at every stage.

    Args:
        permutations: The study's.

    Yields:
        Test, stage and p; of an interval 0 where it excludes 0, and else 1.
    """
    for stage, epochs in STAGES.items():
        at_stage = _at(permutations, epochs)
        yield from _permutation_rows(at_stage, stage)
        yield from _joint_rows(at_stage, stage)
        if permutations.permutations + 1 >= FEWEST_PARTITIONS:
            yield _interval_row(at_stage, stage)


def of_inputs(data: Dataset, design: PermutationDesign) -> Iterator[Row]:
    """Make the rows of the tests of the inputs.

    Args:
        data: The study's samples.
        design: Its permutations.

    Yields:
        Test, ``data`` and p.
    """
    inputs, first = subject_inputs(data, design), design.pairs[0]
    for test in PLAIN_TESTS:
        p, _ = p_values([input_distances(test, inputs, first.members)[:, None]])
        yield test, "data", float(p[0][0])


@dataclass
class PaperValues:
    """What the paper's tests of two groups are made of, epoch by epoch: σ and noise floors, and weights in the loss."""

    raw: list[npt.NDArray[np.float64]] = field(default_factory=list)
    floor: list[npt.NDArray[np.float64]] = field(default_factory=list)
    weight: list[npt.NDArray[np.float64]] = field(default_factory=list)

    def add(self, raw: npt.NDArray, floor: npt.NDArray, weight: npt.NDArray) -> None:
        """Add an epoch: (group, K), (group,) and (group,)."""
        self.raw.append(raw)
        self.floor.append(floor)
        self.weight.append(weight)


def of_paper(values: PaperValues) -> Iterator[Row]:
    """Make the rows of the paper's tests: of the first and last epoch, and of σ₁ over all epochs.

    Args:
        values: What they are made of.

    Yields:
        Test, stage and p.
    """
    raw, floor, weight = (np.stack(part) for part in (values.raw, values.floor, values.weight))
    kept = np.asarray((raw > floor[..., None]).all(axis=1))
    for test, scale in (("paper", np.ones_like(weight)), ("paper_scaled", weight)):
        a, b = np.moveaxis(raw / scale[..., None], 1, 0)
        over_indices, over_epochs = (student(a, b, kept, axis)[2] for axis in (1, 0))
        yield f"{test} per epoch", "early", float(over_indices[0])
        yield f"{test} per epoch", "late", float(over_indices[-1])
        yield f"{test} per index", WHOLE, float(over_epochs[0])


def _interval_row(permutations: PermutationRatios, stage: str) -> Row:
    """Whether the interval of the first layer's effect excludes 0."""
    layer, pair = next(iter(permutations.ratios)), permutations.pairs[0]
    low, high = interval(distances(permutations, layer, pair, "permutation").deviations)
    return "interval of the effect without 0", stage, float(low <= 0 <= high)


def _permutation_rows(permutations: PermutationRatios, stage: str) -> Iterator[Row]:
    """The p of each inferential test, and the smallest family-wise one."""
    # of the first layer and pair; finer tests late only, and over all epochs the primary test alone
    for test in TESTS if stage != WHOLE else ("permutation",):
        of_layers = [
            distances(permutations, layer, pair, test) for layer in permutations.ratios for pair in permutations.pairs
        ]
        p, p_family = p_values([one.along("trajectory") for one in of_layers])
        yield test, stage, float(p[0][0])
        if test != "permutation":
            continue
        yield "permutation, family-wise", stage, _smallest(p_family)
        for per in ("epoch", "index") if stage == "late" else ():
            p, p_family = p_values([one.along(per) for one in of_layers])
            yield f"permutation per {per}", stage, float(p[0][-1 if per == "epoch" else 0])
            yield f"permutation per {per}, smallest q", stage, _smallest([benjamini_hochberg(np.concatenate(p))])
            if per == "epoch":
                yield "permutation per epoch, family-wise", stage, _smallest(p_family)


def _joint_rows(permutations: PermutationRatios, stage: str) -> Iterator[Row]:
    """The p of all groups at once and of a covariate, where they were permuted: of the first layer, and family-wise."""
    if permutations.omnibus is None and permutations.covariates is None:
        return
    table = joint_tests([permutations], list(permutations.ratios))
    for test, rows in table.groupby("test", sort=False):
        yield str(test), stage, float(rows["p"].iloc[0])
        yield f"{test}, family-wise", stage, _smallest([rows["p_family"].to_numpy()])


def _smallest(p: Sequence[npt.NDArray[np.float64]]) -> float:
    values = np.concatenate(p)
    return float(np.min(values, where=np.isfinite(values), initial=1.0))


def _at(permutations: PermutationRatios, epochs: slice) -> PermutationRatios:
    """Some of the permuted epochs."""
    ratios = {
        layer: {name: values[epochs] for name, values in of_layer.items()}
        for layer, of_layer in permutations.ratios.items()
    }
    loss = None if permutations.loss is None else permutations.loss[epochs]
    return replace(
        permutations,
        epochs=permutations.epochs[epochs],
        ratios=ratios,
        loss=loss,
        omnibus=_joint_at(permutations.omnibus, epochs),
        covariates=_joint_at(permutations.covariates, epochs),
    )


def _joint_at(joint: JointValues | None, epochs: slice) -> JointValues | None:
    if joint is None:
        return None
    values = {layer: {name: array[epochs] for name, array in arrays.items()} for layer, arrays in joint.values.items()}
    return replace(joint, values=values)
