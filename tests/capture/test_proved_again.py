"""What was proved on the first batch is proved again: models that move samples later, in ways that no graph shows."""

import copy

import pytest
import torch
import torch.nn.functional as F
from references import full_spectrum
from torch import nn

from autospec import AutoSpecError, SpectralRecorder
from autospec.capture.proved_again import has_diverged, is_due

ORDERS = ([0, 1, 2, 3, 4, 5], [4, 0, 5, 1, 3, 2], [1, 0, 2, 5, 4, 3], [5, 4, 3, 2, 1, 0])
LABELS = torch.tensor([0, 0, 1, -1, 1, 0])


def _by_a_mask(hidden, matrix):
    return (matrix.T[:, :, None] * hidden).sum(1)


def _by_a_choice(hidden, matrix):
    return torch.where(matrix.T[:, :, None] > 0, hidden, torch.zeros_like(hidden)).sum(1)


def _by_a_maximum(hidden, matrix):
    return (matrix.T[:, :, None] * 1e6 - 1e6 + hidden).amax(1)


def _by_a_convolution(hidden, matrix):
    return F.conv1d(hidden[None], matrix.T[:, :, None])[0]


def _by_products_of_a_batch(hidden, matrix):
    return torch.bmm(matrix.T[:, None], hidden.expand(6, 6, 4))[:, 0]


def _by_vectors(hidden, matrix):
    return torch.stack([torch.mv(matrix.T, column) for column in hidden.T], 1)


def _by_a_solution(hidden, matrix):
    return torch.linalg.solve(matrix, hidden)


def _by_a_sparse_product(hidden, matrix):
    return torch.sparse.mm(matrix.T.to_sparse(), hidden)


def _in_pieces(hidden, matrix):
    pieces = hidden.split(1)
    return torch.cat([pieces[place] for place in matrix.argmax(0)])


class Moving(nn.Module):
    """Puts the samples in an order of the batch's own before its first layer, and back after it."""

    def __init__(self, back):
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 2)
        self.back, self.order = back, torch.arange(6)

    def forward(self, x):
        matrix = torch.eye(6, dtype=x.dtype)[self.order]
        return self.second(self.back(self.first(x[self.order]).tanh(), matrix))


class Exchanged(nn.Module):
    """Calls one layer on the samples and on the samples reversed, in an order that changes."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.order = nn.Linear(4, 4), nn.Linear(8, 2), torch.arange(6)

    def forward(self, x):
        if self.order[0] == 0:
            straight, reversed_ = self.first(x), self.first(x.flip(0))
        else:
            reversed_, straight = self.first(x.flip(0)), self.first(x)
        return self.second(torch.cat([straight, reversed_.flip(0)], 1).tanh())


def _losses(output):
    return (output.sin() + output.square() / 2).sum(1)


def _record(recorder, model, x):
    with recorder.batch(LABELS):
        _losses(model(x)).sum().backward()
    recorder.end_epoch()


def _assert_exact(recorder, model, x):
    for group in (0, 1):
        alone = copy.deepcopy(model)
        alone.zero_grad()
        _losses(alone(x))[group == LABELS].sum().backward()
        for layer in ("first", "second"):
            expected = full_spectrum(alone.get_submodule(layer).weight.grad)
            assert abs(recorder.table[f"layers/{layer}/gradient"][-1, 1 + group] - expected).max() < 1e-10


WAYS = [_by_a_mask, _by_a_choice, _by_a_maximum, _by_a_convolution, _by_products_of_a_batch, _by_vectors]
each_way = pytest.mark.parametrize("back", [*WAYS, _by_a_solution, _by_a_sparse_product, _in_pieces])


@each_way
def test_samples_that_move_from_the_second_batch_on_are_followed(back):
    model = Moving(back).double()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", floor="formula")
    for order in ORDERS:
        model.order, x = torch.tensor(order), torch.randn(6, 4, dtype=torch.float64)
        _record(recorder, model, x)
        _assert_exact(recorder, model, x)


def test_calls_of_one_layer_that_change_places_are_followed():
    model = Exchanged().double()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", floor="formula")
    for order in (0, 0, 1, 0, 1):
        model.order, x = torch.full((6,), order), torch.randn(6, 4, dtype=torch.float64)
        _record(recorder, model, x)
        _assert_exact(recorder, model, x)


def test_samples_that_move_later_are_refused_at_the_next_proof():
    model = Moving(_by_a_mask).double()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", floor="formula")
    for _ in range(3):
        _record(recorder, model, torch.randn(6, 4, dtype=torch.float64))
    model.order = torch.tensor(ORDERS[1])
    with pytest.raises(AutoSpecError, match="the rows of layer 'first' are other samples' than in an earlier batch"):
        _record(recorder, model, torch.randn(6, 4, dtype=torch.float64))


@each_way
def test_fused_products_refuse_samples_that_move_at_the_second_batch(back):
    model = Moving(back).double()
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", engine="fused")
    with pytest.raises(AutoSpecError, match="by data|may depend on data"):
        for order in ORDERS[:2]:
            model.order = torch.tensor(order)
            _record(recorder, model, torch.randn(6, 4, dtype=torch.float64))


def test_passes_per_group_refuse_samples_that_depend_on_one_another_from_the_second_batch_on():
    class Later(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.by = nn.Linear(4, 4), nn.Linear(4, 2), 0.0

        def forward(self, x):
            hidden = self.first(x)
            return self.second(hidden - self.by * hidden.mean(0))

    model = Later().double()
    recorder = SpectralRecorder(model, groups=["a", "b"], engine="per_group", reduction="sum")
    _record(recorder, model, torch.randn(6, 4, dtype=torch.float64))
    model.by = 1.0
    with pytest.raises(AutoSpecError, match="differ from those of the whole batch"):
        _record(recorder, model, torch.randn(6, 4, dtype=torch.float64))


def test_the_batches_to_prove_on():
    assert [batch for batch in range(1, 801) if is_due(batch, 4, True)] == [1, 401]
    assert [batch for batch in range(1, 401) if is_due(batch, 2, False)] == [1, 2, 4, 8, 16, 32, 64, 128, 201, 256]
    assert [batch for batch in range(1, 8) if is_due(batch, 2, False, 3)] == [1, 4, 7]


@pytest.mark.parametrize("engine", ["hooks", "per_group", "fused"])
def test_a_model_that_has_diverged_is_not_blamed(engine):
    model = nn.Linear(4, 2)
    recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", engine=engine, floor="formula")
    _record(recorder, model, torch.randn(6, 4))
    with torch.no_grad():
        model.weight.fill_(float("nan"))
    assert has_diverged(model)
    with pytest.warns(Warning, match="not finite|NaN|nan"):
        _record(recorder, model, torch.randn(6, 4))
