"""The Lightning callback over real small trainings: every record against the groups' own gradients."""

import warnings

import pytest
import torch
from integrations.group_reference import OwnGradients, is_close
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autospec import AutoSpecError, AutoSpecWarning, open_spectra

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the library's own imports
    lightning = pytest.importorskip("lightning.pytorch")
    from autospec.integrations.lightning import SpectraCallback

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*does not have many workers:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*litmodels.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
    pytest.mark.filterwarnings("ignore:The `srun` command is available:UserWarning"),
    pytest.mark.filterwarnings("ignore:GPU available but not used:UserWarning"),
]
N = 20


def _losses(net, x, y):
    return (net(x) - y).square().mean(1)


class Module(lightning.LightningModule):
    """A regression, as automatic optimization trains it; it keeps the reference as it goes."""

    def __init__(self, optimizer=torch.optim.SGD, accumulated=1, dtype=torch.float64, **options):
        super().__init__()
        torch.manual_seed(5)
        self.net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
        self.make_optimizer, self.options = optimizer, {"lr": 0.1, **options}
        self.accumulated = accumulated
        self.own = OwnGradients()

    def configure_optimizers(self):
        return self.make_optimizer(self.net.parameters(), **self.options)

    def training_step(self, batch, batch_idx):
        x, y, group = batch
        self.own.add(self.net, lambda net: _losses(net, x, y), group, 1 / self.accumulated)
        return _losses(self.net, x, y).mean()

    def on_train_epoch_end(self):
        self.own.end()


def _loader(size=6, dtype=torch.float64):
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(N, width, generator=generator).to(dtype) for width in (4, 3))
    return DataLoader(TensorDataset(x, y, torch.arange(N) % 3 % 2), batch_size=size)


