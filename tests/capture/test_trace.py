"""Rows are traced to samples in models that AutoSpec has never seen; each against its group's own backward pass."""

import copy
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from references import full_spectrum
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint

import autospec
from autospec import AutoSpecError, AutoSpecWarning, SpectralRecorder
from autospec.capture.trace_layout import BY_DATA, FOLDED, MIXED, NOBODY, SAMPLE_FIRST, SHARED, STEP_FIRST, trace_of


class Sorted(nn.Module):
    """Sorts the batch by length before it packs it, and puts the result back in order."""

    lengths = torch.tensor([2, 7, 4, 6, 3, 5])

    def __init__(self):
        super().__init__()
        self.rnn, self.head = nn.LSTM(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        lengths, order = self.lengths.sort(descending=True)
        _, (hidden, _) = self.rnn(pack_padded_sequence(x[order], lengths, batch_first=True))
        return self.head(hidden[-1][order.argsort()])


class SharedPositions(nn.Module):
    """An embedding of positions that all samples share, of which there are as many."""

    def __init__(self):
        super().__init__()
        self.words, self.positions = nn.Embedding(9, 4), nn.Embedding(6, 4)
        self.mixing, self.head = nn.TransformerEncoderLayer(4, 2, 8, 0.0, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.mixing(self.words(x) + self.positions(torch.arange(x.shape[1]))).mean(1))


class Mixing(nn.Module):
    """Puts samples in another order by a matrix, and back; the first batch leaves them as they are."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.order = nn.Linear(4, 4), nn.Linear(4, 2), torch.arange(5)

    def forward(self, x):
        matrix = torch.eye(len(x), dtype=x.dtype)[self.order]
        return self.second(matrix.T @ self.first(matrix @ x).tanh())


class PositionByPosition(nn.Module):
    """Nothing here mixes positions, so that steps might be samples, but for what is shared by all samples."""

    def __init__(self):
        super().__init__()
        self.words, self.positions, self.head = nn.Embedding(9, 4), nn.Embedding(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head((self.words(x) + self.positions(torch.arange(x.shape[1]))).tanh())


class Transposed(nn.Module):
    """Gives as many features as there are samples, and those first."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 5)

    def forward(self, x):
        return self.second(self.first(x).tanh()).T


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.enter, self.rnn, self.head = nn.Linear(3, 4), nn.GRU(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.rnn(self.enter(x.transpose(0, 1)).tanh())[0]).transpose(0, 1)


class FoldedFrames(nn.Module):
    """Frames of a film go through a convolution as if each were a sample."""

    def __init__(self):
        super().__init__()
        self.image, self.frame = nn.Conv2d(1, 3, 3), nn.Linear(3, 4)
        self.rnn, self.head = nn.LSTM(4, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x):
        features = self.image(x.flatten(0, 1)[:, None]).mean((2, 3))
        return self.head(self.rnn(self.frame(features).view(*x.shape[:2], -1))[0][:, -1])


class Windows(nn.Module):
    """Attention within windows of an image, which lie in the batch dimension."""

    def __init__(self):
        super().__init__()
        self.projection, self.out, self.head = nn.Linear(4, 12), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        windows = x.view(len(x), 2, 4, 2, 4, 4).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, 4)
        q, k, v = self.projection(torch.roll(windows, 1, 1)).chunk(3, -1)
        return self.head(self.out((q @ k.mT).softmax(-1) @ v).view(len(x), -1, 4).mean(1))


class Experts(nn.Module):
    """Every position goes to the expert that a gate chooses."""

    def __init__(self):
        super().__init__()
        self.gate, self.head = nn.Linear(4, 3), nn.Linear(4, 2)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        flat = x.flatten(0, 1)
        weights = self.gate(flat).softmax(-1)
        out = torch.zeros_like(flat)
        for place, expert in enumerate(self.experts):
            chosen = (weights.argmax(-1) == place).nonzero()[:, 0]
            if len(chosen):
                out = out.index_add(0, chosen, expert(flat[chosen]) * weights[chosen, place, None])
        return self.head(out.view_as(x).mean(1))


