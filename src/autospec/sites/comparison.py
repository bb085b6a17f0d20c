"""The three ways side by side: three simulated sites as three processes train one model, each way once."""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from autospec.sites.cohort import simulated_cohort
from autospec.sites.contribution import Choice
from autospec.sites.cost import message_bytes
from autospec.sites.parts import WAYS
from autospec.sites.training import SiteTraining

PEOPLE: Mapping[str, int] = {"A": 48, "B": 33, "C": 22}
LAYERS = {"0": (256, 66), "2": (256, 256), "4": (256, 256), "6": (2, 256)}
"""The exchanged layers of ``network`` and the shapes of their matrices."""


@dataclass(frozen=True)
class Plan:
    """What is compared: how many steps, the rank of rank-dAD, the folder for files and table, float64 or float32."""

    folder: Path
    steps: int = 40
    every: int = 4
    rank: int = 8
    dtype: torch.dtype = torch.float64
    limit_s: int = 300


COLUMNS = {
    "way": "what is exchanged: gradients, triangles of the factors (dAD), leading directions (rank-dAD)",
    "formula_bytes": "bytes that all sites send in a step, by formula",
    "sent_bytes": "bytes of all buffers that were handed to the sockets in a step, by all sites",
    "wire_bytes": "bytes that the loopback device carried in a step, with the headers of TCP and IP; NaN where it "
    "carries other traffic",
    "exchange_s": "seconds in a step for compressing, sending, waiting and pooling, mean of the sites",
    "processor_s": "seconds of the processor in the same, mean of the sites",
    "error": "largest relative difference of a pooled gradient from the one of all samples in one place, over steps "
    "and layers",
    "bound": "largest bound on it that was sent, relative in the same way; 0 for exact ways",
    "within": "share of steps and layers in which the difference is within the bound, or, for exact ways, below 1e-10",
}
"""What each column of the table means."""


def network(dtype: torch.dtype) -> nn.Module:
    """A perceptron of three hidden layers of 256."""
    torch.manual_seed(314159)
    hidden = [nn.Linear(66, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh(), nn.Linear(256, 256), nn.Tanh()]
    return nn.Sequential(*hidden, nn.Linear(256, 2)).to(dtype)


def compare(plan: Plan, is_alone: bool = False) -> pd.DataFrame:
    """Train each way with three processes, and say what each sent, how long it took and how far off it was.

    Files ``<way>_<site>.h5`` are written to the plan's folder.

    Args:
        plan: what is compared.
        is_alone: whether nothing else uses the loopback device, so that what it carries is these sites' alone.

    Returns:
        One row per way, with the columns of ``COLUMNS``.
    """
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        arguments = [(site, Path(folder), plan, is_alone) for site in range(len(PEOPLE))]
        processes = [context.Process(target=_run_site, args=each, daemon=True) for each in arguments]
        for process in processes:
            process.start()
        for process in processes:
            process.join(plan.limit_s)
        results = [torch.load(Path(folder) / f"{site}.pt", weights_only=False) for site in range(len(PEOPLE))]
    return pd.DataFrame([_row(way, [own[way] for own in results], plan) for way in WAYS], columns=list(COLUMNS))


def _row(way: str, of_sites: Sequence[Mapping[str, Any]], plan: Plan) -> dict[str, Any]:
    others = sum(shape[0] for shape in LAYERS.values())
    settings: dict[str, Any] = {"rank": plan.rank, "as_gradient": ["0"], "itemsize": plan.dtype.itemsize}
    formula = sum(
        message_bytes(LAYERS, dict.fromkeys(LAYERS, people), others, way, **settings) for people in PEOPLE.values()
    )
    errors, bounds = np.array(of_sites[0]["errors"]), np.array(of_sites[0]["bounds"])
    return {
        "way": way,
        "formula_bytes": (len(PEOPLE) - 1) * formula,
        "sent_bytes": sum(own["sent"] for own in of_sites) / plan.steps,
        "wire_bytes": of_sites[0]["wire"] / plan.steps,
        "exchange_s": float(np.mean([own["seconds"] for own in of_sites])) / plan.steps,
        "processor_s": float(np.mean([own["processor"] for own in of_sites])) / plan.steps,
        "error": errors.max(),
        "bound": bounds.max(),
        "within": (errors <= np.maximum(bounds, 1e-10)).mean(),
    }


def _run_site(site: int, folder: Path, plan: Plan, is_alone: bool) -> None:
    """One site's process: each way in turn."""
    import torch.distributed as dist

    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), len(PEOPLE))  # type: ignore[attr-defined]
    dist.init_process_group("gloo", store=store, rank=site, world_size=len(PEOPLE), timeout=timedelta(seconds=120))
    torch.save({way: _train(site, way, plan, is_alone) for way in WAYS}, folder / f"{site}.pt")
    dist.barrier()
    dist.destroy_process_group()


