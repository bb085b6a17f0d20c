"""Kinds of models and loops from other libraries' bug reports, against each group's own backward pass.

Named in comments: issues of Opacus, BackPACK, functorch and PyTorch, whose per-sample gradients failed on them.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from references import full_spectrum
from torch import nn

from autospec import AutoSpecError, SpectralRecorder

N = 6
LABELS = torch.tensor([0, 1, 1, 0, -1, 1])


def _numbers(*shape):
    return lambda: torch.randn(N, *shape, dtype=torch.float64)


def _tokens(*shape):
    return lambda: torch.randint(9, (N, *shape))


class Words(nn.Module):
    """One embedding called twice, with inputs of unlike lengths (Opacus 58)."""

    def __init__(self):
        super().__init__()
        self.target, self.context = nn.Embedding(9, 4), nn.Embedding(9, 4)

    def forward(self, x):
        one = self.target(x[:, :1])
        return torch.cat([(one * self.context(x[:, 1:2])).sum(-1), (one * self.context(x[:, 2:])).sum(-1)], 1)


class TiedTable(nn.Module):
    """An embedding and a linear layer of one weight (Opacus 413, PyTorch 80951)."""

    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 5), nn.Linear(5, 9)
        self.head.weight = self.table.weight

    def forward(self, x):
        return self.head(self.table(x[:, None]).tanh()).squeeze(1)


class OwnLinear(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(width, width))

    def forward(self, x):
        return torch.matmul(x, self.weight.t())


class TwoKinds(nn.Module):
    """Linear layers of two custom kinds, one of them used past its call as well (Opacus 511)."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), OwnLinear(4)

    def forward(self, x):
        return self.second(self.first(x).tanh()) + self.second.weight.sum(1)


class InPlace(nn.Module):
    """Columns of a layer's output are changed in place (functorch 381)."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        hidden = self.first(x)
        hidden[:, 0] += 3
        hidden[:, 1] *= 2
        return self.second(hidden.relu_())


class StepsFirst(nn.Module):
    """An embedding that is given time first (BackPACK 216)."""

    def __init__(self):
        super().__init__()
        self.table, self.rnn, self.head = nn.Embedding(9, 4), nn.GRU(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.rnn(self.table(x.T))[0]).transpose(0, 1)


class OneByOne(nn.Module):
    """Layers called once for each sample, on a vector."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        hidden = torch.zeros(len(x), 5, dtype=x.dtype)
        for place, one in enumerate(x):
            hidden[place] = self.first(one)
        return torch.stack([self.second(one.tanh()) for one in hidden])


class SparseTable(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.head = nn.Embedding(9, 4, sparse=True), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.table(x).mean(1))


class Codebook(nn.Module):
    """Distances to a weight's rows, and their mean by closeness."""

    def __init__(self):
        super().__init__()
        self.first, self.code, self.second = nn.Linear(4, 5), nn.Parameter(torch.randn(7, 5)), nn.Linear(5, 3)

    def forward(self, x):
        return self.second((-torch.cdist(self.first(x), self.code)).softmax(1) @ self.code)


class Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, adjoint):
        return -0.3 * adjoint


class Adversarial(nn.Module):
    """Gradients are turned around between two heads."""

    def __init__(self):
        super().__init__()
        self.body, self.task, self.domain = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 2)

    def forward(self, x):
        hidden = self.body(x).tanh()
        return torch.cat([self.task(hidden), self.domain(Reversal.apply(hidden))], 1)


class Beams(nn.Module):
    """Every sample is repeated, and the best of its rows taken."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        rows = self.second(self.first(x).repeat_interleave(3, 0).tanh() * torch.arange(3.0).repeat(len(x))[:, None])
        return rows.view(len(x), 3, 3).logsumexp(1)


class Standardized(nn.Module):
    """A convolution's weight is standardized in forward, past its module."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(2, 3, 3), nn.Linear(3, 2)

    def forward(self, x):
        weight = self.conv.weight
        weight = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std((1, 2, 3), keepdim=True)
        return self.head(F.conv2d(x, weight, self.conv.bias).mean((2, 3)).tanh())


class ExpertChoice(nn.Module):
    """Each expert takes the samples of the batch that it likes best."""

    def __init__(self):
        super().__init__()
        self.gate, self.experts = nn.Linear(4, 2), nn.ModuleList(nn.Linear(4, 3) for _ in range(2))

    def forward(self, x):
        liking, total = self.gate(x).softmax(1), torch.zeros(len(x), 3, dtype=x.dtype)
        for place, expert in enumerate(self.experts):
            value, chosen = liking[:, place].topk(4)
            total = total.index_add(0, chosen, expert(x[chosen]) * value[:, None])
        return total


