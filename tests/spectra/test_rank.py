import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autospec import GradientFactors, SpectralRecorder
from autospec.spectra.groups import SampleGroups, grouping
from autospec.spectra.layer_sums import LayerSums, gradient_floor
from autospec.spectra.rank import effective_rank, numerical_rank
from autospec.spectra.statistics import rank_bound


def test_ranks_of_prescribed_spectra():
    spectra = torch.tensor([[2.0, 2.0, 2.0, 1e-12], [5.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    floor = torch.tensor([1e-9, 1e-9])
    assert numerical_rank(spectra, floor).tolist() == [3.0, 1.0]
    assert effective_rank(spectra, floor).tolist() == pytest.approx([3.0, 1.0])
    assert effective_rank(torch.zeros(1, 2, dtype=torch.float64), floor[:1]).isnan().all()
    assert numerical_rank(torch.full((1, 2), torch.nan, dtype=torch.float64), floor[:1]).isnan().all()


def test_no_gradient_exceeds_its_bound():
    """Inputs of rank 2, one group of one sample, a bottleneck in the middle."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 10)).double()
    inputs = torch.randn(20, 2, dtype=torch.float64) @ torch.randn(2, 10, dtype=torch.float64)
    labels = torch.tensor([0] * 19 + [1])
    recorder = SpectralRecorder(model, groups=["many", "one"], statistics=("gradient", "activation", "adjoint", "rank"))
    with recorder.batch(labels):
        (model(inputs) - inputs).square().mean().backward()
    recorder.end_epoch()
    bound, measured, effective = (
        recorder.table[f"layers/0/rank/{name}"][0] for name in ("bound", "numerical", "effective")
    )
    assert bound.tolist() == [2, 2, 1]
    assert (measured <= bound).all()
    assert (effective <= measured + 1e-9).all()
    assert recorder.table["layers/2/rank/bound"][0].tolist()[2] == 1


IN, OUT, SAMPLES, POSITIONS = 9, 7, 40, 3
"""Large group: samples 0 to 36; small group: the last three."""


def _of_rank(rank, width, n=SAMPLES):
    return torch.randn(n, rank, dtype=torch.float64) @ torch.randn(rank, width, dtype=torch.float64)


def _repeated(width):
    """Rows of which the small group has three times the same."""
    rows = torch.randn(SAMPLES, width, dtype=torch.float64)
    rows[-3:] = rows[-1]
    return rows


@pytest.mark.parametrize(
    ("inputs", "seeds", "large", "small"),
    [
        (_of_rank(IN, IN), _of_rank(OUT, OUT), OUT, 3),  # the layer's sides; the small group's rows
        (_of_rank(4, IN), _of_rank(OUT, OUT), 4, 3),  # rank A
        (_of_rank(2, IN), _of_rank(OUT, OUT), 2, 2),
        (_of_rank(IN, IN), _of_rank(5, OUT), 5, 3),  # rank Δ
        (_repeated(IN), _of_rank(OUT, OUT), OUT, 1),  # rank A of the small group alone
        (_of_rank(IN, IN), _repeated(OUT), OUT, 1),  # rank Δ of the small group alone
        (
            _of_rank(IN, IN)[:, None].expand(-1, POSITIONS, -1),
            _of_rank(OUT, OUT)[:, None].expand(-1, POSITIONS, -1),
            OUT,
            3,
        ),
        (torch.randn(SAMPLES, POSITIONS, IN).double(), torch.randn(SAMPLES, POSITIONS, OUT).double(), OUT, OUT),
    ],
    ids=["sides and rows", "activation", "both", "adjoint", "small activation", "small adjoint", "repeats", "sequence"],
)
def test_the_bound_is_the_smallest_of_what_bounds_and_a_gradient_in_general_position_reaches_it(
    inputs, seeds, large, small
):
    model = nn.Linear(IN, OUT, bias=False).double()
    labels = torch.tensor([0] * (SAMPLES - 3) + [1] * 3)
    with SpectralRecorder(model, groups=["large", "small"], statistics=["gradient", "rank"]) as recorder:
        with recorder.batch(labels):
            model(inputs).backward(seeds)
        recorder.end_epoch()
    assert recorder.table["layers/weight/rank/bound"].tolist() == [[large, large, small]]
    assert recorder.table["layers/weight/rank/numerical"].tolist() == [[large, large, small]]


@given(
    n=st.sampled_from([2, 30, 300]),
    sides=st.tuples(st.sampled_from([1, 2, 7, 250]), st.sampled_from([1, 2, 7])),
    power=st.tuples(st.sampled_from([0, 0.5, 0.85, 0.9, 0.95, 1, 2]), st.sampled_from([0, 0.5, 0.9, 1, 2])),
    seed=st.integers(0, 2**20),
)
@settings(max_examples=150, deadline=None)
def test_the_bound_holds_where_the_factors_ranks_are_a_matter_of_the_noise_floor(n, sides, power, seed):
    """In arithmetic that is exact beside the floor: the factors are in float64, the floor is of float32."""
    eps = torch.finfo(torch.float32).eps
    random, count = torch.Generator().manual_seed(seed), min(n, *sides)

    def orthonormal(side):
        return torch.linalg.qr(torch.randn(side, count, generator=random, dtype=torch.float64)).Q

    left = orthonormal(n)  # the same for both factors, so that the directions of one meet those of the other

    def decaying(width, power):
        """(n, width): rows with singular values from 1 down to eps to that power, as many as the gradient has."""
        values = eps ** (power * torch.linspace(0, 1, count, dtype=torch.float64))
        return (left * values) @ orthonormal(width).T

    factors = GradientFactors(*(decaying(*side) for side in zip(sides, power, strict=True)))
    groups = grouping(("a", "b"), {})
    sums = LayerSums((sides[1], sides[0]), groups, ("gradient", "activation", "adjoint"))
    sums.add(factors, SampleGroups.of(torch.arange(n) % 3 - 1, groups.cells))
    sums.eps = eps
    measured = numerical_rank(sums.gradient.spectra(), gradient_floor(sums))
    assert (measured <= rank_bound(sums)).all()


def test_a_direction_that_is_small_in_the_inputs_counts_where_the_gradient_shows_it():
    """Below the floor of A's own spectrum, above that of the gradient."""
    n, eps = 1000, torch.finfo(torch.float32).eps
    inputs, seeds = torch.zeros(n, n), torch.zeros(n, 2)
    inputs[0, 0], inputs[1, 1] = 1.0, 20 * eps
    seeds[0, 0] = seeds[1, 1] = 1.0
    model = nn.Linear(n, 2, bias=False)
    with SpectralRecorder(model, groups=["a"], statistics=["gradient", "rank"]) as recorder:
        with recorder.batch([0] * n):
            model(inputs).backward(seeds)
        recorder.end_epoch()
    assert recorder.table["layers/weight/rank/numerical"].tolist() == [[2, 2]]
    assert recorder.table["layers/weight/rank/bound"].tolist() == [[2, 2]]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_floor_of_rows_is_the_spacing_of_their_numbers_times_the_largest(dtype):
    """eps √min(shape) σ₁, with as many rows as a group has."""
    model = nn.Linear(9, 7, bias=False).to(dtype)
    inputs, seeds = torch.randn(12, 9, dtype=dtype), torch.randn(12, 7, dtype=dtype)
    labels = torch.tensor([0] * 10 + [1] * 2)
    with SpectralRecorder(model, groups=["a", "b"], statistics=["activation", "adjoint"], floor="formula") as recorder:
        with recorder.batch(labels):
            model(inputs).backward(seeds)
        recorder.end_epoch()
    for name, rows, width in (("activation", inputs, 9), ("adjoint", seeds, 7)):
        for place, members in enumerate((labels >= 0, labels == 0, labels == 1)):
            largest = float(torch.linalg.matrix_norm(rows[members].double(), 2))
            expected = torch.finfo(dtype).eps * min(int(members.sum()), width) ** 0.5 * largest
            assert recorder.table[f"layers/weight/floor/{name}"][0, place] == pytest.approx(expected, rel=1e-5)


def test_only_the_leading_singular_values_are_stored_and_they_are_exact():
    model, inputs = nn.Linear(9, 7).double(), torch.randn(30, 9, dtype=torch.float64)
    tables = []
    for leading in (None, 2):
        recorder = SpectralRecorder(model, groups=["a"], statistics=["gradient", "activation"], leading=leading)
        with recorder.batch([0] * 30):
            model(inputs).square().sum().backward()
        recorder.end_epoch()
        tables.append(recorder.table)
    for statistic in ("gradient", "activation"):
        everything, first = (table[f"layers/weight/{statistic}"] for table in tables)
        assert first.shape == (1, 2, 2)
        assert (first == everything[..., :2]).all()