class LanguageModel(nn.Module):
    """Gives one row of logits for each position, and a loss beside them."""

    def __init__(self, gives):
        super().__init__()
        self.words, self.rnn = nn.Embedding(9, 4), nn.GRU(4, 4, batch_first=True)
        self.head, self.gives = nn.Linear(4, 7), gives

    def forward(self, x):
        logits = self.head(self.rnn(self.words(x))[0])
        return {"rows": logits.flatten(0, 1), "loss and logits": {"loss": logits.mean(), "logits": logits}}[self.gives]


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4)), nn.Linear(4, 2)
        self.reentrant = reentrant

    def forward(self, x):
        x = x.transpose(0, 1).clone().requires_grad_()
        return self.head(checkpoint(self.body, x, use_reentrant=self.reentrant)).transpose(0, 1)


class Packs(nn.Module):
    """Gives a packed sequence."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(3, 4, batch_first=True)

    def forward(self, x):
        packed = pack_padded_sequence(x, torch.tensor([3, 5, 1, 4]), batch_first=True, enforce_sorted=False)
        return self.rnn(packed)[0]


def _losses(output):
    output = output["logits"] if isinstance(output, dict) else output
    return (output.sin() + output.square() / 2).flatten(1).sum(1)


def _of_rows(output):
    return (output.sin() + output.square() / 2).view(4, 5, -1).flatten(1).sum(1)


def _of_packed(output):
    rows, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True)
    return (rows.sin() + rows.square() / 2).flatten(1).sum(1)


def _image(*shape):
    return torch.randn(*shape, dtype=torch.float64)


FOREIGN = {
    "sorted by length": (Sorted, lambda: _image(6, 7, 3), _losses, {"rnn.weight_ih_l0": BY_DATA}),
    "shared positions": (SharedPositions, lambda: torch.randint(9, (6, 6)), _losses, {"positions": SHARED}),
    "shared positions alone": (
        PositionByPosition,
        lambda: torch.randint(9, (6, 6)),
        _losses,
        {"words": SAMPLE_FIRST, "positions": SHARED},
    ),
    "transposed": (Transposed, lambda: _image(5, 3), lambda output: _losses(output.T), {"first": SAMPLE_FIRST}),
    "time first": (TimeFirst, lambda: _image(5, 7, 3), _losses, {"enter": STEP_FIRST, "head": STEP_FIRST}),
    "as many steps": (TimeFirst, lambda: _image(6, 6, 3), _losses, {"enter": STEP_FIRST, "head": STEP_FIRST}),
    "frames": (FoldedFrames, lambda: _image(4, 5, 6, 6), _losses, {"image": FOLDED, "frame": FOLDED}),
    "windows": (Windows, lambda: _image(3, 8, 8, 4), _losses, {"projection": FOLDED, "out": FOLDED}),
    "experts": (Experts, lambda: _image(5, 4, 4), _losses, {"experts.0": BY_DATA, "head": SAMPLE_FIRST}),
    "rows of logits": (lambda: LanguageModel("rows"), lambda: torch.randint(9, (4, 5)), _of_rows, {}),
    "loss and logits": (lambda: LanguageModel("loss and logits"), lambda: torch.randint(9, (4, 5)), _losses, {}),
    "checkpointed": (lambda: Checkpointed(False), lambda: _image(3, 5, 4), _losses, {"head": STEP_FIRST}),
    "reentrant": (lambda: Checkpointed(True), lambda: _image(3, 5, 4), _losses, {"body.0": STEP_FIRST}),
    "packed": (Packs, lambda: _image(4, 5, 3), _of_packed, {}),
}


def _labels(x):
    return torch.tensor([0, 0, 1, -1, 1, 0, 1])[: len(x)]


def _alone(model, x, losses, labels, group):
    """The spectra of one group's own gradient, by layer: the whole batch forward, the group's losses backward."""
    model = copy.deepcopy(model)
    model.zero_grad()
    losses(model(x))[labels == group].sum().backward()
    return {
        name.removesuffix(".weight"): full_spectrum(parameter.grad.flatten(1))
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and parameter.grad is not None
    }


def _recorded(model, x, losses, labels, recorder):
    with recorder.batch(labels):
        losses(model(x)).sum().backward()
    recorder.end_epoch()


@pytest.mark.filterwarnings("ignore:layer 'positions'")
@pytest.mark.parametrize("name", FOREIGN)
def test_every_group_has_the_spectra_of_its_own_backward_pass(name):
    build, inputs, losses, hows = FOREIGN[name]
    torch.manual_seed(1)
    model = build().double()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum")
    for _ in range(2):
        x = inputs()
        _recorded(model, x, losses, _labels(x), recorder)
        for group in (0, 1):
            expected = _alone(model, x, losses, _labels(x), group)
            for layer in recorder.layers:
                values = recorder.table[f"layers/{layer}/gradient"][-1, 1 + group]
                if hows.get(layer) == SHARED:
                    assert np.isnan(values).all()
                elif layer in expected:
                    assert abs(values - expected[layer]).max() <= 1e-10 * max(expected[layer][0], 1.0)
    table = autospec.check(model, x)
    assert {layer: table[layer].traced for layer in hows} == hows


def test_what_follows_from_shapes_holds_at_other_lengths():
    model = TimeFirst().double()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum")
    for n, steps in ((5, 7), (3, 7), (4, 9), (7, 7), (1, 5), (2, 1)):
        x = _image(n, steps, 3)
        _recorded(model, x, _losses, _labels(x), recorder)
        expected = _alone(model, x, _losses, _labels(x), 0)
        for layer in recorder.layers:
            assert abs(recorder.table[f"layers/{layer}/gradient"][-1, 1] - expected[layer]).max() < 1e-10
    assert recorder._listening.engine.tracer.passes == 6  # three kinds of graph, each proved once


@pytest.mark.parametrize("name", ["sorted by length", "experts"])
def test_what_depends_on_data_is_traced_at_every_batch(name):
    build, inputs, losses, _ = FOREIGN[name]
    model = build().double()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum")
    passes = []
    for _ in range(3):
        x = inputs()
        _recorded(model, x, losses, _labels(x), recorder)
        passes.append(recorder._listening.engine.tracer.passes)
    assert passes[2] - passes[1] == passes[1] - passes[0] > 0


def test_more_samples_than_one_pass_has_factors_for():
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x = _image(70, 3)
    labels = torch.arange(70) % 3 - 1
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum")
    _recorded(model, x, _losses, labels, recorder)
    assert abs(recorder.table["layers/0/gradient"][0, 2] - _alone(model, x, _losses, labels, 1)["0"]).max() < 1e-10


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_traced_in_every_precision(dtype):
    model = TimeFirst().to(torch.float32)
    x = torch.randn(40, 3, 3)
    with SpectralRecorder(model, groups=["a", "b"]) as recorder:
        with recorder.batch(torch.arange(40) % 2), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            model(x).float().square().sum().backward()
        assert {trace.how for trace in recorder._listening.engine.tracer.last.parts.values()} == {
            SAMPLE_FIRST,
            STEP_FIRST,
        }


def test_batch_norm_is_traced_with_its_statistics_held_fixed():
    """Its group gradient is what comes through the group's rows, and they are found though every row moves all."""
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 3, 3), nn.InstanceNorm1d(3), nn.Flatten()
    ).double()
    x = _image(5, 2, 9)
    assert {row.traced for row in autospec.check(model, x) if row.kind == "Conv1d" and row.recorded} == {SAMPLE_FIRST}
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum")
    _recorded(model, x, _losses, _labels(x), recorder)
    assert np.isfinite(recorder.table["layers/0/gradient"]).all()


