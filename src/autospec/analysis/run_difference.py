"""Where two runs part: the first epoch at which a layer's spectra differ by more than rounding explains."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from autospec.errors import AutoSpecError
from autospec.store.read import Spectra, load_spectra
from autospec.store.scale import scale_of, spectra_of
from autospec.store.schema import ALL, GRADIENT

NAMES = (GRADIENT, "floor_gradient")

COLUMNS = {
    "layer": "The layer, by the name of its weight.",
    "epoch": "First common epoch at which a singular value differs by more than both noise floors, if any.",
    "group": "The group in which it differs most at that epoch.",
    "index": "The index of that singular value, from 1.",
    "log2_ratio": "log2 of σ₁ of the whole batch's mean gradient at the last common epoch, first run over second.",
    "verdict": "Where the runs part, in words.",
}
"""Every column of the comparison and what it means."""


def find_parting(first: Spectra, second: Spectra) -> pd.DataFrame:
    """Find where two runs part, in each layer that both have, over the groups and epochs that both have.

    By Weyl's inequality rounding moves a singular value by no more than the noise floor, so that two runs differ where
    their singular values are further apart than both floors together.

    Args:
        first: The spectra of one run.
        second: The spectra of another.

    Returns:
        One row per layer with the columns of ``COLUMNS``, indexed by layer.

    Raises:
        AutoSpecError: The runs share no layer, or gradient spectra were not recorded.
    """
    layers = [layer for layer in first.layers if layer in second.layers]
    if not layers:
        raise AutoSpecError(
            f"the runs share no layer: {first.where} has {', '.join(first.layers)}; {second.where} has "
            f"{', '.join(second.layers)}"
        )
    table = pd.DataFrame([_layer(first, second, layer) for layer in layers], columns=list(COLUMNS))
    return table.astype({"epoch": "Int64", "index": "Int64"}).set_index("layer")


def list_unshared(first: Spectra, second: Spectra) -> list[str]:
    """Say which layers, groups and settings one of two runs has alone.

    Args:
        first: The spectra of one run.
        second: The spectra of another.

    Returns:
        A sentence for each kind; none where the runs have all in common.
    """
    sentences = []
    for kind, in_first, in_second in (
        ("layers", first.layers, second.layers),
        ("groups", first.group_names, second.group_names),
        ("settings", _settings(first), _settings(second)),
    ):
        for place, names, others in (("first", in_first, in_second), ("second", in_second, in_first)):
            alone = [name for name in names if name not in others]
            if alone:
                sentences.append(f"{kind} of the {place} run alone: {', '.join(alone)}")
    return sentences


def _settings(spectra: Spectra) -> list[str]:
    """The lines of a run's configuration, each with the keys above it; none where the file has no configuration."""
    path: list[str] = []
    settings = []
    for line in str(spectra.attributes.get("config", "")).splitlines():
        key, _, value = line.strip().partition(":")
        depth = (len(line) - len(line.lstrip())) // 2
        path = [*path[:depth], key]
        if value.strip():
            settings.append(f"{'.'.join(path)}={value.strip()}")
    return settings


def _layer(first: Spectra, second: Spectra, layer: str) -> dict[str, object]:
    # one layer at a time, so that memory is bounded
    (a, floor_a), (b, floor_b) = (_read_scaled(spectra, layer) for spectra in (first, second))
    row: dict[str, object] = {"layer": layer, "epoch": np.nan, "group": "", "index": np.nan, "log2_ratio": np.nan}
    if a.sizes["index"] != b.sizes["index"]:
        return {**row, "verdict": f"not of one shape: {a.sizes['index']} and {b.sizes['index']} singular values"}
    a, b, floor_a, floor_b = xr.align(a, b, floor_a, floor_b, join="inner")
    if not a.sizes["epoch"]:
        return {**row, "verdict": "the runs share no recorded epoch"}
    excess = abs(a - b) - floor_a - floor_b
    # one run has a value where the other has none
    excess = excess.where(np.isfinite(a) == np.isfinite(b), np.inf)
    differs = (excess > 0).any(["group", "index"]).values
    last = {name: float(values.sel(group=ALL, index=1).isel(epoch=-1)) for name, values in (("a", a), ("b", b))}
    if last["a"] > 0 and last["b"] > 0:
        row["log2_ratio"] = np.log2(last["a"] / last["b"])
    if not differs.any():
        return {**row, "verdict": f"equal within rounding at all {a.sizes['epoch']} common epochs"}
    place = int(np.argmax(differs))
    at = excess.isel(epoch=place).fillna(-np.inf)
    group, index = np.unravel_index(int(at.values.argmax()), at.shape)
    row |= {"epoch": int(a["epoch"][place]), "group": str(a["group"].values[group]), "index": int(index) + 1}
    return {**row, "verdict": _say(row, first_epoch=place == 0)}


def _say(row: dict[str, object], first_epoch: bool) -> str:
    largest = f"most in σ{_subscript(int(str(row['index'])))} of {row['group']}"
    return f"{'differ from' if first_epoch else 'part at'} epoch {row['epoch']}{' on' * first_epoch}, {largest}"


def _subscript(number: int) -> str:
    return str(number).translate(str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉"))


def _read_scaled(spectra: Spectra, layer: str) -> tuple[xr.DataArray, xr.DataArray]:
    """A layer's scaled singular values, (epoch, group, index), and their noise floor, (epoch, group)."""
    loaded = load_spectra(spectra.path, [layer], names=NAMES)
    values = loaded[layer]
    scale = scale_of(values, loaded.weight, GRADIENT)
    return xr.DataArray(spectra_of(values, GRADIENT) * scale), xr.DataArray(values["floor_gradient"] * scale)
