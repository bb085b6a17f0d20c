"""Convolutions: rows against windows taken one by one, and the gradient for any geometry."""

import pytest
import torch
from cases import captured
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from references import unfolded
from torch import nn
from torch.nn import functional

from autospec import AutoSpecError, SpectralRecorder
from autospec.capture.rules import convolution
from autospec.capture.rules.registry import LayerCall

KINDS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def factors_of(layer, x):
    """The layer's factors and the adjoint of its output, in one backward pass."""
    outputs = []

    def backward():
        outputs.append(layer(x))
        outputs[0].retain_grad()
        (outputs[0].sin() + outputs[0].square() / 2).sum().backward()

    return captured(layer, backward)["weight"][0], outputs[0].grad


def by_place(tensor):
    """(n, channels, *places) → (n, places, channels)."""
    return tensor.flatten(2).mT


@pytest.mark.parametrize("mode", ["zeros", "reflect", "replicate", "circular"])
@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_rows_are_the_windows_of_the_padded_input(dimensions, mode):
    options = {"stride": 2, "padding": 2, "dilation": 2, "padding_mode": mode}
    layer = KINDS[dimensions](3, 4, 3, **options).double()
    x = torch.randn(2, 3, *(7, 6, 5)[:dimensions], dtype=torch.float64)
    part, adjoint = factors_of(layer, x)
    image = functional.pad(x, [2] * 2 * dimensions, mode="constant" if mode == "zeros" else mode)
    assert torch.equal(part.activation[0], unfolded(image, layer))
    assert torch.equal(part.adjoint[0], by_place(adjoint))


def test_rows_are_those_of_unfold():
    layer = nn.Conv2d(3, 4, (2, 3), stride=(2, 1), padding=(1, 2), dilation=(1, 2)).double()
    x = torch.randn(5, 3, 7, 6, dtype=torch.float64)
    part, _ = factors_of(layer, x)
    rows = functional.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    assert torch.equal(part.activation[0], rows.mT)


@pytest.mark.parametrize("dimensions", [1, 2, 3])
def test_rows_of_a_transposed_convolution_are_the_windows_of_its_adjoint(dimensions):
    layer = TRANSPOSED[dimensions](3, 4, 3, stride=2, padding=1, output_padding=1).double()
    x = torch.randn(2, 3, *(3, 2, 4)[:dimensions], dtype=torch.float64)
    part, adjoint = factors_of(layer, x)
    image = functional.pad(adjoint, [1] * 2 * dimensions)
    assert torch.equal(part.activation[0], by_place(x))
    assert torch.equal(part.adjoint[0], unfolded(image, layer)[:, : part.positions])
    assert part.transposed


def test_groups_are_blocks():
    layer = nn.Conv1d(4, 6, 3, groups=2).double()
    x = torch.randn(5, 4, 7, dtype=torch.float64)
    part, adjoint = factors_of(layer, x)
    for block in range(2):
        channels = x[:, 2 * block : 2 * block + 2]
        assert torch.equal(part.activation[block], unfolded(channels, layer))
        assert torch.equal(part.adjoint[block], by_place(adjoint[:, 3 * block : 3 * block + 3]))
    assert part.rows_per_sample.tolist() == [10] * 5


geometry = {
    "dimensions": st.integers(1, 3),
    "size": st.integers(1, 6),
    "kernel": st.integers(1, 3),
    "stride": st.integers(1, 3),
    "padding": st.integers(0, 2),
    "dilation": st.integers(1, 2),
    "groups": st.sampled_from([1, 2]),
    "seed": st.integers(0, 2**20),
}


def check(layer, x, seed):
    torch.manual_seed(seed)
    some = torch.rand(len(x)) < 0.5
    part, _ = factors_of(layer, x)
    parts = [part.product(chosen.nonzero()[:, 0]) for chosen in (some, ~some)]
    scale = float(torch.stack(part.squared_norms()).sum(1).prod().sqrt())
    assert (sum(parts) - layer.weight.grad.flatten(1)).norm() <= 1e-12 * scale
    activation, adjoint = part.of_samples(torch.arange(len(x)))
    if part.transposed:
        activation, adjoint = adjoint, activation
    assert ((adjoint.mT @ activation).flatten(0, 1) - layer.weight.grad.flatten(1)).norm() <= 1e-12 * scale


