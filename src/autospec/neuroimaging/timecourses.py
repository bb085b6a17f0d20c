"""Cleaning the time-courses of components: detrending, motion regression, despiking, low-pass, z-scores.

The steps and their constants are those of the GIFT toolbox's post-processing (as used by Du et al. 2020, NeuroImage:
Clinical 28:102375). Every function takes (time, components), one run of one subject, and returns a new array like it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError

Timecourses = npt.NDArray[np.float64]

SPIKE_HALF_WIDTH = 4
SPIKE_DEVIATIONS = 2.5
LOW_PASS_HZ = 0.15
LOW_PASS_ORDER = 5
LOW_PASS_PADDING = 15


def clean(
    timecourses: npt.ArrayLike,
    tr_s: float | None,
    motion: npt.ArrayLike | None = None,
    low_pass_hz: float | None = LOW_PASS_HZ,
) -> Timecourses:
    """Detrend, regress out motion, despike and low-pass, in this order; in the units that came in.

    Args:
        timecourses: (time, components), one run of one subject.
        tr_s: Repetition time in seconds; needed for the low-pass only.
        motion: (time, covariates), or None to leave the regression out.
        low_pass_hz: Cutoff in Hz, or None to leave the filter out.

    Returns:
        (time, components) A new array.

    Raises:
        AutoSpecError: As each step does.
    """
    courses = detrend(timecourses)
    if motion is not None:
        courses = regress_out_motion(courses, motion)
    courses = despike(courses)
    return courses if low_pass_hz is None else low_pass(courses, tr_s, low_pass_hz)


def detrend(timecourses: npt.ArrayLike) -> Timecourses:
    """Take out a constant, a ramp, and one and two slow waves over the run (sine and cosine, demeaned).

    Args:
        timecourses: (time, components).

    Returns:
        (time, components) The residual.

    Raises:
        AutoSpecError: The shape is another, or values are not finite.
    """
    courses = _require_timecourses(timecourses)
    return _residual(courses, _trends(len(courses)))


def regress_out_motion(timecourses: npt.ArrayLike, motion: npt.ArrayLike) -> Timecourses:
    """Take out motion covariates, z-scored; a covariate that never changes is left out.

    No constant is fitted, since the covariates have mean 0.

    Args:
        timecourses: (time, components).
        motion: (time, covariates) in any units.

    Returns:
        (time, components) The residual.

    Raises:
        AutoSpecError: The number of volumes differs, or a covariate is not finite (the first row of a derivative, as
            fMRIPrep writes it, must be filled before).
    """
    courses, covariates = _require_timecourses(timecourses), np.asarray(motion, dtype=np.float64)
    if covariates.ndim != 2 or len(covariates) != len(courses):
        raise AutoSpecError(f"motion of shape {covariates.shape} does not fit {len(courses)} volumes")
    if not np.isfinite(covariates).all():
        raise AutoSpecError(f"motion: {int((~np.isfinite(covariates)).sum())} values are NaN or infinite")
    covariates = covariates[:, np.ptp(covariates, axis=0) > 0]
    return _residual(courses, (covariates - covariates.mean(axis=0)) / covariates.std(axis=0, ddof=1))


def despike(timecourses: npt.ArrayLike) -> Timecourses:
    """Give points far from the moving average (over 2.5 std of all points' distances from it) its value.

    The average reaches 4 volumes to each side and shrinks, staying centred, towards the ends.

    Args:
        timecourses: (time, components).

    Returns:
        (time, components) A new array.

    Raises:
        AutoSpecError: The shape is another, or values are not finite.
    """
    courses = _require_timecourses(timecourses)
    average = _moving_average(courses, SPIKE_HALF_WIDTH)
    distance = np.abs(courses - average)
    return np.where(distance > SPIKE_DEVIATIONS * distance.std(axis=0, ddof=1), average, courses)


def low_pass(timecourses: npt.ArrayLike, tr_s: float | None, cutoff_hz: float = LOW_PASS_HZ) -> Timecourses:
    """A 5th-order Butterworth low-pass, forward and backward so that nothing is delayed.

    Args:
        timecourses: (time, components).
        tr_s: Repetition time in seconds.
        cutoff_hz: In Hz, below half the sampling rate 1 / ``tr_s``.

    Returns:
        (time, components) A new array.

    Raises:
        AutoSpecError: The repetition time is unknown, the cutoff is out of range, or 15 volumes or fewer are given, too
            few to pad.
    """
    from scipy.signal import butter, filtfilt

    courses = _require_timecourses(timecourses)
    if tr_s is None or not 0 < tr_s < np.inf:
        raise AutoSpecError(f"tr_s={tr_s}: the repetition time must be a positive number of seconds")
    nyquist_hz = 0.5 / tr_s
    if not 0 < cutoff_hz < nyquist_hz:
        raise AutoSpecError(
            f"low_pass_hz={cutoff_hz}: must lie between 0 and {nyquist_hz:.4g} Hz, half the sampling rate at a "
            f"repetition time of {tr_s:g} s; None leaves the filter out"
        )
    if len(courses) <= LOW_PASS_PADDING:
        raise AutoSpecError(f"{len(courses)} volumes are too few for the low-pass: more than {LOW_PASS_PADDING} needed")
    numerator, denominator = butter(LOW_PASS_ORDER, cutoff_hz / nyquist_hz)
    passed: Timecourses = filtfilt(numerator, denominator, courses, axis=0, padlen=LOW_PASS_PADDING)
    return passed


def z_score(timecourses: npt.ArrayLike) -> Timecourses:
    """Detrend and divide by the std (ddof 1).

    Args:
        timecourses: (time, components).

    Returns:
        (time, components) With std 1.

    Raises:
        AutoSpecError: Components are nothing but trend; they are named.
    """
    courses = _require_timecourses(timecourses)
    residual = detrend(courses)
    deviation = residual.std(axis=0, ddof=1)
    flat = np.flatnonzero(deviation <= 1e-12 * np.abs(courses).max(axis=0))
    if flat.size:
        named = ", ".join(str(index + 1) for index in flat)
        raise AutoSpecError(f"time-courses do not vary beyond their trend, so have no z-scores: {named} (from 1)")
    return residual / deviation


def _trends(n_times: int) -> Timecourses:
    angle = np.linspace(0, 2 * np.pi, n_times)
    waves = np.stack([np.sin(angle), np.sin(2 * angle), np.cos(angle), np.cos(2 * angle)], axis=1)
    return np.column_stack([np.ones(n_times), np.linspace(0, 1, n_times), waves - waves.mean(axis=0)])


def _residual(courses: Timecourses, regressors: Timecourses) -> Timecourses:
    residual: Timecourses = courses - regressors @ np.linalg.lstsq(regressors, courses, rcond=None)[0]
    return residual


def _moving_average(courses: Timecourses, half_width: int) -> Timecourses:
    times = np.arange(len(courses))
    reach = np.minimum(half_width, np.minimum(times, times[::-1]))
    sums = np.vstack([np.zeros(courses.shape[1]), np.cumsum(courses, axis=0)])
    averages: Timecourses = (sums[times + reach + 1] - sums[times - reach]) / (2 * reach + 1)[:, None]
    return averages


def _require_timecourses(timecourses: npt.ArrayLike) -> Timecourses:
    courses = np.asarray(timecourses, dtype=np.float64)
    if courses.ndim != 2 or len(courses) < 2:
        raise AutoSpecError(f"time-courses must be (time, components) with 2 volumes or more, not {courses.shape}")
    if not np.isfinite(courses).all():
        raise AutoSpecError(f"time-courses: {int((~np.isfinite(courses)).sum())} values are NaN or infinite")
    return courses
