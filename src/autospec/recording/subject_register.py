"""Whose samples the batches hold, and the permuted partitions once all subjects are known.

A recorder whose permutations were designed beforehand knows its subjects (``GivenSubjects``); one that draws by itself
meets them batch by batch (``SubjectRegister``) and draws at the end of the first epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autospec.analysis.joint_relabelling import permute_covariate, permute_groups
from autospec.analysis.relabelling import MIXED, NUMBER_OF_SAMPLES, observed_partition, permute_labels
from autospec.errors import AutoSpecError
from autospec.recording.covariates import SubjectName, covariate_of
from autospec.recording.permutation_request import PermutationRequest, subject_names
from autospec.spectra.groups import SampleGroups
from autospec.store.permuted_pairs import GroupsPermutations, PairPermutations, PermutationDesign


class Subjects(Protocol):
    """Who tells a recorder whose each sample is, and how labels are permuted."""

    @property
    def count(self) -> int:
        """How many subjects there are so far."""

    def is_due(self, epoch: int) -> bool:
        """Whether labels are permuted at an epoch."""

    def of_batch(self, samples: Tensor | None, subject: Any, groups: SampleGroups) -> Tensor:
        """(n,) the index of each sample's subject."""

    def design(self) -> PermutationDesign:
        """The design, drawn if it was not yet."""

    def in_order(self, drawn: npt.NDArray) -> Tensor:
        """(1 + P, count): what a design has drawn, in the order of ``of_batch``; 0 or NaN for whoever has none."""


class GivenSubjects:
    """The subjects of a design that was made beforehand."""

    def __init__(self, design: PermutationDesign) -> None:
        self._design = design
        self.count = design.subjects

    def is_due(self, epoch: int) -> bool:
        return epoch in self._design.epochs

    def of_batch(self, samples: Tensor | None, subject: Any, groups: SampleGroups) -> Tensor:
        every = torch.from_numpy(self._design.subject)
        return _fitting(every if samples is None else every[samples.cpu()], groups)

    def design(self) -> PermutationDesign:
        return self._design

    def in_order(self, drawn: npt.NDArray) -> Tensor:
        return torch.from_numpy(drawn)