@given(**geometry)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_convolution(dimensions, size, kernel, stride, padding, dilation, groups, seed):
    assume(size + 2 * padding >= dilation * (kernel - 1) + 1)
    layer = KINDS[dimensions](2, 4, kernel, stride, padding, dilation, groups).double()
    check(layer, torch.randn(3, 2, *[size] * dimensions, dtype=torch.float64), seed)


@given(**geometry, output_padding=st.integers(0, 2))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_any_transposed_convolution(dimensions, size, kernel, stride, padding, dilation, groups, seed, output_padding):
    assume((size - 1) * stride + dilation * (kernel - 1) + 1 + output_padding > 2 * padding)
    assume(output_padding < max(stride, dilation))
    size = min(size, 3)
    assume((size - 1) * stride + dilation * (kernel - 1) + 1 + output_padding > 2 * padding)
    layer = TRANSPOSED[dimensions](2, 4, kernel, stride, padding, output_padding, groups, True, dilation).double()
    check(layer, torch.randn(3, 2, *[size] * dimensions, dtype=torch.float64), seed)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_made_a_few_samples_at_a_time_have_the_same_spectra(dtype, monkeypatch):
    layer = nn.Conv2d(2, 3, 3, padding=1, dtype=dtype)
    x = torch.randn(8, 2, 5, 5, dtype=dtype)

    def spectra():
        with SpectralRecorder(layer, groups=["a", "b"], statistics=["activation", "adjoint"]) as recorder:
            with recorder.batch([0, 1] * 4):
                layer(x).square().sum().backward()
            recorder.end_epoch()
        return {array.field.path: torch.tensor(array.values[0]) for array in recorder.table}

    at_once = spectra()
    monkeypatch.setattr(convolution, "ELEMENTS_AT_ONCE", 1000)
    for path, values in spectra().items():
        assert torch.allclose(values.double(), at_once[path].double(), rtol=1e-6)


def test_half_precision_is_multiplied_in_float32():
    layer = nn.Conv2d(2, 3, 3, dtype=torch.bfloat16)
    part, _ = factors_of(layer, torch.randn(4, 2, 6, 6, dtype=torch.bfloat16))
    product = part.product(torch.arange(4))
    exact = part.adjoint[0].flatten(0, 1).double().T @ part.activation[0].flatten(0, 1).double()
    assert torch.allclose(product, exact, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("kind", [nn.Conv1d, nn.ConvTranspose1d])
def test_an_image_without_a_batch_is_refused(kind):
    model = nn.ModuleDict({"encoder": kind(2, 3, 3)})
    recorder = SpectralRecorder(model, groups=["a"])
    message = r"layer 'encoder' \(\w+\): expects an input of 3 dimensions with samples"
    with pytest.raises(AutoSpecError, match=message), recorder.batch([0]):
        model["encoder"](torch.randn(2, 7)).sum().backward()


def test_many_windows_of_one_sign_keep_the_digits_of_float32():
    """A convolution's own kernel, which adds up naively, is off by far more here."""
    layer = nn.Conv2d(4, 4, 3, padding=1)
    image, adjoint = torch.rand(300, 4, 20, 20) * 0.1 + 0.5, torch.rand(300, 4, 20, 20) * 0.1 + 1
    factors = convolution.convolution(layer, LayerCall((image,), {}, (adjoint,), (adjoint,)))["weight"]
    precise = convolution.convolution(
        layer, LayerCall((image.double(),), {}, (adjoint.double(),), (adjoint.double(),))
    )["weight"]
    everyone = torch.arange(300)
    difference = (factors.product(everyone) - precise.product(everyone)).norm()
    assert difference < 2e-6 * precise.product(everyone).norm()
