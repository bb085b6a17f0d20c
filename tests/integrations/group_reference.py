"""The slow reference of every integration: each group's own gradient, from a copy of the network, call by call."""

from __future__ import annotations

import copy

import torch
from references import full_spectrum
from torch import Tensor, nn


class OwnGradients:
    """Adds up what the samples of each group alone add to the gradient of a network's first weights.

    ``share`` is what a batch's mean loss is multiplied by as a whole.
    """

    def __init__(self, groups: int = 2) -> None:
        self.groups = groups
        self.records: list[tuple[dict[str, list[Tensor]], Tensor]] = []
        self.begin()

    def begin(self) -> None:
        self.gradients: dict[str, list[Tensor]] = {}
        self.weight = torch.zeros(self.groups, dtype=torch.float64)

    def end(self) -> None:
        self.records.append((self.gradients, self.weight))
        self.begin()

    def add(self, net: nn.Module, sample_losses, labels: Tensor, share=1.0, items: Tensor | None = None) -> None:
        """``sample_losses(net)`` (n,): each sample's loss summed over its ``items``, which are 1 each by default."""
        items = torch.ones(len(labels)).double() if items is None else items.double()
        for group in range(self.groups):
            alone = copy.deepcopy(net)
            alone.zero_grad()
            chosen = labels == group
            (sample_losses(alone)[chosen].sum() / items.sum() * share).backward()
            self.weight[group] += float(items[chosen].sum() / items.sum()) * share
            for name, parameter in alone.named_parameters():
                if parameter.dim() < 2 or parameter.grad is None:
                    continue
                sums = self.gradients.setdefault(name, [torch.zeros(()).double() for _ in range(self.groups)])
                sums[group] = sums[group] + parameter.grad.detach().double().flatten(1)


def is_close(spectra, own: OwnGradients, prefix: str = "", tolerance: float = 1e-4, names=None) -> bool:
    """Whether raw and scaled spectra of every record are those of the groups' own gradients."""
    assert len(spectra.epochs) == len(own.records)
    for place, (gradients, weight) in enumerate(own.records):
        assert spectra.weight.values[place, 1 : 1 + own.groups].tolist() == [
            _approximately(float(value)) for value in weight
        ]
        for name, of_groups in gradients.items():
            if names is not None and name not in names:
                continue
            layer = (prefix + name).removesuffix(".weight")
            for group, gradient in enumerate(of_groups):
                expected = full_spectrum(gradient)
                found = spectra[layer]["gradient"].values[place, 1 + group]
                scaled = spectra.scaled(layer).values[place, 1 + group]
                assert abs(found - expected).max() <= tolerance * max(expected[0], 1e-12), (place, layer, group)
                wanted = expected / float(weight[group])
                assert abs(scaled - wanted).max() <= tolerance * max(wanted[0], 1e-12), (place, layer, group)
    return True


def _approximately(value: float):
    import pytest

    return pytest.approx(value, rel=1e-6)
