"""One small study: a simulated cohort, a network that learns from it, and every test of its groups."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from autospec.analysis.distances import TESTS, distances
from autospec.analysis.intervals import interval
from autospec.analysis.p_values import benjamini_hochberg, p_values
from autospec.analysis.paper_tests import student
from autospec.analysis.plain_tests import plain_tests
from autospec.experiments import datasets, models
from autospec.experiments.config.schema import (
    CovariateConfig,
    ExperimentConfig,
    FreesurferConfig,
    PeopleConfig,
    SexesConfig,
    Task,
)
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.permutation_design import permutation_design
from autospec.experiments.report.inputs import subject_inputs
from autospec.experiments.retraining.retrained import retrain
from autospec.experiments.training.loop import Training
from autospec.experiments.training.samples import Samples
from autospec.experiments.training.tasks import TASKS
from autospec.experiments.validation.situations import covariates_taken_out, several_samples, two_visits
from autospec.recording.recorder import SpectralRecorder
from autospec.store.groups import Pair
from autospec.store.permutations import PermutationRatios
from autospec.store.permuted_pairs import PermutationDesign
from autospec.store.schema import PERMUTATION_LOSS, PERMUTATION_RATIOS, permutation_field

WHOLE = "all epochs"
STAGES = {"early": slice(0, 3), "late": slice(-3, None), WHOLE: slice(None)}
"""The permuted epochs of each stage of training, out of the six of a study; the table of a run is of all epochs."""
EPOCHS, EVERY, PERMUTED = 24, 4, 6
WIDE = 32
"""The width of networks that are fed with residuals, whose leverage matters most in wide ones and many volumes."""
PERMUTATIONS, RETRAININGS = 99, 19
SHUFFLED, NO_EFFECT = "shuffled labels", "effect zero"
WITHIN_SEXES = "effect zero, two pairs within sexes"
RETRAINED = "effect zero, trained classes, retrained"
UNEQUAL, ADJUSTED = "effect zero, unequal age and motion", "effect zero, unequal age and motion, residualized"
SPREAD = "effect zero, covariates of unequal spread taken out"
REPEATED = "effect zero, one or three samples a subject"
SEXES = "effect zero, unequal shares of sex"
VISITS = "effect zero, two visits of each subject"
SITUATIONS = {
    SPREAD: covariates_taken_out,
    REPEATED: several_samples,
    SEXES: lambda data, random: data,
    VISITS: two_visits,
}
"""Data of which labels can be exchanged within strata alone."""
SHIFT = 0.5
"""How far patients lie above controls in age and motion where those are unequal, in SD."""
STUDY_COLUMNS = ("test", "stage", "p")
STRUCTURES = ("Hippocampus", "Amygdala", "Thalamus-Proper", "Putamen")
FEATURES, MORE_FEATURES = (
    [f"{side}-{name}" for name in names for side in ("Left", "Right")]
    for names in (STRUCTURES, (*STRUCTURES, "Caudate", "Pallidum", "Accumbens-area", "Lateral-Ventricle"))
)


@dataclass(frozen=True)
class Condition:
    """A kind of study.

    A classifier learns the diagnosis, and men are compared with women among controls; an autoencoder learns nothing
    of labels, and controls are compared with patients. A classifier that is retrained with permuted labels compares
    what it learns. Within sexes there are two disjoint pairs, controls and patients of each sex, in one family.

    Attributes:
        null: Why there is nothing to find in it, by one of the names above.
        sizes: The subjects in the two groups that are compared.
        task: What the network learns.
        effect: The factor of every diagnosis effect.
    """

    null: str
    sizes: tuple[int, int]
    task: Task = Task.autoencoding
    effect: float = 0.0

    @property
    def groups(self) -> str:
        """The two sizes, as tables name them."""
        return f"{self.sizes[0]}:{self.sizes[1]}"

    @property
    def of_sexes(self) -> bool:
        """Whether men are compared with women, not controls with patients."""
        return self.task is Task.classification and self.null != RETRAINED

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs that are compared, in one family."""
        if self.null == WITHIN_SEXES:
            return ("HC/men", "SZ/men"), ("HC/women", "SZ/women")
        return (("HC/men", "HC/women"),) if self.of_sexes else (("HC", "SZ"),)

    def config(self, base: ExperimentConfig, seed: int) -> ExperimentConfig:
        """Return the configuration of one study of this kind."""
        assert isinstance(base.dataset, FreesurferConfig)
        unequal = self.null in (UNEQUAL, ADJUSTED)
        dataset = replace(
            base.dataset,
            seed=seed,
            features=FEATURES if self.null != SPREAD else MORE_FEATURES,
            people=self._subjects(),
            effect=1.0 if self.null == SHUFFLED else self.effect,
            group_by=["diagnosis", "sex"] if self.of_sexes or self.null == WITHIN_SEXES else ["diagnosis"],
            # sex must say nothing about the data where men are compared with women
            sex_effects={} if self.of_sexes else base.dataset.sex_effects,
            age=_shift(base.dataset.age, unequal),
            motion=_shift(base.dataset.motion, unequal),
            residualize=["age", "motion"] if self.null == ADJUSTED else [],
        )
        introspection = replace(
            base.introspection,
            permutations=RETRAININGS if self.null == RETRAINED else PERMUTATIONS,
            permutation_epochs=PERMUTED,
            permutation_pairs=[list(pair) for pair in self.pairs],
            permutation_seed=seed,
            # quarters of leverage are fine enough, and the shares of sex are equal
            strata=[] if self.null == SPREAD else base.introspection.strata,
        )
        width = WIDE if self.null == SPREAD else base.width
        return replace(
            base,
            dataset=dataset,
            introspection=introspection,
            task=self.task,
            seed=seed,
            epochs=EPOCHS,
            width=width,
        )

    def _subjects(self) -> PeopleConfig:
        first, second = self.sizes
        if self.null == SEXES:
            return PeopleConfig(
                HC=SexesConfig(men=first - first // 3, women=first // 3),
                SZ=SexesConfig(men=second // 3, women=second - second // 3),
            )
        if self.of_sexes:
            return PeopleConfig(HC=SexesConfig(men=first, women=second), SZ=SexesConfig(men=first, women=second))
        return PeopleConfig(
            HC=SexesConfig(men=first - first // 3, women=first // 3),
            SZ=SexesConfig(men=second - second // 3, women=second // 3),
        )


def study(condition: Condition, base: ExperimentConfig, seed: int) -> pd.DataFrame:
    """Make one study.

    Args:
        condition: The kind of study.
        base: The configuration that it is derived from.
        seed: The seed of its cohort, network and permutations.

    Returns:
        A row for each test that a reader might rely on, with the columns ``STUDY_COLUMNS``.
    """
    with _quiet():
        return _study(condition, condition.config(base, seed), seed)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """A thousand cohorts need no account."""
    logger = logging.getLogger("autospec.experiments.datasets")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _study(condition: Condition, config: ExperimentConfig, seed: int) -> pd.DataFrame:
    if condition.null == RETRAINED:
        permutations = retrain(config, RETRAININGS)
        rows = [row for stage in STAGES for row in _permutation_rows(permutations, stage)]
        return pd.DataFrame(rows, columns=list(STUDY_COLUMNS))
    data = _load(config, condition, seed)
    recorder = _train(config, data)
    permutations = _permutations(recorder, condition.pairs)
    rows = [row for stage in STAGES for row in _permutation_rows(permutations, stage)]
    if condition.null in SITUATIONS:
        rows += [row for stage in STAGES for row in _interval_rows(permutations, stage)]
        rows += _plain_rows(data, config)
    else:
        rows += _paper_rows(recorder, condition.pairs[0])
    return pd.DataFrame(rows, columns=list(STUDY_COLUMNS))


def _load(config: ExperimentConfig, condition: Condition, seed: int) -> Dataset:
    data = datasets.load(config.dataset)
    if condition.null in SITUATIONS:
        return SITUATIONS[condition.null](data, np.random.default_rng([seed, 1]))
    if condition.null != SHUFFLED:
        return data
    random = np.random.default_rng(seed)
    # each label within the strata of its test: the sex within diagnosis, the diagnosis within sex
    strata = np.array(data.columns["diagnosis" if condition.task is Task.classification else "sex"])
    group = data.group.copy()
    for stratum in np.unique(strata):
        group[strata == stratum] = random.permutation(group[strata == stratum])
    return replace(data, group=group)


def _train(config: ExperimentConfig, data: Dataset) -> SpectralRecorder:
    """The recorder of a network that was trained; it keeps the spectra in memory."""
    recorded = [*range(0, EPOCHS, EVERY), EPOCHS - 1]
    target = config.dataset.target if config.task is Task.classification else None
    model = models.build(config, data.inputs.shape[1:], len(data.classes))
    recorder = SpectralRecorder(
        model,
        groups=data.groups,
        margins=data.margins,
        every=EVERY,
        epochs=EPOCHS,
        permutation_design=_design(config, data, target, recorded),
    )
    samples = Samples(*(torch.from_numpy(values) for values in (data.inputs, data.target, data.group)))
    with recorder:
        rate, seed = config.learning_rate, config.seed
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        training = Training(model, TASKS[config.task], samples, None, recorder, optimizer, None, None, seed)
        for _ in training.epochs_until(EPOCHS):
            pass
    return recorder


def _design(config: ExperimentConfig, data: Dataset, target: str | None, recorded: list[int]) -> PermutationDesign:
    return permutation_design(data, config.introspection, config.dataset.group_by, target, recorded)


def _interval_rows(permutations: PermutationRatios, stage: str) -> Iterator[tuple[str, str, float]]:
    """0 where the interval of the first layer's effect excludes 0, and else 1."""
    layer, pair = next(iter(permutations.ratios)), permutations.pairs[0]
    low, high = interval(distances(_at(permutations, STAGES[stage]), layer, pair, "permutation").deviations)
    yield "interval of the effect without 0", stage, float(low <= 0 <= high)


def _plain_rows(data: Dataset, config: ExperimentConfig) -> Iterator[tuple[str, str, float]]:
    """The p of the tests of the inputs."""
    design = _design(config, data, None, [0])
    for row in plain_tests(subject_inputs(data, design), design.pairs).to_dict("records"):
        yield str(row["test"]), "data", float(row["p"])


def _permutations(recorder: SpectralRecorder, pairs: tuple[Pair, ...]) -> PermutationRatios:
    """What a file would hold of the permuted pairs."""
    table = recorder.table
    floats = {
        layer: {name: table[permutation_field(layer, name).path].astype(np.float32) for name in PERMUTATION_RATIOS}
        for layer in recorder.layers
    }
    loss = table[PERMUTATION_LOSS.path].astype(np.float32)
    epochs = np.array(table.permutation_epochs)
    subjects, strata = np.zeros((len(pairs), 2), dtype=np.int64), ("",) * len(pairs)
    return PermutationRatios(epochs, pairs, subjects, strata, {}, "", floats, loss)


def _permutation_rows(permutations: PermutationRatios, stage: str) -> Iterator[tuple[str, str, float]]:
    """The p of each inferential test, and the smallest family-wise one."""
    # of the first layer and pair; finer tests late only, and over all epochs the primary test alone
    at_stage = _at(permutations, STAGES[stage])
    for test in TESTS if stage != WHOLE else ("permutation",):
        of_layers = [distances(at_stage, layer, pair, test) for layer in at_stage.ratios for pair in permutations.pairs]
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
    return replace(permutations, epochs=permutations.epochs[epochs], ratios=ratios, loss=loss)


def _paper_rows(recorder: SpectralRecorder, pair: Pair) -> Iterator[tuple[str, str, float]]:
    """The paper's tests of the first layer: of the first and last epoch, and of σ₁ over all epochs."""
    table, layer = recorder.table, "hidden.0"
    places = [recorder.grouping.names.index(name) for name in pair]
    raw = [table[f"layers/{layer}/gradient"][:, place].astype(np.float64) for place in places]
    floor = [table[f"layers/{layer}/floor/gradient"][:, place, None].astype(np.float64) for place in places]
    weight = [table["groups/weight"][:, place, None].astype(np.float64) for place in places]
    kept = (raw[0] > floor[0]) & (raw[1] > floor[1])
    for test, scale in (("paper", (1.0, 1.0)), ("paper_scaled", weight)):
        a, b = raw[0] / scale[0], raw[1] / scale[1]
        over_indices, over_epochs = (student(a, b, kept, axis)[2] for axis in (1, 0))
        yield f"{test} per epoch", "early", float(over_indices[0])
        yield f"{test} per epoch", "late", float(over_indices[-1])
        yield f"{test} per index", "all epochs", float(over_epochs[0])


def _shift(covariate: CovariateConfig, unequal: bool) -> CovariateConfig:
    return replace(covariate, shift=SHIFT if unequal else 0.0)
