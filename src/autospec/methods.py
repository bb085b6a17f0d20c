"""A paragraph on how a run was made and tested, fit for the methods section of a paper."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from autospec.analysis.distances import CANCELLED
from autospec.errors import AutoSpecError
from autospec.store.null import NullSpectra, read_null
from autospec.store.read import Spectra, open_spectra

TASKS = {"autoencoding": "autoencoder", "classification": "classifier"}


def methods_paragraph(folder: Path) -> str:
    """The paragraph of a run folder; AutoSpecError where it holds no spectra or they name no configuration."""
    spectra = open_spectra(folder / "spectra.h5")
    config: Any = OmegaConf.to_container(OmegaConf.create(str(spectra.attributes.get("config", ""))))
    if "architecture" not in config:
        raise AutoSpecError(f"{folder}: the spectra name no configuration; it was not made by run.py")
    null = read_null(spectra.path, spectra.layers)
    return " ".join([_data(spectra, config), _training(spectra, config), _recording(config), _testing(null)])


def _data(spectra: Spectra, config: dict[str, Any]) -> str:
    sizes = spectra.groups[~spectra.groups["margin"]].set_index("group")["size"]
    people = ", ".join(f"{name} {size:.0f}" for name, size in sizes.items() if name != "all")
    made = "Simulated data" if spectra.simulated else "Data"
    taken_out = config["dataset"].get("residualize") or []
    out = f"; the linear effect of {', '.join(taken_out)} was taken out of every value" if taken_out else ""
    return (
        f"{made} ({spectra.attributes.get('source', 'of unknown source')}) of {sizes['all']:.0f} people or samples "
        f"({people}) were scaled ({config['dataset']['scaling']}){out}."
    )


def _training(spectra: Spectra, config: dict[str, Any]) -> str:
    batch = "the full batch" if config["batch_size"] is None else f"batches of {config['batch_size']}"
    last = spectra.training.iloc[-1]
    learned = f" of {config['dataset']['target']}" if config["task"] == "classification" else ""
    return (
        f"A network of type {config['architecture']} (width {config['width']}, depth {config['depth']}, "
        f"{config['activation']}) was trained as {TASKS[config['task']]}{learned} for {config['epochs']} epochs with "
        f"Adam (learning rate {config['learning_rate']:g}, {batch}, seed {config['seed']}; PyTorch "
        f"{spectra.attributes.get('torch_version', '')}) to a training loss of {last['training_loss']:.4g}."
    )


def _recording(config: dict[str, Any]) -> str:
    every = config["introspection"]["every"]
    when = "At every epoch" if every == 1 else f"At every {every}th epoch"
    return (
        f"{when} the weight gradient of each layer was split into the parts that the groups contribute, each divided "
        "by its group's weight in the loss (the group's mean gradient), and its singular values were taken; those "
        "below the noise floor of rounding or beyond the rank bound were left out (AutoSpec)."
    )


def _testing(null: NullSpectra | None) -> str:
    if null is None or not null.pairs:
        reasons = sorted(set(null.refused.values())) if null else ["the run recorded no relabelled partitions"]
        return f"Groups were not tested: {'; '.join(reasons)}."
    pairs = ", ".join(f"{a} and {b}" for a, b in null.pairs)
    strata = sorted({name for text in null.strata for name in text.split(", ") if name})
    within = f" within {' and '.join(strata)}" if strata else ""
    return (
        f"{pairs} were compared by {null.permutations} permutations of the labels of people{within} at fixed weights, "
        f"at {len(null.epochs)} epochs. The statistic of a layer is the mean, over indices and epochs, of the squared "
        "log-ratio of singular values, studentised over all partitions; p is the share of partitions with as large a "
        "value, and family-wise p compares the largest over layers and pairs. Finer tests are exploratory "
        "(Benjamini-Hochberg). Epochs at which the groups' gradients cancel "
        f"(‖∇a + ∇b‖ below {CANCELLED:g} of ‖∇a‖ + ‖∇b‖) were left out. A difference is an association with the label."
    )
