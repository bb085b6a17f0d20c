"""The statistics of one layer as xarray's data set, with messages of one line for what is not there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import xarray as xr

from autospec.errors import AutoSpecError
from autospec.store.schema import GROUP, MEASURE_NAMES, OTHER_GROUP, STATISTIC_NAMES


class NotRecorded(AutoSpecError, AttributeError, KeyError):
    """A statistic or group that a file does not hold; also an AttributeError and a KeyError, as xarray's own are."""

    __str__ = Exception.__str__  # a KeyError's is quoted


def _statistic(name: str) -> str:
    """What the recorder calls the statistic whose arrays are named so, such as rank for ``rank_bound``."""
    return name if name in MEASURE_NAMES else name.split("_")[0]


def _can_be_asked_for(name: str) -> bool:
    return _statistic(name) in (*STATISTIC_NAMES, *MEASURE_NAMES)


class LayerArray(xr.DataArray):
    """One statistic of a layer; an unknown group says which there are."""

    __slots__ = ()

    def sel(self, indexers: Mapping[Any, Any] | None = None, *args: Any, **indexed: Any) -> Any:
        """Select by labels, as ``xarray.DataArray.sel``.

        Args:
            indexers: Labels by dimension.
            *args: As xarray's.
            **indexed: Labels by dimension, or xarray's options.

        Returns:
            The selected part.

        Raises:
            NotRecorded: There is no such group.
        """
        _check_groups(self, {**(indexers or {}), **indexed})
        return super().sel(indexers, *args, **indexed)


class LayerSpectra(xr.Dataset):
    """The statistics of a layer; one that was not recorded says which were."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        """Return a statistic by its name."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            if _can_be_asked_for(name):
                raise self._not_recorded(name) from None
            raise

    def __getitem__(self, key: Any) -> Any:
        """Return a statistic by its name, or a data set of several."""
        if isinstance(key, str) and key not in self and _can_be_asked_for(key):
            raise self._not_recorded(key)
        item = super().__getitem__(key)
        return LayerArray(item) if type(item) is xr.DataArray and GROUP in item.dims else item

    def sel(self, indexers: Mapping[Any, Any] | None = None, *args: Any, **indexed: Any) -> Any:
        """Select by labels, as ``xarray.Dataset.sel``.

        Args:
            indexers: Labels by dimension.
            *args: As xarray's.
            **indexed: Labels by dimension, or xarray's options.

        Returns:
            The selected part.

        Raises:
            NotRecorded: There is no such group.
        """
        _check_groups(self, {**(indexers or {}), **indexed})
        return super().sel(indexers, *args, **indexed)

    def _not_recorded(self, name: str) -> NotRecorded:
        recorded = dict.fromkeys(_statistic(str(key)) for key in self.data_vars)
        names = [statistic for statistic in recorded if _can_be_asked_for(statistic)]
        return NotRecorded(
            f"{name} was not recorded in this layer, which has {', '.join(names) or 'no spectra yet'}; "
            f"the recorder takes it with statistics={(*names, _statistic(name))}"
        )


def _check_groups(array: xr.DataArray | xr.Dataset, indexers: Mapping[Any, Any]) -> None:
    for dimension in (GROUP, OTHER_GROUP):
        asked = indexers.get(dimension)
        if asked is None or dimension not in array.dims:
            continue
        there = [str(name) for name in array[dimension].values]
        # slices and arrays of truth values are xarray's own business
        for name in [asked] if isinstance(asked, str) else asked if isinstance(asked, list | tuple) else ():
            if isinstance(name, str) and name not in there:
                raise NotRecorded(f"there is no group {name!r}; there are {', '.join(there)}")
