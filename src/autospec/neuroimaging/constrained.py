"""Spatially constrained ICA: one subject's maps and time-courses after a template's.

GIG-ICA, Du & Fan 2013, NeuroImage 69:157; NeuroMark, Du et al. 2020, NeuroImage: Clinical 28:102375; the GIFT toolbox
calls it "moo-icar", and the numbers here are GIFT's to 1e-6 for the preparation ``rt``.

The module is not named after its function, because ``autospec.neuroimaging.constrained_ica`` is the function.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from autospec.errors import AutoSpecError
from autospec.neuroimaging.ascent import Objective, climb, unit_rows
from autospec.neuroimaging.normalisation import PREPARATIONS
from autospec.neuroimaging.voxels import Matrix, Voxels, as_double, namespace

log = logging.getLogger(__name__)

OPTIONS: dict[str, Collection[str]] = {
    "preparation": PREPARATIONS,
    "timecourses": ("covariance", "least_squares"),
    "dtype": ("float64", "float32"),
}

ROUNDING = 1e-12
CONSTANT = 1e-6

OFF_SCALE = 0.01
"""How far the standard deviations of the maps, together, may be from 1 before the eigenvalues are cut harder."""


@dataclass(frozen=True)
class Whitening:
    """Which eigenvalues of the volumes' covariance are kept: above a fraction of the largest and an absolute floor."""

    relative_floor: float = 1e-10
    absolute_floor: float = 0.0
    rescaled: bool = True
    """Whether rows get unit std where directions were dropped."""


USUAL = Whitening()
HARDER = Whitening(relative_floor=0.0, absolute_floor=0.02, rescaled=False)


class Components(NamedTuple):
    """Maps (components, voxels), or the image of them where asked for, and time-courses (time, components)."""

    maps: Any
    timecourses: Any


def constrained_ica(
    data: Any,
    references: Any,
    preparation: str = "rt",
    *,
    timecourses: str = "covariance",
    names: Sequence[str] | None = None,
    dtype: str = "float64",
    device: Any = None,
) -> Components:
    """The maps and time-courses of one subject that are independent and close to reference maps.

    Each map has mean 0 and standard deviation 1 over voxels and the sign of its reference; it does not depend on the
    other references. Time-courses are in the units of the prepared data. With a torch tensor, or with ``device``,
    torch computes; a tensor in gives tensors out.

    Args:
        data: (T, V) Volumes inside the mask; not modified.
        references: (Q, V) The template's maps, in any units; not modified.
        preparation: ``rt`` subtracts every volume's mean, ``rv`` every voxel's mean before that, ``vn`` detrends and
            standardises every voxel before that.
        timecourses: ``covariance`` (as in GIFT) of each volume with the map, or ``least_squares``, the joint fit of all
            maps to each volume, better on easy data and worse at low signal.
        names: The references' names in messages.
        dtype: ``float32`` halves time and memory and agrees to about 1e-5.
        device: "cpu" or "cuda" for torch.

    Returns:
        Maps (Q, V) and time-courses (T, Q).

    Raises:
        AutoSpecError: Shapes do not fit, there is one volume, values are not finite, a reference is constant (it is
            named), data have no variance, or an option is unknown.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> sources = rng.laplace(size=(3, 500))
        >>> data = rng.normal(size=(20, 3)) @ sources + 0.1 * rng.normal(size=(20, 500))
        >>> maps, timecourses = constrained_ica(data, sources + rng.normal(size=(3, 500)))
        >>> maps.shape, timecourses.shape
        ((3, 500), (20, 3))
        >>> bool(np.corrcoef(maps[0], sources[0])[0, 1] > 0.98)
        True
    """
    check_options(preparation=preparation, timecourses=timecourses, dtype=dtype)
    kind = namespace(data)
    if device is None:
        device = next((given.device for given in (data, references) if namespace(given) is not np), None)
    data, references = as_double(data, device), as_double(references, device)
    _check_shapes(data, references, names)
    _check_finite(data, references)
    _check_variation(data)
    prepared = Voxels(_in_precision(PREPARATIONS[preparation](data), dtype))
    targets = Voxels(_in_precision(_standardise(references, names), dtype))
    maps = _maps(prepared, targets)
    courses: Matrix = prepared.products(maps)
    if timecourses == "least_squares":
        courses = _solve(maps.products(maps), courses)
    return _results(maps.values, courses, kind)


def _maps(prepared: Voxels, references: Voxels) -> Voxels:
    """Steps 1 to 9: maps whose deviations from 1 show bad whitening are estimated again from fewer directions."""
    maps = estimate(prepared, references, USUAL)
    if np.linalg.norm(1 - maps.deviations()) <= OFF_SCALE:
        return maps
    log.warning("constrained ICA: the maps are off scale; estimated again without eigenvalues below 0.02")
    return estimate(prepared, references, HARDER)


def estimate(prepared: Voxels, references: Voxels, whitening: Whitening) -> Voxels:
    """Steps 1 to 8 of the estimation: whiten, start from the closest maps, climb.

    Args:
        prepared: Prepared data (T, V).
        references: Standardised references (Q, V).
        whitening: Which eigenvalues are kept.

    Returns:
        The maps (Q, V).

    Raises:
        AutoSpecError: The data have nothing in common with a reference, or no variance.
    """
    whitened = whiten(prepared, whitening)
    closeness = references.products(whitened)
    # the least-squares weights of each reference: its closest map within the data
    start = _solve(whitened.products(whitened), closeness)
    _check_overlap(start)
    start = unit_rows(start)
    return whitened.combined(climb(Objective(whitened, closeness, start), start))


