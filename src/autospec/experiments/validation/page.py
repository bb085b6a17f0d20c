"""The page of a calibration in the documentation: its tables, counts and pictures, put into text that stands there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from autospec.errors import AutoSpecError
from autospec.experiments.validation.conditions import CONFOUNDED, NULLS, POWER, Cell
from autospec.experiments.validation.picture import NOT_OFFERED, draw_calibration
from autospec.experiments.validation.rates import EFFECT, markdown, write
from autospec.store.atomic import write_atomically

PAGE, TABLE, PICTURES = "calibration.md", "calibration.csv", "images"
PARTS = ("counts", "intervals", "pictures", "false positives", "power")
"""The parts of the page that are written, each between ``<!-- name -->`` and ``<!-- end of name -->``."""


def update_page(table: pd.DataFrame, docs: Path) -> None:
    """Put rates into the documentation.

    Args:
        table: Rates, with the columns of ``rates.COLUMNS``.
        docs: The folder of the page, its CSV and the folder of its pictures.

    Raises:
        AutoSpecError: There is no such page, or a part has no place in it.
    """
    path = docs / PAGE
    if not path.exists():
        raise AutoSpecError(f"--docs {docs}: there is no {PAGE}")
    text = path.read_text("utf-8")
    for name, part in _parts(table).items():
        text = _with(text, name, part, path)
    draw_calibration(table, docs / PICTURES)
    write(table, docs / TABLE)
    with write_atomically(path) as temporary:
        temporary.write_text(text, "utf-8")


def _with(text: str, name: str, part: str, path: Path) -> str:
    """The page with one part made anew."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise AutoSpecError(f"{path}: {begin} and {end} must each stand there once")
    return text[: text.index(begin)] + f"{begin}\n{part}\n" + text[text.index(end) :]


def _parts(table: pd.DataFrame) -> dict[str, str]:
    power = table["null"].str.contains(EFFECT)
    of_chance = (_counts(table), _intervals(table[~power]), _pictures(table), markdown(table[~power]))
    return dict(zip(PARTS, (*of_chance, _power(table[power])), strict=True))


def _power(effects: pd.DataFrame) -> str:
    """Table and picture of the power, where any was counted."""
    picture = "![Power of the primary test, by the size of the effect](images/calibration_power.png)"
    return f"{markdown(effects)}\n\n{picture}" if len(effects) else "Not counted yet."


def _counts(table: pd.DataFrame) -> str:
    """How many studies there are, and which kinds were not counted."""
    studies = table.drop_duplicates(["null", "groups"])["runs"].sum()
    missing = [f"{cell.name}, {cell.condition.groups}" for cell in _planned() if not len(_rows(table, cell))]
    left = f"\n\nPlanned and not counted yet: {'; '.join(missing)}." if missing else ""
    return f"**{studies:,} studies** are counted here; each column of the tables says how many are its own.{left}"


def _intervals(nulls: pd.DataFrame) -> str:
    """How many intervals of tests that are offered cover the level, and which do not."""
    confounded = {(cell.name, cell.condition.groups) for cell in CONFOUNDED}
    of_cell = zip(nulls["null"], nulls["groups"], strict=True)
    is_null = pd.Series([cell not in confounded for cell in of_cell], nulls.index, dtype=bool)
    offered = nulls[~nulls["test"].str.contains(NOT_OFFERED) & is_null]
    missed = offered[(offered["low"] > offered["alpha"]) | (offered["high"] < offered["alpha"])]
    named = [
        f"{row['test']} ({row['null']}, {row['groups']}): {row['rate']:.3f}, {row['low']:.3f} to {row['high']:.3f}"
        for row in missed.to_dict("records")
    ]
    those = f" Those that do not: {'; '.join(named)}." if named else ""
    covered = len(offered) - len(missed)
    return (
        f"Of the {len(offered)} exact 99 % intervals of tests that are offered {covered} cover 0.05; one in a hundred "
        f"is expected not to.{those}"
    )


def _pictures(table: pd.DataFrame) -> str:
    drawn = [name for name, cells in NULLS.items() if any(len(_rows(table, cell)) for cell in cells)]
    return "\n\n".join(f"![{_title(name)}](images/calibration_{name}.png)" for name in drawn)


def _title(name: str) -> str:
    cells = NULLS[name]
    learner = cells[0].name.partition(",")[0]
    return f"{learner.capitalize()}: {'; '.join(dict.fromkeys(cell.condition.null for cell in cells))}"


def _planned() -> Iterator[Cell]:
    for cells in NULLS.values():
        yield from cells
    yield from (*CONFOUNDED, *POWER)


def _rows(table: pd.DataFrame, cell: Cell) -> pd.DataFrame:
    return table[(table["null"] == cell.name) & (table["groups"] == cell.condition.groups)]
