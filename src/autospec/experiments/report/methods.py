"""A paragraph for the methods section of a paper: how a run was made and tested."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from autospec.analysis.distances import CANCELLED
from autospec.errors import AutoSpecError
from autospec.experiments.config.targets import TARGET
from autospec.figures.data_facts import (
    adjustment_sentence,
    extent_words,
    imbalance_sentence,
    list_words,
    read_facts,
)
from autospec.store.groups import Pair
from autospec.store.permutations import PermutationRatios
from autospec.store.permuted_pairs import NOT_ASKED
from autospec.store.read import Spectra, open_spectra
from autospec.store.schema import ALL

LEARNED = {"autoencoding": "as an autoencoder (mean squared error)", "classification": "to classify {} (cross-entropy)"}
NETWORKS = {
    "mlp": "multi-layer perceptron",
    "rnn": "recurrent network of Elman cells",
    "lstm": "long short-term memory network",
    "bert": "BERT encoder",
    "cnn1d": "one-dimensional convolutional network",
    "cnn2d": "two-dimensional convolutional network",
    "cnn3d": "three-dimensional convolutional network",
}
ACTIVATIONS = {"relu": "ReLU", "tanh": "tanh", "sigmoid": "sigmoid"}
SCALINGS = {
    "feature": "Each feature was z-scored",
    "person": "Each subject's time-courses were z-scored",
    "global": "Values were z-scored together",
    "unit": "Values were scaled to between 0 and 1",
    "none": "Values were not scaled",
}


def methods_paragraph(folder: Path) -> str:
    """Write the methods paragraph of a run.

    Args:
        folder: The run's folder.

    Returns:
        The paragraph, as one line.

    Raises:
        AutoSpecError: The folder holds no spectra, or they name no configuration.
    """
    spectra = open_spectra(folder / "spectra.h5")
    config: Any = OmegaConf.to_container(OmegaConf.create(str(spectra.attributes.get("config", ""))))
    if "architecture" not in config:
        raise AutoSpecError(f"{folder}: the spectra name no configuration; it was not made by run.py")
    made = [_data(spectra, config), _training(spectra, config), _recording(spectra, config)]
    return " ".join([*made, testing_sentences(spectra.permutations)])


def _data(spectra: Spectra, config: dict[str, Any]) -> str:
    dataset = config["dataset"]
    sizes = spectra.groups[~spectra.groups["margin"]].set_index("group")["size"]
    each = ", ".join(f"{name} {size:.0f}" for name, size in sizes.items() if name != "all")
    unit = "subjects" if "people" in dataset else "samples"
    source = str(spectra.attributes.get("source", "of unknown source"))
    simulated = " (simulated)" if spectra.simulated and "simulated" not in source else ""
    held_out = f"; a share of {dataset['holdout']:g} was held out" if dataset["holdout"] else ""
    text = f"Data were {source}{simulated} of {sizes['all']:.0f} {unit} ({each}){held_out}."
    taken_out = dataset.get("residualize") or []
    out = f", and the linear effect of {list_words(taken_out)} was taken out" if taken_out else ""
    return f"{text} {SCALINGS.get(dataset['scaling'], 'Values were scaled')}{out}.{_facts(spectra)}"


def _facts(spectra: Spectra) -> str:
    """What else makes a cohort's numbers what they are: adjustment, imbalance, how much of the data was used."""
    facts = read_facts(spectra.attributes)
    if facts is None:
        return ""
    pairs = list(combinations([group for group in spectra.group_names if group != ALL], 2))
    used = f"Used were {', '.join(extent_words(facts))}."
    return f" {adjustment_sentence(facts)} {imbalance_sentence(facts, pairs, most=None)} {used}"


def _training(spectra: Spectra, config: dict[str, Any]) -> str:
    batch = "the full batch" if config["batch_size"] is None else f"batches of {config['batch_size']}"
    last = spectra.training.iloc[-1]
    return (
        f"A {_own(config, 'network') or NETWORKS[config['architecture']]} (width {config['width']}, "
        f"depth {config['depth']}, {_own(config, 'nonlinearity') or ACTIVATIONS[config['activation']]}) was trained "
        f"{_learned(config)} for {config['epochs']} epochs with {_own(config, 'optimizer') or 'Adam'} "
        f"(learning rate {config['learning_rate']:g}{_schedule(config)}, {batch}, seed {config['seed']}; PyTorch "
        f"{spectra.attributes.get('torch_version', '')}) to a training loss of {last['training_loss']:.4g}."
    )


