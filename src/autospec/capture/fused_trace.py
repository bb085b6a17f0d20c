"""Tracing: which rows of a layer are which sample's, shown by scaling each sample's part of the output's adjoint."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from autospec.capture.agreement import Unsplittable, leaf_copies, other_parameters, seeds_of, tolerance_of, trained
from autospec.spectra.factors import GradientFactors

if TYPE_CHECKING:
    from autospec.capture.fused import WeightProducts

DOUBLINGS = 12
"""A sample's factor is 2 to the power of a number below this: scaling by it rounds nothing."""
MOST_TRIALS = 8


class Trace:
    """The adjoints that arrive at every layer in two backward passes, the second with a factor for each sample."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        generator = torch.Generator().manual_seed(samples)
        self.factors = 2.0 ** torch.randint(DOUBLINGS, (samples,), generator=generator).double()
        self._adjoints: list[dict[int, list[Tensor]]] = []
        self._products: dict[int, WeightProducts] = {}
        self._heard: list[dict[str, list[Tensor]]] = []

    def begin_pass(self) -> None:
        """What arrives from now on is of another backward pass."""
        self._adjoints.append({})
        self._heard.append({})

    def forget(self) -> None:
        """Begin anew."""
        self._adjoints, self._heard = [], []

    def take(self, products: WeightProducts, adjoint: Tensor) -> None:
        """Keep an adjoint that arrived at a fused layer."""
        self._products[id(products)] = products
        self._adjoints[-1].setdefault(id(products), []).append(adjoint.detach())

    def hear(self, name: str, factors: GradientFactors) -> None:
        """Keep what arrived at a layer that is heard by hooks."""
        self._heard[-1].setdefault(name, []).append(factors.adjoint)

    def explain(self) -> str | None:
        """Say which dimension of every fused layer's adjoint is the samples'; the name of a layer where none is."""
        plain, scaled = self._adjoints
        for key, products in self._products.items():
            pairs = list(zip(plain.get(key, []), scaled.get(key, []), strict=True))
            candidates = [d for d, size in enumerate(pairs[0][0].shape) if size == self.samples] if pairs else []
            shown = [d for d in candidates if all(self._is_scaled(one, other, d) for one, other in pairs)]
            if not shown:
                return products.name
            products.dimension = shown[0]
        for name, adjoints in self._heard[0].items():
            for one, other in zip(adjoints, self._heard[1].get(name, []), strict=True):
                if not self._is_scaled(one, other, 1):
                    return name
        return None

    def _is_scaled(self, plain: Tensor, scaled: Tensor, dimension: int) -> bool:
        """Whether every sample's part along a dimension has the sample's factor."""
        if plain.dim() <= dimension or plain.shape[dimension] != self.samples or plain.shape != scaled.shape:
            return False
        factors = self.along(dimension, plain.dim()).to(plain.device)
        apart = torch.linalg.vector_norm(scaled.double() / factors - plain.double())
        return bool(apart <= tolerance_of(plain.dtype) * torch.linalg.vector_norm(plain.double()) + 1e-30)

    def along(self, dimension: int, dimensions: int) -> Tensor:
        """The samples' factors, to be multiplied along a dimension."""
        return self.factors.reshape([-1 if d == dimension else 1 for d in range(dimensions)])


def traced(
    model: nn.Module,
    trace: Trace,
    forward: Callable[..., Any],
    inputs: Sequence[Any],
    keywords: dict[str, Any],
    dimensions: Mapping[tuple[int, ...], int],
) -> None:
    """Trace every layer; AutoSpecError where the rows of one are not the samples, one by one and in order.

    Batch statistics are held fixed. Where an output could have its samples along several dimensions, it is read as
    ``dimensions`` says, by its shape, or else each is tried.
    """
    # leaves of our own: a checkpoint that runs again in backward needs a full backward pass, which must leave nothing
    with other_parameters(model, leaf_copies(model)), _fixed_statistics(model):
        _trace(model, trace, trained(forward(*inputs, **keywords)), dimensions)


def _trace(
    model: nn.Module, trace: Trace, outputs: Sequence[Tensor], dimensions: Mapping[tuple[int, ...], int]
) -> None:
    by_sample = [output for output in outputs if trace.samples in output.shape]
    if not by_sample:
        raise Unsplittable(
            f"engine='fused': {type(model).__name__} gives no output of {trace.samples} samples that its layers could "
            "be traced from (a loss alone, or a batch of another size); give the loss's inputs too, or use "
            "engine='hooks'"
        )
    seeds = seeds_of(by_sample)
    choices = [
        [d for d, size in enumerate(output.shape) if size == trace.samples and dimensions.get(output.shape, d) == d]
        for output in by_sample
    ]
    lost = ""
    for choice in itertools.islice(itertools.product(*choices), MOST_TRIALS):
        trace.forget()
        factors = [trace.along(d, seed.dim()).to(seed) for d, seed in zip(choice, seeds, strict=True)]
        for scale in ([torch.ones_like(by) for by in factors], factors):
            trace.begin_pass()
            scaled = [seed * by for seed, by in zip(seeds, scale, strict=True)]
            torch.autograd.backward(by_sample, scaled, retain_graph=True)
        lost = trace.explain() or ""
        if not lost:
            return
    raise Unsplittable(
        f"engine='fused': the rows of layer {lost!r} could not be traced to the samples of the batch, one by one and "
        "in order; use engine='hooks' or leave it out with layers=['!" + lost + "']"
    )


@contextlib.contextmanager
def _fixed_statistics(model: nn.Module) -> Iterator[None]:
    """A context in which batch norms use the batch's statistics as if they were constants."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (module.training or not module.track_running_stats)
    ]
    try:
        for norm in norms:
            object.__setattr__(norm, "forward", _with_constants(norm))
        yield
    finally:
        for norm in norms:
            vars(norm).pop("forward", None)


def _with_constants(norm: nn.modules.batchnorm._BatchNorm) -> Callable[[Tensor], Tensor]:
    def forward(input: Tensor) -> Tensor:
        others = [d for d in range(input.dim()) if d != 1]
        variance, mean = torch.var_mean(input.detach(), others, correction=0)
        return functional.batch_norm(input, mean, variance, norm.weight, norm.bias, False, 0.0, norm.eps)

    return forward
