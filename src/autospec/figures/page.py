"""Whole pictures: a figure of eight panels on one page or more, and each panel by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from matplotlib.figure import Figure, SubFigure

from autospec.figures.contents import DifferencePanel, Panel, SpectraPanel
from autospec.figures.difference_panel import PAIR_NAME_IN, draw_differences
from autospec.figures.difference_panel import rows_needed as difference_rows
from autospec.figures.footer import footer_lines
from autospec.figures.legend import LEGEND_PT, legend_handles, legend_rows
from autospec.figures.saving import Picture, save_pages, save_picture
from autospec.figures.spectra_panel import draw_spectra, rows_needed
from autospec.figures.style import COLUMN_IN, PAGE_IN, SMALLEST_PT, TALLEST_IN, TEXT_GREY, Frame, print_style
from autospec.figures.wrapping import wrap
from autospec.harmless import in_picture

SPECTRA_ROW_IN, MORE_SPECTRA_IN = 1.5, 1.2
DIFFERENCE_ROW_IN, MORE_DIFFERENCE_IN = 1.85, 1.64
TITLE_IN, TITLE_LINE_IN, LINE_IN, LEGEND_ROW_IN = 0.26, 0.14, 0.115, 0.13
FLATTEST = 0.86
"""Rows are drawn so much flatter at most where that lets a figure fit on one page."""
MARGIN_IN = 0.1
TITLE_PT = 7.5
LETTER_IN = 0.25
"""The room of a panel's letter, left of its title."""
NOTE_LINES = {COLUMN_IN: 4, PAGE_IN: 2}
"""Lines that say why a panel is not tested; the caption says it whole."""

Row = Sequence[Panel]


def draw_figure(number: int, title: str, panels: Sequence[Panel], paths: Sequence[Path], caption: str = "") -> None:
    """Draw the whole figure, on pages of at most 7.2 × 9.5 inches.

    Args:
        number: The figure's number.
        title: Its title.
        panels: Its panels.
        paths: The files; a PDF has its pages, a PNG has them below one another.
        caption: The name of the file that says what the footer has no room for.
    """
    with print_style():
        save_pages(figure_pages(number, title, panels, caption), paths)


def figure_pages(number: int, title: str, panels: Sequence[Panel], caption: str = "") -> list[Figure]:
    """Draw the pages of a figure: spectra, then differences, all on one page where they fit.

    Args:
        number: The figure's number.
        title: Its title.
        panels: Its panels.
        caption: The name of the file that says the rest.

    Returns:
        The pages, not saved yet.
    """
    pages = [_Page(rows, caption or "the caption") for rows in _paginate(panels, caption or "the caption")]
    headings = [f"Figure {number}{' (continued)' * (place > 0)}   {title}" for place in range(len(pages))]
    return [page.draw(heading) for page, heading in zip(pages, headings, strict=True)]


@dataclass(frozen=True)
class _Page:
    """Rows of panels under a title and legend, above a footer."""

    rows: Sequence[Row]
    caption: str

    @cached_property
    def panels(self) -> list[Panel]:
        return [panel for row in self.rows for panel in row]

    @cached_property
    def head_in(self) -> float:
        return TITLE_IN + LEGEND_ROW_IN * legend_rows(legend_handles(self.panels), PAGE_IN)

    @cached_property
    def foot_in(self) -> float:
        return LINE_IN * len(footer_lines(self.panels, PAGE_IN, self.caption)) + MARGIN_IN

    @cached_property
    def heights(self) -> list[float]:
        return [max(_height(panel, PAGE_IN / len(row)) for panel in row) for row in self.rows]

    @cached_property
    def flatness(self) -> float:
        """How much flatter than they would be rows must be drawn."""
        return min(1.0, (TALLEST_IN - self.head_in - self.foot_in) / sum(self.heights))

    def draw(self, heading: str) -> Figure:
        rows = [height * self.flatness for height in self.heights]
        heights = [self.head_in, *rows, self.foot_in]
        figure = Figure(figsize=(PAGE_IN, sum(heights)))
        parts = _split_vertically(figure, heights)
        _head(parts[0], self.head_in, heading, self.panels, PAGE_IN)
        for row, part, height in zip(self.rows, parts[1:-1], rows, strict=True):
            places = part.subfigures(1, len(row), squeeze=False, wspace=0).flat
            for panel, place in zip(row, places, strict=False):
                _draw_panel(panel, place, PAGE_IN / len(row), height)
        _foot(parts[-1], footer_lines(self.panels, PAGE_IN, self.caption))
        return figure


