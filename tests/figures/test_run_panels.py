"""What difference panels take from a run's spectra."""

import numpy as np
import pytest
import torch
from torch import nn

from autospec import SpectralRecorder
from autospec.figures.run_panels import cosines
from autospec.store.permuted_pairs import PairPermutations, PermutationDesign

PAIRS = (("a", "b"), ("a", "c"))


def _recorded(inputs, labels, **options):
    """The recorder of one batch whose samples' gradients are the outer products of targets and inputs."""
    torch.manual_seed(0)
    model, targets = nn.Linear(4, 3, bias=False), torch.ones(len(labels), 3)
    recorder = SpectralRecorder(model, groups=["a", "b", "c"], **options)
    with recorder.batch(torch.tensor(labels), torch.arange(len(labels))) as batch:
        losses = (model(inputs) * targets).sum(1)
        losses.mean().backward()
        batch.losses(losses)
    recorder.end_epoch()
    return recorder


def _of(table, pair):
    return table[(table.group_a == pair[0]) & (table.group_b == pair[1])]


def test_opposite_groups_cancel_however_large_a_third_is():
    one = torch.tensor([1.0, 2.0, -1.0, 3.0])
    recorder = _recorded(torch.stack([one, -one, 50 * torch.eye(4)[0]]), [0, 1, 2])
    assert recorder.table["layers/weight/cancellation"][0] > 0.8  # that of the layer: the third group carries it
    table = cosines(recorder.spectra, PAIRS)
    assert _of(table, ("a", "b")).cancellation.tolist() == pytest.approx([0], abs=1e-3)
    assert _of(table, ("a", "b")).cosine.tolist() == pytest.approx([-1])
    assert _of(table, ("a", "c")).cancellation.item() > 0.8


def test_the_dotted_line_is_what_a_test_is_refused_by():
    """Against the cancellation of the observed partition, which is summed subject by subject."""
    torch.manual_seed(3)
    labels = [0, 0, 0, 1, 1, 2, 2, 2, 2]
    observed = np.array([1, 1, 1, 2, 2, 0, 0, 0, 0], dtype=np.int8)
    members = np.stack([observed, observed[[3, 4, 0, 1, 2, 5, 6, 7, 8]]])
    permutation_design = PermutationDesign((PairPermutations("a", "b", (), members),), {}, np.arange(9), (0,))
    recorder = _recorded(torch.randn(9, 4), labels, permutation_design=permutation_design)
    expected = recorder.table["null/layers/weight/cancellation"][0, 0, 0]
    assert 0 < expected < 1
    assert _of(cosines(recorder.spectra, PAIRS), ("a", "b")).cancellation.item() == pytest.approx(expected, abs=1e-5)


def test_part_of_a_spectrum_has_no_cancellation():
    recorder = _recorded(torch.randn(3, 4), [0, 1, 2], leading=1)
    table = cosines(recorder.spectra, PAIRS)
    assert table.cosine.notna().all()
    assert table.cancellation.isna().all()
