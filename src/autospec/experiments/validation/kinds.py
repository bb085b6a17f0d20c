"""Kinds of studies: what makes their data null, who is in them, and the configuration of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

from autospec.experiments.config.schema import (
    CovariateConfig,
    ExperimentConfig,
    FreesurferConfig,
    PeopleConfig,
    SexesConfig,
    Task,
)
from autospec.store.groups import Pair

EPOCHS, EVERY, PERMUTED = 24, 4, 6
"""Epochs of training, every how many spectra are taken, and at how many of those labels are permuted."""
WIDE = 32
"""The width of networks that are fed with residuals, whose leverage matters most in wide ones and many volumes."""
PERMUTATIONS, RETRAININGS = 199, 19
SHUFFLED, NO_EFFECT = "shuffled labels", "effect zero"
WITHIN_SEXES = "effect zero, two pairs within sexes"
RETRAINED = "effect zero, trained classes, retrained"
UNEQUAL, ADJUSTED = "effect zero, unequal age and motion", "effect zero, unequal age and motion, residualized"
SPREAD = "effect zero, covariates of unequal spread taken out"
REPEATED = "effect zero, one or three samples a subject"
SEXES = "effect zero, unequal shares of sex"
VISITS = "effect zero, two visits of each subject"
FOUR_GROUPS, AGE = "effect zero, four groups at once", "effect zero, age"
SHIFT = 0.5
"""How far patients lie above controls in age and motion where those are unequal, in SD."""
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
    what it learns. Within sexes there are two disjoint pairs, controls and patients of each sex, in one family; all
    four are tested at once as well, and age within groups.

    Attributes:
        null: Why there is nothing to find in it, by one of the names above.
        sizes: The subjects in the groups that are compared.
        task: What the network learns.
        effect: The factor of every diagnosis effect.
    """

    null: str
    sizes: tuple[int, ...]
    task: Task = Task.autoencoding
    effect: float = 0.0

    @property
    def groups(self) -> str:
        """The sizes, as tables name them."""
        return ":".join(map(str, self.sizes))

    @property
    def of_sexes(self) -> bool:
        """Whether men are compared with women, not controls with patients."""
        return self.task is Task.classification and self.null != RETRAINED

    @property
    def has_paper(self) -> bool:
        """Whether the paper's tests are counted as well, which are descriptive."""
        return self.null in (SHUFFLED, NO_EFFECT) and not self.effect

    @property
    def by_sex(self) -> bool:
        """Whether men and women are groups of their own."""
        return self.of_sexes or self.null in (WITHIN_SEXES, FOUR_GROUPS)

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """The pairs that are compared, in one family."""
        if self.null == WITHIN_SEXES:
            return ("HC/men", "SZ/men"), ("HC/women", "SZ/women")
        if self.null == FOUR_GROUPS:
            return (("HC/men", "SZ/men"),)
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
            group_by=["diagnosis", "sex"] if self.by_sex else ["diagnosis"],
            # sex must say nothing about the data where men are compared with women, and age where it is asked of
            sex_effects={} if self.of_sexes or self.null == FOUR_GROUPS else base.dataset.sex_effects,
            age_effects={} if self.null == AGE else base.dataset.age_effects,
            age=_shift(base.dataset.age, unequal),
            motion=_shift(base.dataset.motion, unequal),
            residualize=["age", "motion"] if self.null == ADJUSTED else [],
        )
        introspection = replace(
            base.introspection,
            every=EVERY,
            permutations=RETRAININGS if self.null == RETRAINED else PERMUTATIONS,
            permutation_epochs=PERMUTED,
            permutation_pairs=[list(pair) for pair in self.pairs],
            permutation_seed=seed,
            omnibus=self.null == FOUR_GROUPS,
            covariates=["age"] if self.null == AGE else [],
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
        if self.null == FOUR_GROUPS:
            men, women, other_men, other_women = self.sizes
            return PeopleConfig(HC=SexesConfig(men=men, women=women), SZ=SexesConfig(men=other_men, women=other_women))
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


def _shift(covariate: CovariateConfig, unequal: bool) -> CovariateConfig:
    return replace(covariate, shift=SHIFT if unequal else 0.0)
