"""One list of cases: every layer type with every option that its rule explains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from autospec.capture.hooks import HookListener
from autospec.capture.layers import watched_modules
from autospec.spectra.factors import GradientFactors

SAMPLES = 6
LABELS = torch.tensor([0, 1, 0, -1, 1, 1])
GROUPS = ("a", "b", "empty")

Batch = dict[str, Tensor]


def captured(model: nn.Module, backward: Callable[[], None]) -> dict[str, list[GradientFactors]]:
    """The factors of every use of every weight, by the use's name, that a forward and a backward pass hand over."""
    found: dict[str, list[GradientFactors]] = {}
    listener = HookListener(
        model, watched_modules(model), lambda use, part, _: found.setdefault(use.name, []).append(part)
    )
    with listener.listening():
        backward()
    return found


@dataclass(frozen=True)
class Case:
    """A model of one layer, a batch for it (samples first in every tensor), and how the one is called with the other.

    ``call(layer, batch)`` returns one or more tensors, samples first, that are zero where there is padding.
    """

    name: str
    layer: Callable[[], nn.Module]
    batch: Callable[[], Batch]
    call: Callable[[Any, Batch], Tensor | tuple[Tensor, ...]] = lambda layer, batch: layer(batch["x"])
    warns: str | None = None

    def model(self, dtype: torch.dtype) -> nn.Module:
        torch.manual_seed(1)
        return nn.Sequential(self.layer()).to(dtype)

    def inputs(self, dtype: torch.dtype) -> Batch:
        torch.manual_seed(2)
        return cast(self.batch(), dtype)

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(n,): a loss for each sample that depends on everything that the layer returns."""
        outputs = self.call(model[0], batch)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return sum((output.sin() + output.square() / 2).flatten(1).sum(1) for output in outputs)


def cast(batch: Batch, dtype: torch.dtype) -> Batch:
    return {name: value.to(dtype) if value.is_floating_point() else value for name, value in batch.items()}


def of_shape(*shape: int) -> Callable[[], Batch]:
    return lambda: {"x": torch.randn(SAMPLES, *shape)}


# --- linear layers and embeddings --------------------------------------------------------------------------------


def _columns_first() -> nn.Module:
    from transformers.pytorch_utils import Conv1D

    return Conv1D(4, 5)


def _indices(*shape: int) -> Callable[[], Batch]:
    return lambda: {"x": torch.randint(7, (SAMPLES, *shape))}


def _bags(layer: nn.EmbeddingBag, batch: Batch) -> Tensor:
    """The bags one after another, as many indices of each sample as its first one says, and one at least."""
    kept = [row[: int(row[0]) % 5 + 1] for row in batch["x"]]
    ends = torch.tensor([0, *(len(row) for row in kept)]).cumsum(0)
    return layer(torch.cat(kept), ends if layer.include_last_offset else ends[:-1])


def _weighted_bags(layer: nn.EmbeddingBag, batch: Batch) -> Tensor:
    return layer(batch["x"], per_sample_weights=batch["x"].to(layer.weight.dtype).cos())


LINEAR = [
    Case("linear", lambda: nn.Linear(5, 4), of_shape(5)),
    Case("linear at positions", lambda: nn.Linear(5, 4, bias=False), of_shape(3, 2, 5)),
    Case("linear of hugging face", _columns_first, of_shape(5)),
    Case("linear of hugging face at positions", _columns_first, of_shape(3, 5)),
    Case("embedding", lambda: nn.Embedding(7, 4), _indices(5)),
    Case("embedding of one index", lambda: nn.Embedding(7, 4), _indices()),
    Case("embedding of a grid", lambda: nn.Embedding(7, 9), _indices(2, 3)),
    Case("embedding with padding", lambda: nn.Embedding(7, 4, padding_idx=2), _indices(5)),
    Case("embedding with padding from the end", lambda: nn.Embedding(7, 4, padding_idx=-1), _indices(5)),
    Case("embedding with max_norm", lambda: nn.Embedding(7, 4, max_norm=1.0), _indices(5)),
    Case(
        "bilinear", lambda: nn.Bilinear(5, 5, 4), of_shape(5), lambda layer, batch: layer(batch["x"], batch["x"].cos())
    ),
    Case("bags of sums", lambda: nn.EmbeddingBag(7, 4, mode="sum"), _indices(5)),
    Case("bags of means", lambda: nn.EmbeddingBag(7, 4, padding_idx=2), _indices(5)),
    Case("bags with offsets", lambda: nn.EmbeddingBag(7, 4), _indices(5), _bags),
    Case("bags with their ends", lambda: nn.EmbeddingBag(7, 4, include_last_offset=True), _indices(5), _bags),
    Case("weighted bags", lambda: nn.EmbeddingBag(7, 4, mode="sum"), _indices(5), _weighted_bags),
]

# --- convolutions ------------------------------------------------------------------------------------------------

_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_SIZES = {1: (11,), 2: (8, 7), 3: (6, 5, 5)}
_PLACES = {1: (7,), 2: (4, 3), 3: (3, 4, 3)}
_EVEN = "Using padding='same' with even kernel lengths"

_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride": {"stride": 2},
    "padding": {"padding": 2, "bias": False},
    "dilation": {"dilation": 2},
    "groups": {"groups": 2},
    "depthwise": {"groups": 4, "padding": 1},
    "all at once": {"stride": 2, "padding": 1, "dilation": 2, "groups": 2},
    "same": {"padding": "same", "dilation": 2},
    "even same": {"padding": "same", "kernel_size": 4},
    "valid": {"padding": "valid"},
    "reflect": {"padding": 2, "padding_mode": "reflect", "stride": 2},
    "replicate": {"padding": 1, "padding_mode": "replicate"},
    "circular": {"padding": 2, "padding_mode": "circular"},
    "same circular": {"padding": "same", "padding_mode": "circular", "groups": 2},
    "even same circular": {"padding": "same", "padding_mode": "circular", "kernel_size": 2},
}

_TRANSPOSED_OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride": {"stride": 2},
    "padding": {"padding": 2, "bias": False},
    "output padding": {"stride": 3, "output_padding": 1, "padding": 1},
    "wide output padding": {"stride": 1, "dilation": 3, "output_padding": 2},
    "dilation": {"dilation": 2},
    "groups": {"groups": 2},
    "depthwise": {"groups": 4, "stride": 2},
    "all at once": {"stride": 2, "padding": 1, "dilation": 2, "groups": 2, "output_padding": 1},
}


def _convolution(kind: type[nn.Module], size: tuple[int, ...], name: str, options: dict[str, Any]) -> Case:
    options = {"kernel_size": 3, **options}
    warns = _EVEN if options.get("padding") == "same" and options["kernel_size"] == 4 else None
    return Case(f"{kind.__name__} {name}", lambda: kind(4, 8, **options), of_shape(4, *size), warns=warns)


_UNEVEN = {"kernel_size": (2, 3), "stride": (1, 3), "padding": (1, 2), "dilation": (3, 1)}
CONVOLUTIONS = [
    *(
        _convolution(_CONVOLUTIONS[d], _SIZES[d], name, options)
        for d in _CONVOLUTIONS
        for name, options in _OPTIONS.items()
    ),
    *(
        _convolution(_TRANSPOSED[d], _PLACES[d], name, options)
        for d in _TRANSPOSED
        for name, options in _TRANSPOSED_OPTIONS.items()
    ),
    Case("Conv2d uneven", lambda: nn.Conv2d(4, 6, **_UNEVEN, groups=2), of_shape(4, 9, 8)),
    Case("ConvTranspose2d uneven", lambda: nn.ConvTranspose2d(4, 6, **_UNEVEN, groups=2), of_shape(4, 5, 4)),
    Case(
        "ConvTranspose2d to a given size",
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2),
        of_shape(4, 3, 3),
        lambda layer, batch: layer(batch["x"], output_size=(8, 7)),
    ),
]

# --- recurrent layers --------------------------------------------------------------------------------------------

LENGTHS = torch.tensor([4, 7, 1, 7, 3, 5])


def _all_of(outputs: Any, batch_first: bool) -> tuple[Tensor, ...]:
    """The output and the final states, samples first."""
    output, states = outputs
    states = states if isinstance(states, tuple) else (states,)
    if not batch_first:
        output = output.transpose(0, 1)
    return (output, *(state.transpose(0, 1) for state in states))


def _run(layer: nn.RNNBase, batch: Batch) -> tuple[Tensor, ...]:
    x = batch["x"] if layer.batch_first else batch["x"].transpose(0, 1)
    return _all_of(layer(x), layer.batch_first)


def _run_output(layer: nn.RNNBase, batch: Batch) -> Tensor:
    return _run(layer, batch)[0]


def _run_final(layer: nn.RNNBase, batch: Batch) -> Tensor:
    return _run(layer, batch)[1]


def _run_cell(layer: nn.RNNBase, batch: Batch) -> Tensor:
    return _run(layer, batch)[2]


def _run_from(layer: nn.RNNBase, batch: Batch) -> tuple[Tensor, ...]:
    states = tuple(batch[name].transpose(0, 1).contiguous() for name in ("h", "c") if name in batch)
    x = batch["x"] if layer.batch_first else batch["x"].transpose(0, 1)
    return _all_of(layer(hx=states if len(states) > 1 else states[0], input=x), layer.batch_first)


def _packed(given: bool, sort: bool) -> Callable[[nn.RNNBase, Batch], tuple[Tensor, ...]]:
    def run(layer: nn.RNNBase, batch: Batch) -> tuple[Tensor, ...]:
        packed = pack_padded_sequence(batch["x"], batch["lengths"], batch_first=True, enforce_sorted=sort)
        states = tuple(batch[name].transpose(0, 1).contiguous() for name in ("h", "c") if name in batch)
        output, final = layer(packed, states if len(states) > 1 else states[0]) if given else layer(packed)
        return _all_of((pad_packed_sequence(output, batch_first=True)[0], final), True)

    return run


def _sequences(layers: int = 1, directions: int = 1, width: int = 5, cell: int = 0, sort: bool = False) -> Any:
    def batch() -> Batch:
        lengths = LENGTHS.sort(descending=True).values if sort else LENGTHS
        made = {"x": torch.randn(SAMPLES, 7, 3), "lengths": lengths}
        made["h"] = torch.randn(SAMPLES, layers * directions, width)
        return made | ({"c": torch.randn(SAMPLES, layers * directions, cell)} if cell else {})

    return batch


def _recurrent(kind: type[nn.RNNBase], **options: Any) -> Callable[[], nn.Module]:
    return lambda: kind(3, 5, **options)


def _of_kind(name: str, kind: type[nn.RNNBase], **mode: Any) -> list[Case]:
    cell = 5 if kind is nn.LSTM else 0
    first = {"batch_first": True}
    deep = {"num_layers": 3, "bidirectional": True}
    return [
        Case(f"{name}", _recurrent(kind, **mode), of_shape(7, 3), _run),
        Case(f"{name} output only", _recurrent(kind, **mode, **first), of_shape(7, 3), _run_output),
        Case(f"{name} final state only", _recurrent(kind, num_layers=2, **mode), of_shape(7, 3), _run_final),
        Case(f"{name} without bias", _recurrent(kind, bias=False, num_layers=2, **mode), of_shape(7, 3), _run),
        Case(f"{name} deep both ways", _recurrent(kind, **deep, **mode), of_shape(7, 3), _run),
        Case(f"{name} begun", _recurrent(kind, **deep, **first, **mode), _sequences(3, 2, cell=cell), _run_from),
        Case(f"{name} packed", _recurrent(kind, **deep, **mode), _sequences(3, 2, cell=cell), _packed(False, False)),
        Case(f"{name} packed begun", _recurrent(kind, **mode), _sequences(cell=cell), _packed(True, False)),
        Case(
            f"{name} packed in order",
            _recurrent(kind, bidirectional=True, **mode),
            _sequences(1, 2, cell=cell, sort=True),
            _packed(True, True),
        ),
    ]


def _projected(**options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.LSTM(3, 5, proj_size=2, **options)


_NOT_FUSED = "LSTM with projections is not supported with oneDNN"

RECURRENT = [
    *_of_kind("RNN", nn.RNN),
    *_of_kind("RNN relu", nn.RNN, nonlinearity="relu"),
    *_of_kind("GRU", nn.GRU),
    *_of_kind("LSTM", nn.LSTM),
    Case("LSTM final cell only", _recurrent(nn.LSTM, num_layers=2), of_shape(7, 3), _run_cell),
    Case("LSTM of one step", _recurrent(nn.LSTM, bidirectional=True), of_shape(1, 3), _run),
    Case("LSTM projected", _projected(), of_shape(7, 3), _run, _NOT_FUSED),
    Case("LSTM projected without bias", _projected(bias=False), of_shape(7, 3), _run_final, _NOT_FUSED),
    Case(
        "LSTM projected deep both ways",
        _projected(num_layers=2, bidirectional=True, batch_first=True),
        _sequences(2, 2, 2, 5),
        _run_from,
        _NOT_FUSED,
    ),
    Case(
        "LSTM projected packed",
        _projected(num_layers=2, bidirectional=True),
        _sequences(2, 2, 2, 5),
        _packed(True, False),
        _NOT_FUSED,
    ),
]

# --- attention ---------------------------------------------------------------------------------------------------


def _pair(source: int = 4, value: int | None = None, length: int = 5) -> Callable[[], Batch]:
    def batch() -> Batch:
        made = {"x": torch.randn(SAMPLES, 3, 4), "key": torch.randn(SAMPLES, length, source)}
        made["value"] = made["key"] if value is None else torch.randn(SAMPLES, length, value)
        return made | {"absent": torch.arange(length) >= torch.randint(1, length + 1, (SAMPLES, 1))}

    return batch


def _attend(*names: str, mask: bool = False, absent: bool = False, **options: Any) -> Callable[..., Any]:
    def call(layer: nn.MultiheadAttention, batch: Batch) -> Tensor | tuple[Tensor, ...]:
        x = [batch[name] if layer.batch_first else batch[name].transpose(0, 1) for name in names]
        x = x * 3 if len(x) == 1 else x
        times = [tensor.shape[1 if layer.batch_first else 0] for tensor in x]
        added = dict(options)
        if mask:
            added["attn_mask"] = torch.ones(times[0], times[1], dtype=torch.bool).triu(1)
        if absent:
            added["key_padding_mask"] = batch["absent"]
        output, weights = layer(*x, **added)
        output = output if layer.batch_first else output.transpose(0, 1)
        return output if weights is None else (output, weights)

    return call


def _attention(**options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.MultiheadAttention(4, 2, **options)


def _masked_per_head(layer: nn.MultiheadAttention, batch: Batch) -> Tensor:
    mask = batch["mask"].repeat_interleave(2, dim=0)
    return layer(*[batch["x"]] * 3, attn_mask=mask, need_weights=False)[0]


_FIRST = {"batch_first": True}
ATTENTION = [
    Case("attention", _attention(**_FIRST), _pair(), _attend("x")),
    Case("attention time first", _attention(), _pair(), _attend("x")),
    Case("attention without weights", _attention(**_FIRST), _pair(), _attend("x", need_weights=False)),
    Case("attention without bias", _attention(bias=False, **_FIRST), _pair(), _attend("x")),
    Case("attention weights per head", _attention(**_FIRST), _pair(), _attend("x", average_attn_weights=False)),
    Case("cross attention", _attention(), _pair(), _attend("x", "key", "key")),
    Case("cross attention of three", _attention(**_FIRST), _pair(value=4), _attend("x", "key", "value")),
    Case("cross attention of equals", _attention(), _pair(value=4, length=3), _attend("x", "key", "value")),
    Case(
        "separate projections",
        _attention(kdim=3, vdim=6, **_FIRST),
        _pair(3, 6),
        _attend("x", "key", "value", absent=True),
    ),
    Case(
        "causal attention",
        _attention(**_FIRST),
        _pair(),
        _attend("x", mask=True, need_weights=False, is_causal=True),
    ),
    Case("masked attention", _attention(), _pair(length=3), _attend("x", mask=True, absent=True)),
    Case(
        "masked cross attention",
        _attention(**_FIRST),
        _pair(),
        _attend("x", "key", "key", mask=True, absent=True, need_weights=False),
    ),
    Case(
        "attention with added keys",
        _attention(add_bias_kv=True, add_zero_attn=True, **_FIRST),
        _pair(),
        _attend("x", "key", "key", mask=True, absent=True),
    ),
    Case(
        "masked per head",
        _attention(**_FIRST),
        lambda: {"x": torch.randn(SAMPLES, 3, 4), "mask": torch.randn(SAMPLES, 3, 3)},
        _masked_per_head,
    ),
]

# --- one step of a recurrent layer -------------------------------------------------------------------------------


def _one_step(layer: nn.RNNCellBase, batch: Batch) -> tuple[Tensor, ...]:
    states = (batch["h"], batch["c"]) if isinstance(layer, nn.LSTMCell) else batch["h"]
    output = layer(batch["x"], states)
    return output if isinstance(output, tuple) else (output,)


def _steps(layer: nn.RNNCellBase, batch: Batch) -> Tensor:
    states = None
    for step in batch["x"][:, None].expand(-1, 3, -1).unbind(1):
        states = layer(step, states)
    return states[0] if isinstance(states, tuple) else states


def _states() -> Batch:
    return {"x": torch.randn(SAMPLES, 3), "h": torch.randn(SAMPLES, 4), "c": torch.randn(SAMPLES, 4)}


CELLS = [
    case
    for kind, options in ((nn.RNNCell, {}), (nn.RNNCell, {"nonlinearity": "relu"}), (nn.LSTMCell, {}), (nn.GRUCell, {}))
    for case in (
        Case(
            f"{kind.__name__} {options}", lambda kind=kind, options=options: kind(3, 4, **options), _states, _one_step
        ),
        Case(
            f"{kind.__name__} {options} steps",
            lambda kind=kind, options=options: kind(3, 4, **options),
            _states,
            _steps,
        ),
        Case(
            f"{kind.__name__} {options} bare",
            lambda kind=kind, options=options: kind(3, 4, False, **options),
            _states,
            _steps,
        ),
    )
]

# --- weights that no module of torch multiplies by ---------------------------------------------------------------


class Bare(nn.Module):
    """Parameters ``w0``, ``w1`` ... of some shapes, and a function of them."""

    def __init__(self, function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        for place, shape in enumerate(shapes):
            self.register_parameter(f"w{place}", nn.Parameter(torch.randn(shape)))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parameters())


def _bare(name: str, batch: Callable[[], Batch], function: Callable[..., Tensor], *shapes: tuple[int, ...]) -> Case:
    return Case(name, lambda: Bare(function, *shapes), batch)


class Causal(nn.Conv1d):
    """Pads the past, then calls its parent."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (4, 0)))


