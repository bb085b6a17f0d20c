"""Whose each row of each layer is: proven by backward passes in which every sample's adjoint has its own factor.

Backward is linear in the adjoint of what the model returned. Where samples do not couple, a row of a layer's adjoint
that belongs to sample i is multiplied by the factor of sample i and by no other. The factors are powers of two, by
which floating-point numbers are multiplied without rounding.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn.utils.rnn import PackedSequence

from autospec.capture.trace_layout import (
    MIXED,
    NOBODY,
    NOT_REACHED,
    SAMPLE_FIRST,
    SHARED,
    RowTrace,
    trace_of,
)

Part = tuple[tuple[str, int, bool], str, int]
"""A call (module, which of its calls, whether made again in a backward pass), the weight's use, the factors' place."""

Rows = dict[Part, Tensor]
"""The adjoint of every part, (first, positions, width)."""

RunBackward = Callable[[Sequence[GradientEdge], Sequence[Tensor]], Rows]

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4}
_COARSE = 0.2
_SMALLEST = {torch.float64: 1e-200, torch.float32: 1e-28, torch.bfloat16: 1e-28}
ATTEMPTS = 8
"""How many readings of a model's outputs are tried, at most."""


@dataclass(frozen=True)
class Returned:
    """Something that a model returned, or a layer's output in its place: where its adjoint enters, and its shape."""

    edge: GradientEdge
    shape: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device
    name: str = "output"
    packed: Tensor | None = None
    """The sample of each index of the first dimension, of a packed sequence."""


@dataclass(frozen=True)
class Reading:
    """Which sample each index along one dimension of an output is taken to be: of ``length``, ``index // repeats``.

    ``minor`` counts samples fastest instead: ``index % samples``.
    """

    dimension: int
    repeats: int = 1
    minor: bool = False

    def samples_of(self, returned: Returned, samples: int) -> Tensor:
        """The sample of each index along the dimension."""
        if returned.packed is not None:
            return returned.packed
        index = torch.arange(returned.shape[self.dimension])
        return index % samples if self.minor else index // self.repeats

    def __str__(self) -> str:
        if self.repeats == 1:
            return f"dimension {self.dimension}"
        return f"dimension {self.dimension}, {'samples fastest' if self.minor else f'{self.repeats} rows per sample'}"


@dataclass(frozen=True)
class Traced:
    """What a forward pass was traced to.

    Attributes:
        parts: whose the rows of each part are.
        read: how the outputs were read, for the user.
        refusal: why nothing could be traced, or "".
        shapes: of the output of each call.
    """

    parts: Mapping[Part, RowTrace]
    read: str = ""
    refusal: str = ""
    shapes: Mapping[tuple[str, int, bool], tuple[int, ...]] = field(default_factory=dict)

    def tells_of(self, call: tuple[str, int, bool]) -> bool:
        """Whether the adjoint of a call was met."""
        return any(part[0] == call and trace.how != NOT_REACHED for part, trace in self.parts.items())


Place = tuple[str, Tensor, Tensor | None]
"""A tensor that a model returned: where, itself, and the sample of each row where it is a packed sequence's."""


def returned_tensors(output: Any, name: str = "output") -> Iterator[Place]:
    """Every tensor in what a model returned, with its place in it."""
    if isinstance(output, Tensor):
        yield name, output, None
    elif isinstance(output, PackedSequence):
        yield f"{name}.data", output.data, _packed_samples(output)
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from returned_tensors(value, f"{name}[{key!r}]")
    elif isinstance(output, (list, tuple)):
        for place, value in enumerate(output):
            yield from returned_tensors(value, f"{name}[{place}]")
    elif is_dataclass(output) and not isinstance(output, type):
        for entry in fields(output):
            yield from returned_tensors(getattr(output, entry.name), f"{name}.{entry.name}")


def _packed_samples(packed: PackedSequence) -> Tensor:
    """The sample of each row of a packed sequence's data."""
    order = torch.arange(int(packed.batch_sizes[0])) if packed.sorted_indices is None else packed.sorted_indices.cpu()
    return torch.cat([order[: int(size)] for size in packed.batch_sizes])


