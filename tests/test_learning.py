"""Training really learns: held-out images and people, real ones where there are some."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_auc_score

from autospec import datasets, experiment, models, open_spectra
from autospec.config.grid import composed
from autospec.plan import planned
from autospec.tasks import TASKS

CONF = Path(__file__).resolve().parent.parent / "conf"


def _validated(tmp_path, *overrides):
    """The validation curves of a run with a fifth of the people held out."""
    plan = planned(composed(CONF, [*overrides, "dataset.holdout=0.2", f"output_dir={tmp_path}"]))
    experiment.run(plan)
    return open_spectra(plan.folder.spectra).training


def test_a_classifier_of_digits_beats_chance_on_images_it_has_not_seen(tmp_path):
    curves = _validated(tmp_path, "figure=fig1", "panel=B", "dataset.per_digit=100", "epochs=60")
    assert curves["validation_metric"].iloc[-1] > 0.85  # chance is 0.25


@pytest.mark.parametrize("figure", ["fig1", "fig3", "fig4", "fig5", "fig7"])
def test_an_autoencoder_beats_the_mean_of_the_training_data(tmp_path, figure):
    small = {"fig1": ["dataset.per_digit=50"], "fig5": ["dataset.time_points=30"], "fig7": ["dataset.time_points=30"]}
    rate = 1e-3 if figure == "fig1" else 1e-2
    few = ["epochs=120", f"learning_rate={rate}", "introspection.every=60", *small.get(figure, [])]
    curves = _validated(tmp_path, f"figure={figure}", "panel=A", *few)
    assert curves["validation_metric"].iloc[-1] > 0.05  # explained variance; the mean has 0
    assert curves["validation_metric"].iloc[-1] > curves["validation_metric"].iloc[0]


def _auc(overrides, seed):
    """The area under the curve on a held-out fifth of the people, of a classifier trained on the others."""
    config = planned(composed(CONF, [*overrides, "dataset.holdout=0.2", f"dataset.holdout_seed={seed}"])).config
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
    """Repeated stratified splits; the interval allows for their overlap (Nadeau & Bengio 2003)."""
    folder = shared_data / "cobre_freesurfer"
    overrides = [
        "figure=fig4", "panel=B", "epochs=100",
        f"dataset.table={folder / 'freesurfer_stats.tsv'}", f"dataset.participants={folder / 'participants.tsv'}",
    ]  # fmt: skip
    found = np.array([_auc(overrides, seed) for seed in range(30)])
    spread = found.std(ddof=1) * np.sqrt(1 / len(found) + 0.2 / 0.8)
    low = found.mean() - stats.t.ppf(0.975, len(found) - 1) * spread
    assert low > 0.5, f"AUC {found.mean():.2f}, interval from {low:.2f}"
