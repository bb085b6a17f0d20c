"""Real text that every Python carries: its documentation, and the source code of its library."""

from pathlib import Path
from pydoc_data import topics

SOURCES = ["documentation", "code"]


def read(characters: int) -> list[str]:
    """The two texts, in the order of ``SOURCES``, each of so many ASCII characters."""
    documentation = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    library = Path(topics.__file__).parents[1]
    code = "\n".join((library / f"{name}.py").read_text("utf-8") for name in ("argparse", "ast", "inspect", "typing"))
    return [text.encode("ascii", "ignore").decode()[:characters] for text in (documentation, code)]
