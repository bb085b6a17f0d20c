"""Whether a configuration can run: every problem at once, each naming its key, its value and what is allowed.

The range of a single value stands in its type (``schema``); here is what several values have to do with one another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields, is_dataclass
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from autospec.errors import AutoSpecError
from autospec.experiments.config.grid import ARCHITECTURES_OF
from autospec.experiments.config.messages import explain
from autospec.experiments.config.pairs import pair_mistakes
from autospec.experiments.config.schema import Activation, Architecture, CustomConfig, ExperimentConfig
from autospec.experiments.config.targets import TARGET, load_extensions
from autospec.spectra.settings import mistakes, tolerance_mistake


def check_config(config: DictConfig | ExperimentConfig) -> ExperimentConfig:
    """Return a configuration as a typed object that can run, as far as can be told without the data.

    Args:
        config: as Hydra composes it, or typed already.

    Raises:
        AutoSpecError: one line for every key without a value, or else for every value that is not allowed.
    """
    experiment = config if isinstance(config, ExperimentConfig) else _as_object(config)
    load_extensions(experiment.extensions)  # what they register can be asked for
    # the type of a data set's own keys is known by its object, not by the schema of the whole
    lines = [*mistakes(ExperimentConfig, asdict(experiment))]
    lines += mistakes(type(experiment.dataset), asdict(experiment.dataset), "dataset.")
    lines += _contradictions(experiment)
    if lines:
        raise AutoSpecError("\n".join(dict.fromkeys(lines)))
    return experiment


def as_yaml(config: ExperimentConfig) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config), resolve=True)


def _as_object(config: DictConfig) -> ExperimentConfig:
    """A configuration as an object of the schema, every key with a value."""
    try:
        experiment: Any = OmegaConf.to_object(_add_schema(config))
    except OmegaConfBaseException as error:
        raise AutoSpecError(explain(error)) from error
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


def _add_schema(config: DictConfig) -> DictConfig:
    """A configuration that carries the schema, which Hydra's do already."""
    if OmegaConf.get_type(config) is ExperimentConfig:
        return config
    values = {entry.name: config[entry.name] for entry in fields(ExperimentConfig)}
    return OmegaConf.merge(OmegaConf.structured(ExperimentConfig), values)  # type: ignore[return-value]


def _contradictions(config: ExperimentConfig) -> Iterator[str]:
    """Values that are allowed each for itself, but not together."""
    introspection = config.introspection
    if introspection.engine != "hooks" and introspection.statistics != ["gradient"]:
        given = f"introspection.statistics={introspection.statistics}"
        yield f"{given}: engine={introspection.engine} knows [gradient] only"
    if introspection.engine != "hooks" and introspection.permutations:
        given = f"introspection.permutations={introspection.permutations}"
        yield f"{given}: engine={introspection.engine} does not know single samples"
    if not introspection.permutations and (introspection.omnibus or introspection.covariates):
        key = "omnibus=true" if introspection.omnibus else f"covariates={introspection.covariates}"
        yield f"introspection.{key}: needs introspection.permutations, such as 1000"
    if introspection.engine != "hooks" and config.processes > 1:
        yield f"processes={config.processes}: engine={introspection.engine} is for one process; allowed is hooks"
    if config.batch_size is not None and 1 <= config.batch_size < config.processes:
        yield f"processes={config.processes}: more than batch_size={config.batch_size} samples; each needs one"
    yield from _parts(config)
    mistake = tolerance_mistake(introspection.tolerance, introspection.leading, introspection.statistics)
    if mistake:
        yield f"introspection.{mistake}"
    yield from pair_mistakes("figure.pairs", config.figure.pairs)
    yield from pair_mistakes("introspection.permutation_pairs", introspection.permutation_pairs or ())
    if isinstance(config.dataset, CustomConfig) or config.architecture is Architecture.custom:
        return  # whether they fit, only a run can tell
    architectures = ARCHITECTURES_OF.get(config.dataset.name, ())
    if config.architecture.value not in architectures:
        yield (
            f"architecture={config.architecture.value} does not take dataset={config.dataset.name}; "
            f"allowed there: {', '.join(architectures)}"
        )


def _parts(config: ExperimentConfig) -> Iterator[str]:
    """What is wrong with parts that somebody else wrote, as far as can be told without them."""
    for key in ("network", "nonlinearity", "loss", "optimizer", "schedule"):
        node = getattr(config, key)
        if (node or key == "optimizer") and not isinstance(node.get(TARGET), str):
            yield f"{key}: has no {TARGET}; {key}.{TARGET}=package.name says what it is"
    for key, own, choice in (
        ("network", config.network, config.architecture),
        ("nonlinearity", config.nonlinearity, config.activation),
    ):
        name = "architecture" if key == "network" else "activation"
        if choice.value == "custom" and not own:
            yield f"{name}=custom: +{key}.{TARGET}=package.name says which"
        if own and choice.value != "custom":
            yield f"{key}: acts with {name}=custom alone, and this is {name}={choice.value}"
    if config.activation is Activation.custom and config.architecture in (Architecture.rnn, Architecture.bert):
        yield f"activation=custom: architecture={config.architecture.value} takes relu, tanh and sigmoid alone"
