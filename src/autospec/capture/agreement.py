"""Whether two ways to run a network come to the same: the conditions they are compared under, and the comparison."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map

from autospec.capture.copies import sharing
from autospec.errors import AutoSpecError


class Unsplittable(AutoSpecError):
    """A model whose group gradients cannot be had in some way."""


TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
"""The largest difference between two ways to compute the same, relative to its norm."""
HALF_TOLERANCE = 0.05
"""The same where half precision takes part."""
WITHIN_NETWORK = 1e-3
"""The share of the tolerance that holds relative to the largest gradient of the network, for those that vanish."""


FAILURES = (RuntimeError, TypeError, ValueError, IndexError, KeyError, AttributeError, AssertionError)
"""What a model raises that is given what it was not made for."""


def tolerance_of(dtype: torch.dtype, autocast: bool = False) -> float:
    """How far two ways to compute the same may be apart, relative to its norm."""
    return HALF_TOLERANCE if autocast else TOLERANCE.get(dtype, HALF_TOLERANCE)


def difference(value: Tensor, expected: Tensor, at_least: float = 0.0) -> float:
    """‖value − expected‖ relative to ‖expected‖, or to ``at_least`` where that is larger; infinity where shapes differ.

    NaN and infinity agree with themselves.
    """
    if value.shape != expected.shape:
        return float("inf")
    if not expected.is_floating_point() and not expected.is_complex():
        return 0.0 if torch.equal(value, expected) else float("inf")
    value, expected = value.detach(), expected.detach()
    apart = (value - expected).where(value != expected, 0.0).where(~(value.isnan() & expected.isnan()), 0.0)
    scale = max(float(torch.linalg.vector_norm(expected.nan_to_num(posinf=0, neginf=0).abs())), at_least)
    norm = float(torch.linalg.vector_norm(apart.abs()))
    return 0.0 if norm == 0 else norm / max(scale, 1e-30)


def trained(output: Any) -> list[Tensor]:
    """The tensors of an output that a backward pass can begin at."""
    return [leaf for leaf in tree_flatten(output)[0] if isinstance(leaf, Tensor) and leaf.requires_grad]


def seeds_of(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Adjoints to begin a backward pass with, no two entries alike."""
    return [
        torch.cos(torch.arange(output.numel(), device=output.device)).reshape(output.shape).to(output.dtype)
        for output in outputs
    ]


def weight_gradients(outputs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor | None]:
    """The gradients of some weights for the adjoints of ``seeds_of``; nothing is added to ``weight.grad``."""
    if not outputs:
        return [None] * len(weights)
    return [dense(found) for found in torch.autograd.grad(outputs, weights, seeds_of(outputs), allow_unused=True)]


def dense(gradient: Tensor | None) -> Tensor | None:
    """A gradient with its zeros, which that of a sparse embedding leaves out."""
    return gradient.to_dense() if gradient is not None and gradient.is_sparse else gradient


@contextlib.contextmanager
def random_state_kept(leaves: Sequence[Any]) -> Iterator[None]:
    """A context after which the random state of the CPU and of the leaves' GPUs is what it was."""
    devices = {leaf.device for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_cuda}
    with torch.random.fork_rng(devices=sorted(devices, key=str)):
        yield


@contextlib.contextmanager
def without_dropout(model: nn.Module, by_mode: bool = False) -> Iterator[None]:
    """A context in which dropout modules and rates are off; ``by_mode``: every module is out of training besides.

    What a module does in training alone (a norm by the batch's mean) shows without ``by_mode`` only; functions that
    draw random numbers in training are quiet with it only.
    """
    modes = [(module, module.training) for module in model.modules()]
    rated: list[Any] = [module for module, _ in modes if isinstance(vars(module).get("dropout"), float)]
    rates = [(module, module.dropout) for module in rated]
    recurrent = {id(module) for module, _ in modes if isinstance(module, nn.RNNBase)}
    try:
        for module, training in modes:
            is_quiet = by_mode or isinstance(module, nn.modules.dropout._DropoutNd)
            module.training = training and (id(module) in recurrent or not is_quiet)
        for module, _ in rates:
            module.dropout = 0.0  # a GPU's recurrent kernel has no backward pass outside training
        yield
    finally:
        for module, training in modes:
            module.training = training
        for module, rate in rates:
            module.dropout = rate


def leaf_copies(model: nn.Module) -> dict[int, nn.Parameter]:
    """Parameters of the same memory whose gradients and hooks are their own, by the ids of the model's."""
    return {id(weight): nn.Parameter(weight.detach(), weight.requires_grad) for weight in model.parameters()}


@contextlib.contextmanager
def other_parameters(model: nn.Module, others: Mapping[int, Tensor]) -> Iterator[None]:
    """A context in which tensors stand in for a model's parameters, by their ids, wherever these are."""
    places = [
        (module._parameters, name, parameter)
        for module in model.modules()
        for name, parameter in module._parameters.items()
        if parameter is not None and id(parameter) in others
    ]
    try:
        for holder, name, parameter in places:
            holder[name] = others[id(parameter)]  # type: ignore[assignment]
        yield
    finally:
        for holder, name, parameter in places:
            holder[name] = parameter
        for module in model.modules():
            if isinstance(module, nn.RNNBase):
                module._update_flat_weights()


def float64_twin(model: nn.Module) -> nn.Module | None:
    """A copy of the model in float64, in which rounding is out of the question; None where it cannot be copied."""
    try:
        with sharing():
            return copy.deepcopy(model).double()
    except (RuntimeError, TypeError, ValueError, AttributeError, NotImplementedError):
        return None


def in_float64(leaf: Any) -> Any:
    """A tensor of real numbers in float64, cut off from its graph; anything else as it is."""
    return leaf.detach().double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf


def cut_off(tree: Any) -> Any:
    """Arguments of a call whose tensors are leaves: a trial backward pass must not run into what was before."""
    return tree_map(
        lambda leaf: leaf.detach().requires_grad_(leaf.requires_grad) if isinstance(leaf, Tensor) else leaf, tree
    )


def autocast_eps(model: nn.Module) -> float:
    """The spacing of the numbers that autocast computes in; 0 where it is off."""
    device = next(model.parameters()).device.type
    return torch.finfo(torch.get_autocast_dtype(device)).eps if torch.is_autocast_enabled(device) else 0.0
