"""Two groups' spectra of one layer side by side, with what of them can be compared."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Comparison:
    """The singular values (epoch, index) of groups ``a`` and ``b``, raw and scaled, and masks of what is left out.

    A value is left out where the index lies beyond the smaller rank bound, or below either group's noise floor, at
    that epoch.
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
        return ~(self.beyond_rank | self.below_floor)

    def log_ratio(self) -> Floats:
        """(epoch, index): log2 of a's scaled singular value over b's; NaN where they cannot be compared."""
        a, b = (np.where(self.comparable, values, np.nan) for values in self.scaled)
        return np.log2(a) - np.log2(b)


def comparisons(frame: pd.DataFrame, pairs: list[tuple[str, str]]) -> Iterator[Comparison]:
    """The comparison of every layer and pair of a spectra table (the columns of ``Spectra.to_frame``)."""
    for layer, table in frame.groupby("layer", sort=False):
        wide = {name: table.pivot(index="epoch", columns=["group", "index"], values=name) for name in _COLUMNS}
        for a, b in pairs:
            yield _comparison(str(layer), a, b, wide)


_COLUMNS = ("value", "scaled", "floor", "rank_bound")


def _comparison(layer: str, a: str, b: str, wide: dict[str, pd.DataFrame]) -> Comparison:
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