class Scaled(nn.Linear):
    """Calls the function of its parent by another way."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * torch.addmm(self.bias, x.flatten(0, -2), self.weight.t()).unflatten(0, x.shape[:-1])


class ScaledWords(nn.Embedding):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.embedding_dim**0.5


class Shown(nn.LSTM):
    """Returns less than its parent."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0].tanh()


class ToItself(nn.MultiheadAttention):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x, x, need_weights=False)[0] + x


FUNCTIONS = [
    _bare("F.linear", of_shape(3, 5), functional.linear, (4, 5)),
    _bare("F.linear of a transpose", of_shape(3, 5), lambda x, w: functional.linear(x, w.t()), (5, 4)),
    _bare("x @ W", of_shape(3, 5), lambda x, w: x @ w, (5, 4)),
    _bare("x.matmul(W.T)", of_shape(5), lambda x, w: x.matmul(w.T), (4, 5)),
    _bare("W @ x", of_shape(5, 3), lambda x, w: w @ x, (4, 5)),
    _bare("torch.mm", of_shape(5), torch.mm, (5, 4)),
    _bare("torch.addmm", of_shape(5), lambda x, w, b: torch.addmm(b[0], x, w), (5, 4), (1, 4)),
    _bare("einsum", of_shape(3, 5), lambda x, w: torch.einsum("nti, oi -> nto", x, w), (4, 5)),
    _bare("einsum other way", of_shape(5, 3), lambda x, w: torch.einsum("io,nit->nto", w, x), (5, 4)),
    _bare("heads by einsum", of_shape(3, 5), lambda x, w: torch.einsum("nti,ihk->nthk", x, w), (5, 2, 3)),
    _bare("heads to the input", of_shape(2, 3), lambda x, w: torch.einsum("nhk,ohk->no", x, w), (5, 2, 3)),
    _bare("rows of W", of_shape(3, 5), lambda x, w: functional.linear(x, w[:3]) * functional.linear(x, w[1:]), (4, 5)),
    _bare("chunks of W", of_shape(3, 5), lambda x, w: sum(functional.linear(x, part) for part in w.chunk(2)), (4, 5)),
    _bare("F.embedding", _indices(5), functional.embedding, (7, 4)),
    _bare("F.conv1d", of_shape(4, 9), lambda x, w: functional.conv1d(x, w, stride=2, padding=1), (6, 4, 3)),
    _bare("F.conv2d", of_shape(4, 5, 6), lambda x, w: functional.conv2d(x, w, padding="same", groups=2), (6, 2, 3, 3)),
    _bare(
        "F.conv_transpose2d",
        of_shape(4, 3, 3),
        lambda x, w: functional.conv_transpose2d(x, w, None, 2, 1),
        (4, 3, 3, 3),
    ),
    _bare("F.bilinear", of_shape(3, 5), lambda x, w: functional.bilinear(x, x.sin(), w), (4, 5, 5)),
    Case("causal convolution", lambda: Causal(3, 4, 3, dilation=2), of_shape(3, 7)),
    Case("scaled embedding", lambda: ScaledWords(7, 4), _indices(5)),
    Case("subclass of LSTM", lambda: Shown(3, 5, batch_first=True), of_shape(7, 3)),
    Case("subclass of attention", lambda: ToItself(4, 2, batch_first=True), of_shape(5, 4)),
]

