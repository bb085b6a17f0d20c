"""What happened in each layer of a run, in a row of numbers and a few words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr

from autospec.analysis.distances import CANCELLED
from autospec.analysis.nan_statistics import Floats
from autospec.store.groups import disjoint_groups
from autospec.store.layers_by_name import layers_by_name
from autospec.store.read import Spectra, load_spectra
from autospec.store.scale import spectra_of
from autospec.store.schema import ALL, GRADIENT

MOST_EPOCHS, MOST_VALUES, FEWEST_EPOCHS = 1000, 20_000_000, 100
"""Of a longer run about so many evenly spaced epochs are looked at, of wide layers fewer: any file fits into memory."""
NAMES = (GRADIENT, "floor_gradient", "cosine", "cancellation")
LEAST_CHANGE = 0.1
"""A smaller relative change of a rank is not told."""
LARGEST_SWING = 0.5
"""A rank that swings by more than this share of its change, once it has reached its final value, varies."""
LAST_SHARE = 0.1
"""A rank's final value is the median of this share of the epochs, the last ones."""

COLUMNS = {
    "layer": "The layer, by the name of its weight.",
    "sigma1": "Largest singular value of the whole batch's mean gradient at the last recorded epoch.",
    "rank": "Singular values of that gradient above its noise floor: median over the last tenth of the epochs.",
    "effective_rank": "Exponential of the entropy of those values as shares of their sum, over the same epochs.",
    "effective_rank_change": "That effective rank less the one at the first recorded epoch.",
    "cosine": "Smallest cosine between two disjoint groups' gradients at the last recorded epoch.",
    "cancellation": "‖∇_all‖ / Σ_c ‖∇_c‖ at the last recorded epoch: near 0 the groups' gradients are opposite.",
    "verdict": "What happened, in words.",
}
"""Every column of the summary and what it means."""


def summarise(spectra: Spectra, layers: Iterable[str] | None = None) -> pd.DataFrame:
    """Summarise the gradients of each layer: one row per layer, with the columns of ``COLUMNS``.

    Args:
        spectra: The spectra of a run.
        layers: Names or patterns of layers; None takes all.

    Returns:
        The summary, indexed by layer. What a file does not tell is NaN.

    Raises:
        AutoSpecError: There is no such layer, or gradient spectra were not recorded.
    """
    chosen = layers_by_name(spectra, None if layers is None else list(layers))
    rows = [_summarise_layer(spectra, layer) for layer in chosen]
    return pd.DataFrame(rows, columns=list(COLUMNS)).set_index("layer")


