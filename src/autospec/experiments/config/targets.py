"""Parts of an experiment that somebody else wrote, named in the configuration by Hydra's ``_target_``.

Modules are looked for where Python looks, and then in the folder that the command is typed in.
"""

from __future__ import annotations

import hashlib
import re
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autospec.errors import AutoSpecError

TARGET = "_target_"


def short_name(node: Mapping[str, Any]) -> str:
    """What a part is called in the name of a run: the last word of its target, in small letters.

    Args:
        node: A node of the configuration with a ``_target_``.

    Returns:
        Small letters, digits and underscores.
    """
    return re.sub(r"[^a-z0-9_]", "", str(node[TARGET]).rsplit(".", 1)[-1].lower()) or "custom"


def make(key: str, node: Mapping[str, Any], *arguments: Any, **keywords: Any) -> Any:
    """Call what a node's ``_target_`` names with the node's other keys, as ``hydra.utils.instantiate`` does.

    Args:
        key: The node's, for messages.
        node: ``{"_target_": "package.function", further keys}``.
        *arguments: Handed to it before the node's keys.
        **keywords: Handed to it besides them.

    Returns:
        What it returns.

    Raises:
        AutoSpecError: There is no such thing, or it does not take these keys, or it raised.
    """
    if clash := sorted(set(node) & set(keywords)):
        raise AutoSpecError(f"{key}.{clash[0]}: is given by the experiment itself; leave it out")
    return bind(key, node)(*arguments, **keywords)


def bind(key: str, node: Mapping[str, Any]) -> Callable[..., Any]:
    """Find what a node's ``_target_`` names, and bind the node's other keys to it, as Hydra's ``_partial_`` does.

    Args:
        key: The node's, for messages.
        node: ``{"_target_": "package.function", further keys}``.

    Returns:
        The function, whose exceptions are AutoSpecErrors of one line.

    Raises:
        AutoSpecError: There is no such thing.
    """
    from hydra.utils import instantiate

    named = f"{key}.{TARGET}={node[TARGET]}"
    try:
        with typed_here():
            function = instantiate({**node, "_partial_": True}, _convert_="all")
    except Exception as error:
        raise AutoSpecError(f"{named}: {_reason(error)}{_advice(node[TARGET])}") from error

    def call(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except AutoSpecError:
            raise
        except Exception as error:
            raise AutoSpecError(f"{named}: {_reason(error)}") from error

    return call


def _advice(target: str) -> str:
    """A name that is there and resembles the last word of a target, as an advice; or nothing."""
    place, _, name = target.rpartition(".")
    there = {one.lower(): one for one in dir(sys.modules.get(place))}
    close = get_close_matches(name.lower(), there, n=1)
    return f"; did you mean {place}.{there[close[0]]}?" if place in sys.modules and close else ""


def _reason(error: BaseException) -> str:
    """What went wrong at the bottom of an exception, in one line."""
    # Hydra wraps what went wrong, in several layers; the innermost says it
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


@contextmanager
def typed_here() -> Iterator[None]:
    """A context in which modules of the folder that the command is typed in are found, too."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    # at the end: a file beside the command must not take the place of an installed package
    sys.path.append(here)
    try:
        yield
    finally:
        sys.path.remove(here)


def load_extensions(names: Iterable[str]) -> None:
    """Import modules that register statistics or layer rules.

    Args:
        names: ``extensions=[...]``.

    Raises:
        AutoSpecError: There is no such module, or it raised when it was imported.
    """
    for name in names:
        try:
            with typed_here():
                import_module(name)
        except AutoSpecError:
            raise
        except Exception as error:
            raise AutoSpecError(f"extensions=[{name}]: {type(error).__name__}: {error}") from error


def own_code(names: Iterable[str]) -> str:
    """A digest of the code that modules of one's own consist of, so that a changed one makes another run.

    Installed packages do not count: their versions are part of a run's provenance.

    Args:
        names: Dotted paths of modules, functions or classes.

    Returns:
        Sixteen hexadecimal digits; empty where every one is installed.
    """
    with typed_here():
        files = sorted({file for name in names for file in _files(name.split(".")[0], Path.cwd())})
    total = hashlib.sha256()
    for file in files:
        total.update(file.read_bytes())
    return total.hexdigest()[:16] if files else ""


@cache
def _files(package: str, folder: Path) -> tuple[Path, ...]:
    """The source files of a package or module that is not installed, as the folder finds it; looked for once."""
    spec = find_spec(package)
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return ()
    origin = Path(spec.origin)
    installed = {Path(sysconfig.get_path(place)) for place in ("purelib", "platlib", "stdlib")}
    if package == "autospec" or any(place in origin.parents for place in installed):
        return ()
    return tuple(origin.parent.rglob("*.py")) if spec.submodule_search_locations else (origin,)