def _paginate(panels: Sequence[Panel], caption: str) -> list[list[Row]]:
    """The rows of each page; spectra and differences have pages of their own where one does not hold them all."""
    spectra = [panel for panel in panels if isinstance(panel, SpectraPanel)]
    differences = [panel for panel in panels if isinstance(panel, DifferencePanel)]
    across = 2 if all(len(panel.layers) <= 2 for panel in spectra) else 1
    upper: list[Row] = [spectra[at : at + across] for at in range(0, len(spectra), across)]
    lower: list[Row] = [[panel] for panel in differences]
    if _Page([*upper, *lower], caption).flatness >= FLATTEST:
        return [[*upper, *lower]]
    return [page for rows in (upper, lower) for page in _fill(rows, caption)]


def _fill(rows: Sequence[Row], caption: str) -> list[list[Row]]:
    """Rows on as many pages as they need."""
    pages: list[list[Row]] = []
    for row in rows:
        for part in [row] if _Page([row], caption).flatness >= FLATTEST else [[one] for one in _halves(row[0])]:
            if pages and _Page([*pages[-1], part], caption).flatness >= FLATTEST:
                pages[-1].append(part)
            elif _Page([part], caption).flatness >= FLATTEST or _is_smallest(part[0]):
                pages.append([part])
            else:
                pages += _fill([part], caption)
    return pages


def _is_smallest(panel: Panel) -> bool:
    return len(panel.layers) == 1 and not (isinstance(panel, DifferencePanel) and len(panel.pairs) > 1)


