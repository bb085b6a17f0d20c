"""What is handed on is held against the gradients that backward leaves: no layer may be silently wrong."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten
from torch.utils.hooks import RemovableHandle

from autospec.capture.hooks import ArrivalListener
from autospec.capture.layers import Layer
from autospec.capture.leaf_gradients import LeafGradients, arrivals
from autospec.capture.pieces import own_piece
from autospec.errors import AutoSpecError
from autospec.recording.epoch_sums import EpochSums
from autospec.spectra.factors import GradientFactors
from autospec.spectra.layer_sums import product_eps
from autospec.spectra.singular import is_zero

ROUNDINGS = 256
"""How many roundings of their terms the sums may be away from what backward left; it adds up naively itself."""

COST = 0.01
"""The part of a batch's time that comparing may take, on average."""

_CAUSES = {
    "hooks": "Its weight is used in a way that the rule of {kind} does not describe, such as outside its module; "
    "register a rule, use engine={{'{name}': 'per_group', '*': 'hooks'}} where it is used inside its module, or leave "
    "it out with layers=['!{name}']",
    "split": "Its weight is used outside the module that is run again for each group, or that does another thing when "
    "it runs again; use engine='per_group' for the whole model, or leave the layer out with layers=['!{name}']",
    "penalty": "A backward pass of this batch kept its graph (create_graph=True, as for a penalty on gradients), and "
    "through that graph the weight has a gradient that no group's rows account for; open recorder.batch(...) around a "
    "pass without the penalty, or leave the layer out with layers=['!{name}']",
    "changed": "A hook on its weight (weight.register_hook) changes what arrives there, and the groups' gradients are "
    "those before it: change gradients after recorder.batch(...), or leave the layer out with layers=['!{name}']",
    "unexplained": "No call of its module or of a function in this batch led to it: vmap and other function transforms "
    "leave no rows, nor does a term of the loss that takes the weight itself; use "
    "engine={{'{name}': 'per_group', '*': 'hooks'}} or engine='per_group', or leave the layer out with "
    "layers=['!{name}']",
    "fused": "Its weight is used outside its module as well, or changed before its module uses it; use engine='hooks' "
    "or engine='per_group'",
    "other": "Its weight is used past the passes of the groups, such as in checkpointing with use_reentrant=True; "
    "use engine='hooks'",
}

DISCARDED = (
    "layer {name!r}: its gradient was zeroed after a backward pass of this batch and before an optimizer's step, so "
    "that the optimizer sees another one than was recorded; open recorder.batch(...) around the last pass alone, or "
    "take the gradient of the input with torch.autograd.grad"
)


LATE = (
    "layer {name!r}: a gradient arrived after the optimizer's step of this batch, which no further step took (as a "
    "generator's, that goes through its discriminator); end recorder.batch(...) with the optimizer's step, or use "
    "engine='hooks', which leaves it out"
)


UNEQUAL = (
    "optimizers of this batch evaluated their closures {few} and {many} times, so that one scale does not hold for all "
    "layers; record each optimizer's weights apart, by layers=[...]"
)


