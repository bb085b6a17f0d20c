"""Pictures that a notebook shows, and saving them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from autospec.errors import AutoSpecError
from autospec.store.atomic import write_atomically

SCREEN_DPI = 150


class Picture(Figure):
    """A matplotlib figure that needs no display; a notebook shows it, ``savefig`` saves it."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png", dpi=SCREEN_DPI)
        return image.getvalue()


def save_picture(figure: Figure, paths: Sequence[Path]) -> None:
    """Save a picture.

    Args:
        figure: The picture.
        paths: The files; their endings say which kind of picture.

    Raises:
        AutoSpecError: A file cannot be written, or its ending is of no kind of picture.
    """
    for path in paths:
        if path.suffix[1:] not in figure.canvas.get_supported_filetypes():
            raise AutoSpecError(f"{path}: no kind of picture ends so; take .png, .pdf or .svg")
        with write_atomically(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:])