def test_a_mean_over_the_batch_leaves_nothing_to_tell_apart():
    class Centred(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

        def forward(self, x):
            hidden = self.first(x)
            return self.second(hidden - hidden.mean(0))

    model = Centred().double()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    with pytest.warns(AutoSpecWarning, match="layer 'first': called with rows that several of the 5 samples share"):
        _recorded(model, _image(5, 3), _losses, [0, 1, 0, 1, 1], recorder)
    assert np.isnan(recorder.table["layers/first/gradient"][0, 1:]).all()
    assert np.isfinite(recorder.table["layers/second/gradient"]).all()


def test_a_model_that_gives_similarities_of_all_samples_is_traced_through_what_else_it_gives():
    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.image, self.text = nn.Linear(4, 5), nn.Linear(3, 5)

        def forward(self, x):
            image, text = self.image(x[:, :4]), self.text(x[:, 4:])
            return {"similarity": image @ text.T, "image": image, "text": text}

    table = autospec.check(Pairs(), torch.randn(6, 7))
    assert table["image"].traced == table["text"].traced == SAMPLE_FIRST


@pytest.mark.parametrize("layers", [["!positions"], ["words", "head"]])
def test_layers_called_one_by_one_are_traced_through_those_that_come_after(layers):
    """Here the last layer's steps are samples, which the recurrent layer before it tells."""
    parts = {"words": nn.Embedding(9, 4), "positions": nn.Embedding(6, 4), "rnn": nn.GRU(4, 4), "head": nn.Linear(4, 2)}
    model = nn.ModuleDict(parts).double()

    def run(words):
        entered = model["words"](words) + model["positions"](torch.arange(6))
        return model["head"](model["rnn"](entered.transpose(0, 1))[0]).square().sum()

    words = torch.randint(9, (6, 6))
    recorder = SpectralRecorder(model, groups=["a", "b"], layers=layers)
    with recorder.batch([0, 1, 0, 1, 0, 1]):
        run(words).backward()
    recorder.end_epoch()
    model.zero_grad()
    run(words[::2]).backward()
    for layer in ("words", "head"):
        expected = full_spectrum(model[layer].weight.grad)
        assert abs(recorder.table[f"layers/{layer}/gradient"][0, 1] - expected).max() < 1e-10


def test_tracing_leaves_everything_as_it_was():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 3))
    x = torch.randn(8, 5)

    def left(record):
        net = copy.deepcopy(model)
        torch.manual_seed(3)
        if record:
            autospec.check(net, x)
            with SpectralRecorder(net, groups=["a"]).batch([0] * 8):
                net(x).square().sum().backward()
        else:
            net(x).square().sum().backward()
        return [torch.get_rng_state(), *(p.grad for p in net.parameters()), *net.buffers()]

    assert all(torch.equal(one, other) for one, other in zip(left(True), left(False), strict=True))


