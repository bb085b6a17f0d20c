"""How the time of singular values grows with the size of the matrix."""

from __future__ import annotations

import time

import numpy as np

SHAPES = ((128, 128), (256, 128), (256, 256), (512, 256), (512, 512))
SEED = 314159


def cost_exponents(repetitions: int) -> list[float]:
    """Measure the time of an SVD over several shapes, and fit its exponent in min(mn², m²n).

    Args:
        repetitions: How often.

    Returns:
        An exponent for each; 1 is what the paper states.
    """
    random = np.random.default_rng(SEED)
    matrices = [random.standard_normal(shape) for shape in SHAPES]
    for matrix in matrices:
        np.linalg.svd(matrix)
    return [_exponent(matrices) for _ in range(repetitions)]


def _exponent(matrices: list[np.ndarray]) -> float:
    cost = [min(m * n**2, m**2 * n) for m, n in SHAPES]
    taken = [_time_s(matrix) for matrix in matrices]
    return float(np.polyfit(np.log(cost), np.log(taken), 1)[0])


def _time_s(matrix: np.ndarray) -> float:
    """Of the processor, so that others on the machine do not count."""
    began = time.process_time()
    for _ in range(2):
        np.linalg.svd(matrix)
    return max(time.process_time() - began, 1e-6)
