"""Relabelled partitions of people into two groups; NumPy only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Members = npt.NDArray[np.int8]

NOT_ASKED = "not among introspection.permutation_pairs"
"""Why a pair is not relabelled that the configuration does not name."""


@dataclass(frozen=True)
class PairPermutations:
    """Partitions of people into groups ``a`` and ``b``: ``members`` (1 + P, people) is 1 for a, 2 for b, 0 for neither.

    The first partition is the observed one. ``strata`` are the columns within which labels were exchanged.
    """

    a: str
    b: str
    strata: tuple[str, ...]
    members: Members


@dataclass(frozen=True)
class PermutationDesign:
    """Every relabelled pair of a run, the pairs that cannot be tested and why, and the epochs at which it is done.

    ``person`` (n,) says whose each training sample is: an index into the columns of ``Relabelling.members``.
    """

    pairs: tuple[PairPermutations, ...]
    refused: Mapping[tuple[str, str], str]
    subject: npt.NDArray[np.int64]
    epochs: tuple[int, ...] = ()

    @property
    def subjects(self) -> int:
        return int(self.subject.max()) + 1

    @property
    def permutations(self) -> int:
        return len(self.pairs[0].members) - 1 if self.pairs else 0

    def digest(self) -> str:
        """The same for runs that exchanged the labels of the same people in the same way."""
        total = hashlib.sha256(self.subject.tobytes())
        for pair in self.pairs:
            total.update(f"{pair.a} {pair.b} {pair.members.shape}".encode() + pair.members.tobytes())
        return total.hexdigest()[:16]
