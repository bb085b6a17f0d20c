import pytest
import torch
from references import full_spectrum
from torch import nn

from autospec import AutoSpecError, SpectralRecorder


def _recorded(model, inputs, labels, **arguments):
    recorder = SpectralRecorder(model, groups=["a", "b"], statistics=("gradient", "tied"), **arguments)
    for batch in inputs:
        with recorder.batch(labels):
            model(batch)[0].square().sum().backward()
    recorder.end_epoch()
    return recorder


@pytest.mark.parametrize("bins", [None, 3])
def test_every_step_has_the_gradient_of_a_pass_in_which_only_it_is_tied(bins):
    """The gradient at step t is that of a copy of the weight used at step t alone."""
    layer, inputs = nn.RNN(3, 4, batch_first=True).double(), torch.randn(6, 5, 3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 0, 1, 1, 0])
    recorder = _recorded(layer, [inputs], labels, bins=bins)
    stretches = torch.arange(5).tensor_split(bins or 5)
    found = recorder.table["layers/weight_ih_l0/tied/gradient"]
    assert found.shape == (1, 3, len(stretches), 3)
    for place, stretch in enumerate(stretches):
        for row, chosen in ((0, labels >= 0), (1, labels == 0), (2, labels == 1)):
            copies = [layer.weight_ih_l0.detach().clone().requires_grad_() for _ in range(5)]
            state = torch.zeros(6, 4, dtype=torch.float64)
            outputs = []
            for step in range(5):
                weight = torch.where(chosen[:, None, None], copies[step], copies[step].detach())
                entered = torch.einsum("nkj,nj->nk", weight, inputs[:, step])
                state = torch.tanh(entered + state @ layer.weight_hh_l0.T + layer.bias_ih_l0 + layer.bias_hh_l0)
                outputs.append(state)
            torch.stack(outputs).square().sum().backward()
            expected = torch.stack([copies[step].grad for step in stretch.tolist()]).sum(0)
            assert abs(found[0, row, place] - full_spectrum(expected)).max() < 1e-10


def test_positions_of_a_convolution_and_bins_for_batches_of_unequal_length():
    layer = nn.Conv1d(2, 3, 3)
    labels = torch.tensor([0, 1])
    ragged = [torch.randn(2, 2, 12), torch.randn(2, 2, 9)]
    found = _recorded(layer, ragged, labels, bins=4).table["layers/weight/tied/gradient"]
    assert found.shape == (1, 3, 4, 3)
    with pytest.raises(AutoSpecError, match="7 positions after 10; choose bins"):
        _recorded(layer, ragged, labels)
    with pytest.raises(AutoSpecError, match="bins=0: must be 1 or more"):
        _recorded(layer, ragged, labels, bins=0)
