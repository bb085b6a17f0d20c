"""The rounding in one layer's singular values: measured against the same batches in float64, or from earlier ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from autospec.spectra.layer_sums import LayerSums, formula_of_gradient
from autospec.spectra.singular import of_matrix
from autospec.store.schema import GRADIENT

CARRIED = 3.0
"""A carried floor is so many times what the last measurements say: rounding differs from one record to the next."""


def measured_floors(sums: LayerSums, precise: LayerSums) -> dict[str, Tensor]:
    """The noise floors of a layer from its sums and those of the same batches in float64, at the same weights.

    It is the largest move of any singular value of the group. Of a gradient it is no less than ``‖E‖₂``, the largest
    singular value of the difference ``E`` between the two, by which rounding alone could have moved any (Weyl 1912;
    for the subspaces behind them, Wedin 1972). Rows may stand in another order, so that theirs have no difference.

    Returns:
        (reported,) float64 each, by quantity: gradient, activation, adjoint, as far as they are summed.
    """
    floors = {
        name: largest_move(stack.spectra(), precise.stacks[name].spectra()) for name, stack in sums.stacks.items()
    }
    if GRADIENT in sums.keep:
        # spectra before gradients, which form the matrices: that is another route to the spectra, with other digits
        moved = largest_move(sums.gradient.spectra(), precise.gradient.spectra())
        difference = sums.gradient.gradients().cpu() - precise.gradient.gradients().cpu()
        floors[GRADIENT] = torch.maximum(moved, of_matrix(difference, torch.float32)[:, 0])
    return floors


def formula_floors(sums: LayerSums) -> dict[str, Tensor]:
    """The noise floors of a layer by the formula: (reported,) float64 each, by quantity."""
    floors = {name: sums.formula_of_rows(name) for name in sums.stacks}
    return floors | ({GRADIENT: formula_of_gradient(sums)} if GRADIENT in sums.keep else {})


def measurement(measured: Mapping[str, Tensor], formula: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Measured floors over the formula's, and themselves, (2, reported) by quantity; NaN where either tells nothing."""
    both = {name: torch.stack([floor / formula[name], floor]) for name, floor in measured.items()}
    return {name: pair.where(pair.isfinite(), torch.nan) for name, pair in both.items()}


def carried_floors(formula: Mapping[str, Tensor], earlier: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The noise floors of a record between two measured ones, (reported,) by quantity.

    ``CARRIED`` times the larger of two: the formula's times the largest ratio to it of any group in the ``earlier``
    measurements, and the largest measured floor of the group itself, which does not shrink as a residual does. The
    formula's where there is no measurement. Rounding is not the same at every step: four values in 10,000 are further
    from float64 than such a floor.
    """
    floors = {}
    for name, floor in formula.items():
        known = [one[name] for one in earlier if name in one]
        if not known:
            floors[name] = floor
            continue
        ratios, before = torch.stack(known).nan_to_num(nan=0.0).amax(0)
        carried = CARRIED * torch.maximum(floor * ratios.max(), before.to(floor))
        floors[name] = carried.where(floor != 0, 0.0)  # a group without samples
    return floors


def largest_move(spectra: Tensor, precise: Tensor) -> Tensor:
    """(reported, K) twice → (reported,): by how much the furthest of a group's singular values are apart."""
    return (spectra.cpu() - precise.cpu()).abs().amax(1)