@pytest.mark.parametrize(
    ("output", "labels", "message"),
    [
        (lambda y: y, 2, "layer 'net' saw a batch of 6 samples, but 2 group labels were given: which of the rows"),
        (lambda y: y.mean(0), 5, "5 group labels were given, but the model returned .3,., and no dimension"),
    ],
)
def test_a_batch_whose_samples_cannot_be_found_is_an_error_that_says_what_to_return(output, labels, message):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Linear(4, 3)

        def forward(self, x):
            return output(self.net(x))

    model = Net()
    recorder = SpectralRecorder(model, groups=["a"])
    with pytest.raises(AutoSpecError, match=message), recorder.batch([0] * labels):
        model(torch.randn(6, 4)).sum().backward()


def test_a_model_that_gives_its_loss_is_traced_from_its_last_layer():
    class GivesLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 3)

        def forward(self, x):
            return F.cross_entropy(self.head(self.body(x).tanh()), torch.zeros(len(x), dtype=torch.int64))

    table = autospec.check(GivesLoss(), torch.randn(6, 4))
    assert table["body"].traced == SAMPLE_FIRST
    assert table.read == "layer 'head' (6, 3): dimension 0"


def test_a_gradient_past_what_the_model_gives_is_an_error():
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.shown, self.hidden = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x):
            self.extra = self.hidden(x)
            return self.shown(x)

    model = Hidden()
    recorder = SpectralRecorder(model, groups=["a", "b"])
    message = "layer 'hidden': its adjoint does not come through what the model returned.* return from the model"
    with pytest.raises(AutoSpecError, match=message), recorder.batch([0, 1, 1]):
        (model(torch.randn(3, 4)).sum() + model.extra.sum()).backward()


