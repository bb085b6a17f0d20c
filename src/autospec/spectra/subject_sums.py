"""Spectra of relabelled partitions: people's gradients, summed by every relabelling of a pair of groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from autospec.spectra.factors import GradientFactors
from autospec.spectra.partition_sums import PartitionSums, of_gradients, of_rows
from autospec.spectra.rank import effective_rank
from autospec.spectra.singular import on_capable_device

CHUNK_NUMBERS = 1 << 22
"""So many numbers of single samples' gradients are held at a time: 16 MiB in float32."""

ROWS_PER_SUBJECT = 2
"""Up to so many rows a subject on average, factors are kept as they came: less memory than people's gradients."""


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
    product of matrices. Factors of one row a sample are kept as they came, in the memory of the batch; others are
    multiplied: people × weights, in the precision of the factors.
    """

    def __init__(self, shape: tuple[int, int], subjects: int) -> None:
        self.shape = shape
        self.subjects = subjects
        self.told_apart = True
        self.eps = 0.0
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self._gradients: Tensor | None = None
        self._squared_norms: Tensor | None = None

    def add(self, factors: GradientFactors, subject: Tensor) -> None:
        """Add one use of the weight in one batch; ``subject`` (n,) says whose each sample is."""
        if factors.samples != len(subject):
            self.told_apart = False  # one row that all samples share
            return
        self.eps = max(self.eps, factors.eps)
        if self._squared_norms is None:
            self._squared_norms = torch.zeros((self.subjects, 2), dtype=torch.float64, device=factors.device)
        self._squared_norms.index_add_(0, subject, torch.stack(factors.squared_norms(), 1))
        if self.keeps_rows_of(factors):
            self._rows.append((*sides_of_rows(factors), subject))
            return
        self._multiply_rows(factors.device)
        self._multiply(factors, subject)

    def summands(self, dtype: torch.dtype, share: float) -> list[Tensor]:
        """The gradients and squared norms so far, of a loss that counts ``share``; what adds up over processes."""
        if self._squared_norms is None:
            gradients = torch.zeros((self.subjects, *self.shape), dtype=dtype)
            return [gradients, torch.zeros((self.subjects, 2), dtype=torch.float64)]
        self._multiply_rows(self._squared_norms.device)
        assert self._gradients is not None
        scale = torch.tensor([1.0, share**2], dtype=torch.float64, device=self._squared_norms.device)
        return [self._gradients.to(dtype) * share, self._squared_norms * scale]

    @property
    def dtype(self) -> torch.dtype | None:
        """The precision of the gradients; None before the first."""
        held = [part.dtype for *sides, _ in self._rows for part in sides]
        held += [] if self._gradients is None else [self._gradients.dtype]
        return torch.float64 if torch.float64 in held else torch.float32 if held else None

    def replace(self, gradients: Tensor, squared_norms: Tensor, eps: float, told_apart: bool) -> None:
        """Take other sums: those of several processes together."""
        self._rows, self._gradients, self._squared_norms = [], gradients, squared_norms
        self.eps, self.told_apart = eps, told_apart

    @property
    def is_multiplied(self) -> bool:
        """Whether every person's gradient is held, and not the rows that it is made of."""
        return self._gradients is not None

    def grow(self, subjects: int) -> None:
        """Make room for more people, who have added nothing yet."""
        more = subjects - self.subjects
        self.subjects = subjects
        if self._gradients is not None:
            self._gradients = torch.cat([self._gradients, self._gradients.new_zeros((more, *self.shape))])
        if self._squared_norms is not None:
            self._squared_norms = torch.cat([self._squared_norms, self._squared_norms.new_zeros((more, 2))])

    def ratios(self, members: Tensor, weight: Tensor, relative_floor: float | None = None) -> Ratios:
        """The ratios of P partitions, ``members`` (P, people) with 1 for a and 2 for b, of people's loss weights.

        ``relative_floor`` is the noise floor of the layer's gradients relative to ``‖A_c‖ ‖Δ_c‖``; None takes the
        formula's, ``eps √min(shape)``.
        """
        relative_floor = self._relative(relative_floor)
        if self._squared_norms is None or not self.told_apart:
            return _unknown(len(members), min(self.shape))
        concerned = (members[0] > 0).nonzero()[:, 0].to(self._squared_norms.device)
        sums = self._sums_of(concerned)
        norms = on_capable_device(self._squared_norms[concerned])
        members = members.to(norms.device)[:, concerned.to(norms.device)]
        weight = weight.to(norms.device)[concerned.to(norms.device)]
        sides = [(members == code).double() for code in (1, 2)]
        spectra = sums.spectra_of_sides(sides[0], min(self.shape))
        floors = [relative_floor * (side @ norms).clamp_min(0.0).prod(1).sqrt() for side in sides]
        return ratios_of_sides(spectra, floors, [side @ weight for side in sides], sums.whole.norm())

    def deviations(self, members: Tensor, groups: int, weight: Tensor, relative_floor: float | None = None) -> Tensor:
        """How far each of several groups' singular values lie from the mean over groups, for each of P partitions.

        ``members`` (P, people) is 1 for the first group, 2 for the second and so on, 0 for none. Returns (groups, P, K)
        log2 of those of the mean gradients; NaN for all groups where one lies below its noise floor.
        """
        if self._squared_norms is None or not self.told_apart:
            return _unknown(len(members), min(self.shape)).spectrum.expand(groups, -1, -1)
        concerned = (members[0] > 0).nonzero()[:, 0].to(self._squared_norms.device)
        sums, norms = self._sums_of(concerned), on_capable_device(self._squared_norms[concerned])
        members, weight = (on_capable_device(part.to(norms.device)) for part in (members, weight))
        members, weight = members[:, concerned.to(norms.device)], weight[concerned.to(norms.device)]
        logs = []
        for code in range(1, groups + 1):
            side = (members == code).double()
            floor = self._relative(relative_floor) * (side @ norms).clamp_min(0.0).prod(1).sqrt()
            spectrum = sums.spectra_of(side, min(self.shape))
            logs.append(_log2(spectrum.where(spectrum > floor[:, None], 0.0)) - (side @ weight).log2()[:, None])
        every = torch.stack(logs)
        return every - every.mean(0)

    def contributions(self, concerned: Tensor, weight: Tensor, relative_floor: float | None = None) -> Tensor:
        """What each of some people (k,) adds to the singular values of all of them together, over their loss weight.

        With ``∇ = Σ_s ∇_s = U Σ Vᵀ`` person s adds ``u_iᵀ ∇_s v_i`` to σ_i; the sum over people is σ_i. Returns (k, K);
        NaN where σ_i lies below its noise floor.
        """
        if self._squared_norms is None or not self.told_apart:
            return torch.full((len(concerned), min(self.shape)), torch.nan, dtype=torch.float64)
        concerned = concerned.to(self._squared_norms.device)
        norms, weight = (on_capable_device(part) for part in (self._squared_norms[concerned], weight))
        added, values = self._added_by(concerned)
        floor = self._relative(relative_floor) * norms.sum(0).prod().sqrt()
        return torch.where(values > floor, added / weight.to(norms.device)[concerned.to(norms.device), None], torch.nan)

    def _added_by(self, concerned: Tensor) -> tuple[Tensor, Tensor]:
        """(k, K) what some people add to each singular value of their sum, and (K,) these."""
        if self._gradients is not None:
            gradients = on_capable_device(self._gradients[concerned]).double()
            left, values, right = torch.linalg.svd(gradients.sum(0), full_matrices=False)
            blocks = gradients.split(max(1, CHUNK_NUMBERS // (len(left) * len(values))))
            return torch.cat([((block @ right.mT) * left).sum(1) for block in blocks]), values
        adjoint, activation, person = (on_capable_device(part) for part in self._rows_of(concerned))
        left, values, right = torch.linalg.svd(adjoint.double().mT @ activation.double(), full_matrices=False)
        by_row = (adjoint.double() @ left) * (activation.double() @ right.mT)
        return by_row.new_zeros((len(concerned), len(values))).index_add_(0, person, by_row), values

    def _relative(self, floor: float | None) -> float:
        return self.eps * math.sqrt(min(self.shape)) if floor is None else floor

    def _sums_of(self, concerned: Tensor) -> PartitionSums:
        """The sums over some people, by whichever way their parts are kept."""
        if self._gradients is not None:
            return of_gradients(on_capable_device(self._gradients[concerned]))
        return of_rows(*(on_capable_device(part) for part in self._rows_of(concerned)))

    def _rows_of(self, concerned: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The rows of some people, adjoints and activations, and whose each row is, by the place among them."""
        place = torch.full((self.subjects,), -1, device=concerned.device)
        place[concerned] = torch.arange(len(concerned), device=concerned.device)
        adjoint, activation, subject = (torch.cat(parts) for parts in zip(*self._rows, strict=True))
        kept = place[subject] >= 0
        return adjoint[kept], activation[kept], place[subject][kept]

    def keeps_rows_of(self, factors: GradientFactors) -> bool:
        """Whether factors are kept as they came; never again once anything was multiplied."""
        if self._gradients is not None or type(factors) is not GradientFactors:
            return False
        if factors.blocks > 1 or factors.positions > 1 or factors.height < self.shape[0]:
            return False
        held = sum(len(subject) for _, _, subject in self._rows)
        return held + factors.samples <= ROWS_PER_SUBJECT * self.subjects

    def _multiply_rows(self, device: torch.device) -> None:
        """Go over from kept rows to people's gradients."""
        kept, self._rows = self._rows, []
        for adjoint, activation, subject in kept:
            self._multiply(GradientFactors(activation, adjoint), subject)

    def _multiply(self, factors: GradientFactors, subject: Tensor) -> None:
        """Add each sample's gradient to its person's."""
        if self._gradients is None:
            precise = torch.promote_types(factors.dtype, torch.float32)
            self._gradients = torch.zeros((self.subjects, *self.shape), dtype=precise, device=factors.device)
        rows = slice(factors.first_row, factors.first_row + factors.height)
        for samples in torch.arange(len(subject), device=subject.device).split(self._at_once(factors)):
            self._gradients[:, rows].index_add_(
                0, subject[samples], sample_gradients(factors, samples).to(self._gradients)
            )

    def _at_once(self, factors: GradientFactors) -> int:
        return max(1, min(factors.samples_at_once, CHUNK_NUMBERS // (self.shape[0] * self.shape[1])))


def ratios_of_sides(
    spectra: tuple[Tensor, Tensor], floors: list[Tensor], weights: list[Tensor], whole: Tensor
) -> Ratios:
    """What two sides of P partitions differ in, from their spectra (P, K), noise floors and loss weights (P,)."""
    (a, b), (floor_a, floor_b) = spectra, floors
    scale = (weights[1] / weights[0]).log2()
    above = (a > floor_a[:, None]) & (b > floor_b[:, None])
    norm_a, norm_b = a.square().sum(1).sqrt(), b.square().sum(1).sqrt()
    return Ratios(
        (_log2(a) - _log2(b) + scale[:, None]).where(above, torch.nan),
        (_log2(norm_a) - _log2(norm_b) + scale).where(above[:, 0], torch.nan),
        _log2(effective_rank(a, floor_a)) - _log2(effective_rank(b, floor_b)),
        whole / (norm_a + norm_b),
    )


def sides_of_rows(factors: GradientFactors) -> tuple[Tensor, Tensor]:
    """(n, out) and (n, in) of factors of one row a sample, at least in float32."""
    precise = torch.promote_types(factors.dtype, torch.float32)
    activation, adjoint = (factor[0, :, 0].to(precise) for factor in (factors.activation, factors.adjoint))
    return (activation, adjoint) if factors.transposed else (adjoint, activation)


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
