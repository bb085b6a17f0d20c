"""Principal angles of leading singular vectors, against SciPy's from full decompositions."""

import math

import numpy as np
import pytest
import torch
from references import sample_gradients, with_spectrum
from scipy.linalg import subspace_angles
from torch import nn

from autospec import AutoSpecError, SpectralRecorder
from autospec.spectra.subspace import principal_angles, subspaces_of

LABELS = [0, 1, 1, 0, 0, 1, 1, 0, 1, 0]


def _model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(7, 5), nn.Tanh(), nn.Linear(5, 7)).double()


def _losses(model, inputs):
    return (model(inputs) - inputs).square().mean(1)


def _inputs():
    return torch.randn(10, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def _trained(model, recorder, epochs):
    optimizer, inputs = torch.optim.SGD(model.parameters(), lr=1.0), _inputs()
    for _ in range(epochs):
        with recorder.batch(LABELS):
            _losses(model, inputs).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        recorder.end_epoch()
    return recorder


def _recorder(model, **options):
    return SpectralRecorder(model, groups=["a", "b"], statistics=["gradient", "subspace"], directions=2, **options)


def _bases(model, layer):
    """{group: (left, right)} of two leading singular vectors, from single samples and a full decomposition."""
    per_sample = sample_gradients(model, f"{layer}.weight", _inputs(), _losses)
    found = {}
    for name, chosen in (("all", [0, 1]), ("a", [0]), ("b", [1])):
        total = per_sample[[label in chosen for label in LABELS]].sum(0).numpy()
        left, _, right = np.linalg.svd(total)
        found[name] = (left[:, :2], right[:2].T)
    return found


def test_angles_between_groups_and_epochs_are_scipys():
    model = _model()
    recorder = _recorder(model)
    before = None
    for epoch in range(3):
        bases = {layer: _bases(model, layer) for layer in ("0", "2")}
        _trained(model, recorder, 1)
        for layer in ("0", "2"):
            found = recorder.spectra[layer]
            assert found["subspace_groups"].dims == ("epoch", "group", "other_group", "side", "angle")
            assert list(found["side"].values) == ["output", "input"]
            for place, side in enumerate(("output", "input")):
                for a, b in (("a", "b"), ("all", "a")):
                    # scipy.linalg.subspace_angles(a, b): the same angles, the largest first
                    expected = np.sort(subspace_angles(bases[layer][a][place], bases[layer][b][place]))
                    own = found["subspace_groups"].sel(epoch=epoch, group=a, other_group=b, side=side)
                    assert own.values == pytest.approx(expected, abs=1e-9)
                    if before is not None:
                        expected = np.sort(subspace_angles(bases[layer][a][place], before[layer][a][place]))
                        moved = found["subspace_epochs"].sel(epoch=epoch, group=a, side=side)
                        assert moved.values == pytest.approx(expected, abs=1e-9)
        before = bases
    assert recorder.spectra["0"]["subspace_epochs"].sel(epoch=0).isnull().all()


def test_small_angles_keep_their_digits():
    turned = torch.tensor([[1.0, 0.0], [0.0, math.cos(1e-10)], [0.0, math.sin(1e-10)]], dtype=torch.float64)
    plane = torch.eye(3, 2, dtype=torch.float64)
    assert principal_angles(plane, turned).tolist() == pytest.approx([0.0, 1e-10], abs=1e-16)
    line = torch.eye(3, dtype=torch.float64)[:, 2:]
    assert principal_angles(plane[:, :1], line).tolist() == pytest.approx([math.pi / 2])


UNKNOWN = {
    "tied at the cut": [3.0, 2.0, 2.0, 1.0],
    "tied within rounding": [3.0, 2.0, 2.0 - 1e-7, 1.0],
    "rank below the dimension": [3.0, 0.0, 0.0, 0.0],
    "under the floor": [1e-7, 1e-8, 0.0, 0.0],
    "constant": [1.0, 1.0, 1.0, 1.0],
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_a_subspace_that_could_be_any_has_no_angles(case):
    matrices = torch.stack([with_spectrum(6, 4, UNKNOWN[case]), with_spectrum(6, 4, [4.0, 3.0, 1.0, 0.5], seed=1)])
    found = subspaces_of(matrices, torch.full((2,), 1e-7), 2)
    assert [side[0].isnan().all() for side in found.sides] == [True, True]
    assert all(side[1].isfinite().all() for side in found.sides)
    for side in found.sides:
        assert principal_angles(side[0], side[1]).isnan().all()
        assert principal_angles(side[1], side[1]).tolist() == pytest.approx([0, 0], abs=1e-12)


def test_a_tie_within_the_subspace_does_not_matter():
    matrices = torch.stack([with_spectrum(6, 4, [2.0, 2.0, 1.0, 0.5]), with_spectrum(6, 4, [2.0, 1.9, 1.0, 0.5])])
    found = subspaces_of(matrices, torch.full((2,), 1e-7), 2)
    assert principal_angles(found.output[0], found.output[1]).tolist() == pytest.approx([0, 0], abs=1e-9)


def test_a_gradient_that_is_not_a_number_has_no_angles():
    matrices = torch.stack([torch.full((3, 2), torch.nan), torch.eye(3, 2)]).double()
    found = subspaces_of(matrices, torch.zeros(2), 5)
    assert found.output.shape == (2, 3, 2)
    assert found.input[0].isnan().all()
    assert found.input[1].isfinite().all()


def test_a_run_goes_on_from_a_checkpoint_with_the_same_angles(tmp_path):
    model = _model()
    whole = _trained(model, _recorder(model), 5).table["layers/0/subspace/epochs"]
    for path in (None, tmp_path / "spectra.h5"):
        model = _model()
        first = _trained(model, _recorder(model, path=path), 3)
        state = first.state_dict()
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        _trained(model, first, 1)
        model.load_state_dict(weights)
        second = _recorder(model, path=path, **({"resume": True} if path else {}))
        second.load_state_dict(state)
        assert _trained(model, second, 2).table["layers/0/subspace/epochs"].tobytes() == whole.tobytes()


def test_going_back_forgets_vectors_that_have_not_been_yet():
    model = _model()
    recorder = _trained(model, _recorder(model), 3)
    recorder.rewind(3)
    assert np.isfinite(_trained(model, recorder, 1).table["layers/0/subspace/epochs"][3]).all()
    recorder.rewind(2)
    assert np.isnan(_trained(model, recorder, 1).table["layers/0/subspace/epochs"][2]).all()


def test_directions_are_one_or_more():
    with pytest.raises(AutoSpecError, match="directions=0: must be 1 or more"):
        SpectralRecorder(_model(), groups=["a"], statistics=["subspace"], directions=0)