def readings(returned: Returned, samples: int) -> list[Reading]:
    """The ways in which an output may hold the samples, the documented one (samples first) in front."""
    if returned.packed is not None:
        return [Reading(0)] if int(returned.packed.max()) + 1 == samples else []
    whole = [Reading(dimension) for dimension, length in enumerate(returned.shape) if length == samples]
    if whole or not returned.shape or not samples:
        return whole
    repeats, rest = divmod(returned.shape[0], samples)
    if rest or repeats < 2:
        return []
    return [Reading(0, repeats), Reading(0, repeats, minor=True)]


def trace_rows(outputs: Sequence[Returned], instead: Sequence[Returned], samples: int, run: RunBackward) -> Traced:
    """Trace the rows of every layer's adjoint to the samples of the batch.

    Args:
        outputs: what the model returned.
        instead: the layers' outputs, the last first, for a model that returned nothing with samples (a loss).
        samples: how many samples the batch has.
        run: one backward pass from some edges with some adjoints: the adjoint of every part.

    Returns:
        Whose rows are; with a refusal where nothing that the model returned has the samples for a dimension.
    """
    usable = [output for output in outputs if readings(output, samples)]
    if not usable:
        usable = next(([output] for output in instead if readings(output, samples)), [])
    if not usable:
        shapes = ", ".join(str(tuple(output.shape)) for output in outputs) or "nothing with a gradient"
        return Traced(
            {},
            refusal=f"{samples} group labels were given, but the model returned {shapes}, and no dimension of it is as "
            "long; give one label per sample, and return from the model what has the samples for its first dimension",
        )
    best, refusal = _best_reading(usable, samples, run)
    if refusal:
        return Traced({}, refusal=refusal)
    read = ", ".join(f"{output.name} {tuple(output.shape)}: {reading}" for output, reading in best.chosen)
    return Traced(_from_each_output(best, samples, run), read)


@dataclass(frozen=True)
class _Attempt:
    """What the parts were traced to under one reading of the outputs.

    ``lookups`` are parts that mix samples but have no more rows than there are samples: they may as well be of what
    all samples share, as an embedding of positions, and do not speak against the reading.
    """

    chosen: list[tuple[Returned, Reading]]
    parts: dict[Part, RowTrace]
    lookups: int

    @property
    def reached(self) -> int:
        return sum(trace.how != NOT_REACHED for trace in self.parts.values())

    @property
    def mixed(self) -> int:
        return _mixed(self.parts)

    @property
    def against(self) -> int:
        """How many parts speak against the reading."""
        return self.mixed if self.mixed == self.reached else self.mixed - self.lookups

    @property
    def straight(self) -> int:
        return sum(trace.how == SAMPLE_FIRST for trace in self.parts.values())


def _best_reading(usable: Sequence[Returned], samples: int, run: RunBackward) -> tuple[_Attempt, str]:
    """The reading of the outputs that the fewest parts speak against, and why there is none or ""."""
    choices = itertools.product(*(readings(output, samples) for output in usable))
    tried: list[_Attempt] = []
    for choice in itertools.islice(choices, ATTEMPTS):
        tried.append(_attempt(list(zip(usable, choice, strict=True)), samples, run))
        if not tried[-1].against and all(reading.repeats == 1 for reading in choice):
            break
    least = min(attempt.against for attempt in tried)
    best = [attempt for attempt in tried if attempt.against == least]
    if any(reading.repeats > 1 for _, reading in best[0].chosen):
        straight = max(attempt.straight for attempt in best)
        best = [attempt for attempt in best if attempt.straight == straight]
    output, reading = best[0].chosen[0]
    told = f"saw a batch of {output.shape[0]} samples, but {samples} group labels were given"
    if len(best) > 1 and reading.repeats > 1:
        which = "which of the rows that the model returned belong to one label cannot be told"
        return best[0], f"{told}: {which}; give one label per row"
    if best[0].mixed and best[0].mixed == best[0].reached and reading.dimension > 0:
        return best[0], f"{told}; give one label per row of what the model returns"
    return best[0], ""


def _mixed(parts: Mapping[Part, RowTrace]) -> int:
    return sum(trace.how == SHARED for trace in parts.values())


