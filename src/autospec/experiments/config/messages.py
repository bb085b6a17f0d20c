"""Mistakes on the command line, in a few lines that name the key, the value and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import DATASET_SCHEMAS, DatasetConfig, ExperimentConfig

USER_FACING = ("hydra", "omegaconf", "submitit")
"""Packages whose exceptions are about what a user asked for."""
GROUPS = ("dataset", "architecture", "preset", "figure", "panel", "experiment", "variant", "hydra/launcher")
"""The configuration groups, which a command line may name as it names a key."""


def explain(error: BaseException) -> str:
    """Return a message of a few lines for an exception of ours, of Hydra or of OmegaConf.

    It names the key, the value and what is allowed, where the exception tells them.
    """
    if isinstance(error, AutoSpecError):
        return str(error)
    text = "\n".join(_chain(error))
    for pattern, message in _EXPLANATIONS:
        match = re.search(pattern, text, re.DOTALL)
        if match:
            return message(match, text)
    key = getattr(error, "full_key", None)
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return f"{key}: {first}" if key and key not in first else first


def in_one_line(error: BaseException) -> str:
    """Return the first line of what an exception says, after its type where no user can have caused it."""
    name = type(error).__name__
    of_user = isinstance(error, AutoSpecError) or type(error).__module__.split(".")[0] in USER_FACING
    first = next(iter((explain(error) if of_user else str(error)).splitlines()), "")
    if of_user and first:
        return first
    return f"{name}: {first}" if first else name


def _chain(error: BaseException | None) -> Iterator[str]:
    """What an exception and those behind it say: Hydra wraps the one that names the cause."""
    while error is not None:
        yield str(error)
        error = error.__cause__ or error.__context__


def all_keys() -> list[str]:
    """Return every key that a command line may name, groups included, sorted."""
    keys = set(_keys(ExperimentConfig()))
    for schema in DATASET_SCHEMAS.values():
        keys |= _dataset_keys(schema)
    return sorted(keys | set(GROUPS))


def _dataset_keys(schema: type[DatasetConfig]) -> set[str]:
    return set(_keys(schema(), "dataset."))


def _keys(node: Any, prefix: str = "") -> Iterable[str]:
    for entry in fields(node):
        value = getattr(node, entry.name, None)
        yield prefix + entry.name
        if is_dataclass(value):
            yield from _keys(value, f"{prefix}{entry.name}.")


def _unknown_key(match: re.Match[str], text: str) -> str:
    key = match.group(1)
    if key.startswith("hydra."):
        return f"unknown key {key!r}; the files in conf/hydra list the keys of launchers"
    owners = [name for name, schema in DATASET_SCHEMAS.items() if key in _dataset_keys(schema)]
    if owners:
        return f"{key}: no key of the data set that is chosen; it is one of {', '.join(owners)}"
    close = get_close_matches(key, all_keys(), n=1)
    return f"unknown key {key!r}" + (f"; did you mean {close[0]!r}?" if close else "; conf/config.yaml lists the keys")


def _unknown_choice(match: re.Match[str], text: str) -> str:
    group, choice = match.group(1).rsplit("/", 1)
    listed = re.search(r"Available options in '[^']*':\n(.*?)(\n\S|\Z)", text, re.DOTALL)
    options = listed.group(1).split() if listed else []
    offered = [option for option in options if not option.endswith("_schema")]
    return f"{group}={choice}: unknown; allowed are {', '.join(offered)}"


def _number_for_group(match: re.Match[str], text: str) -> str:
    return "a configuration group needs a name, not a number and not null: figure=fig1, not figure=1; panel=none"


def _without_value(match: re.Match[str], text: str) -> str:
    return f"{match.group(1)}: has no value; {match.group(1)}=... gives it one"


def _left_out_group(match: re.Match[str], text: str) -> str:
    left_out = set(re.findall(r"\$\{(\w+)\}", match.group(1))) - set(match.group(2).split(", "))
    return f"{', '.join(sorted(left_out))}: cannot be left out; choose another instead"


def _left_out_key(match: re.Match[str], text: str) -> str:
    return f"{match.group(1)}: no key can be left out; give it another value instead"


def _no_list(match: re.Match[str], text: str) -> str:
    key, value = match.group(1), match.group(2)
    return f"{key}={value}: must be a list" + (f", such as [{value}]" if re.fullmatch(r"[\w.*!/-]+", value) else "")


def _no_mapping(match: re.Match[str], text: str) -> str:
    key, value = match.group(1), match.group(2)
    return f"{key}={value}: {key} has keys of its own; give them as {key}.<key>=<value>"


def _comma_without_sweep(match: re.Match[str], text: str) -> str:
    return f"{match.group(1)}: several values are a sweep; add -m (or write a list as [a,b])"


def _bad_syntax(match: re.Match[str], text: str) -> str:
    return f"cannot read the argument {match.group(1)!r}; write key=value"


def _wrong_type(match: re.Match[str], text: str) -> str:
    key = re.search(r"full_key: (\S+)", text)
    return f"{key.group(1)}: {match.group(0)}" if key else match.group(0)


def _out_of_time(match: re.Match[str], text: str) -> str:
    return (
        "its time was up more often than hydra.launcher.max_num_timeout allows; the same command goes on with it, "
        "hydra.launcher.timeout_min gives it longer"
    )


def _failed_plugin(match: re.Match[str], text: str) -> str:
    return f"{match.group(1)}: {match.group(2)}"


_EXPLANATIONS = (
    (r"has missing mandatory value: \w+\s+full_key: (\S+)", _without_value),
    (r"Error resolving interpolation '([^']*)', possible interpolation keys: ([^\n]*)", _left_out_group),
    (r"Error merging override (~[^\s=]+)", _left_out_key),
    (r"Error merging override ([^\s=]+)=([^\n]*)\n.*(?:is not a ListConfig|DictConfig with ListConfig)", _no_list),
    (r"Error merging override ([^\s=]+)=([^\n]*)\n.*is not a subclass of \w+Config", _no_mapping),
    (r"Job not requeued because: timed-out too many times", _out_of_time),
    (r"Error in call to target '([^']+)':\n([^\n]+)", _failed_plugin),
    (r"Could not override '([^']+)'", _unknown_key),
    (r"Key '([^']+)' is not in struct", _unknown_key),
    (r"Key '([^']+)' not in '", _unknown_key),
    (r"Could not find '([^']+)'", _unknown_choice),
    (r"Config group override value type must be|Config group override must be", _number_for_group),
    (r"Ambiguous value for argument '([^']+)'", _comma_without_sweep),
    (r"Error parsing override '([^']*)'", _bad_syntax),
    (r"Value '[^']*' of type '[^']*' could not be converted to \w+", _wrong_type),
    (r"Invalid value '[^']*', expected one of \[[^\]]*\]", _wrong_type),
    (r"Incompatible value 'None' for field of type '[^']*'", _wrong_type),
    (r"field '[^']*' is not Optional", _wrong_type),
)
