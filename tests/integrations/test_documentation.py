"""The blocks of docs/callbacks.md and docs/watching.md run as they stand."""

import re
import sys
import types
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

import autospec

DOCS = Path(__file__).resolve().parents[2] / "docs"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def _blocks(page):
    """The Python of each section, by its title."""
    sections = re.split(r"^## ", (DOCS / page).read_text(), flags=re.MULTILINE)[1:]
    found = {section.splitlines()[0]: re.findall(r"```python\n(.*?)```", section, re.DOTALL) for section in sections}
    return {title: blocks for title, blocks in found.items() if blocks}


def _setting():
    model = nn.Linear(4, 2)
    batches = [(torch.randn(6, 4), torch.randn(6, 2), torch.tensor([0, 1] * 3)) for _ in range(4)]
    return {
        "autospec": autospec, "model": model, "loss_fn": nn.MSELoss(), "accumulated": 2, "loader": batches,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }  # fmt: skip


def _lightning(names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = names["model"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.net.parameters(), lr=0.1)

        def training_step(self, batch, batch_idx):
            return names["loss_fn"](self.net(batch["x"]), batch["y"])

    data = [{"x": x, "y": y, "diagnosis": group} for x, y, group in names["loader"]]
    return {"lightning": lightning, "module": Module(), "loader": torch.utils.data.DataLoader(data, batch_size=None)}


def _trainer(names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x, labels=None):
            return {"loss": nn.functional.cross_entropy(self.layer(x), labels)}

    data = [{"x": torch.randn(4), "labels": place % 3, "group": place % 2} for place in range(12)]
    arguments = transformers.TrainingArguments(
        output_dir="out", report_to="none", disable_tqdm=True, save_strategy="no", use_cpu=True, num_train_epochs=1
    )
    return {
        "transformers": transformers, "model": Model(), "data": data, "arguments": arguments,
        "collator": transformers.default_data_collator,
    }  # fmt: skip


def _accelerate(names):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accelerate = pytest.importorskip("accelerate")
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    data = torch.utils.data.DataLoader(names["loader"], batch_size=None)
    return {"accelerator": accelerate.Accelerator(cpu=True), "loader": data}


SETTINGS = {"Lightning": _lightning, "Hugging Face Trainer": _trainer, "Accelerate": _accelerate}


@pytest.mark.slow
@pytest.mark.parametrize("title", _blocks("callbacks.md"))
def test_a_block_of_the_callbacks_page_records(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = _setting()
    names |= SETTINGS.get(title, lambda names: {})(names)
    for block in _blocks("callbacks.md")[title]:
        exec(block, names)
    assert len(autospec.open_spectra(tmp_path / "spectra.h5").epochs)


TRACKERS = [("Weights & Biases", "wandb"), ("MLflow", "mlflow"), ("trackio", "trackio")]


def _readme(text):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS.parent / "README.md").read_text(), re.DOTALL)
    return next(block for block in blocks if text in block)


class _Subjects(torch.utils.data.Dataset):
    """Samples with a group and a subject each; the second group's are larger."""

    def __len__(self):
        return 20

    def __getitem__(self, place):
        x = torch.randn(4, generator=torch.Generator().manual_seed(place)) * (1 + 4 * (place % 2))
        return x, x, place % 2, f"sub-{place:02}"


@pytest.mark.slow
def test_ten_lines_of_the_readme_end_in_a_picture_and_two_more_in_a_valid_p(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4))
    names = {"model": model, "loss_fn": nn.MSELoss(), "epochs": 2, "optimizer": torch.optim.Adam(model.parameters())}
    names["loader"] = [batch[:3] for batch in torch.utils.data.DataLoader(_Subjects(), batch_size=8)]
    exec(_readme("with recorder"), names)
    assert (tmp_path / "differences.png").read_bytes().startswith(b"\x89PNG")
    assert autospec.open_spectra("spectra.h5").tests("SZ", "HC")["note"].str.contains("permutations=1000").all()

    asked, recorder, batch, answer = _readme("target_is_group").splitlines()
    exec(asked, names)
    exec(recorder.replace('"spectra.h5"', '"tested.h5"'), names)
    for x, _, group, subject in torch.utils.data.DataLoader(_Subjects(), batch_size=8):
        names |= {"group": group, "subject": subject}
        with eval(batch.partition("#")[0], names):
            names["loss_fn"](model(x), x).backward()
    names["recorder"].end_epoch()
    names["recorder"].close()
    tests = eval(answer.partition("#")[0].replace('"spectra.h5"', '"tested.h5"'), names)
    assert 0 < tests[tests["test"] == "permutation"]["p"].max() < 0.05


class _Tracker(types.ModuleType):
    """Stands in for a tracker that is not installed, and keeps what it is given."""

    def __init__(self, name):
        super().__init__(name)
        self.logged = []
        self.init = lambda **_: self
        self.start_run = lambda: self
        self.log = self.log_metrics = lambda scalars, step: self.logged.append((step, scalars))


@pytest.mark.parametrize(("title", "module"), TRACKERS)
def test_a_block_of_the_watching_page_logs_every_record(title, module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker = _Tracker(module)
    monkeypatch.setitem(sys.modules, module, tracker)
    names = _setting()
    (block,) = _blocks("watching.md")[title]
    assert len([line for line in block.splitlines() if line]) == 5
    exec(block, names)
    with names["recorder"] as recorder:
        for x, y, group in names["loader"]:
            with recorder.batch(group):
                names["loss_fn"](names["model"](x), y).backward()
            recorder.end_epoch()
    assert [step for step, _ in tracker.logged] == [0, 1, 2, 3]
    assert {type(value) for _, scalars in tracker.logged for value in scalars.values()} == {float}
