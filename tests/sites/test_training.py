"""Three sites, three processes, one model: what each way gives, against all samples in one place."""

import h5py
import numpy as np
import pytest
import torch
from ranks import on_ranks
from site_workers import PEOPLE, SITES, STEPS, central, labels, losses_of, network, samples, situations, train_every_way

LAYERS = ("0", "3", "5")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of every site's files, and what each way gave at each site."""
    folder = tmp_path_factory.mktemp("sites")
    results = on_ranks(train_every_way, 3, folder, folder, torch.float64)
    assert all(isinstance(own, dict) for own in results), results
    return folder, results


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """The folder of the files of ``situations``, and what was said at each site."""
    folder = tmp_path_factory.mktemp("said")
    results = on_ranks(situations, 3, folder, folder)
    assert all(isinstance(own, dict) for own in results), results
    return folder, results


def _site_gradients(weights):
    """Each site's part of the gradient at some weights, by site and layer."""
    model = network()
    model.load_state_dict(weights)
    found = []
    for site in range(3):
        model.zero_grad()
        (losses_of(model, samples(site)).sum() / sum(PEOPLE)).backward()
        found.append({layer: model.get_parameter(f"{layer}.weight").grad.clone() for layer in LAYERS})
    return found


@pytest.mark.parametrize("way", ["gradient", "dad"])
def test_the_pooled_gradient_is_that_of_all_samples_in_one_place(way, trained):
    for step, expected in enumerate(central()):
        for own in trained[1]:
            for name, gradient in own[way]["gradients"][step].items():
                scale = float(expected[name].norm())
                assert float((gradient - expected[name]).norm()) <= 1e-10 * scale, (step, name)


@pytest.mark.parametrize("way", ["gradient", "dad", "rank-dad"])
def test_all_sites_hold_the_same_weights_to_the_last_bit(way, trained):
    first, *others = (own[way]["weights"] for own in trained[1])
    for one in others:
        for found, expected in zip(one, first, strict=True):
            assert all(torch.equal(found[name], weight) for name, weight in expected.items())


@pytest.mark.parametrize("way", ["gradient", "dad"])
def test_every_site_records_the_pooled_spectra_and_each_sites_own(way, trained):
    folder, results = trained
    for site in range(3):
        with h5py.File(folder / f"{way}_{site}.h5") as file:
            assert file["groups/rows"][:].tolist() == [[sum(PEOPLE), *PEOPLE]] * STEPS
            for step in range(STEPS):
                own = _site_gradients(results[0][way]["weights"][step])
                for layer in LAYERS:
                    parts = [one[layer] for one in own]
                    matrices = [sum(parts), *parts]
                    stored = file[f"layers/{layer}/gradient"][step]
                    for found, matrix in zip(stored, matrices, strict=True):
                        expected = torch.linalg.svdvals(matrix).numpy()
                        assert np.allclose(found, expected, rtol=0, atol=1e-10 * expected[0])
                    cosine = float((parts[0] * parts[1]).sum() / parts[0].norm() / parts[1].norm())
                    assert file[f"layers/{layer}/cosine"][step, 1, 2] == pytest.approx(cosine, abs=1e-10)


def test_dad_records_activations_and_adjoints_too(trained):
    folder, results = trained
    model = network()
    model.load_state_dict(results[0]["dad"]["weights"][1])
    with h5py.File(folder / "dad_0.h5") as file:
        for site in range(3):
            hidden = model[:5](samples(site))
            expected = torch.linalg.svdvals(hidden.detach()).numpy()
            stored = file["layers/5/activation"][1, 1 + site]
            assert np.allclose(stored[: len(expected)], expected, rtol=0, atol=1e-10 * expected[0])
            assert file["layers/5/rows"][1, 1 + site] == PEOPLE[site]
        assert "activation" not in file["layers/0"]  # of the first layer only the gradient leaves a site


