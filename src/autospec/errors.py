"""Exceptions and warnings raised by AutoSpec."""

from __future__ import annotations

from importlib.util import find_spec

from autospec.harmless import visible


class AutoSpecError(ValueError):
    """A mistake whose message names the key, layer or file at fault and what would be right."""

    def __str__(self) -> str:
        return visible(super().__str__(), keep="\n")  # a name in it may hold what a terminal obeys


class DamagedFile(AutoSpecError):
    """A file that was read and found wrong, whoever wrote it."""


class UnreadableFile(AutoSpecError):
    """A file that cannot be read now (held, not permitted, a disk's error), which says nothing of its content."""


class MissingExtra(AutoSpecError, ImportError):
    """A part of AutoSpec is used whose packages are not installed; the message has the command that installs them."""


class AutoSpecWarning(UserWarning):
    """Something recorded with a gap (NaN, a layer without a gradient); said once per recorder."""


def require_extra(part: str, extra: str, *modules: str) -> None:
    """Refuse to load a part of AutoSpec whose optional packages are missing.

    Args:
        part: The dotted name of what needs them, such as ``autospec.figures``.
        extra: The extra of the distribution that brings them.
        *modules: The modules to look for; none of them is imported.

    Raises:
        MissingExtra: One of them is not installed.
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise MissingExtra(f"{part} needs {', '.join(missing)}: pip install 'autospec-torch[{extra}]'")
