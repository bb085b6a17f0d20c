"""Loops with Accelerate: every record against the groups' own gradients."""

import warnings

import pytest
import torch
from integrations.group_reference import OwnGradients, is_close
from torch import nn

from autospec import AutoSpecError, open_spectra

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the library's own imports
    accelerate = pytest.importorskip("accelerate")
    from autospec.integrations.accelerate import AcceleratedRecorder

N = 20


def _losses(net, x, y):
    return (net(x) - y).square().mean(1)


def _train(path, accumulated=1, clip=None, scaler=None, precision="no", dtype=torch.float64, **options):
    """Two epochs in batches of 6 as Accelerate's guide writes them; the groups' own gradients."""
    torch.manual_seed(5)
    net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    generator = torch.Generator().manual_seed(2)
    x, y = (torch.randn(N, width, generator=generator).to(dtype) for width in (4, 3))
    data = torch.utils.data.TensorDataset(x, y, torch.arange(N) % 3 % 2)
    accelerator = accelerate.Accelerator(gradient_accumulation_steps=accumulated, mixed_precision=precision, cpu=True)
    accelerator.scaler = scaler
    net, optimizer, loader = accelerator.prepare(
        net, torch.optim.SGD(net.parameters(), lr=0.1), torch.utils.data.DataLoader(data, batch_size=6)
    )
    own = OwnGradients()
    with AcceleratedRecorder(accelerator, net, path, groups=["a", "b"], floor="formula", **options) as recorder:
        for _ in range(2):
            for inputs, target, group in loader:
                own.add(net, lambda net, x=inputs, y=target: _losses(net, x, y), group, 1 / accumulated)
                with accelerator.accumulate(net):
                    with recorder.batch(group):
                        loss = _losses(net, inputs, target).mean()
                        accelerator.backward(loss)
                    if clip and accelerator.sync_gradients:
                        accelerator.clip_grad_norm_(net.parameters(), clip)
                    optimizer.step()
                    optimizer.zero_grad()
            recorder.end_epoch(loss=loss.item())
            own.end()
    return own


@pytest.fixture(autouse=True)
def _fresh_state():
    yield
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


SITUATIONS = {"plain": {}, "accumulated": {"accumulated": 3}, "clipped": {"clip": 0.01, "accumulated": 2}}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_record_is_the_groups_own_gradient(tmp_path, situation):
    own = _train(tmp_path / "s.h5", **SITUATIONS[situation])
    assert is_close(open_spectra(tmp_path / "s.h5"), own, tolerance=1e-9)


def test_a_scaler_is_known(tmp_path):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)
    own = _train(tmp_path / "s.h5", accumulated=2, scaler=scaler, dtype=torch.float32)
    assert scaler.get_scale() > 2.0**12
    assert is_close(open_spectra(tmp_path / "s.h5"), own, tolerance=1e-4)


def test_half_precision(tmp_path):
    own = _train(tmp_path / "s.h5", precision="bf16", dtype=torch.float32)
    assert is_close(open_spectra(tmp_path / "s.h5"), own, tolerance=0.1)


@pytest.mark.parametrize("kind", ["FSDP", "DEEPSPEED", "MEGATRON_LM"])
def test_weights_in_pieces_are_refused_in_one_line(kind, tmp_path):
    class Sharded:
        distributed_type = accelerate.DistributedType(kind)

    with pytest.raises(AutoSpecError, match=f"distributed_type={kind}: is not recorded; allowed are one process and"):
        AcceleratedRecorder(Sharded(), nn.Linear(2, 2), tmp_path / "s.h5", groups=["a"])
