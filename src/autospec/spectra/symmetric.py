"""Products of a matrix with its own transpose, and the eigenvalues of what is symmetric, by the quicker library.

On a CPU that is numpy: its BLAS computes one half of such a product, where torch computes both. With the builds of PyPI
on an AMD EPYC the product takes half of the time, and the eigenvalues of a matrix of 784 rows 0.7 of it.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor


def times_own_transpose(matrix: Tensor) -> Tensor:
    """``M Mᵀ``: (..., m, n) → (..., m, m)."""
    if matrix.device.type != "cpu":
        return matrix @ matrix.mT
    rows = _without_gaps(matrix.detach()).numpy()
    with _blas().limit(limits=torch.get_num_threads()), np.errstate(all="ignore"):  # NaN comes through, as in torch
        return torch.from_numpy(np.matmul(rows, rows.swapaxes(-2, -1)))


def eigenvalues(symmetric: Tensor) -> Tensor:
    """(..., k, k) → (..., k), ascending; the lower triangle alone is read, and must be finite."""
    if symmetric.device.type != "cpu":
        return torch.linalg.eigvalsh(symmetric)
    with _blas().limit(limits=torch.get_num_threads()):
        return torch.from_numpy(np.linalg.eigvalsh(symmetric.detach().numpy()))


def _without_gaps(matrix: Tensor) -> Tensor:
    """The matrix by rows or by columns; numpy would multiply another one number by number."""
    return matrix if matrix.is_contiguous() or matrix.mT.is_contiguous() else matrix.contiguous()


@functools.cache
def _blas() -> Any:
    """What sets how many threads numpy's BLAS takes: as many as torch, or ``torch.set_num_threads`` would be half kept.

    Looked up once: that takes milliseconds, setting it microseconds.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
