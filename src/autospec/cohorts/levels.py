"""What the codes of a BIDS table mean, by the JSON file beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from autospec.cohorts.exclusions import Account
from autospec.cohorts.phenotype import NUMERIC
from autospec.errors import AutoSpecError
from autospec.foreign.files import read_text


def with_levels(subjects: pd.DataFrame, path: Path, columns: Mapping[str, str], account: Account) -> pd.DataFrame:
    """Replace codes by what the JSON file beside a BIDS table says they mean (``Levels``: ``1`` is ``male``).

    Args:
        subjects: The table under our names.
        path: The table's file; ``participants.json`` lies beside ``participants.tsv``.
        columns: Our names → the table's.
        account: Takes what was replaced.

    Returns:
        The table with the levels' names.

    Raises:
        AutoSpecError: The JSON file cannot be read.
    """
    for ours, levels in levels_of(path, columns).items():
        if ours in subjects.columns and ours not in NUMERIC and ours != "id":
            texts = [str(text) for text in subjects[ours]]
            used = sorted({text for text in texts if text in levels and levels[text] != text})
            if used:
                account.note(
                    f"{ours}: {', '.join(f'{text} is {levels[text]}' for text in used)} ({levels_file(path).name})"
                )
                subjects = subjects.assign(**{ours: [levels.get(text, text) for text in texts]})
    return subjects


def levels_file(path: Path) -> Path:
    """The JSON file that describes a table.

    Args:
        path: The table.

    Returns:
        Its path, whether it is there or not.
    """
    return path.with_name(path.name.split(".")[0] + ".json")


def levels_of(path: Path, columns: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """The levels of the columns that a table's JSON file describes, by our names.

    Args:
        path: The table.
        columns: Our names → the table's.

    Returns:
        Code → meaning, by column; empty where there is no file.

    Raises:
        AutoSpecError: The file cannot be read.
    """
    file = levels_file(path)
    if not file.is_file():
        return {}
    try:
        content = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        raise AutoSpecError(f"{file}: cannot be read as JSON ({error})") from error
    ours: dict[str, str] = {theirs: name for name, theirs in columns.items()}
    described_levels: dict[str, dict[str, str]] = {}
    described: Any
    for theirs, described in (content if isinstance(content, dict) else {}).items():
        levels = described.get("Levels") if isinstance(described, dict) else None
        if isinstance(levels, dict):
            described_levels[ours.get(str(theirs), str(theirs))] = {
                str(code): _meaning(meaning) for code, meaning in levels.items()
            }
    return described_levels


def _meaning(level: object) -> str:
    """What a level is called: BIDS allows a text, or an object with a description."""
    return str(level.get("Description", level)) if isinstance(level, dict) else str(level)
