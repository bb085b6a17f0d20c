"""Simulated component time-courses: 1/f spectra, and correlations by domain that depend on the subject."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import CobreTimeseriesConfig
from autospec.experiments.datasets.simulation.components import COMPONENTS, DOMAIN_OF, couplings
from autospec.experiments.datasets.simulation.subjects import SimulatedSubjects

TIME_POINTS = 150
TR_S = 2.0
"""Seconds between the volumes of the simulated cohort: five minutes."""
SPIKE_SHARE = 0.05


def simulate_timecourses(
    config: CobreTimeseriesConfig, subjects: SimulatedSubjects, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Simulate time-courses: independent 1/f noise, mixed by the root of the subject's correlation matrix.

    Args:
        config: The data set's configuration.
        subjects: Who is simulated.
        random: The random stream.

    Returns:
        (n, time, 53).
    """
    noise, artefact = random.spawn(2)
    time_points = TIME_POINTS if config.time_points is None else config.time_points
    independent = power_law_noise((len(subjects), time_points, COMPONENTS), config.spectral_exponent, noise)
    roots = _roots(correlations(config, subjects), subjects)
    mixed = independent @ roots.transpose(0, 2, 1)
    size = config.motion_effect * subjects.table["motion"].to_numpy()[:, None, None]
    return (mixed + size * _shared_spikes(len(subjects), time_points, artefact)).astype(np.float32)


def power_law_noise(
    shape: tuple[int, int, int], exponent: float, random: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Noise of unit variance whose power falls with frequency as 1 / f ** exponent.

    Twice the length is drawn and half of it kept, since a scan does not end where it began.

    Args:
        shape: (n, time, components).
        exponent: Of the frequency.
        random: The random stream.

    Returns:
        (n, time, components).
    """
    subjects, time_points, components = shape
    length = 2 * time_points
    frequency = np.arange(length // 2 + 1, dtype=np.float64)
    amplitude = np.zeros_like(frequency)
    amplitude[1:] = frequency[1:] ** (-exponent / 2)
    # in the transform of a real series all frequencies but the first and the last stand for two
    twice = np.where(frequency == length // 2, 1, 2)
    amplitude /= np.sqrt((twice * amplitude**2).sum() / length)
    spectrum = np.fft.rfft(random.standard_normal((subjects, length, components)), axis=1)
    noise: npt.NDArray[np.float64] = np.fft.irfft(spectrum * amplitude[:, None], n=length, axis=1)[:, :time_points]
    return noise


def correlations(config: CobreTimeseriesConfig, subjects: SimulatedSubjects) -> npt.NDArray[np.float64]:
    """Every subject's correlation matrix: one value per pair of domains, moved by who the subject is.

    Args:
        config: The data set's configuration.
        subjects: Who is simulated.

    Returns:
        (n, 53, 53).
    """
    base, diagnosis, sex, age = changes(config)
    between = (
        base
        + subjects.diagnosis[:, None, None] * diagnosis
        + subjects.sex[:, None, None] * sex
        + subjects.age[:, None, None] * age
    )
    full = between[:, DOMAIN_OF[:, None], DOMAIN_OF[None, :]]
    diagonal = np.arange(COMPONENTS)
    full[:, diagonal, diagonal] = 1
    return full


def changes(config: CobreTimeseriesConfig) -> list[npt.NDArray[np.float64]]:
    """The couplings of the domains, and what a patient, a man and a decade add to them.

    Args:
        config: The data set's configuration.

    Returns:
        Four matrices (7, 7).
    """
    keys = ("couplings", "diagnosis_effects", "sex_effects", "age_effects")
    return [couplings(getattr(config, key), key) for key in keys]


def _roots(matrices: npt.NDArray[np.float64], subjects: SimulatedSubjects) -> npt.NDArray[np.float64]:
    """The Cholesky factor of each correlation matrix."""
    try:
        return np.asarray(np.linalg.cholesky(matrices))
    except np.linalg.LinAlgError as error:
        lowest = np.linalg.eigvalsh(matrices)[:, 0]
        worst = int(lowest.argmin())
        raise AutoSpecError(
            f"dataset.couplings and the effects on them give subject {subjects.table['id'].iloc[worst]} a correlation "
            f"matrix with a negative eigenvalue ({lowest[worst]:.2f}): make dataset.effect or the effects smaller"
        ) from error


def _shared_spikes(subjects: int, time_points: int, random: np.random.Generator) -> npt.NDArray[np.float64]:
    """What head motion adds to all components alike (n, time, 1): rare jumps of random sign, of unit variance."""
    jumps = random.standard_normal((subjects, time_points, 1))
    hit = random.random((subjects, time_points, 1)) < SPIKE_SHARE
    return np.where(hit, jumps / np.sqrt(SPIKE_SHARE), 0.0)
