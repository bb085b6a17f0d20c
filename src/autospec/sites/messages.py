"""A site's message of one step: a head of fixed length, then numbers without a gap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from autospec.sites.parts import Part, matrix_part

PER_PART = 4
"""So many numbers of a head belong to each layer and cell."""


@dataclass(frozen=True)
class Contribution:
    """What one site contributes to a step.

    Attributes:
        samples: (cells,) float64, the samples of each of its groups, the last of no group.
        parts: by layer, then by cell: what stands for its part of the gradient, None where it has none.
        others: (numbers,) the gradients of all other parameters, flat.
        weights: a sum over its weights, the same at every site unless they have drifted apart.
    """

    samples: Tensor
    parts: Mapping[str, Sequence[Part | None]]
    others: Tensor
    weights: float

    def scaled(self, share: float) -> Contribution:
        """The same of a loss that counts ``share``."""
        parts = {
            name: [None if part is None else part.scaled(share) for part in cells] for name, cells in self.parts.items()
        }
        return replace(self, parts=parts, others=self.others * share)


@dataclass(frozen=True)
class Form:
    """What all sites know of a message: the layers' shapes (out, in), the cells, the numbers beside the layers."""

    shapes: Mapping[str, tuple[int, int]]
    cells: int
    others: int
    dtype: torch.dtype

    @property
    def head_length(self) -> int:
        """The numbers of a head: the weights' sum, samples per cell; four for each layer and cell."""
        return 1 + self.cells + PER_PART * self.cells * len(self.shapes)


def head_of(contribution: Contribution, form: Form) -> Tensor:
    """The bytes of a contribution's head."""
    numbers = [torch.tensor([contribution.weights], dtype=torch.float64), contribution.samples.double()]
    for name in form.shapes:
        numbers.append(
            torch.tensor([_row_of(part) for part in contribution.parts[name]], dtype=torch.float64).flatten()
        )
    return torch.cat(numbers).view(torch.uint8)


def _row_of(part: Part | None) -> tuple[float, float, float, float]:
    """A part's line in the head: rows sent (-1 for no part), those of a triangle, the bound, rows of samples."""
    return (-1, 0, 0.0, 0) if part is None else (len(part.left), part.leads, part.left_out, part.rows)


def body_of(contribution: Contribution, form: Form) -> Tensor:
    """The bytes of a contribution's numbers."""
    numbers = [contribution.others.to(form.dtype)]
    for name in form.shapes:
        numbers += [_pack(part).to("cpu", form.dtype) for part in contribution.parts[name] if part is not None]
    return torch.cat(numbers).view(torch.uint8)


def body_length(head: Tensor, form: Form) -> int:
    """How many bytes follow a head."""
    rows = _rows_of(head, form)
    numbers = form.others
    for place, shape in enumerate(form.shapes.values()):
        numbers += sum(part_numbers(int(k), int(leads), shape) for k, leads, *_ in rows[place] if k >= 0)
    return numbers * form.dtype.itemsize


def part_numbers(rows: int, leads: int, shape: tuple[int, int]) -> int:
    """How many numbers a part is: its rows of both sides, without the zeros below a triangle's diagonal.

    A gradient itself has as many rows as outputs, and no right side: ``rows`` is 0 then.
    """
    out, width = shape
    return out * width if rows == 0 else rows * (out + width) - leads * (leads - 1) // 2


def contribution_of(head: Tensor, body: Tensor, form: Form) -> Contribution:
    """What a site's bytes say."""
    numbers, values = head.view(torch.float64), body.view(form.dtype)
    rows, start = _rows_of(head, form), form.others
    parts: dict[str, list[Part | None]] = {}
    for place, (name, shape) in enumerate(form.shapes.items()):
        parts[name] = []
        for k, leads, bound, count in rows[place]:
            length = part_numbers(int(k), int(leads), shape) if k >= 0 else 0
            own, start = values[start : start + length], start + length
            part = None if k < 0 else _unpack(own, int(k), int(leads), shape)
            parts[name].append(None if part is None else replace(part, left_out=bound, rows=int(count)))
    return Contribution(numbers[1 : 1 + form.cells], parts, values[: form.others], float(numbers[0]))


def _rows_of(head: Tensor, form: Form) -> list[list[list[float]]]:
    rows: list[list[list[float]]] = head.view(torch.float64)[1 + form.cells :].view(-1, form.cells, PER_PART).tolist()
    return rows


def _pack(part: Part) -> Tensor:
    """A part's numbers: the right side, then the left, without the zeros below a triangle's diagonal."""
    if part.is_matrix:
        return part.right.flatten()
    both = torch.cat([part.right, part.left], dim=1)
    return both[_upper(both, part.leads)]


def _unpack(numbers: Tensor, rows: int, leads: int, shape: tuple[int, int]) -> Part:
    out, width = shape
    if rows == 0:
        return matrix_part(numbers.view(shape))
    both = numbers.new_zeros((rows, width + out))
    both[_upper(both, leads)] = numbers
    return Part(both[:, width:], both[:, :width], leads=leads)


def _upper(both: Tensor, leads: int) -> Tensor:
    """Which entries of a part's rows travel."""
    return torch.ones_like(both, dtype=torch.bool).triu() if leads else torch.ones_like(both, dtype=torch.bool)