class CopiedModule(nn.Module):
    """A shallow copy shares its weights, and every hook."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again, self.head = copy.copy(self.first), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.again(self.first(x).tanh()))


MODELS = {
    "a copied module": (CopiedModule, _numbers(4)),
    "words": (Words, _tokens(6)),
    "a tied table": (TiedTable, _tokens()),
    "two kinds": (TwoKinds, _numbers(4)),
    "in place": (InPlace, _numbers(4)),
    "steps first": (StepsFirst, _tokens(4)),
    "one by one": (OneByOne, _numbers(4)),
    "a sparse table": (SparseTable, _tokens(4)),
    "a codebook": (Codebook, _numbers(4)),
    "adversarial": (Adversarial, _numbers(4)),
    "beams": (Beams, _numbers(4)),
    "standardized": (Standardized, _numbers(2, 6, 6)),
    "expert choice": (ExpertChoice, _numbers(4)),
}
REFUSED = {
    ("steps first", "fused"), ("one by one", "fused"), ("adversarial", "fused"),
    ("beams", "fused"), ("standardized", "fused"), ("expert choice", "fused"), ("expert choice", "per_group"),
    ("expert choice", "fast"), ("expert choice", "passes"), ("a sparse table", "per_group"),
}  # fmt: skip


def _losses(output):
    return (output.sin() + output.square() / 2).flatten(1).sum(1)


def _expected(model, x, label):
    alone = copy.deepcopy(model)
    alone.zero_grad()
    _losses(alone(x))[label == LABELS].sum().backward()
    weights = {name.removesuffix(".weight"): weight for name, weight in alone.named_parameters()}
    return {name: weight.grad.to_dense() for name, weight in weights.items() if weight.grad is not None}


@pytest.mark.parametrize("engine", ["hooks", "per_group", "passes", "fused", "fast"])
@pytest.mark.parametrize("name", MODELS)
def test_groups_have_their_own_gradients_or_the_model_is_refused(name, engine):
    build, inputs = MODELS[name]
    torch.manual_seed(0)
    model = build().double()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", engine=engine)
    if (name, engine) in REFUSED:
        with pytest.raises(AutoSpecError), recorder.batch(LABELS):
            _losses(model(inputs())).sum().backward()
        return
    for _ in range(3):
        x = inputs()
        with recorder.batch(LABELS):
            _losses(model(x)).sum().backward()
        recorder.end_epoch()
        model.zero_grad()
        for group in (0, 1):
            for layer, gradient in _expected(model, x, group).items():
                if layer in recorder.layers:
                    expected = full_spectrum(gradient.flatten(1))
                    found = recorder.table[f"layers/{layer}/gradient"][-1, 1 + group]
                    assert abs(found - expected).max() < 1e-10 * max(1.0, expected[0]), layer


class Remembering(nn.Module):
    """Keeps what it computes in plain attributes: states of the last batch, a list, a number, a place in a bank."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.state, self.seen, self.place = nn.Linear(4, 4), nn.Linear(4, 3), None, [], 0
        self.mean = torch.zeros(4)
        self.register_buffer("bank", torch.zeros(4, 4))

    def forward(self, x):
        hidden = self.first(x).tanh()
        before, self.state = self.state, hidden.detach()
        self.seen.append(len(x))
        self.mean.mul_(0.9).add_(hidden.detach().mean(0), alpha=0.1)
        with torch.no_grad():
            self.bank[self.place] = hidden[0]
        self.place = (self.place + 1) % 4
        return self.second(hidden + self.bank.mean(0) + self.mean + (0 if before is None else 0.5 * before))


def _trained(engine):
    torch.manual_seed(5)
    model = Remembering()
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine) if engine else None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        x = torch.randn(N, 4)
        if recorder:
            with recorder.batch(LABELS):
                _losses(model(x)).mean().backward()
            recorder.end_epoch()
        else:
            _losses(model(x)).mean().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("engine", ["hooks", "fused", "fast"])
def test_what_a_model_keeps_in_attributes_is_as_without_a_recorder(engine):
    """A trace runs the model once more; that must not move its memory."""
    plain, recorded = _trained(None), _trained(engine)
    assert (recorded.seen, recorded.place) == (plain.seen, plain.place)
    for one, other in zip(plain.state_dict().values(), recorded.state_dict().values(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    assert torch.allclose(plain.mean, recorded.mean, atol=1e-6)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.steps = nn.Linear(4, 3), 0

    def forward(self, x):
        self.steps += 1
        return self.layer(x) * min(1.0, 1e-9 * self.steps)


@pytest.mark.parametrize("engine", ["per_group", "passes"])
def test_a_counter_of_forward_passes_is_refused_where_each_group_has_one(engine):
    model = Counting()
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    message = "Counting changes its 'steps' at each forward pass"
    with pytest.raises(AutoSpecError, match=message), recorder.batch(LABELS):
        _losses(model(torch.randn(N, 4))).sum().backward()
    assert model.steps == 0


def test_checking_a_model_leaves_its_attributes():
    model = Remembering()
    SpectralRecorder(model, groups=["a", "b"]).check(torch.randn(N, 4))
    assert (model.state, model.seen, model.place, float(model.mean.abs().sum())) == (None, [], 0, 0.0)
