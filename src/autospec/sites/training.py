"""Several sites train one model together, each on its own samples, and record what they exchange."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt
import torch
from torch import Tensor, nn

from autospec.capture.hooks import HookListener
from autospec.capture.layers import Layer, watched_modules
from autospec.capture.leaf_gradients import leaf_gradients
from autospec.capture.selection import Selection
from autospec.errors import AutoSpecError
from autospec.recording.recorder import SpectralRecorder
from autospec.sites.contribution import Choice, Heard, check_parts
from autospec.sites.exchange import SiteExchange
from autospec.sites.given import given_batch
from autospec.sites.messages import Contribution, Form, body_length, body_of, contribution_of, head_of
from autospec.sites.parts import DAD, WAYS
from autospec.sites.people import check_people, recorded_groups, withheld
from autospec.spectra.groups import SampleGroups
from autospec.store.schema import ACTIVATION, ADJOINT, GRADIENT, RANK, SUBSPACE

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

OF_GRADIENTS, OF_TRIANGLES = (GRADIENT, SUBSPACE), (GRADIENT, SUBSPACE, ACTIVATION, ADJOINT, RANK)
"""The statistics that can be had from gradients, and from triangles of both factors."""

MIN_GROUP = 15
"""Groups of fewer people leave a site only among its other samples."""

DRIFT = 1e-6
"""So far, relative to their size, the sums of two sites' weights may be apart."""


