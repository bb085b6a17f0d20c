"""The networks that the statements are about, trained small and recorded, and what is kept of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from autospec.analysis.comparison import compare
from autospec.analysis.nan_statistics import Floats
from autospec.analysis.permutation import permutation_tests
from autospec.experiments import CONF
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.config.schema import ExperimentConfig
from autospec.experiments.validation.recorded import load_quietly, record_run
from autospec.store.groups import Pair
from autospec.store.permutations import PermutationRatios
from autospec.store.read import load_spectra
from autospec.store.schema import ALL, GRADIENT

EPOCHS, EVERY = 30, 2
AE, CLASSIFIER = "task=autoencoding", "task=classification"
MEN: Pair = ("HC/men", "SZ/men")
DIAGNOSIS: Pair = ("HC", "SZ")

NETWORKS: dict[str, tuple[str, ...]] = {
    "mnist mlp": ("dataset=mnist", "architecture=mlp", "width=16", "dataset.per_digit=40"),
    "mnist cnn2d": ("dataset=mnist", "architecture=cnn2d", "width=4", "dataset.per_digit=20"),
    "sinusoid rnn": ("dataset=sinusoid", "architecture=rnn", "width=16", "dataset.per_class=15"),
    "freesurfer mlp": ("dataset=freesurfer", "architecture=mlp", "width=16"),
    "cobre lstm": ("dataset=cobre_timeseries", "architecture=lstm", "width=8", "dataset.time_points=12"),
    "cobre bert": ("dataset=cobre_timeseries", "architecture=bert", "width=8", "dataset.time_points=12"),
    "cobre cnn1d": ("dataset=cobre_timeseries", "architecture=cnn1d", "width=8", "dataset.time_points=16"),
    "cobre cnn3d": ("dataset=cobre_maps", "architecture=cnn3d", "width=4", "dataset.resolution_mm=20"),
}
"""By name the overrides of each: the paper's data sets and architectures (table 2), smaller."""
WITH_SIGMOID = ("mnist cnn2d", "cobre lstm", "cobre cnn1d", "cobre cnn3d")
"""Networks that statements compare with tanh and with sigmoid activations."""
PAIRS = {"freesurfer mlp": DIAGNOSIS, "cobre lstm": MEN, "cobre bert": MEN, "cobre cnn1d": MEN}
"""The pair of groups that statements speak of, by network."""
PERMUTATIONS = 99

Variant = tuple[str, str, str]
"""Network, task and activation."""


def variants(networks: Sequence[str] = tuple(NETWORKS)) -> Iterator[Variant]:
    """List the runs of a seed.

    Args:
        networks: Some of ``NETWORKS``.

    Yields:
        Network, task and activation.
    """
    for network in networks:
        yield network, "autoencoder", "relu"
        yield network, "classifier", "relu"
        if network in WITH_SIGMOID:
            yield network, "autoencoder", "tanh"
            yield network, "autoencoder", "sigmoid"


@dataclass(frozen=True)
class LayerRecord:
    """What is kept of a layer: log2 of the whole batch's scaled singular values, and of their floor.

    Attributes:
        value: (record, index) log2 σ; NaN where σ is zero.
        floor: (record,) log2 of the noise floor.
        ratio: (record, index) log2 ratio of the pair's groups; NaN where they cannot be compared, empty without a pair.
    """

    value: Floats
    floor: Floats
    ratio: Floats = field(default_factory=lambda: np.empty((0, 0)))

    @property
    def above(self) -> Floats:
        """(record, index) log2 σ; NaN below the floor."""
        return np.where(self.value > self.floor[:, None], self.value, np.nan)


@dataclass(frozen=True)
class RunRecord:
    """What is kept of a run.

    Attributes:
        layers: By name, from input to output.
        tests: Tests of the pair, one row per layer and test; empty without any.
        permutations: What they were made from; None without any.
    """

    layers: dict[str, LayerRecord]
    tests: pd.DataFrame = field(default_factory=pd.DataFrame)
    permutations: PermutationRatios | None = None


SeedRecord = dict[Variant, RunRecord]


def record_seed(seed: int, networks: Sequence[str], overrides: Sequence[str] = ()) -> SeedRecord:
    """Train every variant of some networks with one seed, of network and, where they are simulated, of the data.

    Args:
        seed: The seed.
        networks: Some of ``NETWORKS``.
        overrides: Further overrides of FreeSurfer runs, such as a user's own table.

    Returns:
        What is kept of each run.
    """
    return {variant: _record(variant, seed, overrides) for variant in variants(networks)}


def variant_config(variant: Variant, seed: int, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Compose the configuration of a run.

    Args:
        variant: Network, task and activation.
        seed: Of network and data.
        overrides: Further overrides of FreeSurfer runs.

    Returns:
        The configuration.
    """
    network, task, activation = variant
    of_network = [*NETWORKS[network], AE if task == "autoencoder" else CLASSIFIER, f"activation={activation}"]
    of_network += [f"seed={seed}", f"epochs={EPOCHS}", f"introspection.every={EVERY}"]
    if network == "freesurfer mlp":
        of_network += overrides
    if "mnist" not in network:
        of_network.append(f"dataset.seed={seed}")
    if network in PAIRS and (task, activation) == (
        "autoencoder",
        "relu",
    ):  # the only ones whose p is valid and asked for
        pair = ",".join(PAIRS[network])
        of_network += [f"introspection.permutations={PERMUTATIONS}", f"introspection.permutation_pairs=[[{pair}]]"]
        of_network += ["introspection.permutation_epochs=4"]
    return check_config(compose_config(CONF, of_network))


def _record(variant: Variant, seed: int, overrides: Sequence[str]) -> RunRecord:
    config = variant_config(variant, seed, overrides)
    spectra = load_spectra(record_run(config, load_quietly(config)).path)
    pair = PAIRS.get(variant[0])
    permutations, tests = spectra.permutations, pd.DataFrame()
    if pair is not None and permutations is not None and pair in permutations.pairs:
        tests = permutation_tests([permutations], spectra.layers, [pair])
    ratios = {}
    frame = spectra.to_frame(GRADIENT)
    if pair is not None:
        ratios = {one.layer: one.log_ratio() for one in compare(frame, [pair])}
    whole = frame[frame["group"] == ALL]
    layers = {
        str(name): _layer(of_layer, ratios.get(str(name))) for name, of_layer in whole.groupby("layer", sort=False)
    }
    return RunRecord(layers, tests, permutations)


def _layer(whole: pd.DataFrame, ratio: Floats | None) -> LayerRecord:
    with np.errstate(divide="ignore"):
        value = np.log2(whole.pivot(index="epoch", columns="index", values="scaled").to_numpy())
        floor = np.log2(whole.groupby("epoch")["scaled_floor"].first().to_numpy())
    value[~np.isfinite(value)] = np.nan
    return LayerRecord(value, floor) if ratio is None else LayerRecord(value, floor, ratio)
