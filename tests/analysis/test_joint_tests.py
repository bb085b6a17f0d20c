"""p of all groups at once and of covariates: against counting, partition by partition."""

import numpy as np
import pytest

from autospec.analysis.joint_tests import joint_sentences, joint_tests
from autospec.analysis.joint_values import dispersions
from autospec.analysis.permutation import COLUMNS, permutation_tests
from autospec.store.permutations import JointValues, PermutationRatios

LAYERS = ["first", "second"]
EPOCHS, PARTITIONS, K = 3, 40, 4


def _run(seed=0, shift=0.0, **fields):
    random = np.random.default_rng(seed)
    groups = random.standard_normal((2, EPOCHS, 3, PARTITIONS, K))
    groups[1, :, 2, 0] += shift
    found = [[dispersions(of_epoch - of_epoch.mean(0)) for of_epoch in of_layer] for of_layer in groups]
    omnibus = {
        layer: {"dispersion": np.stack([z for z, _ in own]), "log_excess": np.stack([one for _, one in own])}
        for layer, own in zip(LAYERS, found, strict=True)
    }
    ages = {layer: {"rank_correlation": 0.1 * random.standard_normal((EPOCHS, 2, PARTITIONS, K))} for layer in LAYERS}
    given = {
        "omnibus": JointValues(("a", "b", "c"), ("sex",), {}, omnibus),
        "covariates": JointValues(("age", "motion"), ("group", "group"), {"iq": "why not"}, ages),
        "permutation_design": "same",
        **fields,
    }
    return PermutationRatios(np.arange(EPOCHS), (), np.empty((0, 2)), (), {}, ratios={}, loss=None, **given)


def _counted(z2):
    """p, and the studentised distance of every partition."""
    distance = np.array([np.mean([np.mean(epoch[partition]) for epoch in z2]) for partition in range(PARTITIONS)])
    return np.mean(distance >= distance[0]), (distance - distance.mean()) / distance.std()


def test_p_is_the_share_of_partitions_as_far_apart_and_family_wise_over_layers():
    run = _run(shift=4.0)
    table = joint_tests([run], LAYERS)
    omnibus = table[table.test == "omnibus"].set_index("layer")
    expected = {layer: _counted(run.omnibus.values[layer]["dispersion"]) for layer in LAYERS}
    largest = np.max([z for _, z in expected.values()], axis=0)
    for layer, (p, z) in expected.items():
        assert omnibus.p[layer] == pytest.approx(p)
        assert omnibus.p_family[layer] == pytest.approx(np.mean(largest >= z[0]))
        assert omnibus.distance[layer] == pytest.approx(z[0])
    assert omnibus.p["second"] == 1 / PARTITIONS
    assert omnibus.larger["second"] == "c"
    assert set(omnibus.group_a) == {"a, b, c"}
    assert set(omnibus.strata) == {"sex"}
    assert set(omnibus.relabellings) == {PARTITIONS - 1}


def test_each_covariate_has_a_p_and_all_of_them_are_one_family():
    run = _run()
    table = joint_tests([run], LAYERS)
    rows = table[(table.test == "covariate") & table.p.notna()]
    assert list(zip(rows.layer, rows.group_a, strict=True)) == [
        ("first", "age"), ("first", "motion"), ("second", "age"), ("second", "motion")
    ]  # fmt: skip
    counted = []
    for layer in LAYERS:
        for place in range(2):
            values = run.covariates.values[layer]["rank_correlation"][:, place]
            z = (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)
            counted.append(_counted(z**2))
    largest = np.max([z for _, z in counted], axis=0)
    assert rows.p.tolist() == pytest.approx([p for p, _ in counted])
    assert rows.p_family.tolist() == pytest.approx([np.mean(largest >= z[0]) for _, z in counted])
    refused = table[table.group_a == "iq"]
    assert refused.note.tolist() == ["why not"] * 2
    assert refused.p.isna().all()


def test_seeds_are_averaged_and_must_have_permuted_alike():
    runs = [_run(seed) for seed in range(3)]
    table = joint_tests(runs, LAYERS)
    z2 = np.mean([run.omnibus.values["first"]["dispersion"] for run in runs], axis=0)
    assert table.p.iloc[0] == pytest.approx(_counted(z2)[0])
    assert set(table.seeds) == {3}
    other = joint_tests([runs[0], _run(1, permutation_design="other")], LAYERS)
    assert "p" not in other or other.p.isna().all()
    assert other.note.str.contains("did not permute the same subjects|why not").all()


def test_what_nobody_asked_for_has_no_row():
    assert joint_tests([_run(omnibus=None, covariates=None)], LAYERS).empty
    only = joint_tests([_run(covariates=None)], LAYERS)
    assert set(only.test) == {"omnibus"}


def test_all_of_it_is_in_the_table_of_permutation_tests():
    table = permutation_tests([_run()], LAYERS, [])
    assert list(table.columns) == list(COLUMNS)
    assert table.test.value_counts().to_dict() == {"covariate": 6, "omnibus": 2}
    assert table.rank_correlation.notna().sum() == 4
    assert set(table.kind) == {"inferential"}
    assert table.networks.dropna().eq(1).all()


def test_values_that_are_unknown_have_a_reason():
    run = _run()
    run.omnibus.values["first"]["dispersion"][:] = np.nan
    run.omnibus.values["first"]["log_excess"][:] = np.nan
    row = joint_tests([run], LAYERS).iloc[0]
    assert np.isnan(row.p)
    assert row.note == "nothing here can be compared in every partition"
    assert row.larger == ""


def test_a_caption_says_what_was_found_and_nothing_of_what_was_not_tested():
    table = permutation_tests([_run()], LAYERS, [])
    sentences = joint_sentences(table)
    assert [sentence.split(" (")[0] for sentence in sentences] == [
        "All 3 groups at once", "Subjects' age, within groups", "Subjects' motion, within groups"
    ]  # fmt: skip
    first = table[table.test == "omnibus"].p_family
    assert sentences[0].endswith(f"first p = {first.iloc[0]:.3f}; second p = {first.iloc[1]:.3f}.")
