"""The spectra of many runs as one table, with what their configurations differ in."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autospec.errors import AutoSpecError, require_extra
from autospec.store.layers_by_name import layers_by_name
from autospec.store.read import Spectra, load_spectra, open_spectra
from autospec.store.scale import FRAME_COLUMNS, frame_needs
from autospec.store.schema import GRADIENT

if TYPE_CHECKING:
    import pandas as pd

RUN = "run"
SPECTRA = "spectra.h5"
NOT_CONFIGURED = frozenset(
    {
        *("run_id", "complete", "config", "facts", "simulated", "source", "data_fingerprint", "device", "metric"),
        *("autospec_version", "torch_version", "git_commit", "schema_version", "engine_way"),
        *("structure_digest", "text_checksums"),
    }
)
"""Attributes that say what a run was, not how it was configured."""


def open_sweep(
    folder: str | Path,
    statistic: str = GRADIENT,
    *,
    leading: int | None = None,
    layers: str | Sequence[str] | None = None,
    most_epochs: int | None = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Read the spectra of every run of a folder into one tidy table.

    Runs are read one after the other; ``leading``, ``layers`` and ``most_epochs`` bound what is kept of each.

    Args:
        folder: The folder: ``spectra.h5`` files at any depth below it (``outputs``), and other ``.h5`` files in it.
        statistic: gradient, activation or adjoint.
        leading: So many of the largest singular values; None takes all.
        layers: Layers by name or pattern (``encoder.*``); None takes all.
        most_epochs: Of a longer run about so many evenly spaced epochs, the last among them; None takes all.
        columns: Keys of the configuration, such as ``width`` or ``dataset.name``; None takes those in which runs
            differ. Of a run without a configuration, the attributes that its recorder was given.

    Returns:
        Column run (its id, or the path of its file), a column for each key, then those of ``Spectra.to_frame``. Text is
        categorical, since it repeats. A key that a run does not have is missing in its rows.

    Raises:
        AutoSpecError: There are no runs, a run cannot be read or has no such layer or statistic, or no run has a key.
    """
    import pandas as pd

    paths = _paths(Path(folder))
    # every header first: in which keys runs differ is known only when all were seen
    headers = {path: open_spectra(path) for path in paths}
    names = _names(headers, Path(folder))
    configurations = {path: _configuration(spectra) for path, spectra in headers.items()}
    keys = _chosen(configurations, columns)
    parts = []
    for path, spectra in headers.items():
        frame = _frame(spectra, statistic, leading, layers, most_epochs)
        told = {RUN: names[path], **{_column(key): configurations[path].get(key) for key in keys}}
        parts.append(frame.assign(**told)[[*told, *FRAME_COLUMNS]])
    table = pd.concat(parts, ignore_index=True)
    return table.astype({name: "category" for name in table if not pd.api.types.is_numeric_dtype(table[name])})


def _paths(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise AutoSpecError(f"there is no folder {folder}; name the one that the runs lie in")
    paths = sorted({*folder.glob("*.h5"), *folder.rglob(SPECTRA)})
    if not paths:
        raise AutoSpecError(f"{folder} holds no runs: there is no {SPECTRA} below it, nor another .h5 file in it")
    return paths


def _names(headers: Mapping[Path, Spectra], folder: Path) -> dict[Path, str]:
    """Ids of runs; paths where several have one id, or none."""
    ids = [spectra.run_id for spectra in headers.values()]
    unique = all(ids) and len(set(ids)) == len(ids)
    return {path: one.run_id if unique else str(path.relative_to(folder)) for path, one in headers.items()}


def _configuration(spectra: Spectra) -> dict[str, Any]:
    """The configuration, flat: ``dataset.name``; else the attributes that the recorder was given."""
    text = str(spectra.attributes.get("config", ""))
    if not text:
        given = {name: value for name, value in spectra.attributes.items() if name not in NOT_CONFIGURED}
        return {name: value.item() if hasattr(value, "item") else value for name, value in given.items()}
    require_extra("autospec.open_sweep", "export", "yaml")
    import yaml

    try:
        return _flatten(dict(yaml.safe_load(text)))
    except (yaml.YAMLError, TypeError, ValueError) as error:
        raise AutoSpecError(f"{spectra.where}: its configuration is no YAML of keys and values") from error


def _flatten(configuration: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in configuration.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = json.dumps(value) if isinstance(value, list) else value
    return flat


def _chosen(configurations: Mapping[Path, Mapping[str, Any]], columns: Sequence[str] | None) -> list[str]:
    every = list(dict.fromkeys(key for one in configurations.values() for key in one))
    if columns is None:
        return [key for key in every if len({repr(one.get(key)) for one in configurations.values()}) > 1]
    for name in columns:
        if name not in every:
            close = difflib.get_close_matches(name, every, 1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(every) or 'none'}"
            raise AutoSpecError(f"columns: no run's configuration has {name!r}; {hint}")
    return list(columns)


def _column(key: str) -> str:
    """A column's name; a key that is called as a column of the table is told apart."""
    return f"config.{key}" if key in (RUN, *FRAME_COLUMNS) else key


def _frame(
    spectra: Spectra, statistic: str, leading: int | None, layers: str | Sequence[str] | None, most_epochs: int | None
) -> pd.DataFrame:
    chosen = layers_by_name(spectra, layers)
    loaded = load_spectra(spectra.path, chosen, most_epochs, frame_needs(statistic))
    return loaded.to_frame(statistic, leading)
