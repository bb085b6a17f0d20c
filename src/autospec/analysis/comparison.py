"""Two groups' spectra of one layer side by side, with what of them can be compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from autospec.analysis.nan_statistics import Floats
from autospec.store.groups import Pair

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """The singular values of two groups in one layer, and what of them cannot be compared.

    Attributes:
        layer: The layer's name.
        a: The first group.
        b: The second group.
        epochs: (epoch,) the recorded epochs.
        indices: (index,) the singular values' indices, from 1.
        raw: Of each group the (epoch, index) singular values as stored.
        scaled: Of each group the (epoch, index) singular values of its mean gradient.
        beyond_rank: (epoch, index) whether the index lies beyond the smaller rank bound.
        below_floor: (epoch, index) whether either value lies below its noise floor, within the rank bound.
    """

    layer: str
    a: str
    b: str
    epochs: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int64]
    raw: tuple[Floats, Floats]
    scaled: tuple[Floats, Floats]
    beyond_rank: Mask
    below_floor: Mask

    @property
    def comparable(self) -> Mask:
        """(epoch, index) whether the two values can be compared."""
        return ~(self.beyond_rank | self.below_floor)

    def log_ratio(self) -> Floats:
        """Return the (epoch, index) log2 of a's scaled singular value over b's; NaN where they cannot be compared."""
        a, b = (np.where(self.comparable, values, np.nan) for values in self.scaled)
        return np.log2(a) - np.log2(b)

    def swap(self) -> Comparison:
        """Return the same comparison with first and second group swapped."""
        return replace(self, a=self.b, b=self.a, raw=self.raw[::-1], scaled=self.scaled[::-1])


def compare(frame: pd.DataFrame, pairs: Sequence[Pair]) -> Iterator[Comparison]:
    """Compare pairs of groups in every layer.

    Args:
        frame: A tidy table of spectra (``Spectra.to_frame``).
        pairs: The pairs of groups.

    Yields:
        A comparison for each layer and pair.
    """
    for layer, table in frame.groupby("layer", sort=False):
        wide = {name: table.pivot(index="epoch", columns=["group", "index"], values=name) for name in _COLUMNS}
        for a, b in pairs:
            yield _compare_pair(str(layer), a, b, wide)


_COLUMNS = ("value", "scaled", "floor", "rank_bound")


def _compare_pair(layer: str, a: str, b: str, wide: dict[str, pd.DataFrame]) -> Comparison:
    def of(name: str, group: str) -> Floats:
        return wide[name][group].to_numpy(dtype=np.float64)

    indices = wide["value"][a].columns.to_numpy(dtype=np.int64)
    beyond_rank = indices > np.minimum(of("rank_bound", a), of("rank_bound", b))
    # written so that NaN, which is above no floor, is left out too
    above = (of("value", a) > of("floor", a)) & (of("value", b) > of("floor", b))
    return Comparison(
        layer=layer,
        a=a,
        b=b,
        epochs=wide["value"].index.to_numpy(dtype=np.int64),
        indices=indices,
        raw=(of("value", a), of("value", b)),
        scaled=(of("scaled", a), of("scaled", b)),
        beyond_rank=beyond_rank,
        below_floor=~above & ~beyond_rank,
    )
