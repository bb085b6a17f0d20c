"""The rounding in one layer's singular values, measured against the same batches in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autospec.spectra.singular import of_matrix
from autospec.store.schema import GRADIENT

if TYPE_CHECKING:
    from autospec.spectra.layer_sums import LayerSums


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


def largest_move(spectra: Tensor, precise: Tensor) -> Tensor:
    """(reported, K) twice → (reported,): by how much the furthest of a group's singular values are apart."""
    return (spectra.cpu() - precise.cpu()).abs().amax(1)
