"""Tables of a page that sort at a click on a heading, and narrow down by words and choices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from autospec.webpage.document import asset, escape

TABLE_SCRIPT = asset("table.js")
PAGE_STYLE = asset("page.css")

UNKNOWN = "–"
LONG = 40
"""Text of more characters gets a wide column."""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: What stands above it.
        meaning: What it means, shown where the pointer rests on the heading.
        choose: Whether rows can be chosen by its values.
    """

    heading: str
    meaning: str = ""
    choose: bool = False


@dataclass(frozen=True)
class Link:
    """A cell that leads to another place of the page.

    Attributes:
        text: What it shows.
        target: The id of the element that it leads to.
    """

    text: str
    target: str


def render_table(columns: Sequence[Column], rows: Sequence[Sequence[object]], name: str, find: bool = False) -> str:
    """Write a table that sorts.

    Args:
        columns: Its columns.
        rows: Of each row the cells: text, numbers, or None and NaN for what is not known.
        name: What it is a table of, for those who hear the page.
        find: Whether it can be narrowed down, by words and by the values of the columns that say so.

    Returns:
        HTML.
    """
    heads = "".join(_head(column, rows, place, find) for place, column in enumerate(columns))
    body = "\n".join(f"<tr>{''.join(map(cell, row))}</tr>" for row in rows)
    attributes = ' data-find="yes"' if find else ""
    return (
        f'<div class="wide"><table class="sortable" aria-label="{escape(name)}"{attributes}>'
        f"<thead><tr>{heads}</tr></thead><tbody>\n{body}\n</tbody></table></div>"
    )


def _head(column: Column, rows: Sequence[Sequence[object]], place: int, find: bool) -> str:
    title = f' title="{escape(column.meaning)}"' if column.meaning else ""
    choose = ' data-choose="yes"' if find and column.choose and len({str(row[place]) for row in rows}) > 1 else ""
    number = ' class="number"' if rows and all(_is_number(row[place]) for row in rows) else ""
    return f"<th{title}{choose}{number}>{escape(column.heading)}</th>"


def cell(value: object, key: str = "") -> str:
    """Write a cell of a table with the value that it is sorted by.

    Args:
        value: Text, a number, or None and NaN for what is not known, which is sorted behind everything else.
        key: A word by which a script finds it.

    Returns:
        HTML.
    """
    known_as = f' data-key="{escape(key)}"' if key else ""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return f'<td{known_as} data-value="" class="number">{UNKNOWN}</td>'
    if isinstance(value, Real) and _is_number(value):
        return f'<td{known_as} data-value="{float(value):.10g}" class="number">{short_number(float(value))}</td>'
    if isinstance(value, Link):
        return f'<td{known_as}><a href="#{escape(value.target)}">{escape(value.text)}</a></td>'
    long = ' class="long"' if len(str(value)) > LONG else ""
    return f"<td{known_as}{long}>{escape(value)}</td>"


def _is_number(value: object) -> bool:
    return value is None or (isinstance(value, Real) and not isinstance(value, bool))


def short_number(value: float) -> str:
    """Return a number in about three digits; whole ones in full."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 1e7 else f"{value:.3g}".replace("inf", "∞")
