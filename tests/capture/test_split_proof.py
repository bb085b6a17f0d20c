"""Where the engines that split a batch are used: outputs of every form, modes, parts of a model, rounding, noise."""

import copy

import pytest
import torch
from references import group_sums
from torch import nn

from autospec import AutoSpecError, SpectralRecorder

N = 6
LABELS = [0, 1, 1, 0, -1, 1]
ENGINES = pytest.mark.parametrize("engine", ["per_group", "passes"])


def _recorded(model, run, engine, labels=LABELS, **arguments):
    """The groups' gradients by layer, from a batch in which ``run`` gives the loss."""
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine, **arguments)
    with recorder.batch(labels):
        run().backward()
    sums = {name: recorder._record.sums.layers[name].gradient.gradients() for name in recorder.layers}
    recorder.end_epoch()
    return sums


def _expected(model, losses, labels=LABELS):
    """The same from one backward pass per sample: ``losses(model)`` (n,) are its parts of the loss."""
    model = copy.deepcopy(model)
    names = {id(weight): name.removesuffix(".weight") for name, weight in model.named_parameters() if weight.dim() > 1}
    weights = [weight for weight in model.parameters() if weight.dim() > 1 and weight.requires_grad]
    rows = [torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=True) for loss in losses(model)]
    found = {}
    for place, weight in enumerate(weights):
        if rows[0][place] is not None:
            found[names[id(weight)]] = torch.stack(
                group_sums(torch.stack([row[place].flatten(1) for row in rows]), labels, 2)
            )
    return found


def _agree(found, expected, tolerance=1e-10):
    assert expected
    for name, matrices in expected.items():
        assert torch.allclose(found[name], matrices.double(), atol=tolerance), name


class Scored(nn.Module):
    """Gives its loss beside what it is made of."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.layer, self.reduction = nn.Linear(4, 3), reduction

    def forward(self, x, labels):
        logits = self.layer(x)
        return {"loss": nn.functional.cross_entropy(logits, labels, reduction=self.reduction), "logits": logits}


@ENGINES
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_an_output_that_is_a_loss(engine, reduction):
    model, x, labels = Scored(reduction).double(), torch.randn(N, 4).double(), torch.arange(N) % 3
    whole = model(x, labels)["loss"].detach()
    losses = []

    def run():
        losses.append(model(x, labels=labels)["loss"])
        return losses[0]

    scale = N if reduction == "mean" else 1
    found = _recorded(model, run, engine)
    assert torch.allclose(losses[0], whole)
    _agree(found, _expected(model, lambda m: nn.functional.cross_entropy(m.layer(x), labels, reduction="none") / scale))


def _classifier():
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, vocab_size=11)
    return BertForSequenceClassification(config)


def _language_model():
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=9, n_embd=8, n_layer=1, n_head=2))


@ENGINES
def test_a_classifier_of_transformers_called_with_labels(engine):
    torch.manual_seed(0)
    model = _classifier().double().eval()
    ids, labels = torch.randint(11, (N, 5)), torch.arange(N) % 2

    def losses(twin):
        return nn.functional.cross_entropy(twin(input_ids=ids).logits, labels, reduction="none") / N

    found = _recorded(model, lambda: model(input_ids=ids, labels=labels).loss, engine)
    _agree(found, _expected(model, losses))


@ENGINES
def test_a_language_models_loss_has_its_share_by_tokens_also_where_later_batches_ignore_more(engine):
    torch.manual_seed(0)
    model = _language_model().double().eval()
    recorder = SpectralRecorder(model, groups=["a", "b"], engine=engine)
    for ignored in (0, 3):
        ids = torch.randint(11, (N, 6))
        labels = ids.clone()
        labels[2:4, :ignored] = -100

        def losses(twin, ids=ids, labels=labels):
            logits, aim = twin(input_ids=ids).logits[:, :-1], labels[:, 1:]
            each = nn.functional.cross_entropy(logits.transpose(1, 2), aim, reduction="none", ignore_index=-100)
            return each.sum(1) / (aim != -100).sum()

        expected = _expected(model, losses)
        with recorder.batch(LABELS):
            output = model(input_ids=ids, labels=labels)
            output.loss.backward()
        assert output.loss.item() == pytest.approx(losses(model).sum().item(), rel=1e-6)
        found = {name: recorder._record.sums.layers[name].gradient.gradients() for name in recorder.layers}
        recorder.end_epoch()
        _agree(found, expected, 1e-6)  # its loss is of logits that are rounded to float32


class TimeFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(3, 3, bias=False)

    def forward(self, x, mask):
        return {"states": self.rnn(x)[0] * mask[:, None, None], "mask": mask}


@ENGINES
@pytest.mark.parametrize("steps", [4, N])
def test_samples_along_another_dimension_beside_a_tensor_of_as_many_steps(engine, steps):
    """(time, samples, 3), with as many steps as samples too, and a mask over time that all samples share."""
    model, x = TimeFirst().double(), torch.randn(steps, N, 3).double()
    mask = torch.rand(steps).double()
    found = _recorded(model, lambda: model(x, mask)["states"].square().sum(), engine)
    expected = _expected(model, lambda m: m(x, mask)["states"].square().sum((0, 2)))
    _agree(found, expected)


@ENGINES
def test_square_outputs(engine):
    model, x = nn.Sequential(nn.Linear(4, N)).double(), torch.randn(N, 4).double()
    found = _recorded(model, lambda: model(x).square().sum(), engine)
    _agree(found, _expected(model, lambda m: m(x).square().sum(1)))


class Similar(nn.Module):
    """Similarities between all samples of a batch: no part of them is one sample's."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        y = self.layer(x)
        return y @ y.mT