def _trainer(tmp_path, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet |= {"enable_checkpointing": False, "max_epochs": 2, "default_root_dir": tmp_path}
    return lightning.Trainer(callbacks=list(callbacks), **(quiet | options))


def _fit(tmp_path, module, loader=None, **options):
    path = tmp_path / "spectra.h5"
    callback = SpectraCallback(path, groups=["a", "b"], group=2, floor="formula", **options.pop("asked", {}))
    _trainer(tmp_path, callback, **options).fit(module, loader or _loader())
    return open_spectra(path)


SITUATIONS = {
    "plain": ({}, {}),
    "adam": ({"optimizer": torch.optim.AdamW}, {}),
    "clipped": ({}, {"gradient_clip_val": 0.01}),
    "accumulated": ({"accumulated": 3}, {"accumulate_grad_batches": 3}),
    "accumulated and clipped": ({"accumulated": 2}, {"accumulate_grad_batches": 2, "gradient_clip_val": 0.01}),
    "closures": ({"optimizer": torch.optim.LBFGS, "max_iter": 3}, {}),
    "cut off": ({}, {"limit_train_batches": 2}),
    "with validation": ({}, {"limit_val_batches": 1}),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_record_is_the_groups_own_gradient(tmp_path, situation):
    of_module, of_trainer = SITUATIONS[situation]
    module = Module(**of_module)
    spectra = _fit(tmp_path, module, **of_trainer)
    assert spectra.complete
    assert is_close(spectra, module.own, "net.", 1e-9)
    assert spectra.training["training_loss"].notna().all()


def test_strategies_that_hold_weights_in_pieces_are_refused(tmp_path):
    class FSDPStrategy:
        handles_gradient_accumulation = False

    class Several:
        world_size, strategy = 2, FSDPStrategy()

    with pytest.raises(AutoSpecError, match="FSDPStrategy in 2 processes is not recorded; allowed is 'ddp'"):
        SpectraCallback(groups=["a"]).on_train_start(Several(), Module())


def test_training_is_the_same_to_the_bit(tmp_path):
    trained = []
    for callbacks in ([], [SpectraCallback(groups=["a", "b"], group=2)]):
        module = Module(dtype=torch.float32)
        _trainer(tmp_path, *callbacks).fit(module, _loader(dtype=torch.float32))
        trained.append(module.net[0].weight.detach())
    assert torch.equal(*trained)


class Halving(torch.amp.GradScaler):
    """A scaler on the CPU whose scale changes as training goes."""

    def __init__(self):
        super().__init__("cpu", init_scale=2.0**10, growth_interval=2)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_and_its_scaler_are_known(tmp_path, precision):
    from lightning.pytorch.plugins import MixedPrecision

    scaler = Halving() if precision == "16-mixed" else None
    module = Module(dtype=torch.float32)
    plugin = MixedPrecision(precision, "cpu", scaler=scaler)
    spectra = _fit(tmp_path, module, _loader(dtype=torch.float32), plugins=[plugin])
    if scaler is not None:
        assert scaler.get_scale() > 2.0**10
    assert is_close(spectra, module.own, "net.", 0.1)


class Adversarial(lightning.LightningModule):
    """Two networks with an optimizer each, as the library's own example trains them by hand."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.generator = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 4)).double()
        self.discriminator = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).double()
        self.automatic_optimization = False
        self.own = OwnGradients()

    def configure_optimizers(self):
        return [torch.optim.SGD(net.parameters(), lr=0.1) for net in (self.generator, self.discriminator)]

    def training_step(self, batch, batch_idx):
        x, _, group = batch
        first, second = self.optimizers()
        z = torch.linspace(-1, 1, 2 * len(x)).reshape(len(x), 2).double()
        self.toggle_optimizer(first)
        pair = nn.ModuleDict({"generator": self.generator, "discriminator": self.discriminator})
        self._keep(pair, lambda nets: _fooled(nets["discriminator"](nets["generator"](z))), group, "generator")
        self.manual_backward(_fooled(self.discriminator(self.generator(z))).mean())
        first.step()
        first.zero_grad()
        self.untoggle_optimizer(first)
        self.toggle_optimizer(second)

        def of_both(nets):
            real, fake = nets["discriminator"](x), nets["discriminator"](nets["generator"](z).detach())
            return (_fooled(real) + _fooled(-fake)) / 2

        self._keep(pair, of_both, group, "discriminator")
        loss = of_both({"discriminator": self.discriminator, "generator": self.generator}).mean()
        self.manual_backward(loss)
        second.step()
        second.zero_grad()
        self.untoggle_optimizer(second)

    def _keep(self, pair, losses, group, stepped):
        one = OwnGradients()
        one.add(pair, losses, group)
        for name, sums in one.gradients.items():
            if name.startswith(stepped):
                before = self.own.gradients.get(name, [0.0, 0.0])
                self.own.gradients[name] = [a + b for a, b in zip(before, sums, strict=True)]
        if stepped == "generator":
            self.own.weight += one.weight

    def on_train_epoch_end(self):
        self.own.end()


def _fooled(scores):
    return nn.functional.softplus(-scores)[:, 0]


def test_two_networks_that_are_trained_by_hand(tmp_path):
    module = Adversarial()
    spectra = _fit(tmp_path, module)
    assert is_close(spectra, module.own, "", 1e-9)


class SkipsSome(Module):
    def training_step(self, batch, batch_idx):
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:.training_step. returned .None.:UserWarning")
def test_a_step_that_is_skipped_is_left_out(tmp_path):
    module = SkipsSome()
    assert is_close(_fit(tmp_path, module), module.own, "net.", 1e-9)


class EndsAtSteps(Module):
    def on_train_batch_end(self, outputs, batch, batch_idx):
        if (batch_idx + 1) % self.accumulated == 0 or self.trainer.is_last_batch:
            self.own.end()

    def on_train_epoch_end(self):
        pass


def test_a_record_may_be_a_step(tmp_path):
    module = EndsAtSteps(accumulated=3)
    spectra = _fit(tmp_path, module, accumulate_grad_batches=3, asked={"at": "step"})
    assert is_close(spectra, module.own, "net.", 1e-9)
    assert spectra.epochs.tolist() == [1, 2, 3, 4]


def test_a_checkpoint_goes_on_to_the_same_numbers(tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    whole = Module()
    _fit(tmp_path / "whole", whole, max_epochs=3) if (tmp_path / "whole").mkdir() is None else None
    path, found = tmp_path / "spectra.h5", {}
    for epochs in (2, 3):
        callback = SpectraCallback(path, groups=["a", "b"], group=2, floor="formula")
        saving = ModelCheckpoint(tmp_path / "saved", filename="last", enable_version_counter=False)
        trainer = _trainer(tmp_path, callback, saving, enable_checkpointing=True, max_epochs=epochs)
        trainer.fit(Module(), _loader(), ckpt_path=tmp_path / "saved/last.ckpt" if epochs == 3 else None)
        found = open_spectra(path)
    assert found.epochs.tolist() == [0, 1, 2]
    assert is_close(found, whole.own, "net.", 1e-9)


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`:UserWarning")
@pytest.mark.filterwarnings("ignore:You.re resuming from a checkpoint that ended before the epoch:UserWarning")
def test_a_checkpoint_in_the_middle_of_an_epoch_says_what_is_missing(tmp_path):
    from lightning.pytorch.callbacks import ModelCheckpoint

    path = tmp_path / "spectra.h5"
    saving = ModelCheckpoint(tmp_path / "saved", filename="{step}", every_n_train_steps=3, save_top_k=-1)
    callback = SpectraCallback(path, groups=["a", "b"], group=2, floor="formula")
    _trainer(tmp_path, callback, saving, enable_checkpointing=True).fit(Module(), _loader())
    callback = SpectraCallback(path, groups=["a", "b"], group=2, floor="formula")
    with pytest.warns(AutoSpecWarning, match="training goes on in the middle of epoch 0"):
        _trainer(tmp_path, callback).fit(Module(), _loader(), ckpt_path=tmp_path / "saved/step=3.ckpt")
    assert open_spectra(path).epochs.tolist() == [0, 1]


class Breaks(Module):
    def training_step(self, batch, batch_idx):
        if self.current_epoch == 1 and batch_idx == 2:
            raise RuntimeError("the loop's own")
        return super().training_step(batch, batch_idx)


def test_what_was_recorded_before_an_exception_is_in_the_file(tmp_path):
    module = Breaks()
    with pytest.raises(RuntimeError, match="the loop's own"):
        _fit(tmp_path, module)
    spectra = open_spectra(tmp_path / "spectra.h5")
    assert not spectra.complete
    assert spectra.epochs.tolist() == [0]
    assert not any(layer._forward_hooks for layer in module.modules())


MISTAKES = {
    "place": ({"group": "sex"}, "group='sex': the batch .list. has nothing there; say by SpectraCallback"),
    "clock": ({"at": "batch"}, "at='batch': a record is of an 'epoch' or of an optimizer's 'step'"),
    "known": ({"scaler": None}, "scaler= is known from the trainer, and must not be given"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(tmp_path, mistake):
    options, message = MISTAKES[mistake]
    with pytest.raises(AutoSpecError, match=message) as raised:
        callback = SpectraCallback(tmp_path / "s.h5", **{"groups": ["a", "b"], "group": 2, **options})
        _trainer(tmp_path, callback).fit(Module(), _loader())
    assert "\n" not in str(raised.value)


def test_there_is_no_recorder_outside_of_training():
    with pytest.raises(AutoSpecError, match="training has not begun"):
        SpectraCallback(groups=["a"]).recorder  # noqa: B018


def test_permutations_take_the_subject_from_the_batch(tmp_path):
    x, y = torch.randn(N, 4).double(), torch.randn(N, 3).double()
    loader = DataLoader(TensorDataset(x, y, torch.arange(N) % 2, torch.arange(N)), batch_size=6, shuffle=True)

    class WithSubject(Module):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch[:3], batch_idx)

    asked = {"permutations": 19, "target_is_group": False, "subject": lambda batch: batch[3]}
    spectra = _fit(tmp_path, WithSubject(), loader, asked=asked)
    assert spectra.tests("a", "b")["p"].notna().any()
