"""Networks trained anew with permuted labels, against the same networks trained one by one in torch alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autospec import AutoSpecError
from autospec.analysis.permutation import permutation_tests
from autospec.experiments import datasets, models
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.plan import plan_run
from autospec.experiments.retraining import networks, retrained
from autospec.experiments.retraining.networks import make_networks
from autospec.experiments.retraining.retrained import Retraining, retrain
from autospec.experiments.run import run
from autospec.store.read import open_spectra
from tests.references import retrain_one_by_one

CONF = Path(__file__).resolve().parents[3] / "conf"
TINY = ["figure=fig4", "epochs=4", "width=3", "dataset.features=[Left-Hippocampus,Left-Amygdala,Right-Amygdala]"]
SERIES = ["dataset=sinusoid", "dataset.per_class=6", "dataset.time_points=9", "dataset.channels=2"]
ARCHITECTURES = {
    "mlp": [*SERIES, "architecture=mlp", "depth=2"],
    "rnn": [*SERIES, "architecture=rnn", "activation=tanh", "depth=2"],
    "sigmoid rnn": [*SERIES, "architecture=rnn", "activation=sigmoid"],
    "lstm": [*SERIES, "architecture=lstm"],
    "bert": [*SERIES, "architecture=bert", "width=4"],
    "cnn1d": [*SERIES, "architecture=cnn1d", "depth=3"],
    "cnn2d": ["dataset=mnist", "dataset.per_digit=5", "architecture=cnn2d"],
}


def _config(*overrides):
    return check_config(compose_config(CONF, [*overrides]))


def _fig4(*overrides):
    return _config(*TINY, *overrides)


def _p(ratios):
    table = permutation_tests([ratios], list(ratios.ratios), list(ratios.pairs), retrained=True)
    return table.set_index(["layer", "group_a", "test", "per", "at"])[["p", "p_family"]]


@pytest.mark.parametrize("at_once", [128, pytest.param(7, marks=pytest.mark.slow)])
def test_p_are_those_of_networks_that_are_trained_one_by_one(at_once, monkeypatch):
    """A small figure 4 H: the same labels, the same seeds, every network in a loop of torch alone."""
    monkeypatch.setattr(networks, "MOST_SIDE_BY_SIDE", at_once)
    config = _fig4("panel=H", "epochs=22", "width=8", "dataset.people.HC.men=20", "introspection.permutation_epochs=4")
    together = retrain(config, 39)
    alone = retrain_one_by_one(config, Retraining(config, 39).design, [0, 7, 14, 21])
    assert together.epochs.tolist() == [0, 7, 14, 21]
    for layer, arrays in alone.ratios.items():
        for name, values in arrays.items():
            assert together.ratios[layer][name] == pytest.approx(values, abs=2e-4, nan_ok=True), (layer, name)
    assert together.loss == pytest.approx(alone.loss, abs=1e-5)
    found, expected = _p(together), _p(alone)
    assert found.p.notna().sum() > 40
    assert found.p.to_numpy() == pytest.approx(expected.p.to_numpy(), abs=1e-12, nan_ok=True)
    assert found.p_family.to_numpy() == pytest.approx(expected.p_family.to_numpy(), abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n == "bert" else n for n in ARCHITECTURES])
def test_every_architecture_gives_what_its_networks_give_one_by_one(name):
    epochs = ["task=classification", "epochs=3", "width=4", "learning_rate=0.01", "introspection.permutation_epochs=2"]
    config = _config(*epochs, *ARCHITECTURES[name])
    together = retrain(config, 19)
    design = Retraining(config, 19).design
    alone = retrain_one_by_one(config, design, [0, 2], only=(0, 1, 19))
    assert [tuple(pair) for pair in together.pairs] == [("0", "3")]
    for layer, arrays in alone.ratios.items():
        for quantity, values in arrays.items():
            chosen = together.ratios[layer][quantity][:, :, [0, 1, 19]]
            assert chosen == pytest.approx(values, abs=2e-3, nan_ok=True), (layer, quantity)


def test_the_first_network_is_the_run_itself(tmp_path):
    config = _fig4("panel=B", f"output_dir={tmp_path}")
    ratios = retrain(config, 19)
    assert ratios.epochs.tolist() == [0, 1, 2, 3]
    plan = plan_run(config)
    run(plan)
    spectra = open_spectra(plan.folder.spectra)
    a, b = ratios.pairs[0]
    for layer in spectra.layers:
        scaled = spectra.scaled(layer)
        norm = (scaled**2).sum("index") ** 0.5
        expected = np.log2(norm.sel(group=a) / norm.sel(group=b)).values
        assert ratios.ratios[layer]["log_norm"][:, 0, 0] == pytest.approx(expected, abs=1e-4)
    assert len(np.unique(ratios.ratios["head"]["log_norm"][0, 0])) > 15


def _check_first_network_is_the_run(config, ratios):
    """The unpermuted network has the ratios of the run that is recorded by itself."""
    plan = plan_run(config)
    run(plan)
    spectra = open_spectra(plan.folder.spectra)
    a, b = ratios.pairs[0]
    norm = (spectra.scaled("hidden.0") ** 2).sum("index") ** 0.5
    expected = np.log2(norm.sel(group=a) / norm.sel(group=b)).values
    assert ratios.ratios["hidden.0"]["log_norm"][:, 0, 0] == pytest.approx(expected, abs=1e-4)


def test_mini_batches_come_in_the_order_of_the_run(tmp_path):
    config = _fig4("panel=B", f"output_dir={tmp_path}", "batch_size=50")
    ratios = retrain(config, 19)
    _check_first_network_is_the_run(config, ratios)


def test_diagnosis_is_permuted_within_sex_in_both_pairs_at_once():
    config = _fig4("panel=B", "dataset.group_by=[diagnosis,sex]", "figure.pairs=[[SZ/men,HC/men],[SZ/women,HC/women]]")
    data = datasets.load(config.dataset)
    design = Retraining(config, 19, data).design
    assert [{pair.a, pair.b} for pair in design.pairs] == [{"HC/men", "SZ/men"}, {"HC/women", "SZ/women"}]
    sex = np.array(data.columns["sex"])
    for labels in design.target[1:]:
        assert (labels != design.target[0]).any()
        for one in ("men", "women"):
            assert labels[sex == one].sum() == design.target[0][sex == one].sum()
    sides = design.sides(slice(None))
    for pair in (0, 1):  # who is on a side has learned that side's class
        for side, name in enumerate((design.pairs[pair].a, design.pairs[pair].b), start=1):
            classes = set(design.target[sides[:, pair] == side].tolist())
            assert classes == {data.classes.index(name.split("/")[0])}
    ratios = retrain(config, 19)
    table = permutation_tests([ratios], ["head"], list(ratios.pairs), retrained=True)
    assert table[table.per == "trajectory"].groupby("group_a").p.count().min() > 1
    assert set(table.networks) == {20.0}


def test_of_many_classes_the_others_keep_theirs():
    config = _config("figure=fig1", "panel=H", "dataset.per_digit=8", "epochs=2", "width=3")
    design = Retraining(config, 19).design
    observed = design.target[0]
    assert [(pair.a, pair.b) for pair in design.pairs] == [("0", "3")]
    for labels in design.target[1:]:
        assert (labels[(observed == 1) | (observed == 2)] == observed[(observed == 1) | (observed == 2)]).all()
        assert (labels == 0).sum() == 8
        assert set(labels[observed == 0]) <= {0, 3}


def test_the_samples_of_a_subject_keep_one_label(tmp_path):
    config = _fig4("panel=B")
    data = datasets.load(config.dataset)
    twice = replace(
        data,
        **{name: np.concatenate([getattr(data, name)] * 2) for name in ("inputs", "target", "group", "training")},
        subjects=data.subjects * 2,
        columns={name: values * 2 for name, values in data.columns.items()},
    )
    design = Retraining(config, 19, twice).design
    assert design.target.shape == (20, 248)
    assert (design.target[:, :124] == design.target[:, 124:]).all()


MISTAKES = {
    "panel=A": "task=autoencoding learns no labels",
    "panel=B introspection.layers=[nowhere]": "no trained weight matrix is named like 'nowhere'; there are hidden.0",
    "panel=B learning_rate=1e30": "retrain: the loss of a network is not a number at epoch .*; try a smaller",
    "panel=B figure.pairs=[[SZ,nobody]]": "figure.pairs: 'nobody' is no group",
}


@pytest.mark.parametrize("overrides", MISTAKES)
def test_what_cannot_be_retrained_says_what_to_do(overrides):
    with pytest.raises(AutoSpecError, match=MISTAKES[overrides]):
        retrain(_fig4(*overrides.split()), 19)


def test_pairs_that_share_subjects_are_not_retrained_together():
    pairs = "figure.pairs=[[SZ,HC],[SZ/men,HC/men]]"
    config = _fig4("panel=B", "dataset.group_by=[diagnosis,sex]", pairs)
    ratios = retrain(config, 19)
    assert [set(pair) for pair in ratios.pairs] == [{"SZ", "HC"}]
    assert "another pair that is retrained has subjects of this one" in ratios.refused["SZ/men", "HC/men"]


def test_a_pair_that_does_not_differ_in_what_is_learned_is_left_to_fixed_weights():
    config = _fig4("panel=B", "dataset.group_by=[diagnosis,sex]", "figure.pairs=[[HC/men,HC/women]]")
    ratios = retrain(config, 19)
    assert (ratios.pairs, dict(ratios.refused), ratios.permutations) == ((), ratios.refused, 0)
    assert ("HC/men", "HC/women") not in ratios.refused


def test_the_layers_that_are_asked_for_are_retrained():
    assert list(retrain(_fig4("panel=B", "introspection.layers=[head]"), 19).ratios) == ["head"]


def test_the_device_is_the_one_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AutoSpecError, match="device=cuda: torch finds no CUDA GPU"):
        retrain(_fig4("panel=B", "device=cuda"), 19)


def test_too_few_retrainings_are_refused():
    with pytest.raises(AutoSpecError, match="permutations=18: with fewer than 19 no p can reach 0.05"):
        retrain(_fig4("panel=B"), 18)


def test_what_it_costs_is_told_from_a_trial(monkeypatch):
    """40 networks, 10 at once: of a trial of 1 s for an epoch with comparison and 0.25 s for one without."""
    config = _fig4("panel=B", "epochs=5", "introspection.permutation_epochs=2")
    monkeypatch.setattr(networks, "MOST_SIDE_BY_SIDE", 10)
    times = iter([1.0, 1.5])
    monkeypatch.setattr(retrained, "_timed", lambda work: next(times))
    # of a block: 5 epochs of 0.25 s, two of them compared for 0.75 s more
    assert Retraining(config, 39).expected_s() == pytest.approx(4 * (5 * 0.25 + 2 * 0.75))


def test_a_network_alone_is_left_as_it_was():
    config = _config("task=classification", "epochs=1", "width=4", *ARCHITECTURES["lstm"])
    data = datasets.load(config.dataset)
    model = models.build(config, data.inputs.shape[1:], len(data.classes))
    before = {name: value.clone() for name, value in model.named_parameters()}
    own = make_networks(config, model, torch.from_numpy(data.inputs), 1)
    target = torch.from_numpy(data.target)[None]
    own.losses(None, target).sum().backward()
    assert all(torch.equal(value, before[name]) and value.grad is None for name, value in model.named_parameters())
    assert own.in_double().losses(None, target).dtype == torch.float64


@pytest.mark.parametrize("alone", [False, True])
def test_the_optimizer_and_the_schedule_are_those_of_the_run(tmp_path, alone, monkeypatch):
    """A rate that is a tenth after each epoch, with networks side by side and one after another."""
    schedule = ["+schedule._target_=torch.optim.lr_scheduler.StepLR", "+schedule.step_size=1", "+schedule.gamma=0.1"]
    config = _fig4("panel=B", f"output_dir={tmp_path}", "learning_rate=0.1", *schedule)
    if alone:
        monkeypatch.setattr(networks, "SIDE_BY_SIDE", frozenset())
    ratios = retrain(config, 19)
    _check_first_network_is_the_run(config, ratios)


@pytest.mark.parametrize(
    "part",
    ["optimizer._target_=torch.optim.SGD", "+loss._target_=torch.nn.functional.cross_entropy", "architecture=mlp"],
)
def test_parts_of_ones_own_are_trained_alone(part):
    assert networks.is_side_by_side(_fig4("panel=B", part)) == (part == "architecture=mlp")
