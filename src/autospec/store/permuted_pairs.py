"""The design of permutations: which subjects change groups in each permuted partition; NumPy only."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

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
class GroupsPermutations:
    """Partitions of subjects into three or more groups at once, the observed partition first.

    Attributes:
        groups: The groups' names.
        strata: The columns within which labels are permuted.
        members: (1 + P, subject) 1 for the first group, 2 for the second and so on, 0 for none.
    """

    groups: tuple[str, ...]
    strata: tuple[str, ...]
    members: Members

    @property
    def name(self) -> str:
        """What the groups are called together."""
        return ", ".join(self.groups)


@dataclass(frozen=True)
class CovariatePermutations:
    """The ranks of a covariate handed out to subjects anew, the observed order first.

    Attributes:
        name: The covariate's name.
        strata: The columns within which values are permuted.
        ranks: (1 + P, subject) ranks of its values, ties averaged; NaN for a subject who takes no part.
    """

    name: str
    strata: tuple[str, ...]
    ranks: npt.NDArray[np.float64]


@dataclass(frozen=True)
class PermutationDesign:
    """The permuted pairs of a run, the pairs that cannot be tested, and when permutations are taken.

    Attributes:
        pairs: The permuted pairs.
        refused: Why each other pair cannot be tested.
        subject: (sample,) each training sample's subject, an index into the columns of ``PairPermutations.members``.
        epochs: The epochs at which permutations are taken.
        omnibus: The permutations of all groups at once; None where that is not tested.
        covariates: The permutations of each covariate.
        refused_omnibus: Of the groups' joined names why they are not tested at once; empty where nobody asks.
        refused_covariates: Why each other covariate that was asked for is not tested.
        stored_digest: The digest of a design of which a file has kept nothing more; empty where it is known whole.
    """

    pairs: tuple[PairPermutations, ...]
    refused: Mapping[tuple[str, str], str]
    subject: npt.NDArray[np.int64]
    epochs: tuple[int, ...] = ()
    omnibus: GroupsPermutations | None = None
    covariates: tuple[CovariatePermutations, ...] = ()
    refused_omnibus: Mapping[str, str] = field(default_factory=dict)
    refused_covariates: Mapping[str, str] = field(default_factory=dict)
    stored_digest: str = ""

    @property
    def subjects(self) -> int:
        """The number of subjects."""
        return int(self.subject.max()) + 1 if len(self.subject) else 0

    @property
    def permutations(self) -> int:
        """The number P of permutations of each pair, the observed partition not counted."""
        drawn = [len(pair.members) for pair in self.pairs]
        drawn += [] if self.omnibus is None else [len(self.omnibus.members)]
        drawn += [len(covariate.ranks) for covariate in self.covariates]
        return drawn[0] - 1 if drawn else 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is permuted."""
        return not (self.pairs or self.omnibus or self.covariates)

    def digest(self) -> str:
        """Return a digest that is the same for runs that permute the same subjects in the same way."""
        if self.stored_digest:
            return self.stored_digest
        total = hashlib.sha256(self.subject.tobytes())
        for pair in self.pairs:
            total.update(f"{pair.a} {pair.b} {pair.members.shape}".encode() + pair.members.tobytes())
        # all groups and covariates are drawn for the same subjects with the same seed: files without them keep theirs
        return total.hexdigest()[:16]
