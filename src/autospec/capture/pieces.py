"""Weights of which each process holds a piece (``torch.distributed.fsdp.fully_shard``).

Inside a forward or backward pass a module holds its whole weight, another tensor than the parameter that an optimizer
has; autograd adds to that one, and the averaged gradient comes to the parameter in pieces, past autograd.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def is_piece(tensor: Tensor | None) -> bool:
    """Whether a tensor is a DTensor; torch's module of these takes seconds to load, and is looked at where it is."""
    tensors = sys.modules.get("torch.distributed.tensor")
    return tensors is not None and isinstance(tensor, tensors.DTensor)


def own_piece(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor: all of it, but for a DTensor; nothing is sent."""
    if not is_piece(tensor):
        return tensor
    with torch.no_grad():
        return tensor.to_local()  # type: ignore[attr-defined]


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor; of a DTensor every process must ask for it at once."""
    return tensor.full_tensor() if is_piece(tensor) else tensor  # type: ignore[attr-defined]


def sharded_modules(model: nn.Module) -> list[Any]:
    """The modules of a model that ``fully_shard`` was called on."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    kind = getattr(fsdp, "FSDPModule", None)
    return [] if kind is None else [module for module in model.modules() if isinstance(module, kind)]


@contextlib.contextmanager
def held_whole(model: nn.Module) -> Iterator[None]:
    """A context in which every module holds its whole weights, and backward passes send nothing.

    Every process must enter it at once; what each does inside is its own.
    """
    modules = sharded_modules(model)
    units = [unit for module in modules for unit in _units(module)]
    before = [(unit.reduce_grads, unit.all_reduce_grads, unit.reshard_after_backward) for unit in units]
    in_pieces = [module for module in modules if any(unit.is_sharded for unit in _units(module))]
    try:
        for module in modules:
            module.unshard()
            module.set_requires_gradient_sync(False, recurse=False)
            module.set_reshard_after_backward(False, recurse=False)
        yield
    finally:
        for unit, (reduces, all_reduces, reshards) in zip(units, before, strict=True):
            unit.reduce_grads, unit.all_reduce_grads, unit.reshard_after_backward = reduces, all_reduces, reshards
        for module in in_pieces:
            module.reshard()


def divide_factor(model: nn.Module) -> float | None:
    """What ``set_gradient_divide_factor`` has the sum over processes divided by; None where it was not called."""
    factors = {unit.gradient_divide_factor for module in sharded_modules(model) for unit in _units(module)}
    return next((factor for factor in factors if factor is not None), None)


def _units(module: Any) -> list[Any]:
    """What ``fully_shard`` keeps of the weights that one call gathers together; torch's own, of no public name."""
    state = module._get_fsdp_state()
    several = getattr(state, "_fsdp_param_groups", None)
    if several is None:  # before torch 2.13
        several = [] if state._fsdp_param_group is None else [state._fsdp_param_group]
    return list(several)
