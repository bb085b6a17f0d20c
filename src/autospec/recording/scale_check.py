"""A GradScaler that the recorder was not told of, found by what it leaves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from autospec.capture.layers import Layer
from autospec.errors import AutoSpecError
from autospec.recording.averaged_check import AveragedCheck
from autospec.recording.gradient_check import GradientCheck

SMALLEST_SCALE = 1024.0
"""A smaller ratio may be a gradient that was divided on purpose."""

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
        self._handles: list[RemovableHandle] = []
        self._found = 0.0
        self._is_wanted = wanted
        self._averaged: AveragedCheck | None = None
        check.remembers = wanted

    def begin(self) -> None:
        """A batch begins: the steps that follow are noticed."""
        if not self._handles:
            self._handles.append(register_optimizer_step_pre_hook(self._before_step))
            self._handles.append(register_optimizer_step_post_hook(self._after_step))

    def end(self) -> None:
        """Notice no more steps."""
        while self._handles:
            self._handles.pop().remove()

    def also_averaged(self, averaged: AveragedCheck | None) -> None:
        """Show the gradients of the first steps to what compares them with those of other processes."""
        self._averaged = averaged
        self._left_to_see, self._check.remembers = STEPS, True

    @property
    def is_undecided(self) -> bool:
        """Whether no step has been seen yet that would tell."""
        return self._left_to_see == STEPS and self._is_wanted

    def raise_if_found(self) -> None:
        """AutoSpecError where a scale was found."""
        if self._found:
            raise AutoSpecError(
                f"the optimizer gets 1/{self._found:.0f} of the gradients that backward left: a GradScaler multiplied "
                "the loss, and so what was recorded; give it to the recorder, SpectralRecorder(..., scaler=scaler)"
            )

    def _before_step(
        self, optimizer: torch.optim.Optimizer, arguments: Any, keywords: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        watched = self._watched(optimizer)
        if not watched:
            return None
        self._check.stepping([self._layers[id(parameter)] for parameter in watched])
        if self._left_to_see:
            self._left_to_see -= 1
            ratios = [self._ratio(parameter) for parameter in watched] if self._is_wanted else []
            self._found = next((ratio for ratio in ratios if ratio), 0.0)
            if self._averaged is not None:
                gradients = {self._layers[id(p)].name: p.grad for p in watched if p.grad is not None}
                self._averaged.stepping(self._check.left, gradients)
            if not self._left_to_see:
                self._check.remembers = False
                self._check.left.clear()
        if not self._check.is_open:
            self.end()
            return None
        return self._counting(optimizer, arguments, keywords)

    def _counting(
        self, optimizer: torch.optim.Optimizer, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The arguments of a step with a closure that counts its evaluations; None without a closure."""
        closure = keywords.get("closure", arguments[1] if len(arguments) > 1 else None)
        if not callable(closure):
            return None

        def counted() -> Any:
            with self._check.evaluating(id(optimizer)):
                return closure()

        if "closure" in keywords:
            return arguments, {**keywords, "closure": counted}
        return (arguments[0], counted, *arguments[2:]), keywords

    def _after_step(self, optimizer: torch.optim.Optimizer, arguments: Any, keywords: Any) -> None:
        watched = self._watched(optimizer)
        if watched:
            self._check.stepped([self._layers[id(parameter)] for parameter in watched])

    def _watched(self, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        return [p for group in optimizer.param_groups for p in group["params"] if id(p) in self._layers]

    def _ratio(self, parameter: Tensor) -> float:
        """The power of two by which what backward left is larger than the gradient now; 0 where there is none."""
        left = self._check.left.get(self._layers[id(parameter)].name)
        if left is None or parameter.grad is None or parameter.grad.is_sparse:
            return 0.0
        now = parameter.grad.detach().double()
        left = left.view_as(now)
        square = float(now.square().sum())
        if not math.isfinite(square) or square == 0.0:
            return 0.0
        ratio = float((left * now).sum()) / square
        is_same = float((left - ratio * now).norm()) <= 1e-3 * float(left.norm())
        is_power = ratio >= SMALLEST_SCALE and abs(math.log2(ratio) - round(math.log2(ratio))) < 1e-3
        return ratio if is_same and is_power else 0.0
