"""Whether every argument of a command line acts: what Hydra would take without a word, and nothing would heed."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from typing import Any, get_origin, get_type_hints

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from autospec.errors import AutoSpecError
from autospec.experiments import CONF
from autospec.experiments.config.messages import all_keys
from autospec.experiments.config.schema import DATASET_SCHEMAS, ExperimentConfig

OPEN_IN_HYDRA = (
    "hydra.launcher.additional_parameters",
    "hydra.sweeper.params",
    "hydra.job.env_set",
    "hydra.job.env_copy",
)
"""Mappings of Hydra's and its launchers' to which entries can be added."""


def check_overrides(arguments: Sequence[str], sweep: bool) -> None:
    """Refuse arguments that would change nothing.

    Args:
        arguments: The command line.
        sweep: Whether it is one of a sweep.

    Raises:
        AutoSpecError: One line for each, with what would be right.
    """
    overrides = _parse(arguments)
    lines = [*_added_in_vain(overrides), *(_idle_in_sweep(overrides) if sweep else _idle_without_sweep(overrides))]
    if not any(argument.startswith("-") for argument in arguments):  # a single run, and not --cfg or --help
        lines += _figure_without_panel(overrides)
    if lines:
        raise AutoSpecError("\n".join(lines))


def drawing_command(arguments: Sequence[str]) -> str | None:
    """Return the command that draws what a sweep over panels has trained; None for another sweep.

    Args:
        arguments: The command line of the sweep.
    """
    values = {override.key_or_group: str(override.input_line).split("=", 1)[-1] for override in _parse(arguments)}
    figure = values.pop("figure", "none")
    if "panel" not in values or figure == "none":
        return None
    numbers = ",".join(name.strip().removeprefix("fig") for name in figure.split(","))
    preset = f" PRESET={values['preset']}" if "preset" in values else ""
    left = ("panel", "preset", "figure", "overwrite")
    further = [str(one.input_line) for one in _parse(arguments) if one.key_or_group not in left and not _hydras(one)]
    return f"make figures FIGURE={numbers}{preset}" + (f" ARGS={shlex.quote(shlex.join(further))}" if further else "")


def _parse(arguments: Sequence[str]) -> list[Override]:
    """The arguments that are overrides; Hydra says what is wrong with the others."""
    parser, overrides = OverridesParser.create(), []
    for argument in arguments:
        try:
            overrides += [] if argument.startswith("-") else parser.parse_overrides([argument])
        except HydraException:
            continue
    return overrides


def _hydras(override: Override) -> bool:
    return override.key_or_group.startswith(("hydra.", "hydra/"))


def _added_in_vain(overrides: Sequence[Override]) -> Iterator[str]:
    """Keys that are added with a plus sign, which no program asks for."""
    taken, mappings = all_keys(), (*_mappings(), *OPEN_IN_HYDRA)
    for override in overrides:
        key = override.key_or_group
        if not (override.is_add() or override.is_force_add()) or key.startswith("hydra/") or key in taken:
            continue
        if any(key == mapping or key.startswith(f"{mapping}.") for mapping in mappings):
            continue
        close = get_close_matches(key, taken, n=1)
        advice = f"did you mean {close[0]!r}?" if close else "conf/config.yaml lists the keys"
        if key.startswith("hydra."):
            advice = "the files in conf/hydra list the keys of launchers, which are given without +"
        yield f"{override.input_line}: nothing takes the key {key!r}; {advice}"


def _idle_without_sweep(overrides: Sequence[Override]) -> Iterator[str]:
    for override in overrides:
        for part in ("launcher", "sweeper"):
            if override.key_or_group == f"hydra/{part}" or override.key_or_group.startswith(f"hydra.{part}."):
                yield f"{override.input_line}: {part}s work in sweeps only; add -m"


def _idle_in_sweep(overrides: Sequence[Override]) -> Iterator[str]:
    launched = any(override.key_or_group == "hydra/launcher" for override in overrides)
    for override in overrides:
        key = override.key_or_group
        if key == "hydra/sweeper":
            yield f"{override.input_line}: sweeps are checked by AutoSpec's own sweeper alone; leave it out"
        elif key == "hydra.sweeper.max_batch_size":
            yield f"{override.input_line}: a sweep is checked as a whole and never split; leave it out"
        elif key.startswith("hydra.launcher.") and not launched:
            yield (
                f"{override.input_line}: the launcher that makes one run after another takes no keys; "
                "add hydra/launcher=joblib or hydra/launcher=slurm"
            )


def _figure_without_panel(overrides: Sequence[Override]) -> Iterator[str]:
    """A figure alone is no cell of the grid, unless the task of a panel of one's own is given."""
    given = {override.key_or_group: override for override in overrides}
    figure = given.get("figure")
    if figure is None or {"panel", "task"} & set(given) or figure.is_sweep_override():
        return
    name = str(figure.value())
    if name != "none" and (CONF / "figure" / f"{name}.yaml").is_file():
        yield (
            f"figure={name}: one run is a panel of it; add panel=A (to H), "
            f"or draw all of it with make figures FIGURE={name.removeprefix('fig')}"
        )


def _mappings() -> Iterator[str]:
    """The keys of the schema whose entries users name themselves."""
    yield from _mappings_of(ExperimentConfig, "")
    for schema in DATASET_SCHEMAS.values():
        yield from _mappings_of(schema, "dataset.")


def _mappings_of(schema: type[Any], prefix: str) -> Iterator[str]:
    hints = get_type_hints(schema)
    for entry in fields(schema):
        kind = hints[entry.name]
        if is_dataclass(kind):
            yield from _mappings_of(kind, f"{prefix}{entry.name}.")  # type: ignore[arg-type]
        elif kind is Any or dict in (kind, get_origin(kind)):
            yield prefix + entry.name
