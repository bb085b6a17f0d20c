"""What time-courses of different people have in common: how strongly components go together, and their spectra.

Static functional network connectivity: Allen et al. 2011, Front Syst Neurosci 5:2; by windows: Allen et al. 2014,
Cereb Cortex 24:663.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError

LARGEST_Z = 7.25
"""Fisher's z of a correlation of 1 − 1e-6: what is larger is rounding."""

BANDS_HZ = ((0.01, 0.025), (0.025, 0.05), (0.05, 0.075), (0.075, 0.1), (0.1, 0.15))
"""Bands of the spectra of component time-courses (after Allen et al. 2011)."""


def pairs_of(components: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """The pairs of components in the order of a vector of connectivity: the upper triangle, row by row.

    Args:
        components: How many there are.

    Returns:
        First and second component of each pair.
    """
    first, second = np.triu_indices(components, k=1)
    return first, second


def connectivity(timecourses: npt.NDArray, window: int | None = None) -> npt.NDArray[np.float64]:
    """Fisher's z of the correlation of every pair of components, of the whole run or of each window.

    Args:
        timecourses: (n, time, components).
        window: Volumes of a window; windows follow each other without overlap, and what is left at the end is not
            used. None is the whole run.

    Returns:
        (n, windows, pairs).

    Raises:
        AutoSpecError: The run is shorter than a window, or a component is constant within one.
    """
    n_times, components = timecourses.shape[1:]
    length = window or n_times
    if not 3 <= length <= n_times:
        raise AutoSpecError(f"dataset.window={window}: must be from 3 to {n_times} volumes, or null for all")
    first, second = pairs_of(components)
    windows = []
    for start in range(0, n_times - length + 1, length):
        part = np.asarray(timecourses[:, start : start + length], dtype=np.float64)
        centred = part - part.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(centred, axis=1)
        if (norms == 0).any():
            subject, component = np.argwhere(norms == 0)[0]
            raise AutoSpecError(
                f"dataset.window={window}: component {component + 1} of sample {subject + 1} is constant in a window"
            )
        unit = centred / norms[:, None]
        correlations = np.einsum("ntp,ntp->np", unit[:, :, first], unit[:, :, second], optimize=True)
        # rounding puts a correlation at or beyond 1, where Fisher's z is infinite
        windows.append(np.clip(np.arctanh(np.clip(correlations, -1 + 1e-15, 1 - 1e-15)), -LARGEST_Z, LARGEST_Z))
    return np.stack(windows, axis=1)


def pictures(vectors: npt.NDArray, components: int) -> npt.NDArray:
    """Vectors of connectivity as symmetric matrices with 0 on the diagonal.

    Args:
        vectors: (n, windows, pairs).
        components: How many there are.

    Returns:
        (n, windows, components, components).
    """
    first, second = pairs_of(components)
    matrices = np.zeros((*vectors.shape[:2], components, components), dtype=vectors.dtype)
    matrices[..., first, second] = matrices[..., second, first] = vectors
    return matrices


def band_powers(timecourses: npt.NDArray, tr_s: float) -> npt.NDArray[np.float64]:
    """The share of each component's power in each band, as a logarithm.

    Args:
        timecourses: (n, time, components).
        tr_s: Repetition time in seconds.

    Returns:
        (n, bands × components), bands slowest; bands above half the sampling rate are left out.

    Raises:
        AutoSpecError: The run is too short to tell the bands apart.
    """
    centred = timecourses - timecourses.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(np.asarray(centred, dtype=np.float64), axis=1)) ** 2
    hz = np.fft.rfftfreq(timecourses.shape[1], tr_s)
    total = power.sum(axis=1)
    bands = []
    for low, high in BANDS_HZ:
        if high <= 0.5 / tr_s:
            within = (hz >= low) & (hz < high)
            if not within.any():
                raise AutoSpecError(
                    f"dataset.blocks: {timecourses.shape[1]} volumes of {tr_s:g} s are too few for a band of "
                    f"{low:g} to {high:g} Hz"
                )
            bands.append(np.log(np.maximum(power[:, within].sum(axis=1) / total, 1e-12)))
    return np.concatenate(bands, axis=1)


def with_connectivity(timecourses: npt.NDArray, wanted: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Time-courses mixed so that their connectivity is another: X C^(−½) W^(½), in the units that came in.

    The change is the smallest that does it, in the sense of the symmetric roots; where the wanted correlations are no
    correlation matrix, the nearest in its eigenvectors is taken.

    Args:
        timecourses: (n, time, components).
        wanted: (n, pairs) Fisher's z.

    Returns:
        (n, time, components).
    """
    components = timecourses.shape[2]
    result = np.empty(timecourses.shape)
    targets = np.tanh(pictures(wanted[:, None], components)[:, 0])
    for index, (courses, target) in enumerate(zip(timecourses, targets, strict=True)):
        mean, sd = courses.mean(axis=0), courses.std(axis=0)
        unit = (courses - mean) / sd
        now = unit.T @ unit / len(unit)
        # pictures have 0 on the diagonal, a correlation matrix has 1
        np.fill_diagonal(target, 1)
        mixed = unit @ _root(now, -0.5) @ _root(target, 0.5)
        spread = mixed.std(axis=0)
        result[index] = mixed / np.where(spread > 0, spread, 1) * sd + mean
    return result


def _root(matrix: npt.NDArray[np.float64], power: float) -> npt.NDArray[np.float64]:
    """A power of a symmetric matrix; directions without variance stay without."""
    values, vectors = np.linalg.eigh(matrix)
    kept = values > 1e-8 * values[-1]
    scaled = np.where(kept, np.where(kept, values, 1.0) ** power, 0.0)
    root: npt.NDArray[np.float64] = (vectors * scaled) @ vectors.T
    return root
