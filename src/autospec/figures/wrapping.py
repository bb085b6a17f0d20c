"""Text broken into lines by its width in print, not by the number of its characters."""

from __future__ import annotations

from functools import cache

from matplotlib.textpath import TextPath

from autospec.harmless import in_picture

GONE_ON = " … (caption)"
SPACE_EM, HINTING_EM = 0.34, 0.08
"""The width of a space, and what hinting may add to a word on a screen, in font sizes."""


def wrap(text: str, width_in: float, size_pt: float, most: int | None = None) -> list[str]:
    """Break a text into lines, as matplotlib draws them letter by letter.

    Args:
        text: The text.
        width_in: The width of a line in inches.
        size_pt: The font size.
        most: So many lines at most; what does not fit is said to stand in the caption. None keeps all.

    Returns:
        The lines.
    """
    lines: list[str] = []
    for word in in_picture(text).split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and _width_in(longer, size_pt) <= width_in:
            lines[-1] = longer
        else:
            lines.append(word)
    if most is None or len(lines) <= most:
        return lines
    last = lines[most - 1]
    while " " in last and _width_in(last + GONE_ON, size_pt) > width_in:
        last = last.rsplit(" ", 1)[0]
    return [*lines[: most - 1], last + GONE_ON]


def _width_in(text: str, size_pt: float) -> float:
    """The sum of its words' widths, which are measured once each."""
    words = text.split(" ")
    return (sum(map(_word_em, words)) + SPACE_EM * (len(words) - 1)) * size_pt / 72


@cache
def _word_em(word: str) -> float:
    return float(TextPath((0, 0), word, size=100).get_extents().x1) / 100 + HINTING_EM if word else 0.0
