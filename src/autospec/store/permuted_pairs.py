"""The design of permutations: which subjects change groups in each permuted partition; NumPy only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Members = npt.NDArray[np.int8]

FEWEST_PERMUTATIONS = 19
"""With the observed partition 20, so that p can reach 0.05."""

NOT_ASKED = "not among introspection.permutation_pairs"
"""Why a pair that the configuration does not name has no permutations."""


@dataclass(frozen=True)
class PairPermutations:
    """Partitions of subjects into two groups, the observed partition first.

    Attributes:
        a: The first group's name.
        b: The second group's name.
        strata: The columns within which labels are permuted.
        members: (1 + P, subject) 1 for a, 2 for b, 0 for neither.
    """

    a: str
    b: str
    strata: tuple[str, ...]
    members: Members


@dataclass(frozen=True)
class PermutationDesign:
    """The permuted pairs of a run, the pairs that cannot be tested, and when permutations are taken.

    Attributes:
        pairs: The permuted pairs.
        refused: Why each other pair cannot be tested.
        subject: (sample,) each training sample's subject, an index into the columns of ``PairPermutations.members``.
        epochs: The epochs at which permutations are taken.
        stored_digest: The digest of a design of which a file has kept nothing more; empty where it is known whole.
    """

    pairs: tuple[PairPermutations, ...]
    refused: Mapping[tuple[str, str], str]
    subject: npt.NDArray[np.int64]
    epochs: tuple[int, ...] = ()
    stored_digest: str = ""

    @property
    def subjects(self) -> int:
        """The number of subjects."""
        return int(self.subject.max()) + 1 if len(self.subject) else 0

    @property
    def permutations(self) -> int:
        """The number P of permutations of each pair, the observed partition not counted."""
        return len(self.pairs[0].members) - 1 if self.pairs else 0

    def digest(self) -> str:
        """Return a digest that is the same for runs that permute the same subjects in the same way."""
        if self.stored_digest:
            return self.stored_digest
        total = hashlib.sha256(self.subject.tobytes())
        for pair in self.pairs:
            total.update(f"{pair.a} {pair.b} {pair.members.shape}".encode() + pair.members.tobytes())
        return total.hexdigest()[:16]
