"""A page as one file: what comes from data is escaped, scripts and styles are inside, and nothing is fetched."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path

POLICY = "default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
"""What a browser may do with the page: run what is inside it, and fetch nothing."""


def escape(text: object) -> str:
    """Return text as HTML shows it, in an element or in an attribute between double quotes."""
    return html.escape(str(text))


def asset(name: str, folder: Path = Path(__file__).parent) -> str:
    """Return a style or script that lies beside a module.

    Args:
        name: The file's name.
        folder: The module's folder.

    Returns:
        Its text.
    """
    return (folder / name).read_text(encoding="utf-8")


def json_script(identifier: str, content: object) -> str:
    """Return data that a script of the page reads.

    Args:
        identifier: The element's id.
        content: What JSON can hold; NaN is refused.

    Returns:
        A script element. No text in it can end it or begin a comment, since every ``<`` is written by its number.
    """
    text = json.dumps(content, allow_nan=False, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" id="{escape(identifier)}">{text}</script>'


def document(title: str, body: str, styles: Sequence[str], scripts: Sequence[str]) -> str:
    """Return a whole page.

    Args:
        title: Its title, as text.
        body: Its content, as HTML.
        styles: Its styles.
        scripts: Its scripts, run in this order after the content is there.

    Returns:
        The page.
    """
    inside = "\n".join(f"<script>{script}</script>" for script in scripts)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,"><style>{"".join(styles)}</style></head><body>
{body}
{inside}</body></html>
"""
