"""What on_record is called with, and TensorBoard fed with it as docs/watching.md says."""

import re
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
from small_runs import record

from autospec import AutoSpecError, SpectralRecorder

ROOT = Path(__file__).resolve().parents[2]


def test_the_numbers_are_those_that_the_file_gives():
    seen = []
    recorder = record(
        epochs=3, groups=("SZ", "HC", "XX"), statistics=("gradient", "activation", "adjoint"), on_record=seen.append
    )
    spectra = recorder.spectra
    assert [scalars["epoch"] for scalars in seen] == [0, 1, 2]
    for place, scalars in enumerate(seen):
        assert all(type(value) is float and np.isfinite(value) for value in scalars.values())
        assert scalars["training_loss"] == spectra.training["training_loss"][place]
        for layer in spectra.layers:
            for statistic in ("gradient", "activation", "adjoint"):
                scaled = spectra.scaled(layer, statistic)
                for group in spectra.group_names:
                    expected = float(scaled.sel(group=group, index=1)[place])
                    assert scalars[f"{layer}/{group}/{statistic}_sigma1"] == pytest.approx(expected, rel=1e-12)
            cosine = float(spectra[layer]["cosine"][place].sel(group="SZ", other_group="XX"))
            assert scalars[f"{layer}/cosine/SZ - XX"] == pytest.approx(cosine)
            assert scalars[f"{layer}/cancellation"] == pytest.approx(float(spectra[layer]["cancellation"][place]))
    values = spectra["0"]["gradient"].sel(group="SZ").values[-1]
    shares = values[values > 0] / values.sum()
    rank = np.exp(-(shares * np.log(shares)).sum())
    assert seen[-1]["0/SZ/gradient_effective_rank"] == pytest.approx(rank, rel=1e-6)


def test_epochs_that_are_not_recorded_call_nothing():
    seen = []
    record(epochs=5, every=2, on_record=lambda scalars: seen.append(scalars["epoch"]))
    assert seen == [0, 2, 4]


def test_a_group_without_samples_and_losses_that_were_not_given_are_left_out():
    seen = []
    record(epochs=1, groups=("SZ", "HC", *"abcdefghijklmnop"), on_record=seen.append)
    assert not any("/p/" in name and "sigma1" in name and not np.isfinite(value) for name, value in seen[0].items())
    assert {name for name in seen[0] if name.startswith("loss/")} >= {"loss/all", "loss/SZ"}


def test_what_is_no_function_is_refused():
    import torch

    with pytest.raises(AutoSpecError, match="on_record=3: must be a function of a dict of numbers"):
        SpectralRecorder(torch.nn.Linear(2, 2), groups=["a"], on_record=3)


@pytest.mark.slow
def test_tensorboard_shows_the_scalars_and_maps(tmp_path, monkeypatch):
    """The blocks of docs/watching.md, then the event file read back."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the library's own imports
        pytest.importorskip("tensorboard")
        import torch.utils.tensorboard  # noqa: F401
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    page = (ROOT / "docs" / "watching.md").read_text()
    section = page.partition("## TensorBoard")[2].partition("\n## ")[0]
    feeding, drawing = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec("\n".join(line for line in feeding.splitlines() if "SpectralRecorder" not in line), names)
    exec(textwrap.dedent(drawing), names)
    seen = []

    def watch(scalars):
        names["recorder"] = holder[0]
        seen.append(scalars)
        names["with_maps"](scalars)

    holder = [None]
    make = SpectralRecorder.__init__

    def keep(self, *args, **options):
        holder[0] = self
        make(self, *args, **options)

    monkeypatch.setattr(SpectralRecorder, "__init__", keep)
    record(epochs=11, on_record=watch)
    names["writer"].close()
    events = EventAccumulator(str(tmp_path / "logs"), size_guidance={"images": 0, "scalars": 0})
    events.Reload()
    assert set(events.Tags()["scalars"]) >= set(seen[0]) - {"epoch"}
    values = [(event.step, event.value) for event in events.Scalars("0/SZ/gradient_sigma1")]
    assert [step for step, _ in values] == list(range(11))
    assert [value for _, value in values] == pytest.approx([s["0/SZ/gradient_sigma1"] for s in seen], rel=1e-6)
    images = events.Images("differences")
    assert [image.step for image in images] == [0, 10]
    assert images[0].encoded_image_string.startswith(b"\x89PNG")
    assert images[0].width > 300