@ENGINES
def test_similarities_between_samples_are_refused(engine):
    model = Similar()
    with pytest.raises(AutoSpecError, match="the outputs of Similar run group by group differ .*depend on one another"):
        _recorded(model, lambda: model(torch.randn(N, 4)).sum(), engine)


@ENGINES
def test_training_in_eval_mode_with_batch_norm(engine):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)).double().eval()
    x = torch.randn(N, 4).double()
    found = _recorded(model, lambda: model(x).square().sum(1).mean(), engine)
    _agree(found, _expected(model, lambda m: m(x).square().sum(1) / N))


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.head = nn.Sequential(nn.Linear(4, 3), nn.Tanh()), nn.Linear(3, 2)


@pytest.mark.parametrize("engine", ["per_group", "passes", "fused", "fast"])
def test_parts_of_a_model_that_are_called_directly(engine):
    model, x = Wrapped().double(), torch.randn(N, 4).double()
    found = _recorded(model, lambda: model.head(model.net(x)).square().sum(1).mean(), engine)
    _agree(found, _expected(model, lambda m: m.head(m.net(x)).square().sum(1) / N))
    assert "forward" not in vars(model.net)


def test_rounding_before_an_instance_norm_is_not_called_coupling():
    torch.manual_seed(0)
    layers = [nn.Conv1d(2, 16, 3), nn.InstanceNorm1d(16), nn.ReLU()]
    for _ in range(6):
        layers += [nn.Conv1d(16, 16, 3, padding=1), nn.InstanceNorm1d(16), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Conv1d(16, 1, 1))
    for layer in model:
        if isinstance(layer, nn.Conv1d):
            nn.init.constant_(layer.bias, 300.0)  # what the norm takes away again, and its rounding stays
    x = torch.randn(N, 2, 20)
    found = _recorded(model, lambda: model(x).square().mean(), "per_group")
    left = model[0].weight.grad.flatten(1).double()
    assert (found["0"][0] - left).norm() < 1e-5 * left.norm()  # float32 adds up in another order


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        return self.layer(x) + torch.rand(len(x), 3)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += self.training
        return self.layer(x)


@ENGINES
def test_a_model_that_draws_random_numbers_is_told_so_and_one_that_counts_its_calls(engine):
    for make, message in (
        (Noisy, "Noisy over the same batch differ, so it draws random numbers"),
        (Counting, "Counting changes its buffer 'calls' at each forward pass"),
    ):
        model = make()
        with pytest.raises(AutoSpecError, match=message):
            _recorded(model, lambda model=model: model(torch.randn(N, 4)).sum(), engine)
    assert float(model.calls) == 0


@ENGINES
def test_a_pass_that_no_sample_goes_into_is_an_error_once_its_gradient_arrives(engine):
    model = nn.Sequential(nn.Linear(4, 3))
    with pytest.raises(AutoSpecError, match=r"a call of Sequential got no tensor with 6 samples \(shapes: \(2, 4\)\)"):
        _recorded(model, lambda: model(torch.randn(2, 4)).sum(), engine)


def test_a_gradient_penalty_is_left_to_the_aliases():
    model, x = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1)).double(), torch.randn(N, 4).double()

    def penalty(net=model, entered=x):
        entered = entered.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(net(entered).sum(), entered, create_graph=True)
        return gradient.square().sum(1)

    _agree(_recorded(model, lambda: penalty().sum(), "per_group"), _expected(model, penalty))
    with pytest.raises(AutoSpecError, match="engine='passes' does not take backward passes with create_graph=True"):
        _recorded(model, lambda: penalty().sum(), "passes")


def test_the_former_name_is_still_taken():
    model, x = nn.Sequential(nn.Linear(4, 3)), torch.randn(N, 4)
    recorder = SpectralRecorder(model, groups=["a", "b"], engine="aliased")
    with recorder.batch(LABELS):
        model(x).sum().backward()
    recorder.end_epoch()
    assert recorder.spectra.attributes["engine"] == "aliased"