def _own(config: dict[str, Any], key: str) -> str:
    """The last word of a ``_target_``, and what it is called with; empty where there is none."""
    node = dict(config.get(key) or {})  # runs of before have no such key
    if TARGET not in node:
        return ""
    name = str(node.pop(TARGET)).rsplit(".", 1)[-1]
    keys = ", ".join(f"{key} {value}" for key, value in node.items())
    return f"{name} [{keys}]" if keys else name


def _learned(config: dict[str, Any]) -> str:
    text = LEARNED[config["task"]].format(config["dataset"]["target"])
    own = _own(config, "loss")
    return text.partition(" (")[0] + f" (loss {own})" if own else text


def _schedule(config: dict[str, Any]) -> str:
    own = _own(config, "schedule")
    return f" with schedule {own}" if own else ""


def _recording(spectra: Spectra, config: dict[str, Any]) -> str:
    every = config["introspection"]["every"]
    when = "At every epoch" if every == 1 else f"Every {every} epochs"
    return (
        f"{when} the weight gradient of each layer was split into the parts that the groups contribute, each part was "
        "divided by its group's weight in the loss, which gives the group's mean gradient, and its singular values "
        f"were taken (AutoSpec {spectra.attributes.get('autospec_version', '')}). Values below the noise floor of "
        "rounding or beyond the rank bound were left out."
    )


def testing_sentences(permutations: PermutationRatios | None) -> str:
    """Say which pairs were tested and how, and which were not and why.

    Args:
        permutations: The run's permutations; None where it recorded none.

    Returns:
        The sentences, as one line.
    """
    if permutations is None:
        return "Groups were not tested: the run recorded no permutations."
    tests = [_describe_tests(permutations)] if permutations.pairs else []
    return " ".join([*tests, *_describe_joint(permutations), *_reasons_untested(permutations)])


def _describe_joint(permutations: PermutationRatios) -> Iterator[str]:
    """What was tested beside pairs, and what was asked for and could not be."""
    omnibus, covariates = permutations.omnibus, permutations.covariates
    if omnibus is not None and omnibus.names:
        yield (
            f"All groups ({', '.join(omnibus.names)}) were tested at once by {omnibus.permutations} permutations of "
            "all labels; the statistic is the mean squared z of each group's log singular values, less their mean over "
            "groups."
        )
    if covariates is not None and covariates.names:
        yield (
            f"{', '.join(covariates.names).capitalize()} of subjects, permuted within groups, was tested by the rank "
            "correlation with what each subject adds to the singular values of the gradient of all."
        )
    refused = [one.refused.items() for one in (omnibus, covariates) if one is not None]
    yield from (f"Not tested: {name} ({reason})." for own in refused for name, reason in own)


def _describe_tests(permutations: PermutationRatios) -> str:
    pairs = "; ".join(f"{a} ({n_a} subjects) and {b} ({n_b})" for (a, b), (n_a, n_b) in _pair_sizes(permutations))
    strata = sorted({name for text in permutations.strata for name in text.split(", ") if name})
    within = f" within {' and '.join(strata)}" if strata else ""
    partitions, epochs = 1 + permutations.permutations, len(permutations.epochs)
    return (
        f"Compared were {pairs}: the labels of subjects were permuted {permutations.permutations} times{within}, and "
        f"the gradients of the permuted groups taken at the same weights at {epochs} epochs. The statistic of a "
        "layer and pair is the squared log-ratio of the groups' singular values, studentised over all partitions, "
        f"averaged over indices and epochs; p is the share of the {partitions} partitions, the observed one "
        "among them, whose statistic is as large, and family-wise p compares with the largest over layers and pairs. "
        "Tests of single epochs and indices are exploratory (Benjamini-Hochberg). Epochs at which the groups' "
        f"gradients cancel (‖∇a + ∇b‖ below {CANCELLED:g} of ‖∇a‖ + ‖∇b‖) were left out. A difference is an "
        "association with the label, which need not be its cause."
    )


def _pair_sizes(permutations: PermutationRatios) -> list[tuple[Pair, tuple[int, int]]]:
    return [(pair, (int(a), int(b))) for pair, (a, b) in zip(permutations.pairs, permutations.subjects, strict=True)]


def _reasons_untested(permutations: PermutationRatios) -> list[str]:
    """Why pairs have no test, each reason once; of pairs that nobody asked for only where there is nothing else."""
    asked = {pair: reason for pair, reason in permutations.refused.items() if reason != NOT_ASKED}
    if not asked and not permutations.pairs:
        asked = dict(permutations.refused)
    pairs: dict[str, list[str]] = {}
    for (a, b), reason in asked.items():
        pairs.setdefault(reason, []).append(f"{a} and {b}")
    return [f"Not tested: {', '.join(names)} ({reason})." for reason, names in pairs.items()]
