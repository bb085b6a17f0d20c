"""What records and sites cost on the wire, by formula."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from autospec.sites.messages import PER_PART, part_numbers
from autospec.sites.parts import DAD, GRADIENT

HEAD_ITEM = 8
"""A head is of float64 numbers."""


def sent_numbers(shape: tuple[int, int], rows: int, way: str, rank: int) -> int:
    """How many numbers a site sends of one layer (out, in) from so many rows; never more than the gradient's own.

    Example:
        >>> [sent_numbers((512, 512), 32, way, 8) for way in ("gradient", "dad", "rank-dad")]
        [262144, 32272, 8192]
    """
    whole = shape[0] * shape[1]
    if way == GRADIENT:
        return whole
    kept = min(rows, sum(shape)) if way == DAD else min(rank, rows, *shape)
    return min(whole, part_numbers(kept, kept if way == DAD else 0, shape)) if kept else 0


def message_bytes(
    shapes: Mapping[str, tuple[int, int]],
    rows: Mapping[str, int],
    others: int,
    way: str,
    *,
    rank: int = 8,
    as_gradient: Collection[str] = (),
    itemsize: int = 4,
    cells: int = 1,
) -> int:
    """The bytes of one site's message to one other in one step, head and numbers, with all rows in one cell.

    Args:
        shapes: (out, in) of the exchanged layers.
        rows: how many rows this site has of each: samples times positions.
        others: how many numbers all other parameters are.
        way: how the site sends.
        rank: of "rank-dad".
        as_gradient: layers that travel as gradients whatever the way, as those that see the data do.
        itemsize: bytes of a number.
        cells: groups per site.
    """
    head = 1 + cells + PER_PART * cells * len(shapes)
    numbers = others + sum(
        sent_numbers(shape, rows[name], GRADIENT if name in as_gradient else way, rank)
        for name, shape in shapes.items()
    )
    return HEAD_ITEM * head + itemsize * numbers
