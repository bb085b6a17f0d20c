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

    ``inputs`` and ``keywords`` are what the layer was called with, detached; ``output`` what it returned, flattened
    to its tensors; ``adjoints`` the derivative of the loss by each of them (None where none arrived). ``training``
    is the layer's mode at the call, ``random_state`` that of each device before it, where the rule asks for it.
    """

    inputs: tuple[Any, ...]
    keywords: Mapping[str, Any]
    output: tuple[Tensor, ...]
    adjoints: tuple[Tensor | None, ...]
    random_state: Mapping[str, Tensor] = field(default_factory=dict)
    training: bool = True

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """An argument of the call, given by position or by name."""
        return self.inputs[position] if position < len(self.inputs) else self.keywords.get(name, default)

    @property
    def activation(self) -> Tensor:
        """The first input, wherever the caller put it."""
        first = self.inputs[0] if self.inputs else next(iter(self.keywords.values()))
        if not isinstance(first, Tensor):
            raise AutoSpecError(f"its first input is a {type(first).__name__}, not a tensor")
        return first

    @property
    def adjoint(self) -> Tensor:
        """The adjoint of the first output."""
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
        """Raise AutoSpecError unless a replay came to the output of the call, which a wrong dropout mask does not."""
        output = self.output[0].to(replayed.dtype)
        apart = torch.linalg.vector_norm(replayed - output)
        if apart > REPLAY_TOLERANCE * torch.linalg.vector_norm(output):
            raise AutoSpecError("its dropout could not be replayed with the random state of the call")


Explanation = Callable[[Any, LayerCall], Mapping[str, GradientFactors | Sequence[GradientFactors]]]


@dataclass(frozen=True)
class Rule:
    """How a layer type's weights get their gradients.

    ``explain(layer, call)`` returns the factors of every weight, by the name of the parameter in the layer;
    ``weights(layer)`` those names; ``owns`` names children whose forward is never called; ``forward`` is the forward
    function that the rule describes, so that a subclass with another one is not mistaken for it.
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

    ``layer_type`` is a class or, so that its package need not be imported, its qualified name. ``weights`` names the
    parameters that it explains; ``draws_random(layer)`` asks for the random state of each call to be kept;
    ``refuse(layer)`` may return why this very layer cannot be handled exactly.

    >>> import autospec
    >>> class Scaled(nn.Linear):
    ...     def forward(self, x):
    ...         return 2 * nn.functional.linear(x, self.weight, self.bias)
    >>> @autospec.register_rule(Scaled)
    ... def scaled(layer, call):
    ...     return {"weight": autospec.Factors(call.activation, 2 * call.adjoint)}
    """
    names = weights if callable(weights) else lambda layer: tuple(weights)

    def register(explain: Explanation) -> Explanation:
        key = layer_type if isinstance(layer_type, str) else _qualified(layer_type)
        forward = None if isinstance(layer_type, str) else layer_type.forward
        _RULES[key] = Rule(explain, names, tuple(owns), forward, draws_random, refuse)
        return explain

    return register


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule of a layer's type or of the nearest base class whose forward function it still runs."""
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