class GradientCheck(ArrivalListener):
    """Compares each layer's factors with its weight's gradient: at its first arrival and at every so many batches.

    It also notices gradients that are zeroed between two backward passes of a batch, which no optimizer sees.

    Args:
        keep: makes a copy of what is summed up of a layer, and returns a function that puts it back.

    Attributes:
        splits: whether an engine splits the gradients by itself, and cannot leave a backward pass out afterwards.
    """

    def __init__(self, keep: Callable[[Layer], Callable[[], None]]) -> None:
        self._keep = keep
        self._compared: set[str] = set()
        self._unseen: dict[str, _Unseen] = {}
        self._stepped: set[str] = set()
        self._due = self._has_penalty = False
        self._may_be_zeroed = self._always_keeps = False
        self._batch_s = self._compare_s = self._started = 0.0
        self._late = _LateGradients()
        self._is_in_step = self.splits = False
        self.problems: list[str] = []
        self.half_precision = False
        self.is_open = self.remembers = False
        self.left: dict[str, Tensor] = {}
        self.unexplained: Layer | None = None
        self.passes = self._arrived = 0
        self._evaluations: Counter[int] = Counter()

    def begin(self) -> None:
        """A batch begins."""
        self._unseen.clear()
        self._stepped.clear()
        self.problems.clear()
        self._may_be_zeroed = self._has_penalty = False
        self.unexplained, self.passes = None, 0
        self._evaluations.clear()
        self.is_open = True
        self._due = COST * self._batch_s >= self._compare_s
        if self._due:
            self._batch_s = self._compare_s = 0.0
        self._started = time.monotonic()

    def end(self) -> None:
        """A batch has ended; AutoSpecError where something did not fit."""
        self.is_open = False
        self._batch_s += time.monotonic() - self._started
        for name, unseen in self._unseen.items():
            # after a step in this batch, what no further step took is another model's (a generator's through it)
            if name in self._stepped or unseen.was_zeroed():
                self._take_back(name, unseen)
        if self._late.names:
            self.problems.append(LATE.format(name=self._late.names[0]))
        if self.unexplained is not None:
            cause = "split" if self.unexplained.is_split else "unexplained"
            self.problems.append(_message(self.unexplained, cause, 1.0))
        counts = sorted({count for count in self._evaluations.values() if count})
        if len(counts) > 1:
            self.problems.append(UNEQUAL.format(few=counts[0], many=counts[-1]))
        if self.problems:
            raise AutoSpecError(self.problems[0])

    def stepping(self, layers: Sequence[Layer]) -> None:
        """An optimizer's step takes the gradients of some weights; one with a closure runs passes of its own."""
        self._is_in_step = self.is_open
        self._taken(layers)

    @contextlib.contextmanager
    def evaluating(self, optimizer: int) -> Iterator[None]:
        """A context for a closure that an optimizer's step evaluates; one that makes no pass does not count."""
        before = self._arrived
        yield
        self._evaluations[optimizer] += self._arrived > before

    @property
    def evaluations(self) -> int:
        """How often a step of the batch evaluated its closure, at least 1."""
        return max(self._evaluations.values(), default=1) or 1

    def noticing(self, layers: Sequence[Layer]) -> contextlib.AbstractContextManager[None]:
        """A context for an engine that hands over at the end of a batch: a gradient zeroed before that is an error."""
        return arrivals(layers, self._notice)

    def _notice(self, layer: Layer, gradient: Tensor) -> None:
        self._arrived += 1
        if layer.name in self._stepped:
            return  # what arrives after a step is refused when the batch ends
        unseen = self._unseen.get(layer.name)
        if unseen is None:
            unseen = self._unseen[layer.name] = _Unseen(layer, None)
        elif unseen.is_nonzero and not self._is_in_step and _is_zero(layer.parameter.grad):
            self._take_back(layer.name, unseen)
        unseen.is_nonzero |= not _is_zero(gradient)
        self._remember(layer, gradient)

    def stepped(self, layers: Sequence[Layer]) -> None:
        """The step is over: it took what arrived in it as well."""
        self._is_in_step = False
        self._taken(layers)
        if self.splits and self.is_open:
            for layer in layers:
                self._late.wait_for(layer)

    def _taken(self, layers: Sequence[Layer]) -> None:
        self._late.forget()
        for layer in layers:
            self._unseen.pop(layer.name, None)
            self._stepped.add(layer.name)

    def close(self) -> None:
        """No hook is left on the weights."""
        self._late.forget()

    def _take_back(self, name: str, unseen: _Unseen) -> None:
        self._always_keeps = True
        if unseen.put_back is None:
            self.problems.append(DISCARDED.format(name=name))
        else:
            unseen.put_back()

    def entered(self, inputs: Any) -> None:
        leaves = tree_flatten(inputs)[0]
        if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
            self._may_be_zeroed = True

    def passed(self, keeps_graph: bool) -> None:
        self.passes += 1
        self._has_penalty = self._has_penalty or keeps_graph

    def before(self, layer: Layer) -> None:
        self._arrived += 1
        unseen, backward_pass = self._unseen.get(layer.name), torch._C._current_graph_task_id()
        if unseen is None:
            keeps = self._may_be_zeroed or self._always_keeps or layer.name in self._stepped
            unseen = self._unseen[layer.name] = _Unseen(layer, self._keep(layer) if keeps else None)
        elif unseen.is_nonzero and unseen.backward_pass != backward_pass and not self._is_in_step and _is_gone(layer):
            self._take_back(layer.name, unseen)
        # a weight that is computed at each call arrives several times in a pass, which then has left nothing yet
        unseen.backward_pass = backward_pass

    def after(self, layer: Layer, gradient: Tensor, parts: Sequence[GradientFactors]) -> None:
        self.half_precision |= any(part.stored[1].dtype == torch.float16 for part in parts)
        if not parts:
            if self.unexplained is None and bool(
                (gradient.coalesce().values() if gradient.is_sparse else gradient).any()
            ):
                self.unexplained = layer
            return
        self._unseen[layer.name].is_nonzero |= not _is_zero(gradient)
        self._remember(layer, gradient)
        if gradient.is_sparse or not (self._due or self._has_penalty or layer.name not in self._compared):
            return
        started = time.monotonic()
        self._compared.add(layer.name)
        difference, rounding = _difference(gradient, parts)
        norm = float(gradient.double().norm())
        if bool(gradient.isfinite().all()) and not difference <= ROUNDINGS * rounding + 1e-30:
            cause = "penalty" if self._has_penalty else "split" if layer.is_split else "hooks"
            self.problems.append(_message(layer, cause, difference / max(norm, 1e-300)))
        self._compare_s += time.monotonic() - started

    def _remember(self, layer: Layer, gradient: Tensor) -> None:
        """Keep what backward left in one weight, to hold what an optimizer gets against it."""
        if not self.remembers or (self.left and layer.name not in self.left) or gradient.is_sparse:
            return
        before = self.left.get(layer.name)
        starts = before is None or (not layer.is_sharded and _is_zero(layer.parameter.grad))
        value = gradient.to(torch.float64, copy=True)
        self.left[layer.name] = value if starts or before is None else before + value