def test_the_table_lists_every_layer_and_what_is_left_out():
    model = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2), nn.Linear(2, 2))
    model[3].requires_grad_(False)
    recorder = SpectralRecorder(model, groups=["a"], layers=["!2"])
    table = recorder.check(torch.randn(5, 4))
    assert [(row.name, row.recorded, row.left_out) for row in table if row.shape.count("x")] == [
        ("0", "by group", ""),
        ("2", "", "not chosen by layers=..."),
        ("3", "", "frozen"),
    ]
    assert table["1"].left_out == "one dimension"
    assert re.split(" {2,}", str(table).splitlines()[0])[-1] == "left out because"
    assert "samples: output (5, 2): dimension 0" in str(table)


def test_the_table_says_of_a_tied_weight_where_it_is_recorded():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Tanh(), nn.Linear(4, 7))
    model[2].weight = model[0].weight
    words = torch.randint(7, (5, 3))
    for table in (autospec.check(model, words), SpectralRecorder(model, groups=["a"]).check(words)):
        assert (table["0"].recorded, table["0"].left_out) == ("by group", "")
        assert (table["2"].recorded, table["2"].left_out) == ("", "the same weight as '0', recorded there")


@pytest.mark.parametrize(
    ("batch", "message"),
    [((), "at least one tensor"), (torch.randn(1, 4), "at least two samples")],
)
def test_a_batch_that_shows_nothing(batch, message):
    with pytest.raises(AutoSpecError, match=message):
        autospec.check(nn.Sequential(nn.Linear(4, 3)), batch)


@pytest.mark.parametrize(
    ("owners", "how"),
    [
        ([[0, 0], [1, 1], [2, 2]], SAMPLE_FIRST),
        ([[0, 1, 2], [0, 1, 2]], STEP_FIRST),
        ([[0], [0], [1], [1], [2], [2]], FOLDED),
        ([[0], [1], [2], [0], [1], [2]], FOLDED),
        ([[1, 1], [0, 0], [2, 2]], BY_DATA),
        ([[0, 0], [1, MIXED], [2, 2]], SHARED),
        ([[NOBODY, 0], [1, NOBODY], [NOBODY, NOBODY]], SAMPLE_FIRST),
    ],
)
def test_a_layout_follows_from_whose_the_rows_are(owners, how):
    assert trace_of(torch.tensor(owners), 3).how == how


def test_a_matrix_that_puts_samples_in_another_order_later_on():
    model, x = Mixing().double(), _image(5, 4)
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum")
    for order in ([0, 1, 2, 3, 4], [4, 0, 3, 1, 2]):
        model.order = torch.tensor(order)
        _recorded(model, x, _losses, _labels(x), recorder)
        expected = _alone(model, x, _losses, _labels(x), 0)
        assert abs(recorder.table["layers/first/gradient"][-1, 1] - expected["first"]).max() < 1e-10


def test_products_of_attention_by_hand_are_traced_once():
    model = Windows().double()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum")
    passes = []
    for _ in range(5):
        _recorded(model, _image(3, 8, 8, 4), _losses, [0, 1, 1], recorder)
        passes.append(recorder._listening.engine.tracer.passes)
    assert passes == [2, 2, 2, 2, 2]
