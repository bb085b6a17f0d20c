import pytest
import torch
from references import full_spectrum

from autospec.spectra.groups import grouping
from autospec.spectra.rows import RowStack


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [2, 30])
def test_rows_that_arrive_in_batches_have_the_spectrum_of_all_rows_stacked(rows, dtype):
    groups = grouping(("a", "b"), {})
    stack = RowStack(6, groups)
    kept = {0: [], 1: []}
    for _ in range(3):
        for cell in (0, 1):
            batch = torch.randn(rows, 6, dtype=dtype)
            stack.add(batch[None], cell)
            kept[cell].append(batch)
    stacked = {cell: torch.cat(batches) for cell, batches in kept.items()}
    expected = [torch.cat([stacked[0], stacked[1]]), stacked[0], stacked[1]]
    for found, matrix in zip(stack.spectra(), expected, strict=True):
        true = full_spectrum(matrix)
        tolerance = (1e-13 if dtype == torch.float64 else 1e-7) * true[0]
        assert abs(found[: len(true)].numpy() - true).max() < tolerance
        assert found[len(true) :].abs().max(initial=0) < tolerance if len(true) < 6 else True


@pytest.mark.parametrize("counts", [(3, 4, 0), (3, 20, 2), (20, 3, 0), (3, 3, 3)])
@pytest.mark.parametrize("batches", [1, 3])
def test_few_rows_beside_many_have_the_spectra_of_all_stacked(counts, batches):
    groups = grouping(("a", "b"), {"both": ("a", "b")})
    stack = RowStack(12, groups)
    kept = [torch.randn(batches, count, 12) for count in counts]
    for batch in range(batches):
        for cell, rows in enumerate(kept):
            if len(rows[batch]):
                stack.add(rows[batch][None], cell)
        lent = stack.lent()
    for summed in (stack, lent, stack.copied()):
        for found, members in zip(summed.spectra(), groups.members, strict=True):
            true = full_spectrum(torch.cat([kept[cell].flatten(0, 1) for cell in members.nonzero()[:, 0]]))
            assert abs(found[: len(true)].numpy() - true).max() < 1e-7 * true[0]
            assert found[len(true) :].abs().max() < 1e-7 * true[0] if len(true) < 12 else True
    for found, members in zip(stack.grams(), groups.members, strict=True):
        rows = torch.cat([kept[cell].flatten(0, 1) for cell in members.nonzero()[:, 0]]).double()
        assert torch.allclose(found, rows.mT @ rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_blocks_are_the_diagonal_blocks_of_one_matrix(dtype):
    stack = RowStack(4, grouping(("a",), {}), blocks=2)
    blocks = torch.randn(2, 5, 2, dtype=dtype)
    stack.add(blocks, 0)
    expected = full_spectrum(torch.block_diag(*blocks))
    assert abs(stack.spectra()[1].numpy() - expected).max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_spoils_its_own_group_only(dtype):
    stack = RowStack(2, grouping(("a", "b"), {}))
    stack.add(torch.full((1, 3, 2), float("nan"), dtype=dtype), 0)
    stack.add(torch.ones(1, 3, 2, dtype=dtype), 1)
    spectra = stack.spectra()
    assert spectra[:2].isnan().all()
    assert torch.allclose(spectra[2], torch.tensor([6.0, 0.0], dtype=torch.float64).sqrt(), atol=1e-7)
