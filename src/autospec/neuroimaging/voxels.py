"""Every pass over all voxels that constrained ICA makes, on NumPy or torch alike."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from math import log
from typing import Any

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

# 53 components × 4096 voxels in float64 are 1.7 MB: a block is computed, transformed and summed within the cache
BLOCK_VOXELS = 4096


class Voxels:
    """A matrix (rows, voxels), as a NumPy array or a torch tensor, and sums over its voxels.

    Only these sums touch the voxels. What goes into them and comes out is small, float64 and NumPy, so that the
    search over directions is one code on every device. Sums are taken in float64 whatever the matrix is in.
    """

    def __init__(self, values: Any) -> None:
        self.values = values
        self._xp = namespace(values)

    @property
    def n_voxels(self) -> int:
        """The number of columns."""
        return int(self.values.shape[1])

    def combined(self, weights: Matrix) -> Voxels:
        """``weights @ values``: (k, rows) → (k, voxels).

        Args:
            weights: (k, rows).

        Returns:
            (k, voxels).
        """
        return Voxels(self._like(weights) @ self.values)

    def products(self, other: Voxels) -> Matrix:
        """``values @ other.valuesᵀ / V``: (rows, rows of the other).

        Args:
            other: As many voxels.

        Returns:
            (rows, rows of the other), float64.
        """
        total = sum(
            self._double(mine) @ self._double(theirs).T
            for mine, theirs in zip(self._blocks(), other._blocks(), strict=True)
        )
        return self._numpy(total) / self.n_voxels

    def deviations(self) -> Vector:
        """(rows,) The standard deviation of every row over voxels, ddof 1."""
        rows = (self._double(row) for row in self.values)
        squares = [float(((row - row.mean()) ** 2).sum()) for row in rows]
        return np.sqrt(np.array(squares) / (self.n_voxels - 1))

    def divide(self, scale: Vector) -> None:
        """Divide every row by its scale, in place.

        Args:
            scale: (rows,).
        """
        self.values /= self._like(scale)[:, None]

    def mean_log_cosh(self, weights: Matrix) -> Vector:
        """(k,) The mean over voxels of log cosh y, with y = weights @ values.

        Written as |y| + log(1 + exp(−2|y|)) − log 2, which cannot overflow.

        Args:
            weights: (k, rows).

        Returns:
            (k,).
        """
        total = sum(self._log_cosh_sums(mixture) for mixture in self._mixtures(weights))
        return self._numpy(total) / self.n_voxels - log(2)

    def mean_tanh(self, weights: Matrix) -> Matrix:
        """(k, rows) The mean over voxels of tanh(y) times every row, with y = weights @ values.

        Args:
            weights: (k, rows).

        Returns:
            (k, rows).
        """
        blocks = zip(self._mixtures(weights), self._blocks(), strict=True)
        total = sum(self._double(self._xp.tanh(mixture, out=mixture) @ block.T) for mixture, block in blocks)
        return self._numpy(total) / self.n_voxels

    def _log_cosh_sums(self, mixture: Any) -> Any:
        """(k,) The sum over voxels of log 2 cosh, overwriting what it is given: a block is not copied five times."""
        xp = self._xp
        sizes = xp.abs(mixture, out=mixture).sum(1, dtype=xp.float64)
        mixture *= -2
        xp.exp(mixture, out=mixture)
        mixture += 1
        return sizes + xp.log(mixture, out=mixture).sum(1, dtype=xp.float64)

    def _blocks(self) -> Iterator[Any]:
        for start in range(0, self.n_voxels, BLOCK_VOXELS):
            yield self.values[:, start : start + BLOCK_VOXELS]

    def _mixtures(self, weights: Matrix) -> Iterator[Any]:
        mine = self._like(weights)
        return (mine @ block for block in self._blocks())

    def _like(self, small: npt.NDArray) -> Any:
        """A small array as the values are: same kind, precision and device."""
        if self._xp is np:
            return small.astype(self.values.dtype, copy=False)
        return self._xp.as_tensor(small, dtype=self.values.dtype, device=self.values.device)

    def _double(self, values: Any) -> Any:
        return values.astype(np.float64, copy=False) if self._xp is np else values.double()

    def _numpy(self, values: Any) -> npt.NDArray[np.float64]:
        small: npt.NDArray[np.float64] = values if self._xp is np else values.cpu().numpy()
        return small


def namespace(values: Any) -> Any:
    """The module whose functions take these values: torch for its tensors, else NumPy; torch is never loaded for it.

    Args:
        values: An array or a tensor.

    Returns:
        ``torch`` or ``numpy``.
    """
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(values, torch.Tensor) else np


def as_double(values: Any, device: Any = None) -> Any:
    """Values in float64 where they are to be worked on: NumPy, or torch where they are a tensor or a device is given.

    May share memory with what was given.

    Args:
        values: An array, a tensor, or what NumPy makes one of.
        device: "cpu" or "cuda" for torch; None for where the values are.

    Returns:
        An array or a tensor.

    Raises:
        AutoSpecError: The device is not there or has no float64.
    """
    if device is None and namespace(values) is np:
        return np.asarray(values, dtype=np.float64)
    import torch

    if not isinstance(values, torch.Tensor):
        # torch shares memory with an array, which must then be writable, contiguous and of this machine's byte order
        values = np.require(values, dtype=np.float64, requirements=("C", "W"))
    try:
        return torch.as_tensor(values, device=device).detach().double()
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise AutoSpecError(f"device={device}: not usable here for float64 ({reason})") from error
