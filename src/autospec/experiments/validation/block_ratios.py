"""The ratios of every partition of many studies, in one product: as ``SubjectSums`` has them, study by study."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from autospec.experiments.validation.side_by_side import Snapshot
from autospec.spectra.singular import of_matrix
from autospec.spectra.subject_sums import Ratios, ratios_of_sides


class BlockSides:
    """On which side of which pair every sample of a block of studies is, under every partition.

    Attributes:
        members: (pair, study, 1 + P, n) 1 for the first group, 2 for the second, 0 for neither.
    """

    def __init__(self, members: Sequence[Sequence[np.ndarray]]) -> None:
        """Take of every study, and of every pair, (1 + P, n) the side of each sample."""
        # studies of a block may have unequal numbers of samples: those that are filled in are in neither group
        widest = max(own.shape[1] for of_pairs in members for own in of_pairs)
        padded = [[np.pad(own, ((0, 0), (0, widest - own.shape[1]))) for own in of_pairs] for of_pairs in members]
        self.members = torch.from_numpy(np.array(padded)).transpose(0, 1)

    def ratios(self, snapshot: Snapshot, layer: str) -> list[Ratios]:
        """Return the ratios of each pair in one layer, (study, 1 + P, ...)."""
        gradients, norms = _of_samples(snapshot, layer)
        share = snapshot.counted.double() / snapshot.counted.sum(1, keepdim=True)
        of_blocks = []
        for members in self.members:
            sides = [(members == code).double() for code in (1, 2)]
            spectra, floors, weights = [], [], []
            for side in sides:
                spectra.append(of_matrix(_summed(side, gradients), torch.float32).flatten(0, 1))
                floors.append(_floor(side @ norms, gradients.shape[2:]).flatten())
                weights.append((side @ share[..., None]).flatten())
            concerned = (members[:, :1] > 0).double()
            whole = _summed(concerned, gradients).flatten(2).norm(dim=2).expand(members.shape[:2]).flatten()
            one = ratios_of_sides((spectra[0], spectra[1]), floors, weights, whole)
            of_blocks.append(Ratios(*(values.unflatten(0, members.shape[:2]) for values in vars(one).values())))
        return of_blocks

    def losses(self, snapshot: Snapshot) -> Tensor:
        """Return (pair, study, 1 + P) log2 ratios of the mean losses."""
        losses, counted = (values.double()[..., None] for values in (snapshot.losses, snapshot.counted))
        means = [
            ((side @ losses) / (side @ counted))[..., 0] for side in ((self.members == c).double() for c in (1, 2))
        ]
        return means[0].log2() - means[1].log2()


def group_spectra(snapshot: Snapshot, layer: str, groups: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Compute the raw gradients' singular values of some groups, and their noise floors by the formula.

    Args:
        snapshot: Of a block.
        layer: The layer.
        groups: (study, group, n) 1 for whoever is in a group.

    Returns:
        (study, group, K) and (study, group).
    """
    gradients, norms = _of_samples(snapshot, layer)
    floor = _floor(groups @ norms, gradients.shape[2:])
    return torch.linalg.svdvals(_summed(groups, gradients)).numpy(), floor.numpy()


def _of_samples(snapshot: Snapshot, layer: str) -> tuple[Tensor, Tensor]:
    """(study, n, out, in) what each sample adds to the gradient, and (study, n, 2) its factors' squared norms."""
    activation, adjoint = (side.double() for side in snapshot.sides[layer])
    norms = torch.stack([side.square().sum(2) for side in (activation, adjoint)], 2)
    return adjoint[..., :, None] * activation[..., None, :], norms


def _summed(side: Tensor, gradients: Tensor) -> Tensor:
    """(study, sets, out, in): the gradients of sets of samples (study, sets, n)."""
    return (side @ gradients.flatten(2)).unflatten(2, gradients.shape[2:])


def _floor(norms: Tensor, shape: Sequence[int]) -> Tensor:
    """The floor of gradients in float32 whose factors have these squared norms (..., 2)."""
    return torch.finfo(torch.float32).eps * math.sqrt(min(shape)) * norms.prod(-1).sqrt()
