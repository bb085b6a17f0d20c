"""What the sites of ``ranks.on_ranks`` do, and the same training with all samples in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autospec import AutoSpecError
from autospec.sites import WAYS, Choice, SiteTraining

SITES = ["Ames", "Bern", "Cluj"]
PEOPLE = [16, 19, 24]
STEPS = 4


def network(dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(3)
    layers = [nn.Linear(30, 64), nn.Tanh(), nn.LayerNorm(64), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 60)]
    return nn.Sequential(*layers).to(dtype)


def samples(site: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(site)
    return torch.randn(PEOPLE[site], 30, generator=generator, dtype=dtype) + site / 5


def labels(site: int) -> Tensor:
    return (torch.arange(PEOPLE[site]) % 4 == 0).long()  # of 16, 19, 24 people: 4, 5, 6 in the second group


def losses_of(model: nn.Module, inputs: Tensor) -> Tensor:
    return (model(inputs) - inputs.repeat(1, 2)).square().mean(1)


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: weight.grad.clone() for name, weight in model.named_parameters()}


def central(dtype: torch.dtype = torch.float64, steps: int = STEPS) -> list[dict[str, Tensor]]:
    """The gradients of every step, all samples in one place, and the gradients of each site's part of them."""
    model, inputs = network(dtype), torch.cat([samples(site, dtype) for site in range(3)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for _ in range(steps):
        optimizer.zero_grad()
        losses_of(model, inputs).mean().backward()
        found.append(gradients_of(model))
        optimizer.step()
    return found


def train_every_way(rank: int, size: int, folder: Path, dtype: torch.dtype) -> dict[str, dict[str, Any]]:
    """Train once each way: gradients and weights of every step, what was sent, and the file."""
    return {way: _train(rank, folder / f"{way}_{rank}.h5", way, dtype) for way in WAYS}


def _train(rank: int, path: Path, way: str, dtype: torch.dtype, **others: Any) -> dict[str, Any]:
    model = network(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    statistics = ("gradient", "activation", "adjoint") if way == "dad" else ("gradient",)
    sites = SiteTraining(model, SITES, PEOPLE[rank], path, choice=Choice(way, rank=4), statistics=statistics, **others)
    gradients, weights = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        weights.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
        with sites.batch(PEOPLE[rank]):
            losses_of(model, samples(rank, dtype)).mean().backward()
        gradients.append(gradients_of(model))
        optimizer.step()
        sites.end_epoch(loss=0.0)
    sites.close()
    return {"gradients": gradients, "weights": weights, "sent": sites.exchange.sent_bytes}


def situations(rank: int, size: int, folder: Path) -> dict[str, str]:
    """What a site is told when something does not fit, and the groups that are recorded."""
    found = {}
    for name, situation in SITUATIONS.items():
        try:
            found[name] = situation(rank, folder)
        except AutoSpecError as error:
            found[name] = str(error)
    return found


def _groups(rank: int, folder: Path) -> list[str]:
    """Groups within sites: those of fewer than five people are not told apart."""
    model = network()
    people = [int((labels(rank) == group).sum()) for group in range(2)]
    sites = SiteTraining(model, SITES, people, folder / f"groups_{rank}.h5", groups=["HC", "SZ"], min_group=5)
    for _ in range(2):
        with sites.batch(PEOPLE[rank], labels(rank)):
            losses_of(model, samples(rank)).mean().backward()
        sites.end_epoch()
    sites.close()
    return sites.recorder.spectra.group_names


def _inputs(rank: int, folder: Path) -> tuple[int, int]:
    """What is sent where inputs may be told, and where not."""
    sent = []
    for share in (False, True):
        model = network()
        sites = SiteTraining(model, SITES, PEOPLE[rank], choice=Choice("dad", share_inputs=share))
        with sites.batch(PEOPLE[rank]):
            losses_of(model, samples(rank)).mean().backward()
        sent.append(sites.exchange.sent_bytes)
    return sent[0], sent[1]


def _drift(rank: int, folder: Path) -> None:
    model = network()
    with torch.no_grad():
        model[0].weight += 0.1 * (rank == 1)
    sites = SiteTraining(model, SITES, PEOPLE[rank])
    with sites.batch(PEOPLE[rank]):
        losses_of(model, samples(rank)).mean().backward()


def _mini_batches(rank: int, folder: Path) -> float:
    """Batches of unequal size, one of them empty, accumulated before a step."""
    model = network()
    sites = SiteTraining(model, SITES, PEOPLE[rank])
    for part in samples(rank).split([8, PEOPLE[rank] - 8] if rank else [0, 16]):
        with sites.batch(len(part)):
            if len(part):
                losses_of(model, part).mean().backward()
    return float(sum(weight.grad.square().sum() for weight in model.parameters()))


SITUATIONS = {
    "no factors": lambda rank, folder: SiteTraining(network(), SITES, 20, way="gradient", statistics=["activation"]),
    "unknown way": lambda rank, folder: SiteTraining(network(), SITES, 20, way="peer"),
    "two sites": lambda rank, folder: SiteTraining(network(), SITES[:2], 20),
    "a small site": lambda rank, folder: SiteTraining(network(), SITES, [20, 14, 20][rank]),
    "other counts": lambda rank, folder: SiteTraining(network(), SITES, [20, 30], groups=["a", "b", "c"]),
    "no layer": lambda rank, folder: SiteTraining(nn.LayerNorm(3), SITES, 20),
    "groups": _groups,
    "inputs": _inputs,
    "drift": _drift,
    "mini-batches": _mini_batches,
}
