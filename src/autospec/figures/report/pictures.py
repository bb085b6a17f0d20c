"""Pictures inside a page: without loss, as small as they go, and of a bounded size together."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from autospec.figures.report.files import FigurePictures
from autospec.webpage.document import escape

MOST_BYTES = 24_000_000
"""Of all pictures of a page together."""


class Album:
    """Turns pictures into elements of a page until their room is used up."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.room = most_bytes
        self.left_out: list[str] = []

    def figures(self, figures: Sequence[FigurePictures]) -> str:
        """Write figures, each with its panels folded below it.

        Args:
            figures: The figures.

        Returns:
            HTML.
        """
        wholes = [self._picture(figure.whole) for figure in figures]  # before panels, where room is short
        return "\n".join(self._figure(figure, whole) for figure, whole in zip(figures, wholes, strict=True))

    def _figure(self, figure: FigurePictures, whole: str) -> str:
        panels = "".join(self._picture(panel) for panel in figure.panels)
        folded = f'<details><summary>Panels</summary><div class="panels">{panels}</div></details>' if panels else ""
        return f'<section class="figure"><h3>{escape(name_of(figure.whole))}</h3>{whole}{folded}</section>'

    def _picture(self, path: Path) -> str:
        """The picture; nothing where it cannot be read or there is no room, which is noted."""
        try:
            with Image.open(path) as image:
                width, height = image.size
                file = io.BytesIO()
                image.save(file, format="webp", lossless=True, quality=60)
        except (OSError, UnidentifiedImageError) as error:
            self.left_out.append(f"{path}: cannot be read as a picture ({type(error).__name__})")
            return ""
        if len(file.getvalue()) > self.room:
            self.left_out.append(f"{path}: left out, since pictures take {MOST_BYTES // 1_000_000} MB already")
            return ""
        self.room -= len(file.getvalue())
        data = base64.b64encode(file.getvalue()).decode("ascii")
        name = escape(name_of(path))
        size = f'width="{width}" height="{height}"'
        return f'<img src="data:image/webp;base64,{data}" alt="{name}" {size} loading="lazy">'


def name_of(path: Path) -> str:
    """Return a file's name as a heading: ``figure_1_A.png`` is Figure 1 A."""
    words = path.stem.replace("_", " ")
    return words[:1].upper() + words[1:]