def test_what_rank_dad_leaves_out_is_no_more_than_it_says(trained):
    folder, results = trained
    with h5py.File(folder / "rank-dad_0.h5") as file:
        for step in range(STEPS):
            own = _site_gradients(results[0]["rank-dad"]["weights"][step])
            for layer in LAYERS:
                parts = [one[layer] for one in own]
                floors = file[f"layers/{layer}/floor/gradient"][step]
                stored = file[f"layers/{layer}/gradient"][step]
                sent = results[0]["rank-dad"]["gradients"][step][f"{layer}.weight"]
                off = float((sent - sum(parts)).norm())
                assert off <= floors[0]
                for found, matrix, floor in zip(stored, [sum(parts), *parts], floors, strict=True):
                    assert np.abs(found - torch.linalg.svdvals(matrix).numpy()).max() <= floor
                if layer != "0":  # the bound is of use: not far above what was left out
                    assert 0 < floors[0] < 10 * off


def test_fewer_bytes_are_sent_and_as_many_as_the_formula_says(trained):
    from autospec.sites.cost import message_bytes

    shapes = {layer: tuple(network().get_parameter(f"{layer}.weight").shape) for layer in LAYERS}
    others = sum(weight.numel() for weight in network().parameters()) - sum(a * b for a, b in shapes.values())
    sent = {way: [own[way]["sent"] for own in trained[1]] for way in ("gradient", "dad", "rank-dad")}
    for way, of_sites in sent.items():
        for site, found in enumerate(of_sites):
            rows = dict.fromkeys(shapes, PEOPLE[site])
            message = message_bytes(shapes, rows, others, way, rank=4, as_gradient=["0"], itemsize=8)
            assert found == STEPS * (len(SITES) - 1) * message
    assert sum(sent["rank-dad"]) < sum(sent["dad"]) < sum(sent["gradient"])


@pytest.mark.parametrize(
    ("situation", "text"),
    [
        ("no factors", "statistics=['activation']: way='gradient' sends what gradient, subspace can be had from"),
        ("unknown way", "way='peer': allowed are gradient, dad, rank-dad"),
        ("two sites", "2 sites, but 3 processes; each site is one process"),
        ("a small site", "site 'Bern' has 14 people, fewer than min_group=15"),
        ("other counts", "people of site 'Ames': 2 numbers, but there are 3 groups (a, b, c)"),
        ("no layer", "no trained weight matrix to watch"),
        ("drift", "the weights of site 'Bern' are not those of 'Ames' at step 0"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(situation, text, said):
    assert all(text in own[situation] for own in said[1])


def test_small_groups_stay_among_the_others_of_their_site(said):
    folder, results = said
    names = results[0]["groups"]
    assert names[:4] == ["all", "Ames/HC", "Ames/SZ", "Ames/other"]
    assert names[-5:] == ["Ames", "Bern", "Cluj", "HC", "SZ"]
    with h5py.File(folder / "groups_2.h5") as file:
        rows = dict(zip(names, file["groups/rows"][0].tolist(), strict=True))
    # 4 of Ames' 16 are in SZ, under min_group=5: neither they nor, by difference, the rest are told apart
    assert (rows["Ames/HC"], rows["Ames/SZ"], rows["Ames/other"]) == (0, 0, 16)
    assert (rows["Bern/HC"], rows["Bern/SZ"], rows["Bern/other"]) == (14, 5, 0)
    assert rows["Cluj/SZ"] == int((labels(2) == 1).sum()) == 6
    assert rows["all"] == sum(PEOPLE)


def test_inputs_do_not_leave_a_site_unless_they_may(said):
    own = said[1][0]["inputs"]
    # as a gradient the first layer is larger than its triangle: 64 x 30 against 16 rows of 94 numbers
    assert own[0] - own[1] == 2 * 8 * (64 * 30 - (16 * 94 - 16 * 15 // 2))


def test_steps_that_are_accumulated_add_up(said):
    model = network()
    parts = [[samples(site)[: 8 * (site > 0)], samples(site)[8 * (site > 0) :]] for site in range(3)]
    for own in zip(*parts, strict=True):
        losses_of(model, torch.cat(own)).mean().backward()
    expected = float(sum(weight.grad.square().sum() for weight in model.parameters()))
    assert [own["mini-batches"] for own in said[1]] == pytest.approx([expected] * 3, rel=1e-10)
