"""The rounding in one layer's singular values, measured against the same batches in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from autospec.spectra.singular import of_matrix
from autospec.store.schema import GRADIENT

if TYPE_CHECKING:
    from autospec.spectra.layer_sums import LayerSums

GRAM_RESOLUTION = 2.0**-26
"""√eps of float64: relative to the largest, what the Gram route may leave of a singular value that is zero."""


def measured_floors(sums: LayerSums, precise: LayerSums) -> dict[str, Tensor]:
    """The noise floors of a layer from its sums and those of the same batches in float64, at the same weights.

    A gradient's singular values move by at most ``‖E‖₂``, the largest singular value of the difference ``E`` between
    the two (Weyl 1912; for the subspaces behind them, Wedin 1972). Rows may stand in another order, so that theirs
    have no difference: of ``A`` and ``Δ`` it is the largest move of any singular value of the group.

    Returns:
        (reported,) float64 each, by quantity: gradient, activation, adjoint, as far as they are summed.
    """
    moved: dict[str, Tensor] = {}
    largest: dict[str, Tensor] = {}
    if GRADIENT in sums.keep:
        largest[GRADIENT] = sums.gradient.spectra()[:, 0].cpu()  # before the matrices are formed, another route to them
        difference = sums.gradient.gradients().cpu() - precise.gradient.gradients().cpu()
        moved[GRADIENT] = of_matrix(difference, torch.float32)[:, 0]
    for name, stack in sums.stacks.items():
        spectra = stack.spectra().cpu()
        largest[name] = spectra[:, 0]
        moved[name] = (spectra - precise.stacks[name].spectra().cpu()).abs().amax(1)
    return {name: moved[name] + GRAM_RESOLUTION * largest[name] for name in moved}
