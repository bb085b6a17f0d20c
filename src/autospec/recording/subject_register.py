"""Whose samples the batches hold, and the permuted partitions once all subjects are known.

A recorder whose permutations were designed beforehand knows its subjects (``GivenSubjects``); one that draws by itself
meets them batch by batch (``SubjectRegister``) and draws at the end of the first epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from autospec.analysis.relabelling import MIXED, observed_partition, permute_labels
from autospec.errors import AutoSpecError
from autospec.recording.permutation_request import PermutationRequest, SubjectName, subject_names
from autospec.spectra.groups import SampleGroups
from autospec.store.permuted_pairs import PairPermutations, PermutationDesign


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

    def members(self, pair: PairPermutations) -> Tensor:
        """(1 + P, count): a pair's partitions, in the order of ``of_batch``."""


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

    def members(self, pair: PairPermutations) -> Tensor:
        return torch.from_numpy(pair.members)


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
        if self._design is None and not self._request.parts:
            return self.design()
        return self._design or self._earlier

    def is_due(self, epoch: int) -> bool:
        return self._request.is_due(epoch) and (self._design is None or bool(self._design.pairs))

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
        drawn = PermutationDesign(tuple(pairs), refused, np.arange(len(names)))
        if self._earlier is not None and self._earlier.digest() != drawn.digest():
            raise AutoSpecError(
                "the subjects of this epoch, or their groups, are not those whose labels the file permuted before; "
                "give recorder.load_state_dict(...) the state of a checkpoint, or begin anew with overwrite=True"
            )
        return drawn

    def _column(self, column: str, names: Sequence[SubjectName]) -> np.ndarray:
        levels = self._request.strata[column]
        missing = [name for name in names if name not in levels]
        if missing:
            raise AutoSpecError(f"strata: {column!r} has no value for subject {missing[0]!r}")
        return np.array([levels[name] for name in names], dtype=str)

    def members(self, pair: PairPermutations) -> Tensor:
        found = torch.zeros((len(pair.members), self.count), dtype=torch.int8)
        known = [(index, self._drawn[name]) for name, index in self._index.items() if name in self._drawn]
        if known:
            here, there = (list(places) for places in zip(*known, strict=True))
            found[:, here] = torch.from_numpy(pair.members)[:, there]
        return found  # who was met later is on neither side

    def state_dict(self) -> dict[str, Any]:
        """What goes on with the same subjects: each with its groups, and whether labels are drawn."""
        return {
            "subjects": [(name, sorted(self._groups.get(name, ()))) for name in self._index],
            "drawn": list(self._drawn),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the subjects of a checkpoint."""
        self._index = {name: place for place, (name, _) in enumerate(state["subjects"])}
        self._groups = {name: set(groups) for name, groups in state["subjects"] if groups}
        self._design, self.late = None, []
        if state["drawn"]:
            self._design = self._draw(state["drawn"])


def _fitting(subject: Tensor, groups: SampleGroups) -> Tensor:
    if len(subject) != len(groups.of_sample):
        raise AutoSpecError(
            f"{len(groups.of_sample)} labels, but relabellings of {len(subject)} samples; "
            "recorder.batch(group, samples=...) says which samples a batch holds"
        )
    return subject.to(groups.of_sample.device)