def _train(site: int, way: str, plan: Plan, is_alone: bool) -> dict[str, Any]:
    """Train one way at one site; the first also compares with all samples in one place, since they are simulated."""
    import torch.distributed as dist

    name, cohort = list(PEOPLE)[site], simulated_cohort(PEOPLE)
    inputs, targets = _tensors(cohort[cohort["site"] == name], plan.dtype)
    model, reference, everyone = network(plan.dtype), network(plan.dtype), _tensors(cohort, plan.dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    path = plan.folder / f"{way}_{name}.h5"
    training = SiteTraining(
        model,
        list(PEOPLE),
        PEOPLE[name],
        path,
        choice=Choice(way, plan.rank),
        every=plan.every,
        epochs=plan.steps,
        overwrite=True,
        attributes={"simulated": True, "source": "a simulated cohort of three sites"},
    )
    loss_of, errors, bounds = nn.CrossEntropyLoss(), [], []
    dist.barrier()
    carried = _loopback_bytes()
    for _ in range(plan.steps):
        optimizer.zero_grad()
        reference.load_state_dict(model.state_dict())
        with training.batch(len(inputs)):
            loss = loss_of(model(inputs), targets)
            loss.backward()
        if site == 0:
            errors += _errors(model, reference, loss_of, everyone)
            bounds += _relative(training.left_out, model)
        optimizer.step()
        training.end_epoch(loss=loss.item())
    dist.barrier()
    wire = _loopback_bytes() - carried if is_alone else float("nan")
    training.close()
    return {
        "sent": training.exchange.sent_bytes,
        "wire": wire,
        "seconds": training.exchange_s,
        "processor": training.processor_s,
        "errors": errors,
        "bounds": bounds,
    }


def _tensors(people: pd.DataFrame, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    features = people.drop(columns=["site", "diagnosis"]).to_numpy()
    return torch.tensor(features).to(dtype), torch.tensor(people["diagnosis"].to_numpy())


def _errors(model: nn.Module, reference: nn.Module, loss_of: nn.Module, everyone: tuple[Tensor, Tensor]) -> list[float]:
    """How far each layer's pooled gradient is from that of all samples in one place, relative to its norm."""
    reference.zero_grad()
    loss_of(reference(everyone[0]), everyone[1]).backward()
    errors = []
    for layer in LAYERS:
        pooled, whole = (_gradient(one, layer) for one in (model, reference))
        errors.append(float((pooled - whole).norm() / whole.norm()))
    return errors


def _gradient(model: nn.Module, layer: str) -> Tensor:
    gradient = model.get_parameter(f"{layer}.weight").grad
    assert gradient is not None
    return gradient.double()


def _relative(left_out: Mapping[str, float], model: nn.Module) -> list[float]:
    norms = {layer: float(_gradient(model, layer).norm()) for layer in LAYERS}
    # the pooled gradient's norm is off by no more than the bound itself
    return [left_out[layer] / max(norms[layer] - left_out[layer], 1e-300) for layer in LAYERS]


def _loopback_bytes() -> float:
    """How many bytes the loopback device of this network namespace has carried; NaN where that is not told."""
    if sys.platform != "linux":
        return float("nan")
    lines = Path("/proc/self/net/dev").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.strip().startswith("lo:")))
