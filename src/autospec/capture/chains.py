"""Chains of linear layers with nothing between them, where a bottleneck bounds the ranks of all layers' gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from torch import nn


def chain_bounds(model: nn.Module) -> dict[int, int]:
    """What the other layers of a linear chain leave of the rank of each weight's gradient.

    A chain is made of linear layers that follow one another in an ``nn.Sequential``, ``nn.Identity`` at most between
    them; each is used there alone. With ``h_j = W_j h_{j-1} + b_j`` the rows of ``A`` of a layer are affine in every
    earlier ``h_j``, so that its rank is at most the width of ``h_j``, and one more where a bias comes in between; the
    rows of ``Δ`` are linear in those of every later layer. Listed are the layers whose own sides do not bound it as
    sharply. A nonlinearity breaks a chain: the next begins after it. It holds for one backward pass.

    Args:
        model: the model.

    Returns:
        The bound of each layer's gradient, by the id of its weight.
    """
    uses = _uses(model)
    bounds: dict[int, int] = {}
    for sequential in _outermost(model):
        for chain in _chains(list(_flat(sequential)), uses):
            bounds |= {id(layer.weight): bound for layer, bound in _bounds(chain)}
    return bounds


def _bounds(chain: list[nn.Linear]) -> Iterator[tuple[nn.Linear, int]]:
    """The layers of a chain that another one bounds more sharply than their own sides do."""
    for place, layer in enumerate(chain):
        earlier = [
            # the offset that biases make is one direction more
            other.in_features + any(between.bias is not None for between in chain[start:place])
            for start, other in enumerate(chain[:place])
        ]
        bound = min([*earlier, *(other.out_features for other in chain[place + 1 :])], default=layer.in_features)
        if bound < min(layer.in_features, layer.out_features):
            yield layer, bound


def _chains(modules: list[nn.Module], uses: Counter[int]) -> list[list[nn.Linear]]:
    """The longest stretches of linear layers, identities taken out."""

    def is_linear(module: nn.Module) -> bool:
        alone = uses[id(module)] == 1 and all(uses[id(p)] == 1 for p in module.parameters())
        return type(module) is nn.Linear and alone

    stretches = groupby((module for module in modules if type(module) is not nn.Identity), is_linear)
    return [[layer for layer in stretch if isinstance(layer, nn.Linear)] for linear, stretch in stretches if linear]


def _flat(sequential: nn.Module) -> Iterator[nn.Module]:
    """The modules that a Sequential runs, those of Sequentials inside of it in their place."""
    for child in sequential._modules.values():
        if type(child) is nn.Sequential:
            yield from _flat(child)
        elif child is not None:
            yield child


def _outermost(model: nn.Module) -> Iterator[nn.Module]:
    """The Sequentials that are not themselves a part of one."""
    inside = {
        id(child) for module in model.modules() if type(module) is nn.Sequential for child in module._modules.values()
    }
    yield from (module for module in model.modules() if type(module) is nn.Sequential and id(module) not in inside)


def _uses(model: nn.Module) -> Counter[int]:
    """How often each module and each parameter is a part of a module of the model."""
    return Counter(
        id(part)
        for module in model.modules()
        for part in (*module._modules.values(), *module._parameters.values())
        if part is not None
    )
