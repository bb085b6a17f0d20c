"""Fused functions called outside the modules that they were written for: explained by those modules' rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from autospec.capture.layers import Use, WatchedModule
from autospec.capture.rules.attention import attention
from autospec.capture.rules.attention import weights as attention_weights
from autospec.capture.rules.recurrent import recurrent
from autospec.capture.rules.recurrent import weights as recurrent_weights
from autospec.capture.rules.registry import Rule

_RECURRENT = {torch.lstm, torch.gru, torch.rnn_tanh, torch.rnn_relu}
_MASKS = ("key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal")

FUSED = {*_RECURRENT, functional.multi_head_attention_forward}
"""Functions that hide several products, and may draw random numbers."""

Explained = tuple[WatchedModule, nn.Module, tuple[Any, ...], Mapping[str, Any]]


def fused_call(
    function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], used: Sequence[tuple[Tensor, WatchedModule, Use]]
) -> Explained | None:
    """A call of a fused function as one of the module whose weights it takes; None where no one module holds them.

    Args:
        function: one of ``FUSED``.
        args: its arguments by position.
        kwargs: its arguments by name.
        used: the weights that it takes, and what is watched of each.

    Returns:
        What is watched, the module, and the arguments that the module would have been called with.
    """
    fused = (nn.RNNBase, nn.MultiheadAttention)
    owner = next((entry.module for _, entry, _ in used if isinstance(entry.module, fused)), None)
    if owner is None:
        return None
    names = {id(parameter): name for name, parameter in owner.named_parameters()}
    computed = {use.local_name: weight for weight, entry, use in used if use.layer.computed and entry.module is owner}
    names |= {id(weight): name for name, weight in computed.items()}
    if not all(id(weight) in names for weight, _, _ in used):
        return None
    uses = tuple(replace(use, local_name=names[id(weight)]) for weight, _, use in used)
    plain = _plain(owner, computed)
    keywords: dict[str, Any] = {}
    if isinstance(plain, nn.RNNBase) and function in _RECURRENT:
        rule, inputs = Rule(recurrent, recurrent_weights), _sequence(args)
    elif isinstance(plain, nn.MultiheadAttention) and function is functional.multi_head_attention_forward:
        plain.batch_first = False  # the function itself takes time first
        rule, inputs = Rule(attention, attention_weights), tuple(args[:3])
        keywords = {name: kwargs[name] for name in _MASKS if name in kwargs}
    else:
        return None
    return WatchedModule(used[0][1].name, plain, rule, uses), plain, inputs, keywords


def _plain(module: nn.Module, computed: Mapping[str, Tensor]) -> nn.Module:
    """A module of torch's own type with a module's weights, those that it computes as they are now."""
    of_torch = [kind for kind in type(module).__mro__ if kind.__module__.startswith("torch.nn.modules.")]
    plain: nn.Module = object.__new__(of_torch[0])
    plain.__dict__ = {name: value for name, value in vars(module).items() if name not in computed}
    values = {name: nn.Parameter(weight.detach(), requires_grad=False) for name, weight in computed.items()}
    plain.__dict__["_parameters"] = {**module._parameters, **values}
    return plain


def _sequence(args: Sequence[Any]) -> tuple[Any, ...]:
    """Input and states as a recurrent module takes them, from the arguments of the fused function."""
    if isinstance(args[1], Tensor) and args[1].dtype == torch.int64 and args[1].dim() == 1:
        return PackedSequence(args[0], args[1]), args[2]
    return args[0], args[1]