def _halves(panel: Panel) -> list[Panel]:
    """A panel that no page holds in two: half of its pairs each, or half of its layers."""
    if _is_smallest(panel):
        return [panel]
    continued = f"{panel.title} (continued)"
    if isinstance(panel, DifferencePanel) and len(panel.pairs) > 1:
        half = len(panel.pairs) // 2
        return [
            replace(panel, pairs=panel.pairs[:half]),
            replace(panel, pairs=panel.pairs[half:], title=continued, left_out=()),
        ]
    half = -(-len(panel.layers) // 2)
    rest = replace(panel, layers=panel.layers[half:], title=continued)
    if isinstance(rest, DifferencePanel):
        rest = replace(rest, left_out=())
    return [replace(panel, layers=panel.layers[:half]), rest]


def draw_panel(panel: Panel, path: Path, caption: str = "") -> None:
    """Draw one panel by itself, one column wide.

    Args:
        panel: The panel.
        path: The file.
        caption: The name of the file that says what the footer has no room for.
    """
    with print_style():
        save_picture(panel_picture(panel, COLUMN_IN, caption or "the figure's"), [path])


def draw_page(panel: Panel) -> Picture:
    """Draw one panel by itself, as wide as a page; its footer says everything.

    Args:
        panel: The panel.

    Returns:
        The picture, which is not saved yet.
    """
    with print_style():
        figure = panel_picture(panel, PAGE_IN)
        figure.draw_without_rendering()  # ticks are made when they are drawn, in the style that holds then
    return figure


def panel_picture(panel: Panel, width: float, caption: str = "") -> Picture:
    """Draw one panel under its legend and above its footer.

    Args:
        panel: The panel.
        width: The picture's width in inches.
        caption: The name of the file that says the rest; empty says everything in the footer.

    Returns:
        The picture, which is not saved yet.
    """
    footer = footer_lines([panel], width, caption)
    head_in = LEGEND_ROW_IN * legend_rows(legend_handles([panel]), width) + MARGIN_IN
    heights = [head_in, _height(panel, width), LINE_IN * len(footer) + MARGIN_IN]
    figure = Picture(figsize=(width, sum(heights)))
    parts = _split_vertically(figure, heights)
    _head(parts[0], head_in, "", [panel], width)
    _draw_panel(panel, parts[1], width, heights[1])
    _foot(parts[-1], footer)
    return figure


def _split_vertically(figure: Figure, heights: Sequence[float]) -> list[SubFigure]:
    """Parts of a picture below one another, with heights in inches."""
    return list(figure.subfigures(len(heights), 1, height_ratios=heights, hspace=0, squeeze=False)[:, 0])


def _height(panel: Panel, width: float) -> float:
    """The height in inches that a panel takes."""
    columns, above = _columns(panel, width), _above(panel, width)
    if isinstance(panel, SpectraPanel):
        return above + SPECTRA_ROW_IN - TITLE_IN + (rows_needed(panel, columns) - 1) * MORE_SPECTRA_IN
    names = PAIR_NAME_IN * (len(panel.pairs) > 1)
    more = (difference_rows(panel, columns) - 1) * (MORE_DIFFERENCE_IN + names)
    return above + names + DIFFERENCE_ROW_IN - TITLE_IN + more


def _above(panel: Panel, width: float) -> float:
    """The height in inches of a panel's title and of what it says below it."""
    more = TITLE_LINE_IN * (len(_title_lines(panel, width)) - 1)
    return TITLE_IN - 0.04 + more + LINE_IN * len(_note_lines(panel, width))


def _title_lines(panel: Panel, width: float) -> list[str]:
    return wrap(panel.title, width - LETTER_IN - MARGIN_IN, TITLE_PT) or [""]


def _note_lines(panel: Panel, width: float) -> list[str]:
    """Why the groups of a panel are not tested."""
    if not isinstance(panel, DifferencePanel) or not panel.left_out:
        return []
    most = NOTE_LINES[COLUMN_IN if width < PAGE_IN else PAGE_IN]
    return wrap(" ".join(panel.left_out), width - LETTER_IN - MARGIN_IN, SMALLEST_PT, most)


def _columns(panel: Panel, width: float) -> int:
    """How many layers, or blocks of a difference panel, stand side by side: two or four across a page."""
    if isinstance(panel, SpectraPanel):
        return min(len(panel.layers), 2 if width < PAGE_IN else 4)
    return 1 if width < PAGE_IN else max(2, min(4, len(panel.layers)))


def _draw_panel(panel: Panel, part: SubFigure, width: float, height: float) -> None:
    left = (LETTER_IN if panel.letter else 0.05) / width
    part.text(0.05 / width, 1 - 0.02 / height, panel.letter, fontsize=9, fontweight="bold", va="top")
    titles, notes = _title_lines(panel, width), _note_lines(panel, width)
    part.text(left, 1 - 0.03 / height, "\n".join(titles), fontsize=TITLE_PT, va="top")
    below = TITLE_IN - 0.06 + TITLE_LINE_IN * (len(titles) - 1)
    part.text(
        left, 1 - below / height, "\n".join(notes), fontsize=SMALLEST_PT, color=TEXT_GREY, va="top", linespacing=1.25
    )
    above = _above(panel, width)
    if isinstance(panel, SpectraPanel):
        draw_spectra(panel, part, Frame(width, height, left=0.5, right=0.24, top=above + 0.16), _columns(panel, width))
        return
    names = PAIR_NAME_IN * (len(panel.pairs) > 1)
    frame = Frame(width, height, left=0.8, right=0.55, top=above + names + 0.26)
    draw_differences(panel, part, frame, _columns(panel, width))


def _head(part: SubFigure, height: float, title: str, panels: Sequence[Panel], width: float) -> None:
    if title:
        part.text(0.05 / width, 1 - 0.04 / height, in_picture(title), fontsize=9, va="top")
    handles = legend_handles(panels)
    part.legend(
        handles=handles,
        loc="lower left",
        ncols=-(-len(handles) // legend_rows(handles, width)),
        frameon=False,
        borderaxespad=0.1,
        borderpad=0.2,
        columnspacing=0.9,
        labelspacing=0.3,
        handlelength=1.2,
        handletextpad=0.4,
        fontsize=LEGEND_PT,
    )


def _foot(part: SubFigure, lines: Sequence[str]) -> None:
    part.text(0.01, 0.98, "\n".join(lines), fontsize=SMALLEST_PT, color=TEXT_GREY, va="top", linespacing=1.25)
