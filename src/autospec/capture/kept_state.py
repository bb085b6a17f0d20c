"""What a forward pass leaves in a model beside its output: put back after passes that are not training's own."""

from __future__ import annotations

import contextlib
import copy
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

_OF_TORCH = frozenset({*vars(nn.Module()), "forward"})
"""Attributes that every module has, and where another forward may stand in."""


@contextlib.contextmanager
def state_kept(model: nn.Module) -> Iterator[list[str]]:
    """A context after which buffers and plain attributes are what they were.

    Its value then names the buffers that were changed, and the numbers among the attributes (counters).
    """
    changed: list[str] = []
    with attributes_kept(model) as counters:
        before = [(name, buffer, buffer.clone()) for name, buffer in model.named_buffers()]
        try:
            yield changed
        finally:
            now = dict(model.named_buffers())
            for name, buffer, values in before:
                # a version would not tell: batch norm's kernel moves its statistics without a new one
                if now.get(name) is not buffer or not torch.equal(buffer, values):
                    changed.append(name)
                    owner, _, last = name.rpartition(".")
                    with torch.no_grad():
                        buffer.copy_(values)
                    model.get_submodule(owner)._buffers[last] = buffer
    changed += counters


@contextlib.contextmanager
def attributes_kept(model: nn.Module) -> Iterator[list[str]]:
    """A context after which the plain attributes of all modules are what they were; its value names changed numbers."""
    before = [
        (name, module, {key: (value, _copied(value)) for key, value in vars(module).items() if _is_plain(key)})
        for name, module in model.named_modules()
    ]
    changed: list[str] = []
    try:
        yield changed
    finally:
        for name, module, values in before:
            now = vars(module)
            for key in [key for key in now if _is_plain(key) and key not in values]:
                del now[key]
            for key, (value, copied) in values.items():
                if isinstance(value, (int, float)) and now.get(key) != value:
                    changed.append(f"{name}.{key}".lstrip("."))
                now[key] = value
                _put_back(value, copied)


def _is_plain(key: str) -> bool:
    return key not in _OF_TORCH and not key.startswith("_flat_weight")


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    return copy.copy(value) if isinstance(value, (list, dict, set, deque)) else value


def _put_back(value: Any, copied: Any) -> None:
    """Give a container or a tensor that was changed in place its contents back."""
    if isinstance(value, Tensor):
        if not torch.equal(value, copied):
            value.data.copy_(copied)  # past the version counter: backward may need what it saved
    elif isinstance(value, (list, deque)):
        if len(value) != len(copied) or any(one is not other for one, other in zip(value, copied, strict=True)):
            value.clear()
            value.extend(copied)
    elif isinstance(value, (dict, set)) and value is not copied:
        value.clear()
        value.update(copied)
