"""Every layer type with every option: against samples taken alone, and without a trace in training."""

import contextlib
import copy
import math
import warnings

import pytest
import torch
from cases import CASES, CONVOLUTIONS, DROPPING, GRADIENT_ONLY, GROUPS, LABELS, SAMPLES, Case, captured
from hypothesis import given, settings
from hypothesis import strategies as st
from references import full_spectrum, group_sums, weight_gradients

from autospec import SpectralRecorder
from autospec.store.schema import layer_name

TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5}
STATISTICS = ("gradient", "activation", "adjoint")


def each(cases):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


@contextlib.contextmanager
def expected_warning(case: Case):
    with warnings.catch_warnings():
        if case.warns:
            warnings.filterwarnings("ignore", case.warns)
        yield


def recorded(case, model, batch, labels=LABELS):
    """The arrays of a recorder over one batch, by their path."""
    with SpectralRecorder(model, groups=GROUPS, statistics=STATISTICS) as recorder, expected_warning(case):
        with recorder.batch(labels):
            case.losses(model, batch).mean().backward()
        recorder.end_epoch()
    return {array.field.path: array.values[0] for array in recorder.table}


def factors_of(case, model, batch):
    """Every weight's factors in one backward pass, by the weight's name."""
    with expected_warning(case):
        return captured(model, lambda: case.losses(model, batch).mean().backward())


def norm_products(arrays, layer, shape, dtype):
    """``‖A_c‖ ‖Δ_c‖``, from the floor that is stored: ``eps √min(shape) ‖A_c‖ ‖Δ_c‖``."""
    return arrays[f"layers/{layer}/floor/gradient"] / (torch.finfo(dtype).eps * math.sqrt(min(shape)))


def matrices(model):
    """The weights that have a spectrum: bias_k and bias_v of an attention, for one, are single rows."""
    return {name: p for name, p in model.named_parameters() if p.dim() > 1 and min(p.flatten(1).shape) > 1}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@each([*CASES, *GRADIENT_ONLY])
def test_group_spectra_are_those_of_samples_taken_alone(case, dtype):
    model, batch = case.model(dtype), case.inputs(dtype)
    with expected_warning(case):
        alone = weight_gradients(model, batch, case.losses)
    arrays = recorded(case, model, batch)
    assert {f"layers/{layer_name(name)}/gradient" for name in matrices(model)} == {
        path for path in arrays if path.endswith("/gradient") and "floor" not in path
    }
    for name, parameter in matrices(model).items():
        layer = layer_name(name)
        expected = group_sums(alone[name], LABELS.tolist(), len(GROUPS))
        scales = norm_products(arrays, layer, parameter.flatten(1).shape, dtype)
        for found, matrix, scale in zip(arrays[f"layers/{layer}/gradient"], expected, scales, strict=True):
            assert abs(found - full_spectrum(matrix)).max() <= TOLERANCE[dtype] * scale


@given(
    case=st.sampled_from([*CASES, *DROPPING, *GRADIENT_ONLY]),
    labels=st.lists(st.integers(-1, 2), min_size=SAMPLES, max_size=SAMPLES),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
)
@settings(max_examples=120, deadline=None, derandomize=True)
def test_the_parts_of_any_groups_add_up_to_the_gradient_that_backward_left(case, labels, dtype):
    """In bfloat16 the optimizer's own gradient is rounded, and fused kernels round inside."""
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5, torch.bfloat16: 1e-2}[dtype]
    model, batch = case.model(dtype), case.inputs(dtype)
    labels = torch.tensor(labels)
    of_layers = {}
    for use, parts in factors_of(case, model, batch).items():
        of_layers.setdefault(use.partition("/uses/")[0], []).extend(parts)
    for name, parts in of_layers.items():
        (parameter,) = (p for full, p in model.named_parameters() if layer_name(full) == name)
        total = torch.zeros_like(parameter.flatten(1), dtype=torch.float64)
        norms = torch.zeros(2, dtype=torch.float64)
        for part in parts:
            for label in range(-1, 3):
                rows = slice(part.first_row, part.first_row + part.height)
                total[rows] += part.product((labels == label).nonzero()[:, 0])
            norms += torch.stack([norm.sum() for norm in part.squared_norms()])
        assert (total - parameter.grad.flatten(1)).norm() <= tolerance * norms.prod().sqrt()


