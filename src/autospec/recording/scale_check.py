"""A GradScaler that the recorder was not told of, found by what it leaves."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from autospec.capture.layers import Layer
from autospec.capture.pieces import is_piece
from autospec.recording.averaged_check import AveragedCheck
from autospec.recording.gradient_check import GradientCheck
from autospec.recording.unknown_scale import power_of_two, refuse_scale

STEPS = 3
"""How many optimizer steps are looked at."""


class ScaleCheck:
    """Compares what backward left with what the optimizer gets: a power of two between them is a GradScaler's.

    Args:
        layers: the watched weights.
        wanted: whether to look at all; not where the recorder knows the scaler.
        check: told of every step.
    """

    def __init__(self, layers: Sequence[Layer], wanted: bool, check: GradientCheck) -> None:
        self._layers = {id(layer.parameter): layer for layer in layers}
        self._check = check
        self._left_to_see = STEPS if wanted else 0
        self._found = 0.0
        self._is_wanted = wanted
        self._averaged: AveragedCheck | None = None
        check.remembers = wanted

    def begin(self) -> None:
        """A batch begins: the steps that follow are noticed."""
        _hear_steps()
        _NOTICING.add(self)

    def end(self) -> None:
        """Notice no more steps."""
        _NOTICING.discard(self)

    def also_averaged(self, averaged: AveragedCheck) -> None:
        """Show the gradients of the first steps to what compares them with those of other processes."""
        self._averaged = averaged
        if averaged is not None:
            averaged.is_scale_known = not self._is_wanted
        self._left_to_see, self._check.remembers = STEPS, True

    @property
    def is_undecided(self) -> bool:
        """Whether no step has been seen yet that would tell."""
        return self._left_to_see == STEPS and self._is_wanted

    def raise_if_found(self) -> None:
        """AutoSpecError where a scale was found."""
        refuse_scale(self._found)

    def before_step(
        self, optimizer: torch.optim.Optimizer, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """An optimizer's step begins; the arguments that it is to have instead of its own, or None."""
        watched = self._watched(optimizer)
        if not watched:
            return None
        self._check.stepping([self._layers[id(parameter)] for parameter in watched])
        closure = keywords.get("closure", arguments[1] if len(arguments) > 1 else None)
        if not callable(closure):
            self._look(watched)
        if not self._check.is_open:
            self.end()
            return None
        return self._counting(optimizer, closure, arguments, keywords) if callable(closure) else None

    def _look(self, watched: Sequence[Tensor]) -> None:
        """Hold what backward left against the gradients of the first steps: before a step, or after its closure."""
        if not self._left_to_see:
            return
        self._left_to_see -= 1
        ratios = [self._ratio(parameter) for parameter in watched] if self._is_wanted else []
        self._found = next((ratio for ratio in ratios if ratio), 0.0)
        if self._averaged is not None:
            gradients = {self._layers[id(p)].name: p.grad for p in watched if p.grad is not None}
            self._averaged.stepping(self._check.left, gradients)
            for parameter in watched:  # of a weight in pieces, nothing else tells that the next gradient begins
                if is_piece(parameter):
                    self._check.left.pop(self._layers[id(parameter)].name, None)
        if not self._left_to_see:
            self._check.remembers = False
            self._check.left.clear()

    def _counting(
        self,
        optimizer: torch.optim.Optimizer,
        closure: Callable[[], Any],
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a step with a closure that counts its evaluations."""

        def counted() -> Any:
            with self._check.evaluating(id(optimizer)):
                return closure()

        if "closure" in keywords:
            return arguments, {**keywords, "closure": counted}
        return (arguments[0], counted, *arguments[2:]), keywords

    def after_step(
        self, optimizer: torch.optim.Optimizer, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> None:
        """An optimizer's step is over."""
        watched = self._watched(optimizer)
        if watched:
            if callable(keywords.get("closure", arguments[1] if len(arguments) > 1 else None)):
                self._look(watched)
            self._check.stepped([self._layers[id(parameter)] for parameter in watched])

    def _watched(self, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        return [p for group in optimizer.param_groups for p in group["params"] if id(p) in self._layers]

    def _ratio(self, parameter: Tensor) -> float:
        """The power of two by which what backward left is larger than the gradient now; 0 where there is none."""
        left = self._check.left.get(self._layers[id(parameter)].name)
        if left is None or parameter.grad is None or parameter.grad.is_sparse or is_piece(parameter):
            return 0.0
        now = parameter.grad.detach().double()
        left = left.view_as(now)
        square = float(now.square().sum())
        if not math.isfinite(square) or square == 0.0:
            return 0.0
        ratio = float((left * now).sum()) / square
        is_same = float((left - ratio * now).norm()) <= 1e-3 * float(left.norm())
        return power_of_two(ratio) if is_same else 0.0


_NOTICING: weakref.WeakSet[ScaleCheck] = weakref.WeakSet()
"""The checks that are told of steps. Torch runs hooks in a loop in which none may be taken away, so ours stay."""


@functools.cache
def _hear_steps() -> None:
    """Hear of every optimizer's steps from now on."""
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)


def _before_step(optimizer: torch.optim.Optimizer, arguments: Any, keywords: Any) -> Any:
    replaced = None
    for check in list(_NOTICING):
        replaced = check.before_step(optimizer, *(replaced or (arguments, keywords))) or replaced
    return replaced


def _after_step(optimizer: torch.optim.Optimizer, arguments: Any, keywords: Any) -> None:
    for check in list(_NOTICING):
        check.after_step(optimizer, arguments, keywords)
