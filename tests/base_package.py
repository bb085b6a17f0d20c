"""Run as a script: hides every package that the base package does not ask for, then runs the code of its argument."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path
from typing import Any


def base_distributions() -> set[str]:
    """AutoSpec and all that pyproject.toml says the base package needs, by normalised name."""
    from packaging.requirements import Requirement

    reached = {"autospec-torch"}
    project = tomllib.loads((Path(__file__).resolve().parents[1] / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(text).name for text in project["dependencies"]]
    while waiting:
        current = normalised(waiting.pop())
        if current in reached:
            continue
        try:
            needed = [Requirement(text) for text in requires(current) or ()]
        except PackageNotFoundError:
            continue
        reached.add(current)
        waiting += [one.name for one in needed if one.marker is None or one.marker.evaluate({"extra": ""})]
    return reached


def normalised(name: str) -> str:
    """A distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


class Hidden:
    """A finder that asks the others, but for modules that only hidden distributions have."""

    def __init__(self, finders: Sequence[Any], hidden: set[str]) -> None:
        self.finders = finders
        self.hidden = hidden

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """The spec of the first finder that has one; None for what is hidden."""
        if name.partition(".")[0] in self.hidden:
            return None
        found = (finder.find_spec(name, path, target) for finder in self.finders)
        return next((spec for spec in found if spec is not None), None)

    def find_distributions(self, *arguments: Any) -> Iterator[Any]:
        """The installed distributions, which stay visible: only imports are hidden."""
        for finder in self.finders:
            yield from getattr(finder, "find_distributions", lambda *_: ())(*arguments)

    def invalidate_caches(self) -> None:
        """As import systems expect it."""


def hide_optional_packages() -> None:
    """From now on nothing can be imported but the standard library, the base package and what it asks for."""
    kept = base_distributions()
    hidden = {
        module
        for module, distributions in packages_distributions().items()
        if not kept & {normalised(one) for one in distributions}
    }
    for module in [name for name in sys.modules if name.partition(".")[0] in hidden]:
        del sys.modules[module]
    sys.meta_path[:] = [Hidden(list(sys.meta_path), hidden)]


if __name__ == "__main__":
    hide_optional_packages()
    exec(sys.argv[1], {"__name__": "__main__"})
