"""What a figure must say of its data to be true: what was taken out, what is unbalanced, how much was used."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from autospec.store.groups import Pair

LARGE = 0.25
"""Standardised differences above this are named."""
MOST_NAMED = 3
"""So many unbalanced covariates are named in a footer; a caption has all."""
KINDS_OF_VALUES = {1: "values", 2: "volumes × components", 3: "voxels"}
"""What the dimensions of one subject's input are."""


@dataclass(frozen=True)
class DataFacts:
    """The facts of a cohort as a run's file keeps them (attribute ``facts``, JSON).

    Attributes:
        study: What a title may call it; None for a simulated cohort.
        adjusted_for: Covariates whose linear effect was taken out.
        harmonized_by: Columns of the site whose location and scale were taken out.
        matched_by: Columns by which pairs of subjects were matched.
        motion_cut: Who moved more was left out; None where nobody was.
        session: The visit that was taken of subjects with several.
        imbalances: Standardised differences above 0.25, worst first: covariate, one, other, standardised, adjusted.
        time_points: So many volumes from the start; None for all.
        resolution_mm: The voxel size that maps were resampled to; None for as they are.
        shape: Of one subject's input.
    """

    study: str | None = None
    adjusted_for: Sequence[str] = ()
    harmonized_by: Sequence[str] = ()
    matched_by: Sequence[str] = ()
    motion_cut: float | None = None
    session: str | None = None
    imbalances: Sequence[Mapping[str, Any]] = ()
    time_points: int | None = None
    resolution_mm: int | None = None
    shape: Sequence[int] = ()


def read_facts(attributes: Mapping[str, Any]) -> DataFacts | None:
    """Take the facts out of a file's attributes.

    Args:
        attributes: The root attributes of ``spectra.h5``.

    Returns:
        The facts; None where the file has none, because its data are no cohort or it was made before they were kept.
    """
    kept = json.loads(str(attributes.get("facts", "{}")))
    if not kept:
        return None
    return DataFacts(**{one.name: kept[one.name] for one in fields(DataFacts) if one.name in kept})


def adjustment_sentence(facts: DataFacts) -> str:
    """Say what was taken out of the data, or that nothing was.

    Args:
        facts: The facts of the data.

    Returns:
        A sentence.
    """
    done = []
    if facts.adjusted_for:
        done.append(f"{list_words(facts.adjusted_for)} taken out of every value (residualize)")
    if facts.harmonized_by:
        done.append(f"harmonised by {list_words(facts.harmonized_by)}")
    if facts.matched_by:
        done.append(f"subjects matched by {list_words(facts.matched_by)}")
    return f"ADJUSTED: {'; '.join(done)}." if done else "NOT ADJUSTED for any covariate."


def imbalance_sentence(facts: DataFacts, pairs: Collection[Pair], most: int | None = MOST_NAMED) -> str:
    """Name the covariates in which compared groups are more than 0.25 standard deviations apart.

    Args:
        facts: The facts of the data.
        pairs: The pairs of groups that are shown.
        most: So many are named; None names all.

    Returns:
        A sentence.
    """
    shown = [one for one in facts.imbalances if {(one["one"], one["other"]), (one["other"], one["one"])} & {*pairs}]
    if not shown:
        return f"No known covariate differs by more than {LARGE:g} SD."
    named = [_imbalance(one, dict.fromkeys(pairs)) for one in shown[:most]]
    more = f" and {len(shown) - len(named)} more" if len(shown) > len(named) else ""
    return f"Imbalance above {LARGE:g} SD: {'; '.join(named)}{more}."


def _imbalance(one: Mapping[str, Any], pairs: Collection[Pair]) -> str:
    """Such as ``age +0.31 (SZ less HC)``, first and second group as they are drawn."""
    first, second, value = one["one"], one["other"], one["standardised"]
    if (second, first) in pairs:
        first, second, value = second, first, None if value is None else -value
    size = "without overlap" if value is None else f"{value:+.2f}"
    adjusted = ", taken out" if one.get("adjusted") else ""
    return f"{one['covariate']} {size} ({first} less {second}{adjusted})"


def extent_words(facts: DataFacts) -> list[str]:
    """Say how much of each subject's data was used, and who was left out for motion.

    Args:
        facts: The facts of the data.

    Returns:
        A few words for each.
    """
    words = []
    if facts.shape:
        kind = KINDS_OF_VALUES.get(len(facts.shape), "values")
        words.append(f"{' × '.join(map(str, facts.shape))} {kind} of each subject")
    if facts.time_points is not None:
        words.append(f"the first {facts.time_points} volumes")
    if facts.resolution_mm is not None:
        words.append(f"maps at {facts.resolution_mm} mm")
    if facts.session is not None:
        words.append(f"session {facts.session}")
    words.append("no motion cut" if facts.motion_cut is None else f"motion cut {facts.motion_cut:g}")
    return words


def list_words(words: Sequence[str]) -> str:
    """Join words as a sentence does.

    Args:
        words: The words.

    Returns:
        Such as ``age, sex and site``.

    Example:
        >>> list_words(["age"]), list_words(["age", "sex", "site"])
        ('age', 'age, sex and site')
    """
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)
