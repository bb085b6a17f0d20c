"""Connectivity of the components as input, alone or beside their spectra and maps (multi-scale features).

After Salman et al. 2019, NeuroImage: Clinical 22:101747 (static connectivity), and multi-scale features of networks
and their connectivity.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autospec.cohorts.exclusions import Account, list_names
from autospec.cohorts.prepared_file import find_prepared, open_prepared
from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CobreFncConfig
from autospec.experiments.datasets import cobre_timeseries
from autospec.experiments.datasets.cohort import build_cohort, build_dataset, check_cohort, refuse_columns
from autospec.experiments.datasets.connectivity import BANDS_HZ, band_powers, connectivity, pairs_of, pictures
from autospec.experiments.datasets.dataset import Dataset, Mask
from autospec.experiments.datasets.forward_selection import select_forward
from autospec.experiments.datasets.simulation.subjects import check_subjects
from autospec.experiments.datasets.simulation.timecourses import TR_S, changes

SIMULATION = "cobre_fnc 1"
"""Raised when the same configuration gives other numbers."""

BLOCKS = ("fnc", "spectra", "maps")
FORMS = ("vector", "picture")


log = logging.getLogger(__name__)


def sources(config: CobreFncConfig) -> list[Path]:
    """The prepared cohort; no file where it is simulated.

    Args:
        config: The data set's configuration.

    Returns:
        The files.

    Raises:
        AutoSpecError: The file is not there.
    """
    return cobre_timeseries.sources(config)


def check(config: CobreFncConfig) -> None:
    """Refuse a value that connectivity cannot have.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    check_cohort(config)
    refuse_columns(config, "dataset.path" if config.path is not None else None)
    _check_features(config)
    if config.time_points is not None and config.time_points < 3:
        raise AutoSpecError(f"dataset.time_points={config.time_points}: must be 3 or more, or null for all")
    if config.path is None:
        check_subjects(config)
        changes(config)


def _check_features(config: CobreFncConfig) -> None:
    blocks = list(config.blocks)
    if not blocks or len(set(blocks)) < len(blocks) or not set(blocks) <= set(BLOCKS):
        raise AutoSpecError(f"dataset.blocks={blocks}: must be different ones of {', '.join(BLOCKS)}")
    if "maps" in blocks and config.path is None:
        raise AutoSpecError("dataset.blocks: maps need a prepared cohort (dataset.path); the simulated one has none")
    if config.form not in FORMS:
        raise AutoSpecError(f"dataset.form={config.form}: unknown; allowed are {', '.join(FORMS)}")
    if config.form == "picture" and (blocks != ["fnc"] or config.select is not None):
        raise AutoSpecError("dataset.form=picture: is of dataset.blocks=[fnc] alone, without dataset.select")
    if config.window is not None and config.window < 3:
        raise AutoSpecError(f"dataset.window={config.window}: must be 3 or more volumes, or null for all")
    if config.select is not None and config.select < 1:
        raise AutoSpecError(f"dataset.select={config.select}: must be 1 or more, or null for all")
    if config.select is not None and config.scaling == "person":
        raise AutoSpecError("dataset.select: features are compared between subjects; dataset.scaling must be feature")


def load(config: CobreFncConfig) -> Dataset:
    """Load the features of every subject with a phenotype and complete data.

    Args:
        config: The data set's configuration.

    Returns:
        Vectors (n, features), or pictures (n, windows, components, components).

    Raises:
        AutoSpecError: Names the file or key at fault.
    """
    check(config)
    account = Account()
    subjects, courses, source, simulated = cobre_timeseries.read_timecourses(config, account)
    cohort = build_cohort(subjects, config, account)
    chosen = courses[cohort.row]
    values, names = _features(chosen, subjects, cohort.row, config, account)
    data = build_dataset(
        cohort, values, config, account, source.replace("time-courses", "connectivity"), simulated, names
    )
    if config.select is not None:
        data = _select(data, config, names, account)
    elif len(config.blocks) > 1:
        data = replace(data, inputs=_equal_blocks(data.inputs, names))
    if config.form == "picture":
        # one subject tells how many windows there are
        windows = connectivity(chosen[:1], config.window).shape[1]
        vectors = data.inputs.reshape(len(data.inputs), windows, -1)
        data = replace(data, inputs=pictures(vectors, chosen.shape[2]))
    account.log(log)
    return replace(data, account=account.text())


