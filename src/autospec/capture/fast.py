"""The engine that chooses: the cheapest way to a model's group gradients among those that are proved right for it."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from autospec.capture.agreement import FAILURES, cut_off, random_state_kept, seeds_of, trained
from autospec.capture.fused import FusedEngine
from autospec.capture.kept_state import state_kept
from autospec.capture.per_group import Forward, PerGroupEngine, entries, standing_in, stands_in
from autospec.errors import AutoSpecError
from autospec.spectra.groups import SampleGroups

log = logging.getLogger(__name__)

Way = PerGroupEngine | FusedEngine

FEWEST_TRIALS, LONGEST_S = 3, 3.0
"""Each way is timed so many times; no more once that many seconds are spent."""


class FastEngine:
    """Tries the ways on the first batch beside training, keeps the quickest, and says so.

    ``reasons`` says why a way is not there; ``say`` is told the way that was chosen. The trial leaves gradients,
    buffers and random state as they were.
    """

    def __init__(self, ways: Mapping[str, Way], reasons: Mapping[str, str], say: Callable[[str], None]) -> None:
        if not ways:
            raise AutoSpecError(_nothing(reasons))
        self._ways = dict(ways)
        self._reasons = dict(reasons)
        self._say = say
        self.model = next(iter(ways.values())).model
        self._entries = entries(self.model, {id(layer.parameter) for way in ways.values() for layer in way.layers})
        self.chosen: str | None = None

    def choose(self, name: str | None) -> None:
        """Take a way without a trial: that of the run which is continued; None tries anew."""
        if name is None or name in self._ways:
            self.chosen = name
            if name is not None:
                self._say(name)

    @contextlib.contextmanager
    def listening(self, cells: SampleGroups) -> Iterator[None]:
        """A context in which backward leaves the groups' gradients; they are handed over at its end."""
        if self.chosen is not None:
            with self._ways[self.chosen].listening(cells):
                yield
            return
        with contextlib.ExitStack() as inside, contextlib.ExitStack() as before:
            trial = standing_in(self._entries, lambda module, forward: self._trial(module, before, inside, cells))
            before.enter_context(trial)
            yield

    def close(self) -> None:
        """Nothing is left on the model between batches."""
        for way in self._ways.values():
            way.close()

    def _trial(
        self, module: nn.Module, before: contextlib.ExitStack, inside: contextlib.ExitStack, cells: SampleGroups
    ) -> Forward:
        @stands_in
        def stand_in(*inputs: Any, **keywords: Any) -> Any:
            if torch.is_grad_enabled():
                before.close()
                self.choose(self._quickest(module, (inputs, keywords), cells))
                assert self.chosen is not None
                inside.enter_context(self._ways[self.chosen].listening(cells))
                return module.forward(*inputs, **keywords)
            return type(module).forward(module, *inputs, **keywords)

        return stand_in

    def _quickest(self, module: nn.Module, arguments: Any, cells: SampleGroups) -> str:
        """The name of the quickest way that is proved; AutoSpecError where there is none."""
        proved: dict[str, Way] = {}
        for name, way in self._ways.items():
            try:
                with way.trying(cells), _nothing_left(self.model, arguments):
                    way.prove(module, arguments, cells)
                proved[name] = way
            except FAILURES as error:
                self._reasons[name] = str(error)
        fused = proved.get(FusedEngine.name)
        if isinstance(fused, FusedEngine) and fused.unreached and len(proved) > 1:
            # a later batch that reaches it could not be recorded
            del proved[FusedEngine.name]
            self._reasons[FusedEngine.name] = f"layer {fused.unreached[0]!r} was not reached on the first batch"
        if not proved:
            raise AutoSpecError(_nothing(self._reasons))
        seconds = dict.fromkeys(proved, float("inf"))
        began = time.perf_counter()
        for trial in range(FEWEST_TRIALS if len(proved) > 1 else 0):
            if trial and time.perf_counter() - began > LONGEST_S:
                break
            for name, way in proved.items():
                seconds[name] = min(seconds[name], self._seconds(way, module, arguments, cells))
        best = min(seconds, key=seconds.__getitem__)
        times = ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items() if len(proved) > 1)
        others = "; ".join(f"not {name}: {reason}" for name, reason in self._reasons.items())
        log.info("engine='fast' chose %s%s%s", best, f" ({times})" if times else "", f"; {others}" if others else "")
        return best

    def _seconds(self, way: Way, module: nn.Module, arguments: Any, cells: SampleGroups) -> float:
        """The time of a forward and backward pass."""
        inputs, keywords = cut_off(arguments)
        weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        device = weights[0].device
        with way.trying(cells), _nothing_left(self.model, arguments):
            began = _clock(device)
            outputs = trained(way.forward_of(module)(*inputs, **keywords))
            torch.autograd.grad(outputs, weights, seeds_of(outputs), allow_unused=True)
            return _clock(device) - began


@contextlib.contextmanager
def _nothing_left(model: nn.Module, arguments: Any) -> Iterator[None]:
    """A context after which random state and buffers are what they were."""
    with random_state_kept(tree_flatten(arguments)[0]), state_kept(model):
        yield


def _clock(device: torch.device) -> float:
    """Seconds of the processor on a CPU, which other processes do not lengthen; of the day on a GPU, all work done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time()


def _nothing(reasons: Mapping[str, str]) -> str:
    return "engine='fast': no way is exact for this model; use engine='hooks'. " + " | ".join(reasons.values())
