"""Which layer types are understood: one small function per type, registered by decorator."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from autospec.errors import AutoSpecError
from autospec.spectra.factors import GradientFactors

REPLAY_TOLERANCE = 0.03
"""What half precision stays below, and another mask exceeds from a dropout of about 0.001 on."""


@dataclass
class LayerCall:
    """One forward pass of a layer and what came back to it.

    Attributes:
        inputs: what the layer was called with by position, tensors detached.
        keywords: what it was called with by name.
        output: what it returned, flattened to its tensors.
        adjoints: the derivative of the loss by each tensor of ``output``, None where none arrived.
        random_state: that of each device before the call, where the rule asks for it.
        training: the layer's mode at the call.
        keeps_output: whether nothing has changed the output in place since.
    """

    inputs: tuple[Any, ...]
    keywords: Mapping[str, Any]
    output: tuple[Tensor, ...]
    adjoints: tuple[Tensor | None, ...]
    random_state: Mapping[str, Tensor] = field(default_factory=dict)
    training: bool = True
    keeps_output: bool = False

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument of the call, given by position or by name.

        Args:
            position: its place among the arguments.
            name: its name.
            default: what it is where the call leaves it out.

        Returns:
            The argument.
        """
        return self.inputs[position] if position < len(self.inputs) else self.keywords.get(name, default)

    @property
    def activation(self) -> Tensor:
        """The first input, wherever the caller put it.

        Raises:
            AutoSpecError: where it is no tensor.
        """
        first = self.inputs[0] if self.inputs else next(iter(self.keywords.values()))
        if not isinstance(first, Tensor):
            raise AutoSpecError(f"its first input is a {type(first).__name__}, not a tensor")
        return first

    @property
    def adjoint(self) -> Tensor:
        """The adjoint of the first output, of its shape.

        Raises:
            AutoSpecError: where none arrived.
        """
        if self.adjoints[0] is None:
            raise AutoSpecError("no adjoint arrived at its first output")
        return self.adjoints[0]

    @contextlib.contextmanager
    def replaying(self) -> Iterator[None]:
        """A context that draws the random numbers of the call; the process's random state comes back after it."""
        devices = [torch.device(name) for name in self.random_state if name != "cpu"]
        with torch.random.fork_rng(devices=devices, enabled=bool(self.random_state)):
            for name, state in self.random_state.items():
                if name == "cpu":
                    torch.set_rng_state(state)
                else:
                    torch.cuda.set_rng_state(state, name)
            yield

    def confirm(self, replayed: Tensor) -> None:
        """Compare a replay with the output of the call, which a wrong dropout mask does not come to.

        Args:
            replayed: what the layer's equations gave, of the first output's shape.

        Raises:
            AutoSpecError: where they differ by more than half precision would.
        """
        output = self.output[0].to(replayed.dtype)
        apart = torch.linalg.vector_norm(replayed - output)
        if apart > REPLAY_TOLERANCE * torch.linalg.vector_norm(output):
            raise AutoSpecError("its dropout could not be replayed with the random state of the call")


Explanation = Callable[[Any, LayerCall], Mapping[str, GradientFactors | Sequence[GradientFactors]]]


@dataclass(frozen=True)
class Rule:
    """How a layer type's weights get their gradients.

    Attributes:
        explain: (layer, call) → the factors of every weight, by the name of the parameter in the layer.
        weights: (layer) → those names.
        owns: names of children whose forward is never called.
        forward: the forward function that the rule describes, so that a subclass with another one is not mistaken for
            it.
        draws_random: (layer) → whether the random state of each call is to be kept.
        refuse: (layer) → why this very layer cannot be handled exactly, or None.
    """

    explain: Explanation
    weights: Callable[[Any], Sequence[str]]
    owns: tuple[str, ...] = ()
    forward: Callable[..., Any] | None = None
    draws_random: Callable[[Any], bool] = lambda layer: False
    refuse: Callable[[Any], str | None] = lambda layer: None


_RULES: dict[str, Rule] = {}


def register_rule(
    layer_type: type[nn.Module] | str,
    *,
    weights: Sequence[str] | Callable[[Any], Sequence[str]] = ("weight",),
    owns: Sequence[str] = (),
    draws_random: Callable[[Any], bool] = lambda layer: False,
    refuse: Callable[[Any], str | None] = lambda layer: None,
) -> Callable[[Explanation], Explanation]:
    """Register the function below as the rule of a layer type: ``(layer, call) → {weight: Factors}``.

    Layers without a rule are recorded from the calls of functions on their weights; a rule is for what those do not
    show, such as a kernel that hides its products.

    Args:
        layer_type: a class or, so that its package need not be imported, its qualified name.
        weights: the names of the parameters that the rule explains, or a function of the layer that returns them.
        owns: names of children whose forward is never called.
        draws_random: (layer) → whether the random state of each call is to be kept.
        refuse: (layer) → why this very layer cannot be handled exactly, or None.

    Returns:
        A decorator that registers a function and returns it unchanged.

    >>> import autospec
    >>> class Scaled(nn.Linear):
    ...     def forward(self, x):
    ...         return 2 * nn.functional.linear(x, self.weight, self.bias)
    >>> @autospec.register_rule(Scaled)
    ... def scaled(layer, call):
    ...     return {"weight": autospec.GradientFactors(call.activation, 2 * call.adjoint)}
    """
    names = weights if callable(weights) else lambda layer: tuple(weights)

    def register(explain: Explanation) -> Explanation:
        key = layer_type if isinstance(layer_type, str) else _qualified(layer_type)
        forward = None if isinstance(layer_type, str) else layer_type.forward
        _RULES[key] = Rule(explain, names, tuple(owns), forward, draws_random, refuse)
        return explain

    return register


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule that describes what a layer does.

    Args:
        layer: any module.

    Returns:
        The rule of its type or of the nearest base class, if it still runs the forward function of that; else None.
    """
    for ancestor in type(layer).__mro__:
        rule = _RULES.get(_qualified(ancestor))
        if rule is not None:
            same_forward = rule.forward is None or type(layer).forward is rule.forward
            return rule if same_forward else None
    return None


def supported_types() -> list[str]:
    """The names of all layer types with a rule."""
    return sorted(key.rsplit(".", 1)[-1] for key in _RULES)


def _qualified(layer_type: type) -> str:
    return f"{layer_type.__module__}.{layer_type.__qualname__}"
