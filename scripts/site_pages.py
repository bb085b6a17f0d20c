"""A hook of MkDocs: pages in docs/ that mkdocs.yml does not name are listed last, so that none is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any


def on_config(config: Any) -> Any:
    """Add the pages that ``nav`` leaves out.

    Args:
        config: The site's configuration.

    Returns:
        The same.
    """
    folder = Path(config["docs_dir"])
    named = set(_named(config["nav"]))
    pages = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.md")))
    left_out = [page for page in pages if page not in named]
    if left_out:
        config["nav"] = [*config["nav"], {"More": left_out}]
    return config


def _named(entry: Any) -> Iterator[str]:
    """The pages of a part of ``nav``."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from _named(part)
