import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from autospec.analysis.distances import CANCEL
from autospec.analysis.permutation import COLUMNS, NO_PERMUTATIONS, permutation_tests
from autospec.store.permutations import PermutationRatios

EPOCHS, PARTITIONS, INDICES = 3, 100, 4


def _null(seed=0, effect=0.0, cancellation=0.5, refused=None, layers=("one", "two"), **changes):
    """Random ratios of the pair a, b; the observed partition, the first, differs by ``effect`` SD."""
    random = np.random.default_rng(seed)
    ratios = {}
    for layer in layers:
        values = {
            "log_ratio": random.normal(size=(EPOCHS, 1, PARTITIONS, INDICES)),
            "log_norm": random.normal(size=(EPOCHS, 1, PARTITIONS)),
            "log_effective_rank": random.normal(size=(EPOCHS, 1, PARTITIONS)),
            "cancellation": np.full((EPOCHS, 1, PARTITIONS), cancellation),
        }
        values["log_ratio"][:, :, 0] += effect
        ratios[layer] = {name: array.astype(np.float32) for name, array in values.items()} | changes
    loss = random.normal(size=(EPOCHS, 1, PARTITIONS)).astype(np.float32)
    subjects = np.array([[10, 12]])
    return PermutationRatios(np.arange(EPOCHS), (("a", "b"),), subjects, ("sex",), refused or {}, "same", ratios, loss)


def _primary(table, layer="one"):
    found = table[(table.test == "permutation") & (table.per == "trajectory") & (table.layer == layer)]
    assert len(found) == 1
    return found.iloc[0]


def _tests(*nulls):
    return permutation_tests(nulls, ["one", "two"], [("a", "b")])


def test_the_primary_distance_is_a_mean_of_squared_z():
    null = _null()
    row = _primary(_tests(null))
    ratios = null.ratios["one"]["log_ratio"][:, 0].astype(float)
    distances = []
    for partition in range(PARTITIONS):
        of_epochs = []
        for epoch in range(EPOCHS):
            values = ratios[epoch]
            z = [(values[partition, k] - values[:, k].mean()) / values[:, k].std() for k in range(INDICES)]
            of_epochs.append(np.mean(np.square(z)))
        distances.append(np.mean(of_epochs))
    assert row.p == sum(value >= distances[0] for value in distances) / PARTITIONS
    assert row.distance == pytest.approx((distances[0] - np.mean(distances)) / np.std(distances), rel=1e-4)
    assert row.n == EPOCHS * INDICES
    assert (row.relabellings, row.strata, row.kind) == (PARTITIONS - 1, "sex", "inferential")


def test_an_effect_is_found_signed_and_attributed():
    row = _primary(_tests(_null(effect=4.0)))
    assert row.p == 1 / PARTITIONS
    assert row.p_family == 1 / PARTITIONS
    assert row.excess_log2_ratio > 2
    assert row.larger == "a"
    assert _primary(_tests(_null(effect=-4.0))).larger == "b"


def test_family_wise_p_is_never_below_p():
    table = _tests(_null(seed=4))
    known = table[table.p_family.notna()]
    one_family = known[(known.test == "permutation") & (known.per == "trajectory")]
    assert (one_family.p_family >= one_family.p).all()


def test_columns_are_documented_and_kinds_told_apart():
    table = _tests(_null())
    assert list(table.columns) == list(COLUMNS)
    assert set(table[table.per == "trajectory"].kind) == {"inferential"}
    assert set(table[table.per != "trajectory"].kind) == {"exploratory"}
    assert table[table.per == "trajectory"].q.isna().all()


def _squared_z(null, layer="one"):
    """(epoch, partition, index) by the definition."""
    ratios = null.ratios[layer]["log_ratio"][:, 0].astype(float)
    return ((ratios - ratios.mean(1, keepdims=True)) / ratios.std(1, keepdims=True)) ** 2


def test_seeds_are_averaged_partition_by_partition():
    """One relabelling is one partition in every seed: distances are averaged over seeds, p counts partitions."""
    nulls = [_null(seed=seed) for seed in (5, 6, 7)]
    both = _primary(_tests(*nulls))
    distances = np.mean([_squared_z(null).mean((0, 2)) for null in nulls], axis=0)
    assert both.seeds == 3
    assert both.p == (distances >= distances[0]).mean()
    assert both.distance == pytest.approx((distances[0] - distances.mean()) / distances.std(), rel=1e-4)
    assert both.relabellings == PARTITIONS - 1


def test_five_seeds_find_an_effect_that_one_does_not():
    weak = [_null(seed=seed, effect=1.0) for seed in range(30, 35)]
    assert _primary(_tests(weak[0])).p > 0.05
    assert _primary(_tests(*weak)).p == 1 / PARTITIONS


def test_seeds_that_permuted_other_subjects_are_no_result():
    first = _null(seed=5)
    other = _null(seed=7)
    object.__setattr__(other, "permutation_design", "another")
    assert "did not permute the same subjects" in _primary(_tests(first, other)).note
    assert np.isnan(_primary(_tests(first, other)).p)
    assert _primary(_tests(first, None)).note.startswith("the file holds no permutations (the recorder's")


UNDEFINED = {
    "gradients cancel": ({"cancellation": 0.01}, CANCEL),
    "everything under the floor": (
        {"log_ratio": np.full((EPOCHS, 1, PARTITIONS, INDICES), np.nan, dtype=np.float32)},
        "no value of either group lies above its noise floor",
    ),
    "identical groups": (
        {"log_ratio": np.zeros((EPOCHS, 1, PARTITIONS, INDICES), dtype=np.float32)},
        "the values do not vary over partitions",
    ),
}


@pytest.mark.parametrize("case", UNDEFINED)
def test_what_cannot_be_tested_says_why(case):
    changes, note = UNDEFINED[case]
    row = _primary(_tests(_null(**changes)))
    assert np.isnan(row.p)
    assert np.isnan(row.distance)
    assert row.note == note
    assert row.n == 0


def test_a_refused_pair_has_one_row_per_layer_with_its_reason():
    null = _null(refused={("a", "c"): "the groups are the target"})
    table = permutation_tests([null], ["one", "two"], [("a", "b"), ("a", "c")])
    rows = table[table.group_b == "c"]
    assert list(rows.layer) == ["one", "two"]
    assert set(rows.note) == {"the groups are the target"}
    assert rows.p.isna().all()


def test_a_file_without_permutations_says_so():
    table = permutation_tests([None], ["one"], [("a", "b")])
    assert isinstance(table, pd.DataFrame)
    assert table.note.tolist() == [NO_PERMUTATIONS]


def test_some_values_under_the_floor_are_left_out_for_every_partition():
    null = _null()
    null.ratios["one"]["log_ratio"][:, 0, 7, 3] = np.nan
    assert _primary(_tests(null)).n == EPOCHS * (INDICES - 1)


def test_the_loss_has_one_row_and_nothing_cancels_in_it():
    table = _tests(_null(cancellation=0.01))
    rows = table[(table.test == "permutation_loss") & (table.per == "trajectory")]
    assert rows.layer.tolist() == [""]
    assert rows.p.notna().all()
    assert rows.cancellation.isna().all()


def test_q_is_over_all_layers_and_places_of_one_test():
    table = _tests(_null(seed=9))
    for per, places in (("epoch", EPOCHS), ("index", INDICES)):
        rows = table[(table.test == "permutation") & (table.per == per)]
        assert len(rows) == 2 * places
        # the call: scipy.stats.false_discovery_control(p, method="bh")
        assert rows.q.to_numpy() == pytest.approx(false_discovery_control(rows.p.to_numpy()))
