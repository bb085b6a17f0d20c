"""The search of constrained ICA: each component climbs from its reference by a line search of its own.

Du & Fan 2013, NeuroImage 69:157 (GIG-ICA). Components share nothing but the passes over voxels, so all run as one
batch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from autospec.neuroimaging.voxels import Matrix, Vector, Voxels

GAUSSIAN_LOG_COSH = 0.3745672075
"""The mean of log cosh of a standard normal variable."""

MAX_ITERATIONS = 100
LEAST_GAIN = 0.02
"""What a step must gain, as a fraction of its length times the norm of the gradient."""
STILL = 1e-5
"""An accepted step whose squared length is below this is the last."""
SMALL_STEP = 2.0**-12

Rows = npt.NDArray[np.intp]


class Objective:
    """f(w) = ½ · (2/π) · atan(c J(wᵀY)) + ½ wᵀq, independence and closeness to the reference, equal at the start.

    J(y) = (mean log cosh y − γ₀)² is the negentropy; c = tan(π F₀ / 2) / J₀ is fixed per component by the start.
    """

    def __init__(self, whitened: Voxels, closeness: Matrix, start: Matrix) -> None:
        self._whitened = whitened
        self._closeness = closeness
        everyone = np.arange(len(start))
        negentropy = self._excess(start) ** 2
        self._balance = np.tan(np.pi * self._likeness(start, everyone) / 2) / negentropy

    def values(self, directions: Matrix, rows: Rows) -> Vector:
        """(k,) f of the directions (k, dimensions) that belong to these components."""
        independence = 2 / np.pi * np.arctan(self._balance[rows] * self._excess(directions) ** 2)
        return (independence + self._likeness(directions, rows)) / 2

    def gradients(self, directions: Matrix, rows: Rows) -> Matrix:
        """(k, dimensions) The gradient of f; it is not projected on the sphere that directions live on."""
        excess, balance = self._excess(directions), self._balance[rows]
        slope = 2 / np.pi * balance / (1 + (balance * excess**2) ** 2) * excess
        return slope[:, None] * self._whitened.mean_tanh(directions) + self._closeness[rows] / 2

    def _excess(self, directions: Matrix) -> Vector:
        return self._whitened.mean_log_cosh(directions) - GAUSSIAN_LOG_COSH

    def _likeness(self, directions: Matrix, rows: Rows) -> Vector:
        return row_products(directions, self._closeness[rows])


class Ascent:
    """The state of the search: per component its direction, last candidate, value, uphill direction, step length."""

    def __init__(self, objective: Objective, start: Matrix) -> None:
        self._objective = objective
        everyone = np.arange(len(start))
        self.directions = start.copy()
        self.candidates = start.copy()
        self._values = objective.values(start, everyone)
        self._uphill = np.empty_like(start)
        self._norms = np.empty(len(start))
        self._steps = np.ones(len(start))
        self._look_uphill(everyone)

    def iterate(self, rows: Rows) -> Rows:
        """One candidate for each of these components; the components that go on."""
        old = self.directions[rows]
        self.candidates[rows] = candidates = unit_rows(old + self._steps[rows, None] * self._uphill[rows])
        values = self._objective.values(candidates, rows)
        rejected = values - self._values[rows] < LEAST_GAIN * self._steps[rows] * self._norms[rows]
        self._steps[rows[rejected]] /= 2
        accepted = rows[~rejected]
        self.directions[accepted], self._values[accepted] = candidates[~rejected], values[~rejected]
        far = np.sum((candidates - old) ** 2, axis=1) >= STILL
        self._look_uphill(rows[~rejected & far])
        return rows[(rejected & ~self._stuck(rows)) | (~rejected & far)]

    def _look_uphill(self, rows: Rows) -> None:
        if rows.size:
            gradients = self._objective.gradients(self.directions[rows], rows)
            self._norms[rows] = np.linalg.norm(gradients, axis=1)
            self._uphill[rows] = gradients / self._norms[rows, None]

    def _stuck(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """Whether no shorter step can be accepted any more, so that halving on to the last iteration is idle.

        For short steps the gain per length tends to the slope along the sphere. Where that slope is below what a step
        must gain (it is, within about 8° of a stationary point), only rounding would let a step of 1e-13 pass.

        Args:
            rows: Which components to look at.

        Returns:
            (rows,) of booleans.
        """
        along = row_products(self.directions[rows], self._uphill[rows])
        slope = self._norms[rows] * (1 - along**2)
        return (self._steps[rows] < SMALL_STEP) & (slope < LEAST_GAIN * self._norms[rows])


def climb(objective: Objective, start: Matrix) -> Matrix:
    """The directions (components, dimensions) that the line search of at most 100 iterations ends in.

    The step is 1 at first, halved by each refused candidate (which uses up an iteration) and never grows. This very
    search is part of the result: a converged optimiser gives other components.

    Args:
        objective: What is maximised, per component.
        start: Unit directions (components, dimensions) to start from.

    Returns:
        Unit directions (components, dimensions).
    """
    ascent = Ascent(objective, start)
    rows: Rows = np.arange(len(start))
    for _ in range(MAX_ITERATIONS):
        rows = ascent.iterate(rows)
        if not rows.size:
            break
    # a component still on its way ends in its last candidate, accepted or not
    ascent.directions[rows] = ascent.candidates[rows]
    return ascent.directions


def unit_rows(matrix: Matrix) -> Matrix:
    """Every row divided by its Euclidean norm.

    Args:
        matrix: (rows, columns), no row zero.

    Returns:
        (rows, columns) Rows of length 1.
    """
    return matrix / np.linalg.norm(matrix, axis=1, keepdims=True)


def row_products(left: Matrix, right: Matrix) -> Vector:
    """(rows,) The inner product of each row with its partner.

    Args:
        left: (rows, columns).
        right: (rows, columns).

    Returns:
        (rows,) left[i] · right[i].
    """
    return np.einsum("kp,kp->k", left, right)