class SubjectRegister:
    """Subjects as they are met; their labels are permuted in the order of their names, whatever order they come in.

    Args:
        request: what was asked for.
        earlier: the design of a file that is gone on with, which must be met again.
    """

    def __init__(self, request: PermutationRequest, earlier: PermutationDesign | None = None) -> None:
        self._request = request
        self._earlier = earlier
        self._design: PermutationDesign | None = None
        self._groups: dict[SubjectName, set[int]] = {}
        self._samples: dict[SubjectName, int] = {}
        self._index: dict[SubjectName, int] = {}
        self._drawn: dict[SubjectName, int] = {}
        self.late: list[SubjectName] = []
        for name in dict.fromkeys(request.subjects or ()):
            self._index[name] = len(self._index)

    @property
    def count(self) -> int:
        return len(self._index)

    @property
    def known_design(self) -> PermutationDesign | None:
        """What a file can say of the permutations by now."""
        if self._design is None and self._request.asks_nothing:
            return self.design()
        return self._design or self._earlier

    def is_due(self, epoch: int) -> bool:
        return self._request.is_due(epoch) and (self._design is None or not self._design.is_empty)

    def of_batch(self, samples: Tensor | None, subject: Any, groups: SampleGroups) -> Tensor:
        names = self._names(samples, subject)
        labels = groups.of_sample.tolist()
        if len(names) != len(labels):
            raise AutoSpecError(f"recorder.batch: {len(labels)} group labels, but {len(names)} subjects")
        for name, label in zip(names, labels, strict=True):
            if name not in self._index:
                self._index[name] = len(self._index)
            if self._design is not None and name not in self._drawn and name not in self.late:
                self.late.append(name)
            self._note(name, label)
        return torch.tensor([self._index[name] for name in names], device=groups.of_sample.device)

    def _note(self, name: SubjectName, label: int) -> None:
        groups = self._groups.setdefault(name, set())
        if name in self._drawn and label not in groups:
            raise AutoSpecError(f"subject {name!r} came in another group when labels were permuted; a subject has one")
        groups.add(label)
        if not self._drawn:  # the first epoch, which meets every sample once
            self._samples[name] = self._samples.get(name, 0) + 1

    def _names(self, samples: Tensor | None, subject: Any) -> Sequence[SubjectName]:
        every = self._request.subjects
        if subject is not None:
            return subject_names(subject, "subject")
        if every is None:
            raise AutoSpecError(
                f"permutations={self._request.permutations} exchanges the labels of subjects: "
                "recorder.batch(group, subject=...) says whose each sample is, by a number or a name"
            )
        if samples is None:
            return every
        return [every[place] for place in torch.as_tensor(samples).tolist()]

    def design(self) -> PermutationDesign:
        if self._design is None:
            self._design = self._draw(sorted(self._groups, key=lambda name: (isinstance(name, str), name)))
        return self._design

    def _draw(self, names: Sequence[SubjectName]) -> PermutationDesign:
        self._drawn = {name: place for place, name in enumerate(names)}
        mixed = any(len(self._groups[name]) > 1 for name in names)
        group = np.array([min(self._groups[name]) for name in names], dtype=np.int64)
        columns = {column: self._column(column, names) for column in self._request.strata}
        samples = np.array([str(self._samples.get(name, 1)) for name in names], dtype=str)
        if len(set(samples)) > 1:  # whoever has more pulls harder, whatever the group
            columns[NUMBER_OF_SAMPLES] = samples
        pairs: list[PairPermutations] = []
        refused = dict(self._request.refused)
        for (a, b), parts in self._request.parts.items():
            permuted: PairPermutations | str = MIXED
            if not mixed:
                observed = observed_partition(group, *parts)
                permuted = permute_labels(a, b, observed, columns, self._request.permutations, self._request.seed)
            if isinstance(permuted, str):
                refused[a, b] = permuted
            else:
                pairs.append(permuted)
        subject = np.arange(len(names))
        joint = self._draw_jointly(names, group, columns, mixed)
        drawn = PermutationDesign(tuple(pairs), refused, subject, **joint)
        if self._earlier is not None and self._earlier.digest() != drawn.digest():
            raise AutoSpecError(
                "the subjects of this epoch, or their groups, are not those whose labels the file permuted before; "
                "give recorder.load_state_dict(...) the state of a checkpoint, or begin anew with overwrite=True"
            )
        return drawn

    def _draw_jointly(
        self,
        names: Sequence[SubjectName],
        group: npt.NDArray[np.int64],
        columns: Mapping[str, npt.NDArray[np.str_]],
        mixed: bool,
    ) -> dict[str, Any]:
        """What a design says of all groups at once and of covariates."""
        request, several = self._request, MIXED if mixed else ""
        joint: dict[str, Any] = {"refused_omnibus": {}, "refused_covariates": {}}
        if request.omnibus:
            drawn: GroupsPermutations | str = request.refused_omnibus or several
            members = (group + 1).astype(np.int8)
            drawn = drawn or permute_groups(request.omnibus, members, columns, request.permutations, request.seed)
            if isinstance(drawn, str):
                joint["refused_omnibus"] = {", ".join(request.omnibus): drawn}
            else:
                joint["omnibus"] = drawn
        found = []
        for name, of_subject in request.covariates.items():
            values = covariate_of(name, of_subject, names)
            # within groups, so that what goes with the group is not taken for what goes with the covariate
            within = {**columns, "group": group.astype(str)}
            covariate = several or permute_covariate(name, values, within, request.permutations, request.seed)
            if isinstance(covariate, str):
                joint["refused_covariates"][name] = covariate
            else:
                found.append(covariate)
        return {**joint, "covariates": tuple(found)}

    def _column(self, column: str, names: Sequence[SubjectName]) -> np.ndarray:
        levels = self._request.strata[column]
        missing = [name for name in names if name not in levels]
        if missing:
            raise AutoSpecError(f"strata: {column!r} has no value for subject {missing[0]!r}")
        return np.array([levels[name] for name in names], dtype=str)

    def in_order(self, drawn: npt.NDArray) -> Tensor:
        nothing = np.nan if drawn.dtype.kind == "f" else 0  # who was met later is on neither side
        found = np.full((len(drawn), self.count), nothing, dtype=drawn.dtype)
        known = [(index, self._drawn[name]) for name, index in self._index.items() if name in self._drawn]
        if known:
            here, there = (list(places) for places in zip(*known, strict=True))
            found[:, here] = drawn[:, there]
        return torch.from_numpy(found)

    def state_dict(self) -> dict[str, Any]:
        """What goes on with the same subjects: each with its groups, and whether labels are drawn."""
        return {
            "subjects": [(name, sorted(self._groups.get(name, ()))) for name in self._index],
            "drawn": list(self._drawn),
            "samples": dict(self._samples),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the subjects of a checkpoint."""
        self._index = {name: place for place, (name, _) in enumerate(state["subjects"])}
        self._groups = {name: set(groups) for name, groups in state["subjects"] if groups}
        self._samples = dict(state.get("samples", {}))
        self._drawn, self._design, self.late = {}, None, []
        if state["drawn"]:
            self._design = self._draw(state["drawn"])


def _fitting(subject: Tensor, groups: SampleGroups) -> Tensor:
    if len(subject) != len(groups.of_sample):
        raise AutoSpecError(
            f"{len(groups.of_sample)} labels, but relabellings of {len(subject)} samples; "
            "recorder.batch(group, samples=...) says which samples a batch holds"
        )
    return subject.to(groups.of_sample.device)
