import pytest
import torch
from torch import nn

from autospec import AutoSpecError, SpectralRecorder

N = 7
LABELS = [0, 1, 1, 0, -1, 1, 0]


class Reading(nn.Module):
    """An Elman network, whose states are read at every step."""

    def __init__(self, batch_first=True, **options):
        super().__init__()
        self.rnn, self.head = nn.RNN(3, 4, batch_first=batch_first, **options), nn.Linear(4, 2)
        self.batch_first = batch_first

    def forward(self, x):
        states, final = self.rnn(x if self.batch_first else x.transpose(0, 1))
        states = states if self.batch_first else states.transpose(0, 1)
        return self.head(states).sum(1) + self.head(final[-1])


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Linear(6, 6), nn.Linear(6, 6)
        self.up.weight = self.down.weight

    def forward(self, x):
        return self.up(torch.tanh(self.down(torch.tanh(self.down(x)))))


def _series(*shape):
    return torch.randn(N, *shape, dtype=torch.float64)


class First(nn.Module):
    """The states that a recurrent layer gives."""

    def forward(self, given):
        return given[0]


def _of_transformers():
    from transformers.pytorch_utils import Conv1D

    return nn.Sequential(Conv1D(5, 4), nn.Tanh(), nn.Linear(5, 3))


CASES = {
    "linear": (lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3, bias=False)), _series(5)),
    "linear at positions": (lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(inplace=True), nn.Flatten()), _series(3, 5)),
    "by columns": (_of_transformers, _series(2, 4)),
    "tied": (Tied, _series(6)),
    "conv1d": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3, 2, padding="valid"), nn.Tanh(), nn.Conv1d(4, 2, 2)),
        _series(2, 9),
    ),
    "conv2d": (
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1, groups=2), nn.ReLU(), nn.Conv2d(4, 1, 1)),
        _series(4, 6, 5),
    ),
    "conv3d": (lambda: nn.Conv3d(1, 2, 2, dilation=2), _series(1, 4, 5, 4)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), _series(2, 4, 5)),
    "same": (lambda: nn.Conv1d(2, 3, 3, padding="same", bias=False), _series(2, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(2, 4, 3, 2, 1, 1, groups=2), _series(2, 3, 4)),
    "rnn": (lambda: Reading(nonlinearity="relu", num_layers=2), _series(5, 3)),
    "rnn, time first": (lambda: Reading(batch_first=False, bias=False), _series(5, 3)),
    "batch norm": (
        lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Conv1d(4, 2, 2)),
        _series(2, 9),
    ),
    "heard by hooks": (
        lambda: nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 2, batch_first=True), First()),
        _series(4, 3),
    ),
}


def _recorded(model, inputs, engine, labels=LABELS, every=None):
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine, check_every=every)
    with recorder.batch(labels):
        model(inputs).square().flatten(1).sum(1).mean().backward()
    sums = {name: recorder._record.sums.layers[name].gradient.gradients() for name in recorder.layers}
    recorder.end_epoch()
    return sums


@pytest.mark.parametrize("engine", ["fused", "fast"])
@pytest.mark.parametrize("case", CASES)
def test_fused_products_are_those_of_hooks_and_add_up_to_the_gradient(case, engine):
    make, inputs = CASES[case]
    torch.manual_seed(1)
    model = make().double()
    expected = _recorded(model, inputs, "hooks")
    left = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    found = _recorded(model, inputs, engine)
    for name, matrices in expected.items():
        assert torch.allclose(found[name], matrices, atol=1e-12), name
    for name, weight in model.named_parameters():
        assert torch.allclose(weight.grad, left[name], atol=1e-12), name
    moved = {name for name, buffer in model.named_buffers() if not torch.equal(buffer, buffers[name])}
    assert moved == {name for name in buffers if case == "batch norm"}


def test_batch_norms_statistics_move_once_per_batch_however_often_rows_are_traced():
    models = [nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    inputs = torch.randn(N, 5)
    for _ in range(3):
        models[0](inputs)
        _recorded(models[1], inputs, "fused", every=1)
    assert torch.equal(models[0][1].running_mean, models[1][1].running_mean)
    assert int(models[1][1].num_batches_tracked) == 3


class Sorting(nn.Module):
    """Its layer sees the samples in another order than the batch's."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x):
        order = x[:, 0].argsort()
        return self.layer(x[order])[order.argsort()]


class Mixing(nn.Module):
    """Its layer sees sums over all samples."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x + x.mean(0)) + self.layer(x).mean(0)


@pytest.mark.parametrize("net", [Sorting, Mixing])
def test_rows_that_are_not_the_samples_one_by_one_are_refused(net):
    with pytest.raises(AutoSpecError, match="the rows of layer 'layer' are (by data|shared); use engine='hooks'"):
        _recorded(net(), torch.randn(N, 3), "fused")


def test_as_many_steps_as_samples_are_told_apart_by_the_trace():
    model = Reading(batch_first=False).double()
    inputs = torch.randn(N, N, 3, dtype=torch.float64)
    expected = _recorded(model, inputs, "per_group")
    for name, matrices in _recorded(model, inputs, "fused").items():
        assert torch.allclose(matrices, expected[name], atol=1e-12)


def test_what_cannot_be_fused_is_refused():
    recorder = SpectralRecorder(nn.Linear(3, 2), groups=["a", "b"], engine="fused")
    message = "engine='fused' does not take backward passes with create_graph=True"
    with pytest.raises(AutoSpecError, match=message), recorder.batch(LABELS):
        loss = recorder._listening.engine.model(torch.randn(N, 3)).square().mean()
        torch.autograd.grad(loss, list(recorder._listening.engine.model.parameters()), create_graph=True)
    with pytest.raises(AutoSpecError, match="7 group labels were given, but the model returned"):
        _recorded(nn.Linear(3, 2), torch.randn(N + 1, 3), "fused")


def test_autocast_gives_the_gradient_of_bfloat16_with_its_floor():
    model, inputs = nn.Sequential(nn.Linear(5, 4), nn.Conv1d(1, 2, 2)), torch.randn(N, 1, 5)
    recorder = SpectralRecorder(model, groups=["a", "b"], engine="fused")
    with recorder.batch(LABELS), torch.autocast("cpu", torch.bfloat16):
        model(inputs).square().mean().backward()
    recorder.end_epoch()
    assert model[0].weight.grad.dtype == torch.float32
    table = recorder.table
    assert table["layers/0/floor/gradient"][0, 0] > 1e-3 * table["layers/0/gradient"][0, 0, 0]
