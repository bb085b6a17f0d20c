"""The spectra of a run in memory: one growing array per dataset of the file, empty or read back to be gone on with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError
from autospec.store.checksums import axis_names
from autospec.store.opening import open_checked
from autospec.store.schema import PERMUTATION_EPOCHS, RECORDED_EPOCHS, TRAINING_EPOCHS, Field

AnyArray = npt.NDArray[np.generic]


class GrowingArray:
    """An array that is appended to along its first axis, doubling its room as it fills.

    Args:
        field: its path, dimensions and dtype.
        item_shape: the shape of one slice.
    """

    def __init__(self, field: Field, item_shape: tuple[int, ...]) -> None:
        self.field = field
        self._room = np.empty((16, *item_shape), dtype=field.dtype)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def values(self) -> AnyArray:
        """The slices so far, (length, *item_shape); a view."""
        return self._room[: self._length]

    def append(self, value: npt.ArrayLike | None) -> None:
        """Add one slice of the item's shape; None leaves a gap: NaN, or zero for counts."""
        if self._length == len(self._room):
            # doubled, so that an epoch costs as much to append however long the run is
            self._room = np.concatenate([self._room, np.empty_like(self._room)])
        if value is None:
            value = np.nan if self._room.dtype.kind == "f" else 0
        self._room[self._length] = value
        self._length += 1

    def extend(self, values: AnyArray) -> None:
        """Replace the content by an array read back from a file."""
        self._room, self._length = values.copy(), len(values)
        if not self._length:
            self._room = np.empty((16, *values.shape[1:]), dtype=values.dtype)

    def truncate(self, length: int) -> None:
        """Keep the first slices only."""
        self._length = min(length, self._length)


class SpectraTable:
    """Everything of a run that is written per epoch, by path; gaps are filled so that lengths always agree."""

    def __init__(self) -> None:
        self._arrays: dict[str, GrowingArray] = {}
        # looking through all of them at every step would take longer than what a step adds
        self._by_axis: dict[str, dict[str, GrowingArray]] = {}

    def __iter__(self) -> Iterator[GrowingArray]:
        return iter(self._arrays.values())

    def __getitem__(self, path: str) -> AnyArray:
        return self._arrays[path].values

    def __contains__(self, path: str) -> bool:
        return path in self._arrays

    @property
    def epochs(self) -> list[int]:
        """The epochs at which spectra were taken."""
        return [int(epoch) for epoch in self[RECORDED_EPOCHS.path]] if RECORDED_EPOCHS.path in self else []

    @property
    def recorded(self) -> int:
        """At how many epochs spectra were taken."""
        return len(self[RECORDED_EPOCHS.path]) if RECORDED_EPOCHS.path in self else 0

    @property
    def training_epochs(self) -> list[int]:
        """Every epoch so far, recorded or not: its number, or the step that it was recorded as."""
        return [int(epoch) for epoch in self[TRAINING_EPOCHS.path]] if TRAINING_EPOCHS.path in self else []

    @property
    def last_epoch(self) -> int:
        """The last of ``training_epochs``, -1 before the first."""
        return int(self[TRAINING_EPOCHS.path][-1]) if self.trained else -1

    @property
    def trained(self) -> int:
        """How many epochs there are so far, recorded or not."""
        return len(self[TRAINING_EPOCHS.path]) if TRAINING_EPOCHS.path in self else 0

    @property
    def permutation_epochs(self) -> list[int]:
        """The epochs at which permutations were taken."""
        return [int(epoch) for epoch in self[PERMUTATION_EPOCHS.path]] if PERMUTATION_EPOCHS.path in self else []

    def append(self, values: Mapping[Field, npt.ArrayLike | None], axis: str) -> None:
        """Add one slice to every array along one axis; those not given get a gap.

        Args:
            values: the slice of each field; a field that is new has gaps before it.
            axis: the first dimension of all of them: recorded epochs, all epochs, or epochs with permutations.

        Raises:
            AutoSpecError: for a slice of another shape than those before; nothing is added then.
        """
        # all are looked at before any grows: a record that is refused leaves the table as it was
        for field, value in values.items():
            array = self._arrays.get(field.path)
            if array is not None and value is not None and np.shape(value) != array.values.shape[1:]:
                raise AutoSpecError(
                    f"/{field.path} holds {array.values.shape[1:]} numbers per record, and now {np.shape(value)} came: "
                    "it was begun with other settings (leading, bins, directions), or the model has changed"
                )
        grown = self._by_axis.setdefault(axis, {})
        length = len(next(iter(grown.values()))) if grown else 0
        for field, value in values.items():
            if field.path not in self._arrays and value is not None:
                array = self._new(field, np.shape(value))
                # a statistic that begins late: gaps before it keep all arrays equally long
                for _ in range(length):
                    array.append(None)
        given = {field.path: value for field, value in values.items()}
        for path, array in grown.items():
            array.append(given.get(path))

    def restore(self, field: Field, values: AnyArray) -> None:
        """Put back an array read from a file, (epochs, ...)."""
        self._new(field, values.shape[1:]).extend(values)

    def _new(self, field: Field, item_shape: tuple[int, ...]) -> GrowingArray:
        """A new array among the others; one of its path is lost."""
        array = self._arrays[field.path] = GrowingArray(field, item_shape)
        self._by_axis.setdefault(field.dimensions[0], {})[field.path] = array
        return array

    def keep_first(self, epochs: int) -> None:
        """Forget everything after so many epochs."""
        if epochs < self.trained:
            self.truncate(self.training_epochs[epochs])

    def truncate(self, epoch: int) -> None:
        """Forget everything from an epoch on, by its number or step."""
        # by labels, since the three kinds of arrays have slices at different epochs
        recorded = sum(label < epoch for label in self.epochs)
        trained = sum(label < epoch for label in self.training_epochs)
        permuted = sum(label < epoch for label in self.permutation_epochs)
        for array in self:
            if array.field.per_permutation:
                array.truncate(permuted)
            else:
                array.truncate(recorded if array.field.per_record else trained)


def read_table(path: Path) -> SpectraTable:
    """Read the per-epoch arrays of a file, to go on appending to them.

    Args:
        path: The file.

    Returns:
        The arrays of every recorded epoch, of every epoch and of every permuted one.

    Raises:
        AutoSpecError: The file is missing or cannot be read.
    """
    table = SpectraTable()

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            field = Field(name, tuple(axis_names(item)), item.dtype.name)
            # whatever grows with epochs, a statistic of the user's own too; the rest is the header's
            if field.per_record or field.per_epoch or field.per_permutation:
                table.restore(field, item[()])

    with open_checked(path) as file:
        file.visititems(visit)
    return table
