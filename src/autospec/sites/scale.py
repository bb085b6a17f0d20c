"""What records cost beside the gradient's own exchange, from 1 to 1,024 processes and 2 to 100 sites: a simulation.

Messages are simulated one round after the other; nothing is sent. A link takes ``latency + bytes / bandwidth`` for a
message, and each process sends one message at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from autospec.sites.cost import sent_numbers
from autospec.sites.parts import WAYS

GRADIENT_ITEM, RECORD_ITEM = 4, 8
"""Bytes of a number: gradients travel in float32, the sums of a record in float64."""


@dataclass(frozen=True)
class Link:
    """How long a message takes: ``latency_s``, and bytes over ``bytes_per_s``."""

    latency_s: float
    bytes_per_s: float

    def seconds(self, size: float) -> float:
        """The time of a message of so many bytes."""
        return self.latency_s + size / self.bytes_per_s


CLUSTER = Link(latency_s=20e-6, bytes_per_s=1.25e9)
"""10 Gb/s Ethernet between machines."""

INTERNET = Link(latency_s=20e-3, bytes_per_s=12.5e6)
"""100 Mb/s from each hospital."""


@dataclass(frozen=True)
class Cost:
    """What a process has sent, at most, and the time until all have everything."""

    sent_bytes: float
    seconds: float


def ring_all_reduce(size: int, numbers: int, item: int, link: Link) -> Cost:
    """Simulate an all-reduce around a ring: each process sends a chunk per round to its neighbour.

    In the first ``size - 1`` rounds chunks are added up on their way, in as many more the sums go around. Which chunk
    holds how many processes' parts is followed, so that a schedule that does not end with all sums everywhere fails.

    Args:
        size: how many processes.
        numbers: that are added up.
        item: bytes of each.
        link: between neighbours.
    """
    if size == 1:
        return Cost(0.0, 0.0)
    chunks = np.diff(np.linspace(0, numbers, size + 1).astype(np.int64)).astype(np.float64) * item
    parts = np.ones((size, size), dtype=np.int64)  # of how many processes each one's chunk is a sum
    sent, seconds, ranks = np.zeros(size), 0.0, np.arange(size)
    for turn in range(2 * (size - 1)):
        chunk = (ranks - turn) % size if turn < size - 1 else (ranks + 1 - (turn - size + 1)) % size
        arrived = parts[ranks, chunk]
        after = (ranks + 1) % size
        parts[after, chunk] = parts[after, chunk] + arrived if turn < size - 1 else arrived
        sent += chunks[chunk]
        seconds += link.seconds(float(chunks[chunk].max()))
    assert (parts == size).all(), "the ring did not add everything up"
    return Cost(float(sent.max()), seconds)


def all_to_all(sizes: Sequence[float], link: Link) -> Cost:
    """Simulate that every site sends its message to every other, one after the other.

    Args:
        sizes: bytes of each site's message.
        link: of each site.
    """
    others = len(sizes) - 1
    seconds = max(others * size / link.bytes_per_s for size in sizes) + link.latency_s * bool(others)
    return Cost(max(others * size for size in sizes), seconds)


def record_numbers(shape: tuple[int, int], groups: int, with_rows: bool) -> int:
    """How many numbers a record adds up for one layer (out, in).

    Args:
        shape: of the weight's matrix.
        groups: that have samples; the others are left out.
        with_rows: whether activations and adjoints are recorded, by their Gram matrices.
    """
    out, width = shape
    return groups * (out * width + with_rows * (out * out + width * width))


def process_rows(
    shape: tuple[int, int], sizes: Sequence[int], groups: int = 2, every: int = 10
) -> list[dict[str, float]]:
    """What records of one layer cost over a run of data parallel training, beside its gradient's all-reduce.

    Args:
        shape: of the weight's matrix.
        sizes: numbers of processes.
        groups: that are recorded.
        every: steps from one record to the next.

    Returns:
        One row per number of processes: bytes and seconds of a gradient and of a record, and how much records add.
    """
    costs = []
    for size in sizes:
        gradient = ring_all_reduce(size, shape[0] * shape[1], GRADIENT_ITEM, CLUSTER)
        row: dict[str, float] = {"out": shape[0], "in": shape[1], "processes": size}
        row |= {"gradient_bytes": gradient.sent_bytes, "gradient_s": gradient.seconds}
        for name, with_rows in (("record", False), ("record_with_rows", True)):
            cost = ring_all_reduce(size, record_numbers(shape, groups, with_rows), RECORD_ITEM, CLUSTER)
            row |= {f"{name}_bytes": cost.sent_bytes, f"{name}_s": cost.seconds}
            row[f"{name}_adds"] = cost.seconds / every / gradient.seconds if gradient.seconds else 0.0
        costs.append(row)
    return costs


def site_rows(
    shape: tuple[int, int], sizes: Sequence[int], rows: int = 32, rank: int = 8, item: int = 4
) -> list[dict[str, float]]:
    """What a step of one layer costs between sites, each way, where every site sends to every other.

    Args:
        shape: of the weight's matrix.
        sizes: numbers of sites.
        rows: of each site's batch.
        rank: of rank-dAD.
        item: bytes of a number.

    Returns:
        One row per number of sites: bytes that a site sends, and seconds, each way; a gradient's all-reduce beside.
    """
    costs = []
    for size in sizes:
        ring = ring_all_reduce(size, shape[0] * shape[1], item, INTERNET)
        row: dict[str, float] = {"out": shape[0], "in": shape[1], "sites": size}
        row |= {"all_reduce_bytes": ring.sent_bytes, "all_reduce_s": ring.seconds}
        for way in WAYS:
            cost = all_to_all([sent_numbers(shape, rows, way, rank) * item] * size, INTERNET)
            row |= {f"{way}_bytes": cost.sent_bytes, f"{way}_s": cost.seconds}
        costs.append(row)
    return costs
