"""Whether a configuration can run: every problem at once, each naming its key, its value and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autospec.errors import AutoSpecError
from autospec.experiments.config.grid import ARCHITECTURES_OF
from autospec.experiments.config.messages import explained
from autospec.experiments.config.schema import ExperimentConfig
from autospec.store.schema import STATISTIC_NAMES

ENGINES = ("hooks", "fast", "per_group", "passes", "fused")
FORMER_ENGINES = ("aliased",)
FEWEST_PERMUTATIONS = 19
FIGURE_TESTS = ("permutation", "paper")
LARGEST = {"width": 1_000_000, "depth": 1_000, "epochs": 10_000_000, "threads": 1_024}
"""Beyond any use: a slip of the finger, which would end in a crash."""


def checked(config: DictConfig | ExperimentConfig) -> ExperimentConfig:
    """The configuration as a typed object; AutoSpecError listing everything that is wrong with its values."""
    experiment = config if isinstance(config, ExperimentConfig) else _as_object(config)
    problems = list(_problems(experiment))
    if problems:
        raise AutoSpecError("\n".join(problems))
    return experiment


def as_yaml(config: ExperimentConfig) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def _as_object(config: DictConfig) -> ExperimentConfig:
    try:
        experiment: Any = OmegaConf.to_object(_typed(config))
    except OmegaConfBaseException as error:
        raise AutoSpecError(explained(error)) from error
    assert isinstance(experiment, ExperimentConfig)
    if missing := list(_without_value(experiment)):
        raise AutoSpecError("\n".join(f"{key}: has no value; {key}=... gives it one" for key in missing))
    return experiment


def _without_value(node: Any, prefix: str = "") -> Iterator[str]:
    """The keys of a configuration node that are left open."""
    for entry in fields(node):
        value = getattr(node, entry.name)
        if is_dataclass(value):
            yield from _without_value(value, f"{prefix}{entry.name}.")
        elif value == MISSING:
            yield prefix + entry.name


def _typed(config: DictConfig) -> DictConfig:
    """A configuration that knows the schema, which Hydra's do already."""
    if OmegaConf.get_type(config) is ExperimentConfig:
        return config
    known = {entry.name: config[entry.name] for entry in fields(ExperimentConfig)}
    return OmegaConf.merge(OmegaConf.structured(ExperimentConfig), known)  # type: ignore[return-value]


def _problems(config: ExperimentConfig) -> Iterator[str]:
    yield from _range_problems(config)
    yield from _dataset_problems(config)
    yield from _introspection_problems(config)
    yield from _figure_problems(config)
    allowed = ARCHITECTURES_OF.get(config.dataset.name, ())
    if config.architecture.value not in allowed:
        yield (
            f"architecture={config.architecture.value} does not take dataset={config.dataset.name}; "
            f"allowed there: {', '.join(allowed)}"
        )


def _range_problems(config: ExperimentConfig) -> Iterator[str]:
    for key, largest in LARGEST.items():
        value = getattr(config, key)
        if value < 1:
            yield f"{key}={value}: must be 1 or more"
        elif value > largest:
            yield f"{key}={value}: must be at most {largest}"
    if not 0 < config.learning_rate < float("inf"):
        yield f"learning_rate={config.learning_rate}: must be above 0 and finite"
    if config.batch_size is not None and config.batch_size < 1:
        yield f"batch_size={config.batch_size}: must be 1 or more, or null for the full batch"
    if config.checkpoint_s is not None and not config.checkpoint_s >= 0:
        yield f"checkpoint_s={config.checkpoint_s}: must be 0 or more, or null"
    seeds = {"seed": config.seed, "dataset.holdout_seed": config.dataset.holdout_seed}
    if hasattr(config.dataset, "seed"):
        seeds["dataset.seed"] = config.dataset.seed
    for key, seed in seeds.items():
        if not 0 <= seed < 2**63:
            yield f"{key}={seed}: must be between 0 and 2^63 - 1"
    if not config.output_dir:
        yield "output_dir: must name a folder"


def _dataset_problems(config: ExperimentConfig) -> Iterator[str]:
    if not 0 <= config.dataset.holdout < 1:
        yield f"dataset.holdout={config.dataset.holdout}: must be at least 0 and below 1"
    if not config.dataset.group_by:
        yield "dataset.group_by: must name at least one column"


def _introspection_problems(config: ExperimentConfig) -> Iterator[str]:
    introspection = config.introspection
    if introspection.every < 1:
        yield f"introspection.every={introspection.every}: must be 1 or more"
    if introspection.directions < 1:
        yield f"introspection.directions={introspection.directions}: must be 1 or more"
    for key in ("leading", "bins"):
        value = getattr(introspection, key)
        if value is not None and value < 1:
            yield f"introspection.{key}={value}: must be 1 or more, or null"
    yield from _permutation_problems(config)
    unknown = [name for name in introspection.statistics if name not in STATISTIC_NAMES]
    if unknown or not introspection.statistics:
        yield (
            f"introspection.statistics={introspection.statistics}: "
            f"{'unknown ' + unknown[0] if unknown else 'empty'}; allowed are {', '.join(STATISTIC_NAMES)}"
        )
    if introspection.engine != "hooks" and introspection.statistics != ["gradient"]:
        given = f"introspection.statistics={introspection.statistics}"
        yield f"{given}: engine={introspection.engine} knows [gradient] only"
    if introspection.engine not in (*ENGINES, *FORMER_ENGINES):
        yield f"introspection.engine={introspection.engine}: allowed are {', '.join(ENGINES)}"


def _figure_problems(config: ExperimentConfig) -> Iterator[str]:
    if config.figure.tests not in FIGURE_TESTS:
        yield f"figure.tests={config.figure.tests}: allowed are {', '.join(FIGURE_TESTS)}"
    yield from _pair_problems("figure.pairs", config.figure.pairs)


def _permutation_problems(config: ExperimentConfig) -> Iterator[str]:
    introspection = config.introspection
    for key, least in (("permutations", 0), ("permutation_epochs", 1), ("permutation_seed", 0)):
        value = getattr(introspection, key)
        if value < least:
            yield f"introspection.{key}={value}: must be {least} or more"
    if 0 < introspection.permutations < FEWEST_PERMUTATIONS:
        yield (
            f"introspection.permutations={introspection.permutations}: with fewer than {FEWEST_PERMUTATIONS} no p can "
            "reach 0.05; 0 is no test"
        )
    if introspection.permutations and introspection.engine != "hooks":
        yield (
            f"introspection.permutations={introspection.permutations}: engine={introspection.engine} does not know "
            "single samples"
        )
    yield from _pair_problems("introspection.permutation_pairs", introspection.permutation_pairs or ())


def _pair_problems(key: str, pairs: Sequence[Sequence[str]]) -> Iterator[str]:
    for pair in pairs:
        if len(pair) != 2 or pair[0] == pair[1]:
            yield f"{key}: {pair} is not a pair of two groups"
