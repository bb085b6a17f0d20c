"""Spectra of relabelled partitions: people's gradients, summed by every relabelling of a pair of groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from autospec.spectra.factors import GradientFactors
from autospec.spectra.rank import effective_rank
from autospec.spectra.singular import of_matrix, on_capable_device

CHUNK_NUMBERS = 1 << 24
"""So many float64 numbers of relabelled gradients are held at a time: 128 MiB."""


@dataclass(frozen=True)
class Ratios:
    """What two groups' gradients of one weight differ in, for each of P partitions: log2 of a over b, scaled.

    ``spectrum`` (P, K): singular values of the mean gradients, NaN where either lies below its noise floor;
    ``norm`` (P,): their Frobenius norms; ``effective_rank`` (P,); ``cancellation`` (P,): ‖∇_a + ∇_b‖ over
    ‖∇_a‖ + ‖∇_b‖.
    """

    spectrum: Tensor
    norm: Tensor
    effective_rank: Tensor
    cancellation: Tensor


class SubjectSums:
    """What each person adds to one weight's gradient, summed over the batches of an epoch.

    By linearity the gradient of any group of people is a sum of these, so that all relabellings of a pair are one
    product of matrices. Memory: people × weights, in the precision of the factors.
    """

    def __init__(self, shape: tuple[int, int], subjects: int) -> None:
        self.shape = shape
        self.subjects = subjects
        self.told_apart = True
        self.eps = 0.0
        self._gradients: Tensor | None = None
        self._squared_norms: Tensor | None = None

    def add(self, factors: GradientFactors, subject: Tensor) -> None:
        """Add one use of the weight in one batch; ``person`` (n,) says whose each sample is."""
        if factors.samples != len(subject):
            self.told_apart = False  # one row that all samples share
            return
        self.eps = max(self.eps, factors.eps)
        if self._gradients is None or self._squared_norms is None:
            precise = torch.promote_types(factors.dtype, torch.float32)
            self._gradients = torch.zeros((self.subjects, *self.shape), dtype=precise, device=factors.device)
            self._squared_norms = torch.zeros((self.subjects, 2), dtype=torch.float64, device=factors.device)
        rows = slice(factors.first_row, factors.first_row + factors.height)
        self._squared_norms.index_add_(0, subject, torch.stack(factors.squared_norms(), 1))
        for samples in torch.arange(len(subject), device=subject.device).split(self._at_once(factors)):
            self._gradients[:, rows].index_add_(
                0, subject[samples], sample_gradients(factors, samples).to(self._gradients)
            )

    def summands(self, dtype: torch.dtype, share: float) -> list[Tensor]:
        """The gradients and squared norms so far, of a loss that counts ``share``; what adds up over processes."""
        gradients = torch.zeros((self.subjects, *self.shape), dtype=dtype)
        norms = torch.zeros((self.subjects, 2), dtype=torch.float64)
        if self._gradients is None or self._squared_norms is None:
            return [gradients, norms]
        return [self._gradients.to(dtype) * share, self._squared_norms * torch.tensor([1.0, share**2]).to(norms)]

    @property
    def dtype(self) -> torch.dtype | None:
        """The precision of the gradients; None before the first."""
        return None if self._gradients is None else self._gradients.dtype

    def replace(self, gradients: Tensor, squared_norms: Tensor, eps: float, told_apart: bool) -> None:
        """Take other sums: those of several processes together."""
        self._gradients, self._squared_norms = gradients, squared_norms
        self.eps, self.told_apart = eps, told_apart

    def ratios(self, members: Tensor, weight: Tensor, relative_floor: float | None = None) -> Ratios:
        """The ratios of P partitions, ``members`` (P, people) with 1 for a and 2 for b, of people's loss weights.

        ``relative_floor`` is the noise floor of the layer's gradients relative to ``‖A_c‖ ‖Δ_c‖``; None takes the
        formula's, ``eps √min(shape)``.
        """
        if relative_floor is None:
            relative_floor = self.eps * math.sqrt(min(self.shape))
        if self._gradients is None or self._squared_norms is None or not self.told_apart:
            return _unknown(len(members), min(self.shape))
        concerned = (members[0] > 0).nonzero()[:, 0].to(self._gradients.device)
        flat = on_capable_device(self._gradients[concerned]).double().flatten(1)
        norms = on_capable_device(self._squared_norms[concerned])
        chosen = members.to(flat.device)[:, concerned.to(flat.device)]
        weight = weight.to(flat.device)[concerned.to(flat.device)]
        whole = flat.sum(0).norm()
        parts = [
            self._of_part(part, flat, norms, weight, whole, relative_floor)
            for part in chosen.split(max(1, CHUNK_NUMBERS // (2 * flat.shape[1])))
        ]
        return Ratios(*(torch.cat(found) for found in zip(*parts, strict=True)))

    def _of_part(
        self, members: Tensor, flat: Tensor, squared_norms: Tensor, weight: Tensor, whole: Tensor, relative_floor: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        sides = []
        for code in (1, 2):
            side = (members == code).double()
            spectra = of_matrix((side @ flat).unflatten(1, self.shape), self._precision)
            floor = relative_floor * (side @ squared_norms).clamp_min(0.0).prod(1).sqrt()
            sides.append((spectra, floor, side @ weight))
        (a, floor_a, weight_a), (b, floor_b, weight_b) = sides
        scale = (weight_b / weight_a).log2()
        above = (a > floor_a[:, None]) & (b > floor_b[:, None])
        spectrum = (_log2(a) - _log2(b) + scale[:, None]).where(above, torch.nan)
        norm_a, norm_b = a.square().sum(1).sqrt(), b.square().sum(1).sqrt()
        return (
            spectrum,
            (_log2(norm_a) - _log2(norm_b) + scale).where(above[:, 0], torch.nan),
            _log2(effective_rank(a, floor_a)) - _log2(effective_rank(b, floor_b)),
            whole / (norm_a + norm_b),
        )

    @property
    def _precision(self) -> torch.dtype:
        assert self._gradients is not None
        return self._gradients.dtype

    def _at_once(self, factors: GradientFactors) -> int:
        return max(1, min(factors.samples_at_once, CHUNK_NUMBERS // (self.shape[0] * self.shape[1])))


def sample_gradients(factors: GradientFactors, samples: Tensor) -> Tensor:
    """(samples, height, width): what each of some samples adds to the gradient."""
    if type(factors) is not GradientFactors or factors.blocks > 1:
        return torch.stack([factors.product(one) for one in samples.split(1)])
    activation, adjoint = (factor[0, samples] for factor in (factors.activation, factors.adjoint))
    precise = torch.promote_types(factors.dtype, torch.float32)
    activation, adjoint = activation.to(precise), adjoint.to(precise)
    if factors.transposed:
        activation, adjoint = adjoint, activation
    return adjoint.mT @ activation


def loss_ratios(losses: Tensor, weight: Tensor, members: Tensor) -> Tensor:
    """(P,): log2 of group a's mean loss over group b's, from people's summed losses and their loss weights."""
    means = [(side @ losses) / (side @ weight) for side in ((members == code).double() for code in (1, 2))]
    return _log2(means[0]) - _log2(means[1])


def _log2(values: Tensor) -> Tensor:
    return values.where(values > 0, torch.nan).log2()


def _unknown(partitions: int, width: int) -> Ratios:
    nothing = torch.full((partitions,), torch.nan, dtype=torch.float64)
    return Ratios(nothing[:, None].expand(-1, width), nothing, nothing, nothing)
