"""The interval of an effect: the log-ratios that the permutation test would not have called different.

Where a group's log-ratios lie c above what its labels give by chance, those less c are as exchangeable as under the
null, so that c is in the interval unless the effect less c is among the outermost 5 % of the effects of permuted labels
(the inversion of a permutation test; Ernst 2004, Stat Sci 19:676). It holds where labels are permuted at fixed weights
and where each permutation is a network of its own, which a bootstrap of subjects at fixed weights would leave out. Like
the test it supposes that groups differ by a shift: of groups whose spread differs too, it is approximate.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEVEL = 0.95
FEWEST_PARTITIONS = 40
"""With fewer no partition lies in the outermost 2.5 % on either side."""


def effects(deviations: npt.NDArray) -> npt.NDArray[np.float64]:
    """Return every partition's effect: the median of its log-ratios, less their means over partitions.

    Args:
        deviations: (epoch, partition, index), NaN where values cannot be compared in every partition.

    Returns:
        (partition,), the observed one first; NaN where nothing can be compared.
    """
    by_partition = np.moveaxis(deviations, 1, 0).reshape(deviations.shape[1], -1)
    compared = by_partition[:, np.isfinite(by_partition[0])].astype(np.float64)
    return np.median(compared, axis=1) if compared.size else np.full(len(by_partition), np.nan)


def interval(deviations: npt.NDArray) -> tuple[float, float]:
    """Compute the 95 % interval of the observed partition's effect.

    Args:
        deviations: As ``effects``.

    Returns:
        Its ends; NaN where there is no effect, or too few partitions.
    """
    of_partitions = effects(deviations)
    if len(of_partitions) < FEWEST_PARTITIONS or not np.isfinite(of_partitions).all():
        return np.nan, np.nan
    in_order = np.sort(of_partitions)
    # so many partitions on either side are 5 % of all, or fewer
    outermost = int((1 - LEVEL) / 2 * len(in_order) + 1e-9)
    low, high = in_order[outermost], in_order[-1 - outermost]
    return float(of_partitions[0] - high), float(of_partitions[0] - low)