def _summarise_layer(spectra: Spectra, layer: str) -> dict[str, object]:
    # one layer at a time, so that memory is bounded
    values_per_epoch = len(spectra.group_names) * min(spectra.shapes[layer], default=1)
    most_epochs = max(min(MOST_EPOCHS, MOST_VALUES // values_per_epoch), FEWEST_EPOCHS)
    one = load_spectra(spectra.path, [layer], most_epochs, NAMES)
    values = one[layer]
    course = gradient_course(values, one.scaled(layer))
    cancellation = values["cancellation"].values if "cancellation" in values else np.full(len(course.epochs), np.nan)
    return {
        "layer": layer,
        "sigma1": _last(course.sigma1),
        "rank": _final(course.rank),
        "effective_rank": _final(course.effective_rank),
        "effective_rank_change": _final(course.effective_rank) - _first(course.effective_rank),
        "cosine": _smallest_cosine(values, disjoint_groups(one.group_names, one.members)),
        "cancellation": _last(cancellation),
        "verdict": verdict(course, cancellation),
    }


@dataclass(frozen=True)
class GradientCourse:
    """The whole batch's gradient of one layer over the recorded epochs.

    Attributes:
        epochs: (epoch,) the recorded epochs.
        sigma1: (epoch,) the largest singular value of the mean gradient.
        rank: (epoch,) how many singular values stand above the noise floor.
        effective_rank: (epoch,) the exponential of the entropy of those values as shares of their sum.
        cut: Whether only leading singular values are stored, so that ranks are not known.
    """

    epochs: npt.NDArray[np.int64]
    sigma1: Floats
    rank: Floats
    effective_rank: Floats
    cut: bool


def gradient_course(values: xr.Dataset, scaled: xr.DataArray) -> GradientCourse:
    """Follow the whole batch's gradient of one layer over training.

    The effective rank is that of Roy & Vetterli, "The effective rank", EUSIPCO 2007.

    Args:
        values: A layer's statistics.
        scaled: (epoch, group, index) the singular values of the groups' mean gradients.

    Returns:
        σ₁ and ranks at every epoch; NaN where a gradient is not finite, effective rank also where it is all noise.
    """
    raw = spectra_of(values, GRADIENT).sel(group=ALL).to_numpy().astype(np.float64)
    floor = values["floor_gradient"].sel(group=ALL).to_numpy().astype(np.float64)
    sigma1 = scaled.sel(group=ALL, index=1).to_numpy().astype(np.float64)
    cut = raw.shape[1] < min(values.attrs["shape"])
    finite = np.isfinite(raw).all(1)
    kept = np.where(raw > floor[:, None], raw, 0.0)
    rank = np.where(finite & ~cut, (kept > 0).sum(1), np.nan)
    total = kept.sum(1, keepdims=True)
    shares = kept / np.where(total > 0, total, np.nan)
    entropy = -np.where(shares > 0, shares * np.log(np.where(shares > 0, shares, 1.0)), 0.0).sum(1)
    effective_rank = np.where(finite & (total[:, 0] > 0) & ~cut, np.exp(entropy), np.nan)
    return GradientCourse(values["epoch"].to_numpy(), sigma1, rank, effective_rank, cut)


def verdict(course: GradientCourse, cancellation: Floats) -> str:
    """Say what happened in a layer.

    Args:
        course: Its gradient over training.
        cancellation: (epoch,) the cancellation of its groups.

    Returns:
        Such as ``rank fell from 32 to 11 by epoch 20; groups cancel since epoch 40``.
    """
    gaps = course.epochs[~np.isfinite(course.sigma1)]
    if len(gaps) == len(course.epochs):
        return "no finite gradient"
    more = f" and {len(gaps) - 1} more" if len(gaps) > 1 else ""
    no_gradient = f"no finite gradient at epoch {gaps[0]}{more}" if len(gaps) else ""
    parts = [no_gradient, _say_vanishing(course) or _change_of_rank(course), _cancel(course.epochs, cancellation)]
    return "; ".join(part for part in parts if part)


def _say_vanishing(course: GradientCourse) -> str:
    """Since when the gradient is zero or noise."""
    since = _since(course.epochs, course.sigma1 == 0 if course.cut else course.rank == 0)
    if since is None:
        return ""
    return "no gradient above the noise floor" + (f" since epoch {since}" if since != course.epochs[0] else "")


def _change_of_rank(course: GradientCourse) -> str:
    """How the rank changed, or else the effective rank."""
    if course.cut:
        return "ranks unknown: only leading singular values are stored"
    text = _change("rank", course.epochs, course.rank, digits=0)
    text = text or _change("effective rank", course.epochs, course.effective_rank, digits=1)
    about = " about" if np.ptp(course.rank[np.isfinite(course.rank)]) > 0 else ""
    return text or f"rank stays{about} {_final(course.rank):.0f}"


def _change(name: str, epochs: Sequence[int] | npt.NDArray[np.int64], values: Floats, digits: int) -> str:
    """From which value to which and by which epoch a rank changed; empty where it hardly did."""
    finite = np.isfinite(values)
    if finite.sum() < 2:
        return ""
    epochs, values = np.asarray(epochs)[finite], values[finite].round(digits)
    first, final = values[0], round(float(_final(values)), digits)
    if abs(final - first) < LEAST_CHANGE * max(first, 1.0):
        return ""
    reached = values <= final if final < first else values >= final
    epoch, since = epochs[reached][0], values[np.argmax(reached) :]
    if np.ptp(since) > LARGEST_SWING * abs(final - first):
        return f"{name} varies between {since.min():.{digits}f} and {since.max():.{digits}f} since epoch {epoch}"
    verb = "fell" if final < first else "rose"
    return f"{name} {verb} from {first:.{digits}f} to {final:.{digits}f} by epoch {epoch}"


def _cancel(epochs: npt.NDArray[np.int64], cancellation: Floats) -> str:
    since = _since(epochs, cancellation < CANCELLED)
    return "" if since is None else f"groups cancel since epoch {since}"


def _since(epochs: npt.NDArray[np.int64], holds: npt.NDArray[np.bool_]) -> int | None:
    """The epoch from which on something holds to the end; None where it does not at the end."""
    if not len(holds) or not holds[-1]:
        return None
    fails = np.flatnonzero(~holds)
    return int(epochs[fails[-1] + 1 if len(fails) else 0])


def _smallest_cosine(values: xr.Dataset, groups: Sequence[str]) -> float:
    if "cosine" not in values or len(groups) < 2 or not values.sizes["epoch"]:
        return float("nan")
    last = values["cosine"].isel(epoch=-1).sel(group=list(groups), other_group=list(groups)).to_numpy()
    cosines = last[np.triu_indices(len(groups), 1)]
    return float(np.nanmin(cosines)) if np.isfinite(cosines).any() else float("nan")


def _final(values: Floats) -> float:
    """The median of the last values; of an even number the lower middle one, which was there."""
    last = np.sort(values[np.isfinite(values)][-max(1, round(LAST_SHARE * len(values))) :])
    return float(last[(len(last) - 1) // 2]) if len(last) else float("nan")


def _first(values: Floats) -> float:
    return float(values[0]) if len(values) else float("nan")


def _last(values: Floats) -> float:
    return float(values[-1]) if len(values) else float("nan")