def _features(
    courses: npt.NDArray, subjects: object, rows: npt.NDArray, config: CobreFncConfig, account: Account
) -> tuple[npt.NDArray[np.float64], list[str]]:
    """(n, features), and what each is called: its block, then what it measures."""
    parts: list[npt.NDArray[np.float64]] = []
    names: list[str] = []
    components = courses.shape[2]
    for block in config.blocks:
        if block == "fnc":
            values = connectivity(courses, config.window)
            pairs = [f"{a + 1}-{b + 1}" for a, b in zip(*pairs_of(components), strict=True)]
            many = values.shape[1] > 1
            names += [
                f"fnc {pair}{f' window {w + 1}' if many else ''}" for w in range(values.shape[1]) for pair in pairs
            ]
            account.note(f"fnc: {len(pairs)} pairs of {components} components, {values.shape[1]} window(s)")
            parts.append(values.reshape(len(values), -1))
        elif block == "spectra":
            powers = band_powers(courses, _repetition_time_s(config, account))
            bands = powers.shape[1] // components
            names += [
                f"spectra {low:g}-{high:g} Hz {c + 1}" for low, high in BANDS_HZ[:bands] for c in range(components)
            ]
            parts.append(powers)
        else:
            means = _map_means(config, rows)
            names += [f"maps {component + 1}" for component in range(means.shape[1])]
            parts.append(means)
    return np.concatenate(parts, axis=1), names


def _repetition_time_s(config: CobreFncConfig, account: Account) -> float:
    """The cohort's repetition time; AutoSpecError where it is not known, or not one."""
    if config.path is None:
        return TR_S
    with open_prepared(find_prepared(Path(config.path))) as root:
        node = root.get("people/repetition_time_s")
        times = sorted({round(float(time), 3) for time in node[:]}) if node is not None else []
    if len(times) != 1 or not np.isfinite(times[0]):
        raise AutoSpecError(
            f"dataset.blocks: spectra need one repetition time of all; {config.path} has "
            f"{list_names(map(str, times)) or 'none'}"
        )
    account.note(f"spectra: in bands of a repetition time of {times[0]:g} s")
    return times[0]


def _map_means(config: CobreFncConfig, rows: npt.NDArray) -> npt.NDArray[np.float64]:
    """(n, components) How strong each component's map is where the mean map of all is strongest (its upper tenth)."""
    file = find_prepared(Path(str(config.path)))
    with open_prepared(file) as root:
        if "maps" not in root:
            raise AutoSpecError(f"dataset.blocks: {file} has no /maps; prepare it without --no-maps, or leave maps out")
        maps = root["maps"]
        template = root["template"][:] if "template" in root else sum(maps[row] for row in rows) / len(rows)
        # by one map for all: voxels of each subject's own would make everybody strong
        limit = np.quantile(template, 0.9, axis=1, keepdims=True)
        inside = template >= limit
        return np.stack([(maps[int(row)] * inside).sum(axis=1) / inside.sum(axis=1) for row in rows]).astype(np.float64)


def _equal_blocks(inputs: npt.NDArray, names: list[str]) -> npt.NDArray[np.float32]:
    """Features divided by the root of how many their block has, so that every block has the same total variance."""
    blocks = [name.split(" ")[0] for name in names]
    sizes = np.array([blocks.count(block) for block in blocks], dtype=np.float32)
    return np.asarray(inputs / np.sqrt(sizes), dtype=np.float32)


def _select(data: Dataset, config: CobreFncConfig, names: list[str], account: Account) -> Dataset:
    """The data set with the features that a forward selection on its training subjects chooses."""
    assert config.select is not None
    training: Mask = data.training
    if config.select > data.inputs.shape[1]:
        raise AutoSpecError(f"dataset.select={config.select}: there are {data.inputs.shape[1]} features")
    chosen = select_forward(data.inputs[training], data.target[training], config.select)
    account.note(f"selected on {int(training.sum())} training subjects: {', '.join(names[index] for index in chosen)}")
    return replace(data, inputs=data.inputs[:, chosen])
