"""Samples taken cell by cell and put together again, against plain indexing."""

import pytest
import torch

from autospec.capture import batch_layout
from autospec.capture.batch_layout import Together, cell_by_cell
from autospec.capture.memory import Pool, Scratch
from autospec.spectra.groups import SampleGroups

LABELS = {"mixed": [2, 0, 1, 0, 2, 0], "in order": [0, 0, 0, 1, 2, 2], "nobody in 1": [2, 0, 2, 0, 0, -1]}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("dimension", [0, 1])
@pytest.mark.parametrize("lies_transposed", [False, True])
def test_pieces_are_joined_in_the_batch_s_order_and_get_their_parts_of_the_adjoint(labels, dimension, lies_transposed):
    cells = SampleGroups.of(torch.tensor(labels), 4)
    whole = torch.randn(6, 5, 3).movedim(0, dimension)
    filled = [samples for samples in cells.samples if len(samples)]
    pieces = [whole.index_select(dimension, samples) for samples in filled]
    if lies_transposed:
        pieces = [piece.mT.contiguous().mT for piece in pieces]
    pieces = [piece.requires_grad_() for piece in pieces]
    joined = Together.apply(cells, Pool(), dimension, *pieces)
    assert torch.equal(joined, whole)
    adjoint = torch.randn_like(whole)
    found = torch.autograd.grad(joined, pieces, adjoint)
    for part, samples in zip(found, filled, strict=True):
        assert torch.equal(part, adjoint.index_select(dimension, samples))


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("dimension", [0, 1])
@pytest.mark.parametrize("at_once", [0, 1000])
def test_a_tensor_is_taken_cell_by_cell_at_once_or_one_after_the_other(monkeypatch, labels, dimension, at_once):
    monkeypatch.setattr(batch_layout, "AT_ONCE", at_once)
    cells = SampleGroups.of(torch.tensor(labels), 4)
    tensor = torch.randn(6, 5, 3).movedim(0, dimension)
    filled = [samples for samples in cells.samples if len(samples)]
    for part, samples in zip(cell_by_cell(tensor, dimension, cells, Scratch()), filled, strict=True):
        assert torch.equal(part, tensor.index_select(dimension, samples))
