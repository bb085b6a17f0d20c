"""Convolutions and transposed convolutions: the gradient by the convolution's own kernel, rows by unfolding."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.grad import conv1d_weight, conv2d_weight, conv3d_weight

from autospec.capture.rules.registry import LayerCall, register_rule
from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors, chosen, squared_norm

ConvolutionLayer = nn.Conv1d | nn.Conv2d | nn.Conv3d
TransposedLayer = nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d

ELEMENTS_AT_ONCE = 2**24
"""The size of the unfolded rows that are made at a time (128 MiB in float64)."""

ELEMENTS_IN_CACHE = 2**17
"""How many entries of an image are weighted at a time, which the processor's cache holds."""

WINDOWS_AT_ONCE = 2**13
"""How many windows the convolution's kernel sums up at a time."""

_WEIGHT_GRADIENT = {1: conv1d_weight, 2: conv2d_weight, 3: conv3d_weight}


@dataclass(frozen=True)
class Geometry:
    """How windows lie on an image: one number per spatial dimension, but for ``groups`` and a padding by name."""

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] | str
    dilation: tuple[int, ...]
    groups: int
    padding_mode: str = "constant"

    @classmethod
    def of_layer(cls, layer: ConvolutionLayer | TransposedLayer) -> Geometry:
        """The geometry of a layer of torch."""
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        return cls(layer.kernel_size, layer.stride, layer.padding, layer.dilation, layer.groups, mode)

    @classmethod
    def of_call(cls, kernel_size: Sequence[int], stride: Any, padding: Any, dilation: Any, groups: Any) -> Geometry:
        """The geometry of a call of ``torch.nn.functional``, None where it leaves an argument out."""
        size = tuple(kernel_size)

        def each(given: Any, default: int) -> tuple[int, ...]:
            given = default if given is None else given
            values = (given,) if isinstance(given, int) else tuple(given)
            return values * len(size) if len(values) == 1 else values

        side = padding if isinstance(padding, str) else each(padding, 0)
        return cls(size, each(stride, 1), side, each(dilation, 1), 1 if groups is None else groups)


@register_rule(nn.Conv1d)
@register_rule(nn.Conv2d)
@register_rule(nn.Conv3d)
def convolution(layer: ConvolutionLayer, call: LayerCall) -> dict[str, GradientFactors]:
    """A row of ``A`` is the padded input under one window, a row of ``Δ`` the adjoint of what the window gave."""
    return {"weight": convolution_factors(Geometry.of_layer(layer), call.activation, call.adjoint)}


@register_rule(nn.ConvTranspose1d)
@register_rule(nn.ConvTranspose2d)
@register_rule(nn.ConvTranspose3d)
def transposed_convolution(layer: TransposedLayer, call: LayerCall) -> dict[str, GradientFactors]:
    """The other way round: a row of ``A`` is one place of the input, a row of ``Δ`` the adjoint of its window."""
    return {"weight": transposed_factors(Geometry.of_layer(layer), call.activation, call.adjoint)}


def convolution_factors(geometry: Geometry, activation: Tensor, adjoint: Tensor) -> ConvolutionFactors:
    """The factors of a convolution.

    Args:
        geometry: where its windows lie.
        activation: (n, channels, *size), the input.
        adjoint: (n, channels, *positions), the derivative by the output.

    Raises:
        AutoSpecError: for an input without a batch dimension.
    """
    _check_batched(geometry, activation)
    return ConvolutionFactors(geometry, activation, adjoint)


def transposed_factors(geometry: Geometry, activation: Tensor, adjoint: Tensor) -> ConvolutionFactors:
    """The factors of a transposed convolution; see ``convolution_factors``."""
    _check_batched(geometry, activation)
    return ConvolutionFactors(replace(geometry, padding_mode="constant"), adjoint, activation, transposed=True)


