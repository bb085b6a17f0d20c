"""A planted shortcut, and how often it is found: sex stands in the inputs, and goes with the diagnosis to be learned.

Of 80 simulated subjects three in four patients are men and three in four controls women, and every volume of men is
``d`` standard deviations larger than that of women. A classifier of the diagnosis can learn the sex instead. Sex is no
label that it is given, so the labels of men and women are permuted, within controls and within patients, at fixed
weights; without the shortcut (``d = 0``) the test is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from autospec.analysis.permutation import permutation_tests
from autospec.experiments.config.schema import (
    ExperimentConfig,
    FreesurferConfig,
    PeopleConfig,
    SexesConfig,
    Task,
)
from autospec.experiments.validation.rates import clopper_pearson
from autospec.experiments.validation.recorded import load_quietly, record_run

D, SUBJECTS = 0.8, 80
TISSUES = ("subcortical", "cortex", "white", "cerebellum", "fluid", "callosum", "trace")
PAIRS = (("HC/men", "HC/women"), ("SZ/men", "SZ/women"))
"""One family: whom the shortcut serves against whom it misleads, in controls and in patients."""
EPOCHS, EVERY, PERMUTED, PERMUTATIONS = 30, 6, 6, 199
"""Later the networks know each subject by heart, and no gradient is left that tells men from women."""
ALPHA = 0.05
NETWORK = ["dataset=freesurfer", "architecture=mlp", "width=128", "activation=relu"]
"""The perceptron of figure 4, four times as wide: a wide one depends less on its initialisation."""
INITIALISATIONS, FURTHER_SEED = 3, 1_000_000_000
"""Networks of one study, whose distances are averaged as those of ``figure.seeds`` are."""
COLUMNS = {
    "d": "How far men lie above women in every input, in standard deviations; 0 is no shortcut.",
    "test": "permutation: the primary test, the smallest p_family of a study; the others say what it is made of.",
    "rate": "The share of studies with p_family up to alpha: power, or false positives at d = 0.",
    "low": "Lower end of its exact (Clopper-Pearson) 95 % interval.",
    "high": "Upper end of that interval.",
    "alpha": "The level.",
    "subjects": "Subjects in a study.",
    "runs": "Studies, each with subjects, network and permutations of its own.",
}


@dataclass(frozen=True)
class Shortcut:
    """A kind of study.

    Attributes:
        d: How far men lie above women in every input, in standard deviations.
        subjects: Half of them patients; a multiple of eight.
    """

    d: float = D
    subjects: int = SUBJECTS

    def config(self, base: ExperimentConfig, seed: int) -> ExperimentConfig:
        """Return the configuration of one study.

        Args:
            base: The configuration of a perceptron on FreeSurfer volumes.
            seed: The seed of subjects, network and permutations.

        Returns:
            The configuration; ``autospec run`` would take the same values.
        """
        assert isinstance(base.dataset, FreesurferConfig)
        many, few = 3 * self.subjects // 8, self.subjects // 8
        dataset = replace(
            base.dataset,
            seed=seed,
            group_by=["diagnosis", "sex"],
            people=PeopleConfig(HC=SexesConfig(men=few, women=many), SZ=SexesConfig(men=many, women=few)),
            # sex stands in every value alike, and in nothing else
            sex_effects=dict.fromkeys(TISSUES, self.d),
            effect=0.0,  # nothing but the shortcut tells the diagnosis
        )
        introspection = replace(
            base.introspection,
            every=EVERY,
            permutations=PERMUTATIONS,
            permutation_epochs=PERMUTED,
            permutation_pairs=[list(pair) for pair in PAIRS],
            permutation_seed=seed,
        )
        return replace(
            base, dataset=dataset, introspection=introspection, task=Task.classification, seed=seed, epochs=EPOCHS
        )


def shortcut_study(kind: Shortcut, base: ExperimentConfig, seed: int) -> dict[str, float]:
    """Make one study: simulate subjects, train classifiers of the diagnosis, test men against women.

    Args:
        kind: The kind of study.
        base: The configuration of a perceptron on FreeSurfer volumes.
        seed: The seed of everything.

    Returns:
        By test the smallest family-wise p over layers and pairs; tests that are not made here are left out.
    """
    config = kind.config(base, seed)
    data = load_quietly(config)
    runs = [record_run(replace(config, seed=seed + place * FURTHER_SEED), data) for place in range(INITIALISATIONS)]
    permutations = [spectra.permutations for spectra in runs]
    tests = permutation_tests(permutations, runs[0].layers, list(PAIRS), finer=False)
    smallest = tests.groupby("test", sort=False)["p_family"].min().dropna()
    return {str(test): float(p) for test, p in smallest.items()}


def shortcut_rates(studies: pd.DataFrame) -> pd.DataFrame:
    """Count how often each test finds the shortcut.

    Args:
        studies: Columns d, subjects, test, p: a row for each study and test.

    Returns:
        A row for each d and test, with the columns of ``COLUMNS``.
    """
    return pd.DataFrame(_rates(studies), columns=list(COLUMNS))


def _rates(studies: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for (d, subjects, test), rows in studies.groupby(["d", "subjects", "test"], sort=False):
        # a share of 1 + P partitions, such as 10/200: rounding must not decide
        significant, runs = int(np.sum(rows["p"] <= ALPHA + 1e-9)), len(rows)
        low, high = clopper_pearson(significant, runs, 0.95)
        row: dict[str, Any] = {"d": d, "test": test, "rate": significant / runs, "low": low, "high": high}
        yield row | {"alpha": ALPHA, "subjects": subjects, "runs": runs}
