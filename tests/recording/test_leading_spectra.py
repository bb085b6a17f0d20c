"""Leading singular values with a tolerance, record after record, against the same training recorded exactly."""

import copy

import numpy as np
import pytest
import torch
from references import content
from torch import nn

from autospec import AutoSpecError, SpectralRecorder
from autospec.recording import leading_spectra

LEADING, TOLERANCE = 8, 1e-6
SETTINGS = {"leading": LEADING, "tolerance": TOLERANCE, "floor": "formula"}


def _model(width):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(100, width), nn.Tanh(), nn.Linear(width, 98))


def _train(recorder, model, records, first=0):
    """Inputs of a falling spectrum, as data have it; three groups and samples of none; batches change."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(100, 100, generator=generator) * 0.8 ** torch.arange(100.0)[:, None]
    inputs = torch.randn(300, 100, generator=generator) @ mixing
    group = torch.arange(300) % 4 - 1
    for record in range(first, first + records):
        chosen = slice(record % 3, None)
        with recorder.batch(group[chosen]):
            (model(inputs[chosen]) - inputs[chosen, :98]).square().mean().backward()
        with torch.no_grad():
            for weight in model.parameters():
                weight.sub_(0.05 * weight.grad)
                weight.grad = None
        recorder.end_epoch()


def _recorded(records, width=97, **options):
    model = _model(width)
    recorder = SpectralRecorder(model, groups=["a", "b", "c"], **options)
    _train(recorder, model, records)
    return recorder


def _compare(records, width):
    """The values that were compared, and the share of layers and records that were certified without decomposing."""
    found, exact = _recorded(records, width, **SETTINGS), _recorded(records, width, floor="formula")
    compared = 0
    for layer in found.layers:
        values, bounds = found.spectra[layer].gradient.values, found.spectra[layer].bound_gradient.values
        true = exact.spectra[layer].gradient.values[..., :LEADING]
        rounding = 1e-13 * true[..., :1] ** 2 / true  # of the exact route
        assert (np.abs(values - true) <= bounds + rounding).all()
        assert (bounds <= TOLERANCE * values[..., :1] * (1 + 1e-9)).all()
        compared += values.size
    return compared


def _count_exact(monkeypatch):
    calls = []
    exact = leading_spectra.LeadingSpectra._exact
    monkeypatch.setattr(leading_spectra.LeadingSpectra, "_exact", lambda *given: (calls.append(1), exact(*given))[1])
    return calls


def test_bounds_hold_and_most_records_are_not_decomposed(monkeypatch):
    calls = _count_exact(monkeypatch)
    assert _compare(12, 97) == 12 * 2 * 4 * LEADING
    assert 2 <= len(calls) <= 8  # of 24: the first of each layer, and few more


@pytest.mark.slow
def test_bounds_hold_in_ten_thousand_values(monkeypatch):
    calls = _count_exact(monkeypatch)
    assert _compare(160, 128) >= 10_000
    assert len(calls) < 80


def test_small_layers_are_exact():
    found, exact = _recorded(3, 16, **SETTINGS), _recorded(3, 16, floor="formula")
    for layer in found.layers:
        assert (found.spectra[layer].gradient.values == exact.spectra[layer].gradient.values[..., :LEADING]).all()
        assert (found.spectra[layer].bound_gradient.values < 1e-9).all()


def test_a_gradient_that_is_no_number_is_stored_as_nan():
    model = _model(97)
    recorder = SpectralRecorder(model, groups=["a"], **SETTINGS)
    for scale in (1.0, 1.0, torch.nan, 1.0):
        with recorder.batch(torch.zeros(50, dtype=torch.int64)):
            (scale * model(torch.eye(100)[:50] + 1).square().mean()).backward()
        model.zero_grad()
        if np.isnan(scale):
            with pytest.warns(UserWarning, match="NaN or infinity in its gradient"):
                recorder.end_epoch()
        else:
            recorder.end_epoch()
    known = np.isfinite(recorder.spectra["0"].gradient.values).all((1, 2))
    assert known.tolist() == [True, True, False, True]
    assert np.isfinite(recorder.spectra["0"].bound_gradient.values).all((1, 2)).tolist() == known.tolist()


def test_a_resumed_run_gives_the_same_numbers(tmp_path):
    model = _model(97)
    with SpectralRecorder(model, tmp_path / "whole.h5", groups=["a", "b", "c"], **SETTINGS) as recorder:
        _train(recorder, model, 6)
    model = _model(97)
    with SpectralRecorder(model, tmp_path / "resumed.h5", groups=["a", "b", "c"], **SETTINGS) as recorder:
        _train(recorder, model, 3)
        weights, state = copy.deepcopy(model.state_dict()), recorder.state_dict()
        torch.save(state, tmp_path / "state.pt")
        _train(recorder, model, 1, first=3)  # beyond the checkpoint: dropped, and computed again
    model = _model(97)
    model.load_state_dict(weights)
    with SpectralRecorder(model, tmp_path / "resumed.h5", groups=["a", "b", "c"], resume=True, **SETTINGS) as recorder:
        recorder.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        _train(recorder, model, 3, first=3)
    whole = content(tmp_path / "whole.h5")
    assert "layers/0/bound/gradient" in whole
    assert content(tmp_path / "resumed.h5") == whole


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"tolerance": 1e-6},
            "tolerance=1e-06: leading must say how many singular values are certified, such as leading=16",
        ),
        ({"tolerance": 0, "leading": 4}, "tolerance=0: must be above 0, such as 1e-6, or None"),
        (
            {"tolerance": 1e-6, "leading": 4, "statistics": ["gradient", "rank"]},
            "tolerance=1e-06: statistics=rank may need all singular values; leave out one of the two",
        ),
    ],
)
def test_settings_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(AutoSpecError) as error:
        SpectralRecorder(_model(4), groups=["a"], **options)
    assert str(error.value) == message
