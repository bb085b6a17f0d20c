"""Training really learns: held-out images and people, real ones where there are some."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from autospec import open_spectra
from autospec.experiments import datasets, models
from autospec.experiments.config.grid import compose_config
from autospec.experiments.plan import plan_run
from autospec.experiments.run import run
from autospec.experiments.training.tasks import TASKS

CONF = Path(__file__).resolve().parents[2] / "conf"


def _validated(tmp_path, *overrides):
    """The validation curves of a run with a fifth of the people held out."""
    plan = plan_run(compose_config(CONF, [*overrides, "dataset.holdout=0.2", f"output_dir={tmp_path}"]))
    run(plan)
    return open_spectra(plan.folder.spectra).training


def test_a_classifier_of_digits_beats_chance_on_images_it_has_not_seen(tmp_path):
    curves = _validated(tmp_path, "figure=fig1", "panel=B", "dataset.per_digit=100", "epochs=60")
    assert curves["validation_metric"].iloc[-1] > 0.85  # chance is 0.25


@pytest.mark.slow
def test_a_convolutional_classifier_of_digits_beats_chance_on_images_it_has_not_seen(tmp_path):
    few = ["dataset.per_digit=100", "epochs=120", "learning_rate=1e-2", "introspection.every=120"]
    curves = _validated(tmp_path, "figure=fig2", "panel=B", *few)
    assert curves["validation_metric"].iloc[-1] > 0.6  # chance is 0.25; 80 images


SMALL = {
    "fig1": ["dataset.per_digit=50"],
    "fig2": ["dataset.per_digit=25"],
    "fig5": ["dataset.time_points=30"],
    "fig6": ["dataset.time_points=20"],
    "fig7": ["dataset.time_points=30"],
    "fig8": ["dataset.resolution_mm=16"],
}
SLOW = ("fig2", "fig6", "fig8")


@pytest.mark.parametrize(
    "figure",
    [pytest.param(f"fig{n}", marks=pytest.mark.slow if f"fig{n}" in SLOW else ()) for n in range(1, 9)],
)
def test_an_autoencoder_beats_the_mean_of_the_training_data(tmp_path, figure):
    rate = 1e-3 if figure == "fig1" else 1e-2
    epochs = 60 if figure in SLOW else 120
    few = [f"epochs={epochs}", f"learning_rate={rate}", "introspection.every=60", "introspection.permutations=0"]
    curves = _validated(tmp_path, f"figure={figure}", "panel=A", *few, *SMALL.get(figure, []))
    assert curves["validation_metric"].iloc[-1] > 0.05  # explained variance; the mean has 0
    assert curves["validation_metric"].iloc[-1] > curves["validation_metric"].iloc[0]


def _auc(overrides, seed):
    """The area under the curve on a held-out fifth of the people, of a classifier trained on the others."""
    config = plan_run(compose_config(CONF, [*overrides, "dataset.holdout=0.2", f"dataset.holdout_seed={seed}"])).config
    data = datasets.load(config.dataset)
    model = models.build(config, data.inputs.shape[1:], len(data.classes))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
    inputs, target = torch.from_numpy(data.inputs), torch.from_numpy(data.target)
    train = torch.from_numpy(data.training)
    for _ in range(config.epochs):
        optimizer.zero_grad()
        TASKS[config.task].losses(model(inputs[train]), inputs[train], target[train]).mean().backward()
        optimizer.step()
    with torch.no_grad():
        scores = model(inputs[~train]).diff(dim=1)[:, 0]
    return roc_auc_score(target[~train], scores)


@pytest.mark.slow
def test_diagnosis_is_learned_from_real_volumes(shared_data):
    """Repeated stratified (Monte Carlo) cross-validation; its interval allows for overlap (Nadeau & Bengio 2003)."""
    folder = shared_data / "cobre_freesurfer"
    overrides = [
        "figure=fig4", "panel=B", "epochs=100",
        f"dataset.table={folder / 'freesurfer_stats.tsv'}", f"dataset.participants={folder / 'participants.tsv'}",
    ]  # fmt: skip
    found = np.array([_auc(overrides, seed) for seed in range(30)])
    spread = found.std(ddof=1) * np.sqrt(1 / len(found) + 0.2 / 0.8)
    low = found.mean() - stats.t.ppf(0.975, len(found) - 1) * spread
    assert low > 0.5, f"AUC {found.mean():.2f}, interval from {low:.2f}"