def _from_each_output(best: _Attempt, samples: int, run: RunBackward) -> dict[Part, RowTrace]:
    """Parts that mix samples, traced from one output alone: another may be a product of all samples (similarities)."""
    parts = dict(best.parts)
    for one in best.chosen[:ATTEMPTS] if len(best.chosen) > 1 else ():
        if not _mixed(parts):
            break
        for part, trace in _attempt([one], samples, run).parts.items():
            if parts[part].how == SHARED and trace.how not in (SHARED, NOT_REACHED):
                parts[part] = trace
    return parts


def _attempt(chosen: list[tuple[Returned, Reading]], samples: int, run: RunBackward) -> _Attempt:
    """Trace every part under one reading of the outputs."""
    generator = torch.Generator().manual_seed(0)
    edges = [output.edge for output, _ in chosen]
    # away from zero, so that every number of the output takes part
    seeds = [_drawn(output, generator) for output, _ in chosen]
    base = run(edges, seeds)
    narrow = any(output.dtype == torch.float16 for output, _ in chosen) or any(
        rows.dtype == torch.float16 for rows in base.values()
    )
    digits, exponents = _codes(samples, narrow)
    powers = _powers(exponents)
    scaled = []
    for digit in digits:
        factors = [
            _along(powers[digit[reading.samples_of(output, samples)]], output, reading) for output, reading in chosen
        ]
        scaled.append(run(edges, [seed * factor for seed, factor in zip(seeds, factors, strict=True)]))
    parts = {
        part: trace_of(_owners(rows, [one[part] for one in scaled], exponents, samples), samples)
        for part, rows in base.items()
        if all(part in one for one in scaled)
    }
    few = [trace.how == SHARED and math.prod(base[part].shape[:2]) <= samples for part, trace in parts.items()]
    return _Attempt(chosen, parts, sum(few))


def _drawn(output: Returned, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(output.shape, generator=generator)
    return (drawn.sign() * (drawn.abs() + 0.5)).to(device=output.device, dtype=output.dtype)


def _along(factor: Tensor, output: Returned, reading: Reading) -> Tensor:
    shape = [1] * len(output.shape)
    shape[reading.dimension] = -1
    return factor.view(shape).to(device=output.device, dtype=output.dtype)


def _codes(samples: int, narrow: bool) -> tuple[Tensor, Tensor]:
    """The number of each sample digit by digit, (digits, samples), and the exponent of two that stands for a digit."""
    exponents = torch.arange(-2, 6) if narrow else torch.arange(-16, 16)
    length = max(1, math.ceil(math.log(max(samples, 2), len(exponents)) - 1e-12))
    number = torch.arange(samples)
    return torch.stack([number // len(exponents) ** place % len(exponents) for place in range(length)]), exponents


def _powers(exponents: Tensor) -> Tensor:
    """The powers of two, exact to the last bit."""
    return torch.tensor([2.0**exponent for exponent in exponents.tolist()], dtype=torch.float64)


def _owners(base: Tensor, scaled: Sequence[Tensor], exponents: Tensor, samples: int) -> Tensor:
    """(first, positions): the sample of each row, from its adjoint and those with every sample's factor."""
    smallest = _SMALLEST.get(base.dtype, 1e-6)
    tolerance = _TOLERANCE.get(base.dtype, _COARSE)
    powers, exponents = _powers(exponents).to(base.device), exponents.to(base.device)
    base = base.double()
    largest = base.abs().amax(-1)
    present = (largest > smallest) & largest.isfinite()
    unit = base / largest.where(present, 1.0)[..., None]
    square = unit.square().sum(-1).clamp_min(1e-300)
    owners = torch.zeros_like(largest, dtype=torch.int64)
    alone = torch.ones_like(present)
    for place, rows in enumerate(scaled):
        other = rows.double() / largest.where(present, 1.0)[..., None]
        ratio = (other * unit).sum(-1) / square
        exponent = ratio.clamp_min(1e-300).log2().round().long().clamp(int(exponents[0]), int(exponents[-1]))
        factor = powers[exponent - exponents[0]]
        apart = torch.linalg.vector_norm(other - factor[..., None] * unit, dim=-1)
        alone &= apart <= tolerance * factor * square.sqrt()
        owners += (exponent - exponents[0]) * len(exponents) ** place
    owners = owners.where(alone & (owners < samples), MIXED)
    return owners.where(present, NOBODY)
