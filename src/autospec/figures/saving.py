"""Pictures that a notebook shows, and saving them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure
from PIL import Image

from autospec.errors import AutoSpecError
from autospec.store.atomic import write_atomically

SCREEN_DPI = 150


class Picture(Figure):
    """A matplotlib figure that needs no display; a notebook shows it, ``savefig`` saves it."""

    def _repr_png_(self) -> bytes:
        image = io.BytesIO()
        self.savefig(image, format="png", dpi=SCREEN_DPI)
        return image.getvalue()


def save_pages(pages: Sequence[Figure], paths: Sequence[Path]) -> None:
    """Save pictures that belong together: as the pages of a PDF, or below one another.

    Args:
        pages: The pictures, of one width.
        paths: The files, each ``.pdf`` or ``.png``.

    Raises:
        AutoSpecError: A file cannot be written.
    """
    if len(pages) == 1:
        return save_picture(pages[0], paths)
    for path in paths:
        with write_atomically(path) as temporary:
            if path.suffix == ".pdf":
                with PdfPages(temporary) as document:
                    for page in pages:
                        document.savefig(page)
            else:
                _stack(pages).save(temporary, format=path.suffix[1:])


def _stack(pages: Sequence[Figure]) -> Image.Image:
    """The pages as one image."""
    images = [Image.open(io.BytesIO(_as_png(page))) for page in pages]
    whole = Image.new("RGB", (max(image.width for image in images), sum(image.height for image in images)), "white")
    heights = [0, *accumulate(image.height for image in images)]
    for image, top in zip(images, heights, strict=False):
        whole.paste(image.convert("RGB"), (0, top))
    return whole


def _as_png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()


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
