"""Reading the permutations of a spectra file: two groups' ratios under every permuted partition of their subjects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import h5py
import numpy as np
import numpy.typing as npt

from autospec.store.groups import Pair
from autospec.store.permuted_pairs import Members, PairPermutations, PermutationDesign
from autospec.store.schema import (
    PERMUTATION_EPOCHS,
    PERMUTATION_LOSS,
    PERMUTATION_PAIRS,
    PERMUTATION_RATIOS,
    PERMUTATION_REASONS,
    PERMUTATION_REFUSED,
    PERMUTATION_ROOT,
    PERMUTATION_STRATA,
    PERMUTATION_SUBJECTS,
    permutation_field,
)

RatioArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PermutationRatios:
    """What two groups differ in under every partition of their subjects, the observed partition first.

    Attributes:
        epochs: (epoch,) the epochs at which labels were permuted.
        pairs: The pairs of groups whose labels were permuted.
        subjects: (pair, 2) subjects in the first and second group of each pair.
        strata: Of each pair the columns within which labels were permuted, joined by commas.
        refused: Why each other pair has no permutations.
        permutation_design: A digest, the same for runs that permuted the same subjects in the same way.
        ratios: By layer and name (``schema.PERMUTATION_RATIOS``), (epoch, pair, partition, ...) log2 ratios.
        loss: (epoch, pair, partition) log2 ratios of the mean losses; None where losses were not given.
    """

    epochs: npt.NDArray[np.int64]
    pairs: tuple[Pair, ...]
    subjects: npt.NDArray[np.int64]
    strata: tuple[str, ...]
    refused: Mapping[Pair, str]
    permutation_design: str
    ratios: Mapping[str, Mapping[str, RatioArray]]
    loss: RatioArray | None

    @property
    def permutations(self) -> int:
        """The number P of permutations of each pair, the observed partition not counted."""
        first = next(iter(self.ratios.values()), None)
        return 0 if first is None else first["log_norm"].shape[2] - 1

    @property
    def stored_design(self) -> PermutationDesign:
        """The design as far as the file tells: all that a file says of it, but not who changed groups when."""

        def sides(counts: npt.NDArray[np.int64]) -> Members:
            members = np.zeros((1 + self.permutations, int(counts.sum())), dtype=np.int8)
            members[0] = np.repeat([1, 2], counts)
            return members

        pairs = [
            PairPermutations(a, b, tuple(strata.split(", ")) if strata else (), sides(counts))
            for (a, b), strata, counts in zip(self.pairs, self.strata, self.subjects, strict=True)
        ]
        nobody = np.empty(0, dtype=np.int64)
        return PermutationDesign(tuple(pairs), self.refused, nobody, stored_digest=self.permutation_design)


def permutations_in(file: h5py.File, layers: Sequence[str]) -> PermutationRatios | None:
    """Read the permutations of an opened file.

    Args:
        file: A spectra file, opened for reading.
        layers: The layers to read; those without permutations are left out.

    Returns:
        The ratios, or None where the writer knew nothing of subjects.
    """
    if PERMUTATION_PAIRS not in file:
        return None
    permuted = [layer for layer in layers if permutation_field(layer, "log_ratio").path in file]
    no_epochs = np.empty(0, dtype=np.int64)
    return PermutationRatios(
        epochs=file[PERMUTATION_EPOCHS.path][()] if PERMUTATION_EPOCHS.path in file else no_epochs,
        pairs=tuple(_pairs(file, PERMUTATION_PAIRS)) if permuted else (),
        subjects=file[PERMUTATION_SUBJECTS][()],
        strata=tuple(_texts(file, PERMUTATION_STRATA)),
        refused=dict(zip(_pairs(file, PERMUTATION_REFUSED), _texts(file, PERMUTATION_REASONS), strict=True)),
        permutation_design=str(file[PERMUTATION_ROOT].attrs["relabellings"]),
        ratios={layer: _ratios(file, layer) for layer in permuted},
        loss=file[PERMUTATION_LOSS.path][()] if PERMUTATION_LOSS.path in file else None,
    )


def _ratios(file: h5py.File, layer: str) -> dict[str, RatioArray]:
    return {name: file[permutation_field(layer, name).path][()] for name in PERMUTATION_RATIOS}


def _texts(file: h5py.File, path: str) -> list[str]:
    return [text.decode() for text in file[path][()]]


def _pairs(file: h5py.File, path: str) -> list[Pair]:
    return [(a.decode(), b.decode()) for a, b in file[path][()]]
