"""What is said of a run, and the test by whole runs with permuted labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autospec import AutoSpecError
from autospec.experiments import datasets, models
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.permutation_design import permutation_design
from autospec.experiments.plan import plan_run
from autospec.experiments.report import methods
from autospec.experiments.run import run
from autospec.experiments.validation.retraining import permute_and_retrain, retrain
from autospec.store.permutations import PermutationRatios
from autospec.store.permuted_pairs import NOT_ASKED
from autospec.store.read import open_spectra

CONF = Path(__file__).resolve().parents[3] / "conf"
TINY = ["figure=fig4", "epochs=4", "width=3", "dataset.features=[Left-Hippocampus,Left-Amygdala,Right-Amygdala]"]


def _config(tmp_path, *overrides):
    return check_config(compose_config(CONF, [*TINY, f"output_dir={tmp_path}", *overrides]))


def test_the_paragraph_says_what_was_done(tmp_path, caplog):
    plan = plan_run(_config(tmp_path, "panel=A", "introspection.permutations=30", "introspection.permutation_epochs=2"))
    with caplog.at_level("INFO"):
        run(plan)
    assert "permutations took" in caplog.text
    text = methods.methods_paragraph(plan.folder.path)
    made = ("simulated FreeSurfer volumes of 124 subjects (HC 63, SZ 61)", "Each feature was z-scored.")
    trained = (
        "A multi-layer perceptron (width 3, depth 1, ReLU)",
        "as an autoencoder (mean squared error) for 4 epochs",
    )
    tested = (
        "HC (63 subjects) and SZ (61)",
        "permuted 30 times within sex",
        "at 2 epochs",
        "of the 31 partitions",
        "association",
    )
    for expected in (*made, *trained, *tested):
        assert expected in text


def test_a_classifier_of_the_groups_is_said_not_to_be_tested(tmp_path):
    plan = plan_run(_config(tmp_path, "panel=B"))
    run(plan)
    text = methods.methods_paragraph(plan.folder.path)
    assert "to classify diagnosis (cross-entropy)" in text
    assert "Not tested: HC and SZ (diagnosis is what the network is trained to tell apart" in text
    assert "permutations of" not in text


def test_pairs_that_were_refused_are_named_beside_those_that_were_tested():
    learned, few = "diagnosis is learned", "a group of 2 subjects; 3 are needed"
    null = PermutationRatios(
        epochs=np.array([0]),
        pairs=(("HC/men", "HC/women"),),
        subjects=np.array([[20, 10]]),
        strata=("site",),
        refused={("HC", "SZ"): learned, ("HC/men", "SZ/men"): learned, ("men", "x"): few, ("men", "y"): NOT_ASKED},
        permutation_design="",
        ratios={"head": {"log_norm": np.zeros((1, 1, 20), dtype=np.float32)}},
        loss=None,
    )
    text = methods.testing_sentences(null)
    assert "Compared were HC/men (20 subjects) and HC/women (10)" in text
    assert f"Not tested: HC and SZ, HC/men and SZ/men ({learned})." in text
    assert f"Not tested: men and x ({few})." in text
    assert NOT_ASKED not in text


def test_retraining_tests_what_is_classified(tmp_path, caplog):
    with caplog.at_level("INFO"):
        table = retrain(_config(tmp_path, "panel=B"), 19)
    assert "retrain: 19 runs with permuted labels take about" in caplog.text
    whole = table[(table.per == "trajectory") & (table.test == "permutation")]
    assert set(whole.layer) == {"hidden.0", "head"}
    assert whole.p.between(0.05, 1).all()
    assert np.allclose(whole.p * 20, (whole.p * 20).round())
    assert set(whole.strata) == {"sex"}


def test_the_classes_are_permuted_with_the_groups_and_each_partition_is_trained(tmp_path):
    """The observed partition is the run itself; another is a run on data whose labels were permuted so."""
    config = _config(tmp_path, "panel=B")
    null = permute_and_retrain(config, 19)
    assert null.epochs.tolist() == [0, 1, 2, 3]
    ratios = null.ratios["hidden.0"]["log_norm"]
    assert ratios.shape == (4, 1, 20)
    assert len(np.unique(ratios[0, 0])) > 15
    plan = plan_run(config)
    run(plan)
    spectra = open_spectra(plan.folder.spectra)
    scaled = spectra.scaled("hidden.0")
    norm = (scaled**2).sum("index") ** 0.5
    a, b = null.pairs[0]
    assert ratios[:, 0, 0] == pytest.approx(np.log2(norm.sel(group=a) / norm.sel(group=b)).values, abs=1e-4)


def test_a_permuted_partition_is_trained_on_its_own_labels(tmp_path):
    """Against a loop in torch alone: train on the permuted labels, then one gradient for each permuted group."""
    config = _config(tmp_path, "panel=B")
    null = permute_and_retrain(config, 19)
    data = datasets.load(config.dataset)
    introspection = replace(config.introspection, permutations=19)
    plan = permutation_design(data, introspection, config.dataset.group_by, None, [0, 1, 2, 3])
    place = 7
    label = torch.from_numpy(plan.pairs[0].members[place][plan.subject].astype(np.int64)) - 1
    assert (label.numpy() != data.target).any()
    model, inputs = models.build(config, data.inputs.shape[1:], 2), torch.from_numpy(data.inputs)
    weight = model.get_parameter("hidden.0.weight")
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    for epoch in range(4):
        losses = torch.nn.functional.cross_entropy(model(inputs), label, reduction="none")
        norms = [torch.autograd.grad(losses[label == c].mean(), weight, retain_graph=True)[0].norm() for c in (0, 1)]
        expected = float(torch.log2(norms[0] / norms[1]))
        assert null.ratios["hidden.0"]["log_norm"][epoch, 0, place] == pytest.approx(expected, abs=1e-3)
        optimizer.zero_grad()
        losses.mean().backward()
        optimizer.step()


MISTAKES = {
    "panel=A": "task=autoencoding learns no labels",
    "panel=B dataset.group_by=[diagnosis,sex]": r"the groups are .*; add dataset.group_by=\[diagnosis\]",
    "panel=B introspection.permutations=0 introspection.engine=aliased": "engine=aliased: retrain compares subjects",
    "panel=B introspection.leading=2": "introspection.leading=2: retrain .* leave it out",
    "panel=B introspection.layers=[nowhere]": "no trained weight matrix is named like 'nowhere'; there are hidden.0",
}


@pytest.mark.parametrize("overrides", MISTAKES)
def test_what_cannot_be_retrained_says_what_to_do(overrides, tmp_path):
    with pytest.raises(AutoSpecError, match=MISTAKES[overrides]):
        retrain(_config(tmp_path, *overrides.split()), 19)


def test_the_layers_that_are_asked_for_are_retrained(tmp_path):
    null = permute_and_retrain(_config(tmp_path, "panel=B", "introspection.layers=[head]"), 19)
    assert list(null.ratios) == ["head"]


def test_the_device_is_the_one_that_is_asked_for(tmp_path, monkeypatch):
    config = _config(tmp_path, "panel=B", "device=cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(AutoSpecError, match="device=cuda: torch finds no CUDA GPU"):
        retrain(config, 19)


def test_too_few_retrainings_are_refused(tmp_path):
    with pytest.raises(AutoSpecError, match="permutations=18: with fewer than 19 no p can reach 0.05"):
        retrain(_config(tmp_path, "panel=B"), 18)
