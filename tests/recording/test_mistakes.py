"""A user's own mistakes: each ends in one line that says what would be right."""

import gc
import subprocess
import sys

import pytest
import torch
from torch import nn

from autospec import AutoSpecError, AutoSpecWarning, SpectralRecorder, open_spectra


def _model():
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def _batch(recorder):
    with recorder.batch([0, 1]):
        recorder._model(torch.randn(2, 3)).sum().backward()


def _falling(recorder):
    _batch(recorder)
    recorder.record(5)
    _batch(recorder)
    recorder.record(4)


def _recorded(recorder):
    _batch(recorder)
    recorder.end_epoch()
    return recorder.spectra


MADE = {
    "groups": ({"groups": 2}, r"groups=2: a list of at least one group name is needed, such as \['HC', 'SZ'\]"),
    "text": ({"groups": "ab"}, "groups='ab': a list of at least one"),
    "statistics": ({"statistics": "gradient"}, r"statistics='gradient': a list is needed, statistics=\['gradient'\]"),
    "optimizer": (
        {"model": torch.optim.SGD(_model().parameters(), lr=0.1)},
        "model=torch.optim.sgd.SGD: the model itself is needed, a torch.nn.Module",
    ),
    "parameters": ({"model": list(_model().parameters())}, "model=builtins.list: the model itself is needed"),
    "hook": ({"on_record": "print"}, "on_record='print': must be a function"),
}
DONE = {
    "falling": (_falling, "step=4 comes after 5; steps must rise"),
    "fraction": (lambda recorder: recorder.record(1.5), "step=1.5: must be a whole number"),
    "share": (lambda recorder: recorder.batch([0, 1], share=0).__enter__(), "share=0: must be a positive number, 1/k"),
    "no batch": (lambda recorder: recorder.end_epoch(), r"epoch 0 ended without a recorder.batch"),
    "group": (
        lambda recorder: _recorded(recorder)["0"].gradient.sel(group="c"),
        "there is no group 'c'; there are all, a, b",
    ),
    "picture": (lambda recorder: _recorded(recorder).plot(groups="c"), "has no group 'c'; it has all, a, b"),
    "statistic": (
        lambda recorder: _recorded(recorder)["0"].activation,
        r"activation was not recorded in this layer, which has gradient; .* statistics=\('gradient', 'activation'\)",
    ),
    "nothing": (lambda recorder: recorder.spectra.summary(), "no spectra are recorded yet"),
}


@pytest.mark.parametrize("mistake", MADE)
def test_a_recorder_is_not_made_of_anything(mistake):
    options, message = MADE[mistake]
    with pytest.raises(AutoSpecError, match=message) as raised:
        SpectralRecorder(**{"model": _model(), "groups": ["a", "b"], **options})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("mistake", DONE)
def test_what_does_not_fit_is_one_line(mistake):
    act, message = DONE[mistake]
    with pytest.raises(AutoSpecError, match=message) as raised:
        act(SpectralRecorder(_model(), groups=["a", "b"], floor="formula"))
    assert "\n" not in str(raised.value)


def test_batches_without_an_end_of_their_epoch_are_not_lost_in_silence(tmp_path):
    path = tmp_path / "s.h5"
    recorder = SpectralRecorder(_model(), path, groups=["a", "b"], floor="formula")
    _batch(recorder)
    _batch(recorder)
    with pytest.raises(AutoSpecError, match=r"nothing was recorded: 2 batches, but no recorder.end_epoch\(\)"):
        recorder.close()
    recorder = SpectralRecorder(_model(), path, groups=["a", "b"], floor="formula", overwrite=True)
    _batch(recorder)
    recorder.end_epoch()
    _batch(recorder)
    with pytest.warns(AutoSpecWarning, match=r"1 batches came after the last recorder.end_epoch\(\)"):
        recorder.close()
    assert open_spectra(path).epochs.tolist() == [0]


def test_with_writes_what_was_recorded_when_the_loop_raises(tmp_path):
    path = tmp_path / "s.h5"
    options = {"groups": ["a", "b"], "floor": "formula"}
    with (
        pytest.raises(RuntimeError, match="the loop's own"),
        SpectralRecorder(_model(), path, **options) as recorder,
    ):
        for epoch in range(5):
            _batch(recorder)
            if epoch == 3:
                raise RuntimeError("the loop's own")
            recorder.end_epoch()
    spectra = open_spectra(path)
    assert spectra.epochs.tolist() == [0, 1, 2]
    assert not spectra.complete


def test_a_recorder_that_is_dropped_unclosed_says_so(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("autospec.recording.access.warnings.warn", lambda message, *_, **__: said.append(message))
    recorder = SpectralRecorder(_model(), tmp_path / "s.h5", groups=["a", "b"], floor="formula")
    _batch(recorder)
    torch.optim.SGD(recorder._model.parameters(), lr=0.1).step()  # which the recorder waits for
    del recorder
    gc.collect()
    (message,) = said
    assert message.startswith(f"the recorder of {tmp_path / 's.h5'} was never closed, so that its last epochs may be")
    _batch(SpectralRecorder(_model(), groups=["a", "b"], floor="formula"))  # in memory: nothing is lost
    SpectralRecorder(_model(), tmp_path / "another.h5", groups=["a", "b"])  # nor here
    with SpectralRecorder(_model(), tmp_path / "other.h5", groups=["a", "b"], floor="formula") as closed:
        _batch(closed)
        closed.end_epoch()
    gc.collect()
    assert len(said) == 1


@pytest.mark.slow
def test_a_program_that_ends_with_an_open_recorder_says_so(tmp_path):
    code = f"""
import torch
from autospec import SpectralRecorder
model = torch.nn.Linear(2, 2)
recorder = SpectralRecorder(model, {str(tmp_path / "s.h5")!r}, groups=["a"])
with recorder.batch([0, 0]):
    model(torch.randn(2, 2)).sum().backward()
raise SystemExit
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "was never closed, so that its last epochs may be missing" in ended.stderr
