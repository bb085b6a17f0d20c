"""The libraries that recordings are made for, which nothing else of AutoSpec needs."""

from __future__ import annotations

from importlib.util import find_spec

from autospec.errors import MissingExtra


def require_library(part: str, library: str) -> None:
    """Refuse to load a part of AutoSpec whose library is missing: MissingExtra, with the command that installs it."""
    if find_spec(library) is None:
        raise MissingExtra(f"autospec.integrations.{part} needs {library}: pip install {library}")