class _Unseen:
    """What has arrived at a weight since a batch began or an optimizer took its gradient."""

    def __init__(self, layer: Layer, put_back: Callable[[], None] | None) -> None:
        self._layer, self._weight = layer, own_piece(layer.parameter)
        self._version, self._begin = self._weight._version, self._start()
        self.put_back = put_back
        self.is_nonzero = False
        self.backward_pass = -1

    def was_zeroed(self) -> bool:
        """Whether the gradient is gone, and no step by hand has moved the weight."""
        if not self.is_nonzero or self._weight._version != self._version or not _is_gone(self._layer):
            return False
        return torch.equal(self._start(), self._begin)

    def _start(self) -> Tensor:
        return self._weight.detach().flatten()[:64].clone()


class _LateGradients:
    """Notices the gradients that reach some weights after an optimizer's step; ``names`` are those of the layers."""

    def __init__(self) -> None:
        self._handles: list[RemovableHandle] = []
        self.names: list[str] = []

    def wait_for(self, layer: Layer) -> None:
        def note(parameter: Tensor) -> None:
            self.names.append(layer.name)

        if layer.parameter.requires_grad:
            self._handles.append(layer.parameter.register_post_accumulate_grad_hook(note))

    def forget(self) -> None:
        self.names.clear()
        while self._handles:
            self._handles.pop().remove()


def _is_gone(layer: Layer) -> bool:
    """Whether a weight has no gradient; of one in pieces it may wait elsewhere, and is taken to be there."""
    return not layer.is_sharded and _is_zero(layer.parameter.grad)


def _is_zero(gradient: Tensor | None) -> bool:
    return gradient is None or (not gradient.is_sparse and is_zero(gradient))


def _difference(gradient: Tensor, parts: Sequence[GradientFactors]) -> tuple[float, float]:
    """How far the parts' products are from a gradient, in norm, and what naive summation may be off by."""
    total = torch.zeros_like(gradient.flatten(1), dtype=torch.float64)
    norms = torch.zeros(2, dtype=torch.float64)
    rows, eps = 0.0, product_eps(gradient.device)
    for part in parts:
        samples = torch.arange(part.samples, device=part.device)
        total[part.first_row : part.first_row + part.height] += part.product(samples)
        norms += torch.stack([norm.sum() for norm in part.squared_norms()]).cpu()
        rows += float(part.rows_per_sample.sum())
        eps = max(eps, part.eps)
    difference = float((total - gradient.flatten(1)).norm())
    return difference, eps * (1 + rows**0.5 / 64) * float(norms.prod().sqrt())


def check_against(
    left: LeafGradients, layers: Sequence[Layer], sums: EpochSums, loss_scale: float, engine: str
) -> None:
    """AutoSpecError for a layer whose group gradients do not add up to what backward left in its weight."""
    for layer in layers:
        if layer.name not in left:
            continue
        whole, rounding = sums.whole_gradient(layer)
        expected = left[layer.name].to(whole.device) / loss_scale
        difference = float((whole - expected).norm())
        if expected.isfinite().all() and not difference <= ROUNDINGS * rounding + 1e-30:
            raise AutoSpecError(_message(layer, engine, difference / max(float(expected.norm()), 1e-300)))


def _message(layer: Layer, engine: str, relative: float) -> str:
    hooks = (getattr(layer.parameter, "_backward_hooks", None) or {}).values()
    # of our own there are some on weights that are computed from others
    is_changed = any(not str(getattr(hook, "__module__", "")).startswith("autospec.") for hook in hooks)
    cause = _CAUSES["changed"] if is_changed else _CAUSES.get(engine, _CAUSES["other"])
    return (
        f"layer {layer.name!r}: the groups' gradients do not add up to the one that backward left "
        f"(off by {relative:.1e} of its norm). " + cause.format(kind=layer.kind, name=layer.name)
    )
