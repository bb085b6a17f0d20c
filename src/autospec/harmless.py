"""What comes out is harmless: names and ids of others are shown escaped, on consoles, in logs, pictures, tables, pages.

An id may hold what a terminal obeys, a line break that begins a line of its own, a formula that a spreadsheet runs,
mathematics that matplotlib cannot set, or HTML. Files keep it as it is; whatever shows it goes through here.
"""

from __future__ import annotations

import html
import logging
import unicodedata

UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode's categories of what is obeyed and not seen: controls, marks of direction and the like, line separators."""
NAMED = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}

FORMULA = ("=", "+", "-", "@")
"""What a cell must not begin with: a spreadsheet would compute it."""


def visible(text: str, keep: str = "") -> str:
    r"""Return a text with everything that is obeyed and not seen escaped.

    Args:
        text: Any text.
        keep: Characters that stay, such as line breaks between lines of our own.

    Returns:
        The same text where it holds nothing of the kind.

    >>> visible("a\x1b[2J\nb")
    'a\\x1b[2J\\nb'
    """
    if text.isprintable():
        return text
    return "".join(_escaped(letter, keep) for letter in text)


def _escaped(letter: str, keep: str) -> str:
    if letter in keep or unicodedata.category(letter) not in UNSEEN:
        return letter
    return NAMED.get(letter) or (f"\\x{ord(letter):02x}" if ord(letter) < 256 else f"\\u{ord(letter):04x}")


def in_picture(text: str) -> str:
    r"""Return a name as matplotlib draws it letter by letter: a dollar sign begins no mathematics.

    Args:
        text: A name, or a sentence with names.

    >>> in_picture("$\\frac")
    '\\$\\frac'
    """
    return visible(text).replace("$", r"\$")


def in_cell(value: object) -> object:
    """Return what a cell of a table holds: text that begins as a formula has an apostrophe before it.

    Args:
        value: Of any kind; numbers, and text that is a number, stay.

    >>> in_cell("=1+1"), in_cell("-1"), in_cell(-1.5)
    ("'=1+1", '-1', -1.5)
    """
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.lstrip().startswith(FORMULA) and not _is_number(text) else text


def in_page(text: str) -> str:
    """Return a text as HTML shows it.

    Args:
        text: Any text.

    >>> in_page("<b>")
    '&lt;b&gt;'
    """
    return html.escape(visible(text))


class Formatter(logging.Formatter):
    """Formats messages of which no line can pass for another message: further lines are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format a record without its traceback."""
        record.message = visible(record.message, keep="\n\t").replace("\n", "\n  ")
        return super().formatMessage(record)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
