"""The tidy table of a run as Parquet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from autospec.errors import require_extra
from autospec.store.atomic import write_atomically
from autospec.store.blocks import epoch_blocks
from autospec.store.read import Spectra
from autospec.store.scale import FRAME_COLUMNS, frame_needs, layer_table

if TYPE_CHECKING:
    import pandas as pd

MOST_VALUES = 200_000
"""So many rows of the table are in memory at a time: about 20 megabytes."""


def write_parquet(spectra: Spectra, path: Path, statistic: str, leading: int | None) -> None:
    """Write the table of ``Spectra.to_frame``, piece by piece.

    Args:
        spectra: The spectra of a run.
        path: The file.
        statistic: gradient, activation or adjoint.
        leading: So many of the largest singular values; None takes all.

    Raises:
        MissingExtra: pyarrow is not installed.
        AutoSpecError: The statistic has no scale or was not recorded, or the file cannot be written.
    """
    require_extra("Spectra.to_parquet", "export", "pyarrow")
    import pyarrow as pa
    import pyarrow.parquet as pq

    pieces = frames(spectra, statistic, leading)
    first = next(pieces, None)
    if first is None:
        first = spectra.to_frame(statistic, leading)  # a message, or a table without rows
    schema = pa.Schema.from_pandas(first, preserve_index=False)
    about = {name: str(spectra.attributes.get(name, "")) for name in ("run_id", "source", "simulated", "config")}
    schema = schema.with_metadata({**(schema.metadata or {}), **{f"autospec.{k}": v for k, v in about.items()}})
    with write_atomically(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        writer.write_table(pa.Table.from_pandas(first, schema, preserve_index=False))
        for piece in pieces:
            writer.write_table(pa.Table.from_pandas(piece, schema, preserve_index=False))


def frames(spectra: Spectra, statistic: str, leading: int | None) -> Iterator[pd.DataFrame]:
    """Make the table of ``Spectra.to_frame`` in pieces that fit into memory.

    Args:
        spectra: The spectra of a run.
        statistic: gradient, activation or adjoint.
        leading: So many of the largest singular values; None takes all.

    Yields:
        Tables with the columns of ``FRAME_COLUMNS``; one behind the other they are that table.
    """
    weight = spectra.weight
    for layer in spectra.layers:
        values = spectra.lazy(layer)
        if statistic not in values:
            spectra.scaled(layer, statistic)  # says so
        values = values[[name for name in frame_needs(statistic) if name in values]]
        for block in epoch_blocks(values, MOST_VALUES):
            piece = layer_table(values.isel(epoch=block).load(), weight, statistic, leading)
            yield piece.assign(layer=layer)[list(FRAME_COLUMNS)]