def whiten(prepared: Voxels, whitening: Whitening) -> Voxels:
    """Y = Λ^-½ Eᵀ X, from the eigenvalues Λ and eigenvectors E of X Xᵀ / V.

    Args:
        prepared: X (T, V).
        whitening: Which eigenvalues are kept.

    Returns:
        Y (kept directions, V).

    Raises:
        AutoSpecError: No eigenvalue is above the floor.
    """
    eigenvalues, vectors = np.linalg.eigh(prepared.products(prepared))
    floor = max(whitening.relative_floor * eigenvalues[-1], whitening.absolute_floor)
    kept = eigenvalues > floor
    if not kept.any():
        raise AutoSpecError(f"no eigenvalue of the data's covariance is above {floor:.3g}: there is no variance left")
    whitened = prepared.combined((vectors[:, kept] / np.sqrt(eigenvalues[kept])).T)
    if whitening.rescaled and not kept.all():
        whitened.divide(whitened.deviations())
    return whitened


def _solve(products: Matrix, right: Matrix) -> Matrix:
    """``right @ products⁻¹``, by least squares where the symmetric ``products`` has no inverse."""
    return np.asarray(np.linalg.lstsq(products, right.T, rcond=None)[0].T, dtype=np.float64)


def constant_rows(references: Any) -> list[int]:
    """Which references are constant to a millionth (a float32 map, resampled).

    Args:
        references: (Q, V).

    Returns:
        Positions from 0.
    """
    return [index for index, row in enumerate(references) if row.max() - row.min() <= CONSTANT * abs(row).max()]


def check_options(**options: str) -> None:
    """Refuse a preparation, kind of time-courses or dtype that there is not.

    Args:
        options: Values by the names of ``OPTIONS``.

    Raises:
        AutoSpecError: A value is unknown; the allowed ones are named.
    """
    for name, value in options.items():
        if value not in OPTIONS[name]:
            raise AutoSpecError(f"{name}={value}: unknown; allowed are {', '.join(OPTIONS[name])}")


def _standardise(references: Any, names: Sequence[str] | None) -> Any:
    """References (Q, V) with mean 0 and std 1 (ddof 1); AutoSpecError naming those that are constant."""
    constant = constant_rows(references)
    if constant:
        label = ", ".join(f"{index + 1}" + (f" ({names[index]})" if names else "") for index in constant)
        raise AutoSpecError(f"constant reference maps have no direction: {label} of {len(references)} (from 1)")
    centred = references - references.mean(1)[:, None]
    return centred / ((centred * centred).sum(1) / (references.shape[1] - 1))[:, None] ** 0.5


def _check_shapes(data: Any, references: Any, names: Sequence[str] | None) -> None:
    for name, matrix, axes in (("data", data, "(time, voxels)"), ("references", references, "(maps, voxels)")):
        if len(matrix.shape) != 2:
            raise AutoSpecError(f"{name} must be {axes}, not of shape {tuple(matrix.shape)}")
    if data.shape[1] != references.shape[1]:
        raise AutoSpecError(f"data have {data.shape[1]} voxels, references {references.shape[1]}")
    if len(data) < 2:
        raise AutoSpecError(f"data of {len(data)} volume(s): at least 2 are needed, (time, voxels)")
    if data.shape[1] < 2 or not len(references):
        raise AutoSpecError(f"at least 2 voxels and 1 reference are needed, not {data.shape[1]} and {len(references)}")
    if names is not None and len(names) != len(references):
        raise AutoSpecError(f"{len(names)} names do not fit {len(references)} references")


def _check_variation(data: Any) -> None:
    xp = namespace(data)
    least = ROUNDING * float(abs(data).max())
    for axis, over in enumerate(("time", "voxels")):
        if float((xp.amax(data, axis) - xp.amin(data, axis)).max()) <= least:
            raise AutoSpecError(f"the data do not vary over {over}")


def _check_finite(data: Any, references: Any) -> None:
    for name, row, matrix in (("data", "volume", data), ("references", "map", references)):
        finite = namespace(matrix).isfinite(matrix)
        if not finite.all():
            first = int(np.flatnonzero(np.array([not bool(line.all()) for line in finite]))[0])
            count = int((~finite).sum())
            raise AutoSpecError(f"{name}: {count} values are NaN or infinite, the first in {row} {first + 1} (from 1)")


def _check_overlap(start: Matrix) -> None:
    lost = [f"{index + 1}" for index in np.flatnonzero(np.linalg.norm(start, axis=1) == 0)]
    if lost:
        raise AutoSpecError(f"the data hold nothing of reference map {', '.join(lost)} (from 1)")


def _in_precision(values: Any, dtype: str) -> Any:
    if dtype == "float64":
        return values
    return values.astype(np.float32) if namespace(values) is np else values.float()


def _results(maps: Any, courses: Matrix, kind: Any) -> Components:
    """Maps and time-courses of one kind and precision: tensors where a tensor came in, else NumPy arrays."""
    if kind is np:
        maps = maps if namespace(maps) is np else maps.cpu().numpy()
        return Components(maps, courses.astype(maps.dtype, copy=False))
    return Components(maps, kind.as_tensor(courses, dtype=maps.dtype, device=maps.device))
