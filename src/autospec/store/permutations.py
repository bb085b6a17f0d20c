"""Reading the permutations of a spectra file: two groups' ratios under every permuted partition of their subjects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import h5py
import numpy as np
import numpy.typing as npt

from autospec.store.groups import Pair
from autospec.store.permuted_pairs import (
    CovariatePermutations,
    GroupsPermutations,
    Members,
    PairPermutations,
    PermutationDesign,
)
from autospec.store.schema import (
    COVARIATE,
    JOINT_TEXTS,
    JOINT_VALUES,
    OMNIBUS,
    PERMUTATION_EPOCHS,
    PERMUTATION_LOSS,
    PERMUTATION_PAIRS,
    PERMUTATION_RATIOS,
    PERMUTATION_REASONS,
    PERMUTATION_REFUSED,
    PERMUTATION_ROOT,
    PERMUTATION_STRATA,
    PERMUTATION_SUBJECTS,
    joint_field,
    joint_path,
    permutation_field,
)

RatioArray = npt.NDArray[np.float32]


@dataclass(frozen=True)
class JointValues:
    """What all groups at once, or covariates, give under every permutation, the observed order first.

    Attributes:
        names: The groups that are tested at once, or the covariates.
        strata: Within which columns was permuted: of all groups one text, of covariates one each.
        refused: Why there are no permutations, by the joined names of the groups, or by covariate.
        values: By layer and name (``schema.JOINT_VALUES``): of groups the (epoch, partition, index) mean squared z of
            their singular values' logarithms, each less the mean over groups, and the (epoch, group, index) observed
            ones less their mean over partitions; of covariates the (epoch, covariate, partition, index) rank
            correlation with the subjects' contributions.
    """

    names: tuple[str, ...]
    strata: tuple[str, ...]
    refused: Mapping[str, str]
    values: Mapping[str, Mapping[str, RatioArray]]

    @property
    def permutations(self) -> int | None:
        """The number P of permutations; None where there are none."""
        for arrays in self.values.values():
            if "dispersion" in arrays:
                return arrays["dispersion"].shape[1] - 1
            return arrays["rank_correlation"].shape[2] - 1
        return None


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
        omnibus: All groups at once; None where nobody asked.
        covariates: The covariates; None where nobody asked.
    """

    epochs: npt.NDArray[np.int64]
    pairs: tuple[Pair, ...]
    subjects: npt.NDArray[np.int64]
    strata: tuple[str, ...]
    refused: Mapping[Pair, str]
    permutation_design: str
    ratios: Mapping[str, Mapping[str, RatioArray]]
    loss: RatioArray | None
    omnibus: JointValues | None = None
    covariates: JointValues | None = None

    @property
    def permutations(self) -> int:
        """The number P of permutations of each pair, the observed partition not counted."""
        # every layer and pair has the same partitions, so that any array tells their number
        first = next(iter(self.ratios.values()), None)
        if first is not None:
            return first["log_norm"].shape[2] - 1
        joint = [one.permutations for one in (self.omnibus, self.covariates) if one is not None]
        return next((count for count in joint if count is not None), 0)

    @property
    def stored_design(self) -> PermutationDesign:
        """The design as far as the file tells: all that a file says of it, but not who changed groups when."""

        def sides(counts: npt.NDArray[np.int64]) -> Members:
            members = np.zeros((1 + self.permutations, int(counts.sum())), dtype=np.int8)
            members[0] = np.repeat([1, 2], counts)
            return members

        pairs = [
            PairPermutations(a, b, _columns_of(strata), sides(counts))
            for (a, b), strata, counts in zip(self.pairs, self.strata, self.subjects, strict=True)
        ]
        # who changed groups when is not stored: counts and the digest tell one design from another
        nobody = np.empty(0, dtype=np.int64)
        return PermutationDesign(
            tuple(pairs),
            self.refused,
            nobody,
            omnibus=self._stored_omnibus,
            covariates=tuple(self._stored_covariates),
            refused_omnibus=self.omnibus.refused if self.omnibus else {},
            refused_covariates=self.covariates.refused if self.covariates else {},
            stored_digest=self.permutation_design,
        )

    @property
    def _stored_omnibus(self) -> GroupsPermutations | None:
        if self.omnibus is None or not self.omnibus.names:
            return None
        members = np.zeros((1 + (self.omnibus.permutations or 0), 0), dtype=np.int8)
        return GroupsPermutations(self.omnibus.names, _columns_of(self.omnibus.strata[0]), members)

    @property
    def _stored_covariates(self) -> Iterator[CovariatePermutations]:
        joint = self.covariates
        for name, strata in zip(joint.names, joint.strata, strict=True) if joint is not None else ():
            yield CovariatePermutations(name, _columns_of(strata), np.zeros((1 + self.permutations, 0)))


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
    # pairs stand in the file before anything is permuted; without values there is nothing to test
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
        omnibus=_joint(file, OMNIBUS, layers),
        covariates=_joint(file, COVARIATE, layers),
    )


def _joint(file: h5py.File, kind: str, layers: Sequence[str]) -> JointValues | None:
    if joint_path(kind, "name") not in file:
        return None
    texts = {name: tuple(_texts(file, joint_path(kind, name))) for name in JOINT_TEXTS}
    values = {
        layer: {name: file[joint_field(layer, kind, name).path][()] for name in JOINT_VALUES[kind]}
        for layer in layers
        if all(joint_field(layer, kind, name).path in file for name in JOINT_VALUES[kind])
    }
    refused = dict(zip(texts["refused"], texts["reason"], strict=True))
    return JointValues(texts["name"], texts["strata"], refused, values)


def _columns_of(strata: str) -> tuple[str, ...]:
    return tuple(strata.split(", ")) if strata else ()


def _ratios(file: h5py.File, layer: str) -> dict[str, RatioArray]:
    return {name: file[permutation_field(layer, name).path][()] for name in PERMUTATION_RATIOS}


def _texts(file: h5py.File, path: str) -> list[str]:
    return [text.decode() for text in file[path][()]]


def _pairs(file: h5py.File, path: str) -> list[Pair]:
    return [(a.decode(), b.decode()) for a, b in file[path][()]]
