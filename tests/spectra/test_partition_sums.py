"""Sums over all partitions at once, against a loop over partitions in float64."""

import pytest
import torch
from references import full_spectrum

from autospec.spectra import partition_sums
from autospec.spectra.factors import GradientFactors
from autospec.spectra.partition_sums import of_gradients, of_rows
from autospec.spectra.subject_sums import SubjectSums

PEOPLE = 11


def _sides(few, partitions=7):
    """(P, people): random sets of ``few`` people."""
    random = torch.Generator().manual_seed(few)
    order = torch.stack([torch.randperm(PEOPLE, generator=random) for _ in range(partitions)])
    return (order < few).double()


def _factors(out, width, rows=17, dtype=torch.float32):
    """Rows of some people; a dead unit and a constant pixel among them."""
    random = torch.Generator().manual_seed(out)
    adjoint = torch.randn(rows, out, generator=random, dtype=dtype)
    activation = torch.randn(rows, width, generator=random, dtype=dtype)
    adjoint[:, 1], activation[:, 0] = 0.0, 0.0
    return adjoint, activation, torch.randint(PEOPLE, (rows,), generator=random)


def _gradients(adjoint, activation, person):
    of_people = torch.zeros(PEOPLE, adjoint.shape[1], activation.shape[1], dtype=adjoint.dtype)
    return of_people.index_add_(0, person, adjoint[:, :, None] * activation[:, None])


@pytest.fixture(params=["gradients", "rows"])
def sums_of(request):
    return (lambda *factors: of_gradients(_gradients(*factors))) if request.param == "gradients" else of_rows


@pytest.mark.parametrize("block", [1, 1 << 22])
@pytest.mark.parametrize("few", [3, 8])
@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.float64, 1e-13)])
def test_spectra_are_those_of_a_loop(sums_of, shape, few, dtype, within, block, monkeypatch):
    monkeypatch.setattr(partition_sums, "BLOCK_NUMBERS", block)
    factors, side = _factors(*shape, dtype=dtype), _sides(few)
    of_people = _gradients(*(part.double() if part.is_floating_point() else part for part in factors))
    found = sums_of(*factors).spectra_of_sides(side, min(shape))
    for spectra, members in zip(found, (side, 1 - side), strict=True):
        for spectrum, own in zip(spectra, members, strict=True):
            expected = full_spectrum((own[:, None, None] * of_people).sum(0))
            assert spectrum.numpy() == pytest.approx(expected, abs=within * expected[0])


def test_a_layer_without_any_gradient_has_zeros(sums_of):
    adjoint, activation, person = _factors(3, 4)
    a, b = sums_of(0 * adjoint, activation, person).spectra_of_sides(_sides(5), 3)
    assert a.shape == b.shape == (7, 3)
    assert not a.any()
    assert not b.any()


def test_a_value_that_is_no_number_is_not_dropped(sums_of):
    adjoint, activation, person = _factors(3, 4)
    adjoint[2, 0] = torch.nan
    side = _sides(5)
    few, many = sums_of(adjoint, activation, person).spectra_of_sides(side, 3)
    assert many[:, 0].isnan().all()  # what is left of a whole that is not known
    assert few[side[:, person[2]] == 1, 0].isnan().all()


@pytest.mark.parametrize("transposed", [False, True])
def test_rows_that_become_too_many_are_multiplied(transposed):
    """Two rows a person are kept, more are not, and the ratios are the same."""
    adjoint, activation, person = _factors(4, 6, rows=60)
    members = (1 + _sides(4)).to(torch.int8)
    members = torch.cat([members, members[:1]])
    found = []
    for batches in (1, 6):
        sums = SubjectSums((4, 6), PEOPLE)
        for rows in torch.arange(60).chunk(batches):
            factors = (adjoint[rows], activation[rows]) if transposed else (activation[rows], adjoint[rows])
            sums.add(GradientFactors(*factors, transposed=transposed), person[rows])
        found.append(sums.ratios(members, torch.ones(PEOPLE, dtype=torch.float64)))
    for name in ("spectrum", "norm", "effective_rank", "cancellation"):
        a, b = (getattr(ratios, name)[..., :3] if name == "spectrum" else getattr(ratios, name) for ratios in found)
        assert torch.allclose(a, b, atol=1e-4)
        assert a.isfinite().all()
