"""Relabelled partitions against a loop: relabel, sum single samples' gradients, full decomposition."""

import copy

import numpy as np
import pytest
import torch
from references import content, full_spectrum, sample_gradients
from torch import nn

from autospec import AutoSpecError, SpectralRecorder
from autospec.store.permuted_pairs import PairPermutations, PermutationDesign

PEOPLE = np.array([0, 0, 1, 2, 3, 4, 4, 5, 6])
"""Whose each of nine samples is: labels move person by person."""
OBSERVED = np.array([1, 1, 1, 2, 2, 2, 0], dtype=np.int8)


def _model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 6))


def _losses(model, inputs):
    return (model(inputs) - inputs).square().mean(1)


def _permutation_design(epochs=(0,)):
    random = np.random.default_rng(0)
    members = np.stack([OBSERVED, *(np.append(random.permutation(OBSERVED[:6]), 0) for _ in range(5))]).astype(np.int8)
    return PermutationDesign((PairPermutations("a", "b", (), members),), {("a", "c"): "a reason"}, PEOPLE, epochs)


def _recorded(batches, epochs=1, **options):
    """A recorder after some epochs of batches, each a choice among nine samples; the model and the samples."""
    model, inputs = _model(), torch.randn(9, 6)
    group = torch.from_numpy(OBSERVED[PEOPLE].astype(np.int64)) - 1
    recorder = SpectralRecorder(model, groups=["a", "b"], **options)
    for _ in range(epochs):
        for chosen in batches:
            with recorder.batch(group[chosen], torch.tensor(chosen)) as batch:
                losses = _losses(model, inputs[chosen])
                losses.mean().backward()
                batch.losses(losses)
        recorder.end_epoch()
    return recorder, model, inputs


@pytest.mark.parametrize("batches", [[list(range(9))], [[3, 1, 8, 5], [0, 2, 4, 6, 7]]])
def test_the_ratios_are_those_of_relabelled_sums(batches):
    permutation_design = _permutation_design()
    recorder, model, inputs = _recorded(batches, permutation_design=permutation_design)
    for layer in ("0", "2"):
        of_samples = torch.zeros(9, *model.get_parameter(f"{layer}.weight").shape, dtype=torch.float64)
        weights = np.zeros(9)
        for chosen in batches:
            of_samples[chosen] = sample_gradients(model, f"{layer}.weight", inputs[chosen], _losses)
            weights[chosen] = 1 / len(chosen)
        for place, members in enumerate(permutation_design.pairs[0].members):
            sums = []
            for code in (1, 2):
                total = torch.zeros_like(of_samples[0])
                weight = 0.0
                for sample, subject in enumerate(PEOPLE):
                    if members[subject] == code:
                        total += of_samples[sample]
                        weight += weights[sample]
                sums.append((total, weight))
            spectra = [full_spectrum(side / own) for side, own in sums]
            known = np.minimum(*spectra) > 1e-6  # a person's gradient has rank one: a small group's has zeros
            names = ("log_ratio", "log_norm", "cancellation")
            log_ratio, norm, cancelled = (recorder.table[f"null/layers/{layer}/{n}"][0, 0, place] for n in names)
            assert np.isfinite(log_ratio).tolist() == known.tolist()
            assert log_ratio[known] == pytest.approx(np.log2(spectra[0][known] / spectra[1][known]), abs=2e-3)
            (a, w_a), (b, w_b) = sums
            assert norm == pytest.approx(float(torch.log2((a / w_a).norm() / (b / w_b).norm())), abs=1e-4)
            assert cancelled == pytest.approx(float((a + b).norm() / (a.norm() + b.norm())), abs=1e-5)


def test_the_loss_ratio_is_of_mean_losses():
    recorder, model, inputs = _recorded([list(range(9))], permutation_design=_permutation_design())
    losses, labels = _losses(model, inputs).detach().numpy(), OBSERVED[PEOPLE]
    expected = np.log2(losses[labels == 1].mean() / losses[labels == 2].mean())
    assert recorder.table["null/log_loss"][0, 0, 0] == pytest.approx(expected, abs=1e-5)


def test_training_is_the_same_to_the_bit_and_spectra_too():
    with_null, model, _ = _recorded([list(range(9))], epochs=3, permutation_design=_permutation_design((0, 2)))
    after = torch.get_rng_state()
    without, other, _ = _recorded([list(range(9))], epochs=3)
    assert all(torch.equal(model.get_parameter(n).grad, p.grad) for n, p in other.named_parameters())
    assert with_null.table["layers/0/gradient"].tobytes() == without.table["layers/0/gradient"].tobytes()
    assert with_null.table.permutation_epochs == [0, 2]
    assert with_null.permutation_s > 0
    _model(), torch.randn(9, 6)  # what the runs draw before they record
    assert torch.equal(after, torch.get_rng_state())


def _train(recorder, model, inputs, epochs):
    for _ in range(epochs):
        with recorder.batch(torch.from_numpy(OBSERVED[PEOPLE].astype(np.int64)) - 1) as batch:
            losses = _losses(model, inputs)
            model.zero_grad()
            losses.mean().backward()
            batch.losses(losses)
        with torch.no_grad():
            for weight in model.parameters():
                weight.sub_(0.1 * weight.grad)
        recorder.end_epoch()


def test_a_file_keeps_them_and_a_resumed_run_gives_the_same(tmp_path):
    inputs = torch.randn(9, 6)

    def recorder_of(model, path, **options):
        return SpectralRecorder(
            model, path, groups=["a", "b"], permutation_design=_permutation_design((0, 2, 3)), **options
        )

    model = _model()
    with recorder_of(model, tmp_path / "whole.h5") as recorder:
        _train(recorder, model, inputs, 4)
    model = _model()
    with recorder_of(model, tmp_path / "resumed.h5") as recorder:
        _train(recorder, model, inputs, 2)
        weights, state = copy.deepcopy(model.state_dict()), recorder.state_dict()
        _train(recorder, model, inputs, 1)  # beyond the checkpoint: it is dropped and computed again
    model = _model()
    model.load_state_dict(weights)
    with recorder_of(model, tmp_path / "resumed.h5", resume=True) as recorder:
        recorder.load_state_dict(state)
        assert recorder.table.permutation_epochs == [0]
        _train(recorder, model, inputs, 2)
        assert recorder.table.permutation_epochs == [0, 2, 3]
        ratios = recorder.table["null/layers/0/log_norm"]
        assert len({values.tobytes() for values in ratios}) == 3  # weights moved, so a stale epoch would show
    whole = content(tmp_path / "whole.h5")
    assert {"null/pair", "null/reason", "null/layers/0/log_norm"} <= set(whole)
    assert content(tmp_path / "resumed.h5") == whole


def test_batches_without_their_samples_are_refused():
    recorder = SpectralRecorder(_model(), groups=["a", "b"], permutation_design=_permutation_design())
    expected = r"4 labels, but relabellings of 9 samples; recorder.batch\(group, samples="
    with pytest.raises(AutoSpecError, match=expected), recorder.batch(torch.zeros(4, dtype=torch.int64)):
        pass