class ConvolutionFactors(GradientFactors):
    """The factors of a convolution, unfolded only where their rows are asked for.

    With ``image`` the side that windows slide over and ``points`` the side with one place p per window,
    ``∇W[o, i, k] = Σ_p points[o, p] image[i, stride · p + dilation · k]``: (paper, eq. 1) with the windows of the
    image as the rows of one factor. A convolution has ``A`` for its image, a transposed one ``Δ``.

    Shapes: ``image`` (n, channels, *size), with ``padding`` zeros on both sides of each dimension still to come;
    ``points`` (n, channels, *positions).
    """

    def __init__(self, geometry: Geometry, image: Tensor, points: Tensor, *, transposed: bool = False) -> None:
        self.kernel_size, self.stride, self.dilation = geometry.kernel_size, geometry.stride, geometry.dilation
        self.groups = geometry.groups
        self.first_row = 0
        self.transposed = transposed
        self._row_counts = None
        image, self.padding = self._laid_out(geometry, image.detach(), points)
        self.stored = (points.detach(), image) if transposed else (image, points.detach())

    @property
    def image(self) -> Tensor:
        return self.stored[int(self.transposed)]

    @property
    def points(self) -> Tensor:
        return self.stored[int(not self.transposed)]

    @property
    def activation(self) -> Tensor:
        return self._unfolded(self.stored[0])

    @property
    def adjoint(self) -> Tensor:
        return self._unfolded(self.stored[1])

    @property
    def blocks(self) -> int:
        return self.groups

    @property
    def samples(self) -> int:
        return len(self.points)

    @property
    def positions(self) -> int:
        return math.prod(self.points.shape[2:])

    @property
    def height(self) -> int:
        return self.points.shape[1]

    @property
    def samples_at_once(self) -> int:
        elements = self.positions * self.image.shape[1] * math.prod(self.kernel_size)
        return max(ELEMENTS_AT_ONCE // max(elements, 1), 1)

    def activation_rows(self, samples: Tensor) -> Tensor:
        return self._unfolded(self.stored[0], samples).flatten(1, 2)

    def adjoint_rows(self, samples: Tensor) -> Tensor:
        return self._unfolded(self.stored[1], samples).flatten(1, 2)

    def product(self, samples: Tensor) -> Tensor:
        """The samples' part of the gradient (paper, eq. 5), from the kernel that training has for it."""
        # the kernel adds up naively, and over 10⁵ windows float32 loses two digits; a few at a time, it does not
        parts = samples.split(max(WINDOWS_AT_ONCE // max(self.positions, 1), 1))
        return torch.stack([self._product(part).double() for part in parts]).sum(0)

    def _product(self, samples: Tensor) -> Tensor:
        precise = torch.promote_types(self.dtype, torch.float32)
        image, points = (chosen(side, samples).to(precise) for side in (self.image, self.points))
        shape = (points.shape[1], image.shape[1] // self.groups, *self.kernel_size)
        gradient = _WEIGHT_GRADIENT[len(self.kernel_size)]
        return gradient(image, shape, points, self.stride, self.padding, self.dilation, self.groups).flatten(1)

    def squared_norms(self) -> tuple[Tensor, Tensor]:
        # an entry of the image stands in as many rows as windows cover it
        weight = self._coverage().to(torch.promote_types(self.image.dtype, torch.float32)).sqrt()
        parts = self.image.split(max(1, ELEMENTS_IN_CACHE // max(self.image[:1].numel(), 1)))
        of_image = torch.cat([squared_norm(part * weight) for part in parts])
        of_points = squared_norm(self.points)
        return (of_points, of_image) if self.transposed else (of_image, of_points)

    def _laid_out(self, geometry: Geometry, image: Tensor, points: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """The image and the zeros on both sides of each dimension that the kernel pads it with.

        Padded here where the kernel cannot do it, and then without what lies beyond the last window.
        """
        if isinstance(geometry.padding, tuple) and geometry.padding_mode == "constant":
            sizes = zip(image.shape[2:], geometry.padding, self._windows(), strict=True)
            windows = tuple((size + 2 * zeros - reach) // stride + 1 for size, zeros, (reach, stride) in sizes)
            if windows == points.shape[2:]:
                return image, geometry.padding
        image = _padded(geometry, image, geometry.padding_mode)
        for dimension, (reach, stride) in enumerate(self._windows(), start=2):
            image = image.narrow(dimension, 0, (points.shape[dimension] - 1) * stride + reach)
        return image, (0,) * len(self.kernel_size)

    def _windows(self) -> Iterator[tuple[int, int]]:
        """Per dimension: how far a window reaches, and the step to the next one."""
        for size, stride, dilation in zip(self.kernel_size, self.stride, self.dilation, strict=True):
            yield dilation * (size - 1) + 1, stride

    def _unfolded(self, side: Tensor, samples: Tensor | None = None) -> Tensor:
        """(groups, n, positions, width) of the points or of the windows of the image."""
        is_image = side is self.image
        side = side if samples is None else chosen(side, samples)
        if is_image:
            if any(self.padding):
                side = functional.pad(side, [zeros for zeros in reversed(self.padding) for _ in range(2)])
            for dimension, (reach, stride) in enumerate(self._windows(), start=2):
                side = side.unfold(dimension, reach, stride)[..., :: self.dilation[dimension - 2]]
        spatial = len(self.kernel_size)
        grouped = side.unflatten(1, (self.groups, -1)).transpose(0, 1)
        last = grouped.movedim(2, 2 + spatial)  # channels behind the positions, before the kernel
        return last.flatten(2 + spatial).flatten(2, 1 + spatial)

    def _coverage(self) -> Tensor:
        """(*size): how many windows cover each place of the image."""
        windows = zip(self.image.shape[2:], self.padding, self._windows(), self.dilation, strict=True)
        return _coverage(tuple(windows), self.device)


@lru_cache(maxsize=16)
def _coverage(dimensions: tuple[tuple[int, int, tuple[int, int], int], ...], device: torch.device) -> Tensor:
    """How many windows cover each place, from each dimension's size, zeros, windows and dilation; never changed."""
    coverage = torch.ones((), dtype=torch.int64, device=device)
    for size, zeros, (reach, stride), dilation in dimensions:
        covered = torch.arange(size + 2 * zeros, device=device)
        covered = covered.unfold(0, reach, stride)[:, ::dilation].flatten()
        covering = torch.bincount(covered, minlength=size + 2 * zeros)[zeros : zeros + size]
        coverage = coverage[..., None] * covering
    return coverage


def _padded(geometry: Geometry, tensor: Tensor, mode: str) -> Tensor:
    amounts = _padding(geometry)
    return functional.pad(tensor, amounts, mode=mode) if any(amounts) else tensor


def _padding(geometry: Geometry) -> list[int]:
    """What is added before and after each dimension, the last dimension first."""
    if not isinstance(geometry.padding, str):
        return [amount for amount in reversed(geometry.padding) for _ in range(2)]
    if geometry.padding == "valid":
        return []
    totals = [step * (size - 1) for step, size in zip(geometry.dilation, geometry.kernel_size, strict=True)]
    return [amount for total in reversed(totals) for amount in (total // 2, total - total // 2)]


def _check_batched(geometry: Geometry, tensor: Tensor) -> None:
    dimensions = len(geometry.kernel_size) + 2
    if tensor.dim() != dimensions:
        raise AutoSpecError(
            f"expects an input of {dimensions} dimensions with samples first, got {tuple(tensor.shape)}"
        )
