"""Labels of people: what a table's values are called, and the classes, groups and margins that they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.tables import is_missing
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CohortConfig
from autospec.experiments.datasets.dataset import Integers

RESERVED = "all"
"""The name of the whole batch among the groups of a run."""


def label_subjects(
    subjects: pd.DataFrame, columns: Sequence[str], config: CohortConfig, account: Account
) -> pd.DataFrame:
    """Keep the subjects who have a label in every one of the columns, under the names of the labels.

    Args:
        subjects: The phenotype table.
        columns: The target and the columns that groups are made by.
        config: ``dataset.labels`` names values.
        account: Takes a line for every subject left out.

    Returns:
        The rows that are left, with names in place of values.

    Raises:
        AutoSpecError: No subject is left.
    """
    labelled = subjects.copy()
    for column in columns:
        names = names_of_values(config, column)
        both = zip(subjects["id"], subjects[column], strict=True)
        labels = [_label(subject, text, column, names, account) for subject, text in both]
        labelled[column] = pd.Series(labels, index=subjects.index, dtype=object)
    labelled = labelled.dropna(subset=list(columns)).reset_index(drop=True)
    if labelled.empty:
        values = "; ".join(
            f"{column} is {list_names(sorted({repr(text) for text in subjects[column]}))}" for column in columns
        )
        raise AutoSpecError(f"no subject has a usable value of {' and '.join(columns)} ({values}); see dataset.labels")
    return labelled


def _label(subject: str, text: str, column: str, names: Mapping[str, str] | None, account: Account) -> str | None:
    """The name of a subject's label; None, and a line in the account, where there is none."""
    if names is not None and (name := _named(text, names)) is not None:
        return name
    if is_missing(text):
        account.drop(subject, f"{column} is missing")
    elif names is not None:
        account.drop(subject, f"{column} is {text!r}, which dataset.labels.{column} does not name")
    else:
        return text
    return None


def _named(text: str, names: Mapping[str, str]) -> str | None:
    """The name of a value, also where its letters are large or small otherwise (``FEMALE``)."""
    if text in names:
        return names[text]
    alike = {name for value, name in names.items() if value.casefold() == text.casefold()}
    # f and F may be values of two names: then only the letters as they are tell
    return alike.pop() if len(alike) == 1 else None


def note_bare_numbers(labelled: pd.DataFrame, config: CohortConfig, account: Account) -> None:
    """Warn of groups that are called by numbers, since nobody can tell what 1 and 2 are.

    Args:
        labelled: Subjects with the names of their labels.
        config: The target and the columns that groups are made by.
        account: Takes the warning.
    """
    for column in dict.fromkeys([config.target, *config.group_by]):
        labels = sorted(set(labelled[column]))
        if column not in config.labels and all(label.replace(".", "", 1).isdigit() for label in labels):
            account.warn(
                f"{column}: groups are called {list_names(labels)}; dataset.labels.{column}.NAME=[{labels[0]}] gives "
                "them names, and so do Levels in the JSON file beside the table"
            )


def names_of_values(config: CohortConfig, column: str) -> dict[str, str] | None:
    """The name of each value of a column; None where the values are their own names.

    Args:
        config: ``dataset.labels``.
        column: A column of the phenotype table.

    Returns:
        Value → name, or None.

    Raises:
        AutoSpecError: One value stands for two names.
    """
    if column not in config.labels:
        return None
    names: dict[str, str] = {}
    for name, values in config.labels[column].items():
        # a name stands for itself, so that a table with names in it is read by the same labels
        for value in {name, *values}:
            if names.setdefault(value, name) != name:
                raise AutoSpecError(f"dataset.labels.{column}: {value!r} stands for both {names[value]} and {name}")
    return names


def levels_in_order(labelled: pd.DataFrame, column: str, config: CohortConfig) -> list[str]:
    """The labels of a column that occur, in the configuration's order where it names them.

    Args:
        labelled: Subjects with the names of their labels.
        column: A column of them.
        config: ``dataset.labels`` gives the order.

    Returns:
        The labels.
    """
    present = set(labelled[column])
    return [name for name in config.labels.get(column, sorted(present)) if name in present]


def to_codes(labels: Iterable[str], names: Sequence[str]) -> tuple[Integers, tuple[str, ...]]:
    """Labels as indices into their names.

    Args:
        labels: One per subject.
        names: In the order of the codes.

    Returns:
        (n,) codes, and the names.
    """
    index = {name: code for code, name in enumerate(names)}
    return np.array([index[label] for label in labels], dtype=np.int64), tuple(names)


def crossed_groups(labelled: pd.DataFrame, config: CohortConfig) -> list[str]:
    """The crossed groups that occur, first column slowest.

    Args:
        labelled: Subjects with the names of their labels.
        config: ``dataset.group_by``.

    Returns:
        Such as ``HC/men``.
    """
    present = labelled[config.group_by].agg("/".join, axis=1)
    return cross([levels_in_order(labelled, column, config) for column in config.group_by], present)


def margins_of(labelled: pd.DataFrame, config: CohortConfig) -> dict[str, tuple[str, ...]]:
    """Each label of each of several columns, and the groups that it unites.

    Args:
        labelled: Subjects with the names of their labels.
        config: ``dataset.group_by``.

    Returns:
        Label → groups; empty where one column makes the groups.

    Raises:
        AutoSpecError: A label cannot name a group.
    """
    levels = [levels_in_order(labelled, column, config) for column in config.group_by]
    name = unusable_label(levels)
    if name is not None:
        raise AutoSpecError(
            f"dataset.group_by={config.group_by}: the label {name!r} cannot name a group (it is reserved, has a "
            "slash or stands in two columns); dataset.labels gives it another name"
        )
    return unite(levels, crossed_groups(labelled, config))


def cross(levels: Sequence[Sequence[str]], present: Iterable[str]) -> list[str]:
    """The crossings of the labels of several columns that occur, first column slowest.

    Args:
        levels: The labels of each column, in order.
        present: The crossing of each sample.

    Returns:
        Such as ``HC/men``.
    """
    there = set(present)
    return [cell for cell in map("/".join, product(*levels)) if cell in there]


def unite(levels: Sequence[Sequence[str]], cells: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Each label of each of several columns, and the crossings that it unites.

    Args:
        levels: The labels of each column, in order.
        cells: The crossings that occur.

    Returns:
        Label → crossings; empty for one column, whose labels are the groups.
    """
    if len(levels) == 1:
        return {}
    return {
        level: tuple(cell for cell in cells if cell.split("/")[position] == level)
        for position, of_column in enumerate(levels)
        for level in of_column
    }


def unusable_label(levels: Sequence[Sequence[str]]) -> str | None:
    """The first label that cannot name a group: it is reserved, has a slash or stands in two columns.

    Args:
        levels: The labels of each column.

    Returns:
        The label; None where all can.
    """
    names = [level for of_column in levels for level in of_column]
    return next((name for name in names if "/" in name or name == RESERVED or names.count(name) > 1), None)


def called_by_labels(labelled: pd.DataFrame, column: str, config: CohortConfig) -> list[str]:
    """The labels of a column that no subject is left out for: by the configuration's names where it has them.

    Args:
        labelled: Subjects with the names of their labels.
        column: A column of them.
        config: ``dataset.labels``.

    Returns:
        One label per subject.
    """
    names = names_of_values(config, column) or {}
    return [_named(str(text), names) or str(text) for text in labelled[column]]