class SiteTraining:
    """Makes every site's gradients those of the mean loss over all sites' samples, and records each site as a group.

    One process per site, each with its own samples and the same model, in one process group. Inside ``batch`` a site
    runs its forward and backward pass; after it, ``weight.grad`` is the pooled gradient, the same at every site, and
    any optimizer takes it. ``docs/sites.md`` says what leaves a site.

    Args:
        model: the model, with the same weights at every site.
        sites: the names of the sites, in the order of their ranks.
        people: how many people this site has; with ``groups``, in each of them.
        path: this site's file, or None to keep the spectra in memory (``recorder.spectra``).
        way: "gradient", "dad" (triangles of the factors, exact) or "rank-dad" (leading directions, with a bound).
        groups: names of groups within sites; recorded are then ``site/group``, the sites and the groups.
        choice: how parts are made, in place of ``way``: rank, iterations, whether inputs are shared.
        min_group: a group with fewer people at a site is not told apart there; a site with fewer takes no part.
        layers: which layers are exchanged as factors and recorded; see ``SpectralRecorder``.
        process_group: the process group; None is the default one.
        **recording: further arguments of ``SpectralRecorder``: ``every``, ``epochs``, ``statistics``, ...

    Attributes:
        recorder: holds the spectra, the same at every site.
        left_out: by layer, the most that the last step's pooled gradient is off by, in the Frobenius norm.
        exchange_s, processor_s: seconds, and those of the processor, spent on compressing, sending, waiting, pooling.

    Raises:
        AutoSpecError: for arguments that do not fit, another number of processes, and a site that is too small.
    """

    def __init__(
        self,
        model: nn.Module,
        sites: Sequence[str],
        people: int | Sequence[int],
        path: str | Path | None = None,
        *,
        way: str = DAD,
        groups: Sequence[str] = (),
        choice: Choice | None = None,
        min_group: int = MIN_GROUP,
        layers: Selection = None,
        process_group: ProcessGroup | None = None,
        **recording: Any,
    ) -> None:
        self._choice = choice or Choice(way)
        if self._choice.way not in WAYS:
            raise AutoSpecError(f"way={self._choice.way!r}: allowed are {', '.join(WAYS)}")
        self.exchange = SiteExchange(list(sites), process_group)
        check_statistics(recording.get("statistics", (GRADIENT,)), self._choice.way)
        own = [people] if isinstance(people, int) else list(people)
        sizes = self.exchange.processes.gather(own)
        check_people(sites, groups, sizes, min_group)
        self._hidden = withheld(own, min_group) if groups else []
        self._model = model
        watched = watched_modules(model, layers)
        self._layers = _exchanged(model, layers)
        names, margins = recorded_groups(sites, groups)
        self.recorder = SpectralRecorder(
            model,
            path,
            groups=names,
            margins=margins,
            layers=[layer.name for layer in self._layers],
            # every site records what was pooled by itself, so that nothing more is sent
            process_group=False,
            # a measured floor computes a batch again in float64, and of other sites' batches only products are here
            floor="formula",
            attributes={"way": self._choice.way, "min_group": min_group, **recording.pop("attributes", {})},
            **recording,
        )
        kept = {id(layer.parameter) for layer in self._layers}
        self._watched = [entry for entry in watched if any(id(use.layer.parameter) in kept for use in entry.uses)]
        # biases, and what no rule explains: their gradients travel whole
        self._others = [weight for weight in model.parameters() if weight.requires_grad and id(weight) not in kept]
        self._form = Form(
            {layer.name: layer.shape for layer in self._layers},
            len(names) // len(sites),
            sum(weight.numel() for weight in self._others),
            torch.promote_types(next(model.parameters()).dtype, torch.float32),
        )
        self._of_data: set[str] | None = None
        self.steps = 0
        self.exchange_s = self.processor_s = 0.0
        self.left_out: dict[str, float] = {}

    @contextlib.contextmanager
    def batch(self, samples: int, group: Tensor | npt.ArrayLike | None = None) -> Iterator[None]:
        """A context for this site's forward and backward pass of the mean loss over its samples.

        Args:
            samples: how many samples this site has in the step.
            group: (samples,) the group of each, an index into ``groups``; -1 for none.

        Raises:
            AutoSpecError: for labels that do not fit, and factors that do not add up to the gradient.
        """
        groups = self._cells(samples, group)
        told = groups if self._form.cells > 1 and self.recorder.takes_now else None
        heard = Heard(self._layers, self._form.cells, told)
        listener = HookListener(self._model, self._watched, heard.sink)
        weights = [*(layer.parameter for layer in self._layers), *self._others]
        with _gradients_apart(weights):
            first = self._layers if self.steps == 0 else []
            with self._noticing_data(), leaf_gradients(first) as left, listener.listening(told):
                yield
            started, computed = time.monotonic(), time.process_time()
            check_parts(heard, left, torch.finfo(self._form.dtype).eps)
            contributions = self._exchanged(heard, groups.counts)
            self._put_pooled(contributions)
            self.exchange_s += time.monotonic() - started
            self.processor_s += time.process_time() - computed
        if self.recorder.takes_now:
            self.recorder.take(given_batch(contributions, self._form))
        self.steps += 1

    def end_epoch(self, loss: float | None = None, **curves: float | None) -> None:
        """End an epoch: record what was exchanged in it. ``loss`` is this site's."""
        self.recorder.end_epoch(loss=loss, **curves)

    def close(self) -> None:
        """Write the file."""
        self.recorder.close()

    def _cells(self, samples: int, group: Tensor | npt.ArrayLike | None) -> SampleGroups:
        """The cells of this site's samples; withheld groups are among the others."""
        labels = torch.full((samples,), -1) if group is None else torch.as_tensor(group).detach().cpu().long()
        groups = len(self._hidden)
        if labels.shape != (samples,) or (samples and not -1 <= int(labels.min()) <= int(labels.max()) < groups):
            raise AutoSpecError(
                f"group must be {samples} labels from -1 to {groups - 1}, one for each sample of the step"
            )
        for place, hidden in enumerate(self._hidden):
            labels = labels.where(labels != place, -1) if hidden else labels
        # nothing is recorded now: one sum of all samples is enough to train by, and less is sent
        if not self.recorder.takes_now:
            labels = torch.full_like(labels, -1)
        return SampleGroups.of(labels.to(next(self._model.parameters()).device), self._form.cells)

    @contextlib.contextmanager
    def _noticing_data(self) -> Iterator[None]:
        """A context that notes, in the first step, which layers' inputs depend on no trained weight."""
        if self._of_data is not None:
            yield
            return
        of_weights: set[str] = set()
        handles = []
        for entry in self._watched:
            names = [use.layer.name for use in entry.uses]

            def note(module: nn.Module, inputs: Any, keywords: Any, names: list[str] = names) -> None:
                leaves = torch.utils._pytree.tree_leaves((inputs, keywords))
                if any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in leaves):
                    of_weights.update(names)

            handles.append(entry.module.register_forward_pre_hook(note, with_kwargs=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        self._of_data = {layer.name for layer in self._layers} - of_weights

    def _exchanged(self, heard: Heard, samples: Sequence[int]) -> list[Contribution]:
        """What all sites contribute, each scaled to its share of the samples."""
        parts = heard.parts(self._choice, self._of_data or set())
        gradients = [(weight.grad if weight.grad is not None else torch.zeros_like(weight)) for weight in self._others]
        others = torch.cat([torch.zeros(0), *(gradient.detach().flatten().cpu() for gradient in gradients)])
        with torch.no_grad():
            total = sum(float(weight.double().sum()) for weight in self._model.parameters())
        mine = Contribution(torch.tensor(samples).double(), parts, others.to(self._form.dtype), total)
        heads = self.exchange.all_messages(head_of(mine, self._form))
        bodies = self.exchange.all_messages(
            body_of(mine, self._form), [body_length(head, self._form) for head in heads]
        )
        contributions = [contribution_of(head, body, self._form) for head, body in zip(heads, bodies, strict=True)]
        self._refuse_drift([one.weights for one in contributions])
        whole = sum(float(one.samples.sum()) for one in contributions)
        if not whole:
            raise AutoSpecError("no site has a sample in this step")
        return [one.scaled(float(one.samples.sum()) / whole) for one in contributions]

    def _refuse_drift(self, sums: Sequence[float]) -> None:
        """AutoSpecError where another site's weights are not this one's."""
        for name, other in zip(self.exchange.names, sums, strict=True):
            if abs(other - sums[0]) > DRIFT * max(1.0, abs(sums[0])):
                raise AutoSpecError(
                    f"the weights of site {name!r} are not those of {self.exchange.names[0]!r} at step {self.steps} "
                    f"(their sums are {other!r} and {sums[0]!r}); begin with the same weights, and take the same steps"
                )

    def _put_pooled(self, contributions: Sequence[Contribution]) -> None:
        """Make the weights' gradients the sums over sites, in the sites' order."""
        for layer in self._layers:
            # float64, and the sites' order: every site must get the same bits
            whole, bound = torch.zeros(layer.shape, dtype=torch.float64), 0.0
            for one in contributions:
                for part in one.parts[layer.name]:
                    if part is not None:
                        whole += part.gradient()
                        bound += part.left_out
            self.left_out[layer.name] = bound
            layer.parameter.grad = whole.view(layer.parameter.shape).to(layer.parameter)
        flat = sum((one.others.double() for one in contributions), start=torch.zeros(self._form.others).double())
        lengths = [weight.numel() for weight in self._others]
        for weight, numbers in zip(self._others, flat.split(lengths), strict=True):
            weight.grad = numbers.view(weight.shape).to(weight)


def check_statistics(statistics: Sequence[str], way: str) -> None:
    """AutoSpecError for statistics that cannot be had from what sites send."""
    allowed = OF_TRIANGLES if way == DAD else OF_GRADIENTS
    others = [name for name in statistics if name not in allowed]
    if others:
        raise AutoSpecError(f"statistics={others}: way={way!r} sends what {', '.join(allowed)} can be had from")


def _exchanged(model: nn.Module, selection: Selection) -> list[Layer]:
    """The trained layers whose gradients are products of activations and adjoints, by a rule."""
    uses = [use for entry in watched_modules(model, selection) if entry.rule is not None for use in entry.uses]
    layers = {use.layer.name: use.layer for use in uses if use.layer.is_trained and not use.layer.computed}
    if not layers:
        raise AutoSpecError("the model has no layer that a rule explains, so there are no factors to exchange")
    return list(layers.values())


@contextlib.contextmanager
def _gradients_apart(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    """A context in which weights have no gradient yet; those of before are added at its end."""
    before = [weight.grad for weight in weights]
    for weight in weights:
        weight.grad = None
    try:
        yield
    finally:
        for weight, earlier in zip(weights, before, strict=True):
            if earlier is not None:
                weight.grad = earlier if weight.grad is None else earlier + weight.grad
