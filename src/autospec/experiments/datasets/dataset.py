"""What every data set is handed over as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError

Float32s = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


LEVERAGE = "leverage"
"""The column that says how much each subject decided the fit by which covariates were taken out, in quarters."""


@dataclass(frozen=True)
class Dataset:
    """Samples, what is classified, and whose gradients are told apart.

    ``inputs`` (n, ...) are scaled; ``target`` (n,) indexes ``classes``; ``group`` (n,) indexes ``groups``, -1 for
    none; ``margins`` are unions of groups; ``people`` are the ids of the samples' subjects; ``training`` (n,) marks the
    samples that are trained on. ``source`` says in a few words where the data come from, ``scaling`` what the inputs
    were scaled with, ``account`` line by line who was found and who left out; ``columns`` (n,) are further labels of
    subjects by name, such as sex and site; ``balance`` says how far groups are apart in what is not being
    compared; ``facts`` is what a reader of a figure must know of how the data were made (see ``facts.py``).
    """

    inputs: Float32s
    target: Integers
    classes: tuple[str, ...]
    group: Integers
    groups: tuple[str, ...]
    subjects: tuple[str, ...]
    training: Mask
    source: str
    simulated: bool
    margins: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scaling: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    account: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    balance: tuple[Mapping[str, str | float | bool | None], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    def group_sizes(self) -> list[int]:
        """The number of training subjects in ``all``, in each group and in each margin.

        Returns:
            Numbers of subjects.
        """
        subjects = np.array(self.subjects)
        member = self.group[self.training]

        def count(chosen: Mask) -> int:
            return len(set(subjects[self.training][chosen]))

        sizes = [count(np.ones(len(member), dtype=bool))]
        sizes += [count(member == index) for index in range(len(self.groups))]
        sizes += [count(np.isin(member, [self.groups.index(p) for p in parts])) for parts in self.margins.values()]
        return sizes


def hold_out(subjects: Sequence[str], strata: Sequence[str], share: float, seed: int) -> Mask:
    """Which samples train when a share of the subjects of every stratum is kept out.

    Args:
        subjects: (n,) Whose each sample is.
        strata: (n,) The stratum of each sample's subject.
        share: Of each stratum, 0 to 1.
        seed: Which subjects.

    Returns:
        (n,) True for training.

    Raises:
        AutoSpecError: A stratum would have no subject left on one side.
    """
    training = np.ones(len(subjects), dtype=bool)
    if share == 0:
        return training
    order = np.random.default_rng(seed)
    stratum_of = dict(zip(subjects, strata, strict=True))
    # sorted, so that who is kept out does not depend on the order of a table's rows
    for stratum in sorted(set(strata)):
        members = sorted(subject for subject, stratum_of_subject in stratum_of.items() if stratum_of_subject == stratum)
        kept_out = round(share * len(members))
        if not 0 < kept_out < len(members):
            raise AutoSpecError(
                f"dataset.holdout={share}: of {len(members)} subjects in stratum {stratum!r} {kept_out} would be held "
                "out; each side needs at least one"
            )
        chosen = set(order.permutation(members)[:kept_out].tolist())
        training &= np.array([subject not in chosen for subject in subjects])
    return training
