"""Libraries that give the gradient of every single sample, from which those of groups are summed.

Opacus and BackPACK are the optional group ``benchmark``; where they are not installed, the table says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from autospec.errors import AutoSpecError
from autospec.experiments.benchmark.problems import Problem

SampleGradients = Callable[[nn.Module, Problem], Callable[[], list[Tensor]]]
"""From a model and its data: what gives (n, ...) of every trained weight, in order; gradients of the mean loss."""

CHUNK = 100
"""So many samples' gradients at a time, where a library takes them in chunks."""


def vmap_grad(model: nn.Module, problem: Problem) -> Callable[[], list[Tensor]]:
    """``torch.func``: the gradient of one sample's loss, mapped over samples."""
    from torch.func import functional_call, grad, vmap

    named = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}

    def loss(weights: dict[str, Tensor], one: Tensor, target: Tensor) -> Tensor:
        output = functional_call(model, weights, (one[None],))
        value: Tensor = (output - target[None]).square().mean() / len(problem.inputs)
        return value

    mapped = vmap(grad(loss), (None, 0, 0), chunk_size=CHUNK)

    def gradients() -> list[Tensor]:
        detached = {name: weight.detach() for name, weight in named.items()}
        return list(mapped(detached, problem.inputs, problem.target).values())

    return gradients


def opacus(model: nn.Module, problem: Problem) -> Callable[[], list[Tensor]]:
    """Opacus's ``GradSampleModule``: a hook on every layer, and functorch for layers without a rule."""
    try:
        from opacus.grad_sample import GradSampleModule
    except ImportError as error:
        raise AutoSpecError("not installed: pip install 'autospec-torch[benchmark]'") from error
    wrapped = GradSampleModule(model, loss_reduction="mean")
    weights = trained_weights(model)

    def gradients() -> list[Tensor]:
        problem.losses(wrapped).mean().backward()
        # it undoes the mean
        return [gradient / len(problem.inputs) for gradient in _taken(weights, "grad_sample")]

    return gradients


def backpack(model: nn.Module, problem: Problem) -> Callable[[], list[Tensor]]:
    """BackPACK's ``BatchGrad``, for models of ``torch.nn``'s layers."""
    try:
        from backpack import backpack as extension
        from backpack import extend
        from backpack.extensions import BatchGrad
    except ImportError as error:
        raise AutoSpecError("not installed: pip install 'autospec-torch[benchmark]'") from error
    extended = extend(model)
    weights = trained_weights(model)

    def gradients() -> list[Tensor]:
        with extension(BatchGrad()):
            problem.losses(extended).mean().backward()
        return _taken(weights, "grad_batch")

    return gradients


def trained_weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights that have a gradient, in the model's order."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def _taken(weights: Sequence[nn.Parameter], name: str) -> list[Tensor]:
    """What a library has left on each weight, which is taken off it."""
    left = [getattr(weight, name, None) for weight in weights]
    for weight in weights:
        setattr(weight, name, None)
    if any(one is None for one in left):
        raise AutoSpecError("gives no gradients of single samples for a layer of this model")
    return [one for one in left if one is not None]


def first_line(error: Exception) -> str:
    """The reason that an error names, in one line."""
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0] if isinstance(error, AutoSpecError) else f"{type(error).__name__}: {lines[0]}"[:160]