@each([*CASES, *DROPPING])
def test_rows_norms_and_products_are_of_the_same_factors(case):
    model, batch = case.model(torch.float64), case.inputs(torch.float64)
    some = torch.tensor([0, 3, 4])
    for parts in factors_of(case, model, batch).values():
        for part in parts:
            assert part.activation.shape[:3] == part.adjoint.shape[:3] == (part.blocks, SAMPLES, part.positions)
            activation, adjoint = (factor[:, some].flatten(1, 2) for factor in (part.activation, part.adjoint))
            if part.transposed:
                activation, adjoint = adjoint, activation
            product = (adjoint.mT @ activation).flatten(0, 1)
            assert torch.allclose(part.product(some), product, rtol=0, atol=1e-12 * float(product.norm() + 1))
            norms = [factor.square().sum((0, 2, 3)) for factor in (part.activation, part.adjoint)]
            assert torch.allclose(torch.stack(part.squared_norms()), torch.stack(norms), rtol=1e-10)
            padded = (part.activation == 0).all(-1) & (part.adjoint == 0).all(-1)
            assert ((~padded).sum((0, 2)) <= part.rows_per_sample).all()
            assert (part.rows_per_sample <= part.blocks * part.positions).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@each([*CASES, *DROPPING])
def test_spectra_of_rows_are_those_of_the_rows_stacked(case, dtype):
    model, batch = case.model(dtype), case.inputs(dtype)
    torch.manual_seed(3)
    arrays = recorded(case, copy.deepcopy(model), batch)
    torch.manual_seed(3)
    for name, parts in factors_of(case, model, batch).items():
        for statistic in ("activation", "adjoint"):
            for row, members in enumerate((LABELS > -2, LABELS == 0, LABELS == 1, LABELS == 2)):
                expected = torch.linalg.svdvals(stacked(parts, statistic, members).double()).numpy()
                found = arrays[f"layers/{name}/{statistic}"][row]
                tolerance = TOLERANCE[dtype] * max(expected.max(initial=0), 1e-30)
                shorter = min(len(found), len(expected))
                assert abs(found[:shorter] - expected[:shorter]).max(initial=0) <= tolerance
                assert abs(found[shorter:]).max(initial=0) <= 10 * tolerance


def stacked(parts, statistic, members):
    """``A_c`` or ``Δ_c`` as one matrix: blocks of the one under one another, those of the other along a diagonal.

    Each part stands where its rows of the weight's matrix are.
    """
    factors = [getattr(part, statistic)[:, members].flatten(1, 2) for part in parts]
    if (statistic == "activation") != parts[0].transposed:
        return torch.cat([factor.flatten(0, 1) for factor in factors])
    width = max(part.first_row + part.height for part in parts)
    placed = [torch.block_diag(*factor) for factor in factors]
    before = [part.first_row for part in parts]
    return torch.cat(
        [
            torch.nn.functional.pad(rows, (first, width - first - rows.shape[1]))
            for rows, first in zip(placed, before, strict=True)
        ]
    )


@each([case for case in [*CASES, *DROPPING, *GRADIENT_ONLY] if case not in CONVOLUTIONS or "all at once" in case.name])
def test_training_is_the_same_to_the_last_bit(case):
    def trained(record):
        model, batch = case.model(torch.float32), case.inputs(torch.float32)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        recorder = SpectralRecorder(model, groups=GROUPS, statistics=STATISTICS) if record else None
        for _ in range(2):
            with recorder.batch(LABELS) if recorder else contextlib.nullcontext(), expected_warning(case):
                loss = case.losses(model, batch).mean() * torch.rand(())  # others draw random numbers too
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        return [loss.detach(), torch.get_rng_state(), *model.parameters()]

    assert all(torch.equal(with_it, without) for with_it, without in zip(trained(True), trained(False), strict=True))


def test_products_are_exact_where_backward_runs_under_autocast():
    model, x = torch.nn.Linear(5, 4), torch.randn(40, 5)
    with SpectralRecorder(model, groups=GROUPS) as recorder:
        with recorder.batch([0, 1] * 20), torch.autocast("cpu", torch.bfloat16):
            output = model(x)
            output.retain_grad()
            output.square().sum().backward()
        recorder.end_epoch()
    assert output.grad.dtype == torch.bfloat16
    expected = full_spectrum(output.grad.double().T @ x.double())
    assert abs(recorder.table["layers/weight/gradient"][0, 0] - expected).max() < 1e-6 * expected[0]
