"""From one site's backward passes to what it sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from autospec.capture.layers import Layer, Use
from autospec.capture.row_owners import RowOwners
from autospec.errors import AutoSpecError
from autospec.recording.gradient_check import ROUNDINGS
from autospec.sites.messages import part_numbers
from autospec.sites.parts import DAD, GRADIENT, RANK_DAD, Part, exact_part, leading_part, matrix_part
from autospec.spectra.factors import GradientFactors
from autospec.spectra.groups import SampleGroups


@dataclass(frozen=True)
class Choice:
    """How a site makes its parts.

    Attributes:
        way: "gradient", "dad" or "rank-dad".
        rank, iterations, tolerance: see ``leading_part``.
        share_inputs: whether layers that see the data themselves send factors too, not gradients alone.
    """

    way: str = DAD
    rank: int = 8
    iterations: int = 2
    tolerance: float = 0.0
    share_inputs: bool = False


@dataclass
class HeardLayer:
    """What the backward passes of a batch left of one layer: rows of each cell, or products where there are none."""

    cells: int
    rows: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    products: list[Tensor] = field(default_factory=list)

    def add(self, factors: GradientFactors, groups: SampleGroups, height: int) -> None:
        """Add one use of the weight in one backward pass."""
        is_whole = factors.has_rows and factors.blocks == 1 and factors.height == height
        if not is_whole:
            products = factors.products(groups).double()
            whole = products.new_zeros((self.cells, height, products.shape[2]))
            whole[:, factors.first_row : factors.first_row + factors.height] = products
            self.products.append(whole)
            return
        for cell, samples in enumerate(groups.samples):
            activation, adjoint = (side[0] for side in factors.of_samples(samples))
            if factors.transposed:
                activation, adjoint = adjoint, activation
            self.rows.append((activation, adjoint, activation.new_full((len(activation),), cell)))

    def of_cell(self, cell: int) -> tuple[Tensor, Tensor] | None:
        """``A`` and ``Δ`` of a cell, where all there is of it are rows; None for no rows."""
        kept = [(a[of == cell], d[of == cell]) for a, d, of in self.rows]
        kept = [(a, d) for a, d in kept if len(a)]
        return (torch.cat([a for a, _ in kept]), torch.cat([d for _, d in kept])) if kept else None


class Heard:
    """The layers of a batch at one site; ``sink`` takes what a listener hands over.

    Args:
        layers: that are exchanged.
        cells: groups that are told apart, the last of which takes what is in none.
        groups: which samples are whose; None where all are of the last, and rows need not be traced to samples.
    """

    def __init__(self, layers: Sequence[Layer], cells: int, groups: SampleGroups | None) -> None:
        self._shapes = {layer.name: layer.shape for layer in layers}
        self._cells, self._groups = cells, groups
        self.layers = {layer.name: HeardLayer(cells) for layer in layers}

    def sink(self, use: Use, factors: GradientFactors, owners: RowOwners) -> None:
        """Add the factors of one use of a weight."""
        groups = self._groups
        if groups is None:
            groups = SampleGroups.of(torch.full((factors.samples,), -1, device=factors.device), self._cells)
        elif owners.shared:
            groups = groups.of_all(factors.samples)
        elif owners.samples is not None:
            groups = groups.of_rows(owners.samples)
        self.layers[use.layer.name].add(factors, groups, self._shapes[use.layer.name][0])

    def parts(self, choice: Choice, of_data: set[str]) -> dict[str, list[Part | None]]:
        """What is sent of each layer and cell.

        Args:
            choice: the way.
            of_data: the layers that see the data themselves.
        """
        sent: dict[str, list[Part | None]] = {}
        for name, layer in self.layers.items():
            as_gradient = choice.way == GRADIENT or (name in of_data and not choice.share_inputs)
            sent[name] = [
                part_of(layer, cell, self._shapes[name], None if as_gradient else choice) for cell in range(layer.cells)
            ]
        return sent


def part_of(layer: HeardLayer, cell: int, shape: tuple[int, int], choice: Choice | None) -> Part | None:
    """What stands for a cell's gradient of a layer; the gradient itself without a choice, and where that is smaller."""
    sides, products = layer.of_cell(cell), [own[cell] for own in layer.products]
    rows = 0 if sides is None else len(sides[0])
    is_smaller = choice is not None and _numbers(rows, shape, choice) < shape[0] * shape[1]
    if choice is not None and is_smaller and sides is not None and not products:
        if choice.way == DAD:
            return exact_part(*sides)
        return leading_part(*sides, choice.rank, choice.iterations, choice.tolerance)
    whole = sum((own.double() for own in products), start=torch.zeros(shape, dtype=torch.float64))
    if sides is None:
        return matrix_part(whole) if bool(whole.any()) else None
    activation, adjoint = sides
    whole = whole.to(activation.device) + adjoint.double().mT @ activation.double()
    return matrix_part(whole.to(activation.dtype), rows)


def _numbers(rows: int, shape: tuple[int, int], choice: Choice) -> int:
    """How many numbers would be sent of so many rows."""
    if choice.way == RANK_DAD:
        return part_numbers(min(choice.rank, rows, *shape), 0, shape)
    leads = min(rows, sum(shape))
    return part_numbers(leads, leads, shape)


def check_parts(heard: Heard, left: Mapping[str, Tensor], eps: float) -> None:
    """AutoSpecError for a layer whose rows do not add up to the gradient that backward left in its weight."""
    for name, layer in heard.layers.items():
        if name not in left:
            continue
        whole, scale = torch.zeros_like(left[name], dtype=torch.float64), 0.0
        for activation, adjoint, _ in layer.rows:
            whole += adjoint.double().mT @ activation.double()
            scale += float(activation.double().norm() * adjoint.double().norm())
        for product in layer.products:
            whole += product.sum(0)
            scale += float(product.norm())
        off = float((whole - left[name].double()).norm())
        if off > ROUNDINGS * eps * scale:
            raise AutoSpecError(
                f"layer {name!r}: the factors of this site's rows do not add up to the gradient that backward left "
                f"(off by {off / max(float(left[name].double().norm()), 1e-300):.1e}); use way='gradient', or leave it "
                f"out with layers=['!{name}']"
            )