GRADIENT_ONLY = [
    _bare("x @ stack", of_shape(2, 3, 5), lambda x, w: x @ w, (2, 5, 4)),
    _bare("torch.bmm", of_shape(5), lambda x, w: torch.bmm(x.expand(2, -1, -1), w).sum(0), (2, 5, 4)),
    _bare("torch.baddbmm", of_shape(5), lambda x, w: torch.baddbmm(x[:, :4], x.expand(2, -1, -1), w).sum(0), (2, 5, 4)),
    _bare("stack @ x", of_shape(2, 5, 3), lambda x, w: w @ x, (2, 4, 5)),
    _bare("an expert by its number", of_shape(5), lambda x, w: functional.linear(x, w[torch.tensor(1)]), (2, 4, 5)),
    _bare("heads back by einsum", of_shape(2, 3), lambda x, w: torch.einsum("nhk,hko->no", x, w), (2, 3, 5)),
    _bare(
        "experts one by one",
        of_shape(5),
        lambda x, w: functional.linear(x, w[0]) * functional.linear(x, w[1]),
        (2, 4, 5),
    ),
    _bare("another shape", of_shape(3, 5), lambda x, w: functional.linear(x, w.view(4, 5)), (2, 2, 5)),
    _bare(
        "columns of W",
        of_shape(3, 4),
        lambda x, w: functional.linear(x[..., :2], w[:, :2]) + x @ w[:, 1:].T[:4],
        (4, 5),
    ),
    _bare("masked", of_shape(3, 5), lambda x, w: functional.linear(x, w.tril() * 2), (4, 5)),
    _bare("two weights joined", of_shape(5), lambda x, v, w: functional.linear(x, torch.cat([v, w])), (4, 5), (3, 5)),
    _bare("product of two weights", of_shape(5), lambda x, v, w: x @ (v @ w), (5, 2), (2, 4)),
    _bare("cosine", of_shape(5), lambda x, w: functional.linear(x, functional.normalize(w)), (4, 5)),
    _bare("changed in place", of_shape(5), lambda x, w: functional.linear(x, (w * 2).div_(3)), (4, 5)),
    _bare("indexed", _indices(5), lambda x, w: w[x], (7, 4)),
    _bare("added", of_shape(3, 5), lambda x, w: x + w, (3, 5)),
    _bare("added in place", of_shape(3, 5), lambda x, w: x.clone().add_(w.sin()), (3, 5)),
    _bare("multiplied", of_shape(3, 5), lambda x, w: x * w, (3, 5)),
    _bare("distances", of_shape(5), torch.cdist, (4, 5)),
    _bare("joined to the input", of_shape(3, 5), lambda x, w: torch.cat([x, w.expand(len(x), -1, -1)], 1), (2, 5)),
    Case("linear another way", lambda: Scaled(5, 4), of_shape(5)),
    Case(
        "linear of nothing but numbers",
        lambda: Bare(lambda x, w: functional.linear(torch.ones(len(x), 5).to(x), w) * x[:, :4], (4, 5)),
        of_shape(5),
    ),
    _bare(
        "a table that all samples share",
        of_shape(3, 4),
        lambda x, w: x + w[torch.arange(3)] / torch.tensor(2.0).to(w),
        (5, 4),
    ),
    Case("bags of largest", lambda: nn.EmbeddingBag(7, 4, mode="max"), _indices(5)),
]

CASES = [*LINEAR, *CONVOLUTIONS, *RECURRENT, *ATTENTION, *CELLS, *FUNCTIONS]

# --- layers that draw random numbers -----------------------------------------------------------------------------

DROPPING = [
    *(
        Case(f"{kind.__name__} {name}", _recurrent(kind, num_layers=3, dropout=0.4, **options), batch, call)
        for kind in (nn.RNN, nn.GRU, nn.LSTM)
        for name, options, batch, call in [
            ("with dropout", {"bidirectional": True}, of_shape(7, 3), _run),
            ("with dropout, samples first", {"batch_first": True}, of_shape(7, 3), _run),
            ("with dropout, packed", {"bidirectional": True}, _sequences(), _packed(False, False)),
        ]
    ),
    Case("attention with dropout", _attention(dropout=0.4, **_FIRST), _pair(), _attend("x")),
    Case("fast attention with dropout", _attention(dropout=0.4), _pair(), _attend("x", need_weights=False)),
    Case(
        "separate projections with dropout",
        _attention(kdim=3, vdim=6, dropout=0.4, add_bias_kv=True),
        _pair(3, 6),
        _attend("x", "key", "value", absent=True),
    ),
]
