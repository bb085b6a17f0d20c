"""Features chosen one after the other, each the one that tells most of the classes beside those before it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def select_forward(inputs: npt.NDArray, target: npt.NDArray[np.integer], count: int) -> list[int]:
    """Forward selection by least squares on the classes (orthogonal least squares: Chen et al. 1989, Int J Control 50).

    At each step the feature is taken that, together with those before it, leaves the smallest squared error of the
    indicators of the classes.

    Args:
        inputs: (n, features) Of the training subjects.
        target: (n,) Their classes.
        count: How many to choose.

    Returns:
        Indices in the order of the choice.
    """
    classes = np.unique(target)
    left = np.asarray(target[:, None] == classes, dtype=np.float64)
    left -= left.mean(axis=0)
    features = np.asarray(inputs, dtype=np.float64)
    features = features - features.mean(axis=0)
    sizes = (features**2).sum(axis=0)
    chosen: list[int] = []
    for _ in range(count):
        norms = (features**2).sum(axis=0)
        usable = norms > 1e-12 * np.maximum(sizes, 1e-300)
        if not usable.any():
            break
        gains = np.where(usable, ((features.T @ left) ** 2).sum(axis=1) / np.where(usable, norms, 1), -1)
        best = int(gains.argmax())
        chosen.append(best)
        direction = features[:, best] / np.sqrt(norms[best])
        left -= np.outer(direction, direction @ left)
        features = features - np.outer(direction, direction @ features)
    return chosen
