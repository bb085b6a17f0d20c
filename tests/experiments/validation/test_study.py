from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from autospec.analysis.permutation import permutation_tests
from autospec.errors import AutoSpecError
from autospec.experiments import CONF
from autospec.experiments.config.checks import check_config
from autospec.experiments.config.grid import compose_config
from autospec.experiments.config.schema import Task
from autospec.experiments.validation import calibrate_command, kinds
from autospec.experiments.validation import study as calibration
from autospec.experiments.validation.calibrate_command import NETWORK
from autospec.experiments.validation.conditions import BALANCED, NULLS
from autospec.experiments.validation.dealt import deal_cohorts
from autospec.experiments.validation.kinds import (
    ADJUSTED,
    NO_EFFECT,
    REPEATED,
    RETRAINED,
    SHUFFLED,
    SPREAD,
    WITHIN_SEXES,
    Condition,
)
from autospec.experiments.validation.rates import rates, read
from autospec.experiments.validation.recorded import record_run
from autospec.experiments.validation.rows import TESTS, WHOLE, of_permutations
from autospec.experiments.validation.study import studies

CLASSIFIER = Task.classification


@pytest.fixture(scope="module")
def base():
    return check_config(compose_config(CONF, NETWORK))


@pytest.fixture
def kept(monkeypatch):
    """What a block keeps of its studies: their data and ratios."""
    found, rows = [], calibration.of_permutations
    monkeypatch.setattr(calibration, "of_permutations", lambda ratios: found.append(ratios) or rows(ratios))
    data, prepared = [], calibration._prepared
    monkeypatch.setattr(calibration, "_prepared", lambda *of: data.append(prepared(*of)) or data[-1])
    return found, data


def test_a_block_of_studies_is_the_same_again(base):
    first = studies(Condition(NO_EFFECT, BALANCED), base, range(3, 6))
    pd.testing.assert_frame_equal(first, studies(Condition(NO_EFFECT, BALANCED), base, range(3, 6)))
    assert first.p.notna().all()
    assert len(first) == 3 * len(first.drop_duplicates(["test", "stage"]))


def test_a_study_whose_labels_cannot_be_exchanged_finds_nothing_and_leaves_the_others_as_they_are(base, monkeypatch):
    condition = Condition(NO_EFFECT, BALANCED)
    every = studies(condition, base, range(3, 6))
    design = calibration._design
    refused = condition.config(base, 4)
    monkeypatch.setattr(
        calibration,
        "_design",
        lambda config, data: replace(
            design(config, data), pairs=() if config == refused else design(config, data).pairs
        ),
    )
    table = studies(condition, base, range(3, 6))
    assert len(table) == len(every)
    number = len(every) // 3
    tested = pd.concat([every[:number], every[2 * number :]], ignore_index=True)
    pd.testing.assert_frame_equal(table[: 2 * number], tested)
    assert table.p[2 * number :].isna().all()


@pytest.mark.parametrize(
    ("null", "task"), [(NO_EFFECT, Task.autoencoding), (SHUFFLED, CLASSIFIER), (REPEATED, Task.autoencoding)]
)
def test_side_by_side_is_what_the_recorder_gives_one_by_one(base, kept, null, task):
    condition = Condition(null, (12, 18), task)
    studies(condition, base, range(7, 10))
    ratios, data = kept
    for seed, of_block, own in zip(range(7, 10), ratios, data, strict=True):
        alone = record_run(condition.config(base, seed), own).permutations
        assert alone.pairs == of_block.pairs
        np.testing.assert_array_equal(alone.epochs, of_block.epochs)
        np.testing.assert_allclose(alone.loss, of_block.loss, atol=2e-5)
        for layer, arrays in of_block.ratios.items():
            for name, values in arrays.items():
                known, known_alone = (np.isfinite(one) for one in (values, alone.ratios[layer][name]))
                # the recorder measures its noise floor, the block goes by the formula
                assert (known == known_alone).mean() > 0.95
                difference = np.abs(values - alone.ratios[layer][name])[known & known_alone]
                assert np.quantile(difference, 0.99) < 2e-3, (layer, name)
        of_recorder = [row for row in of_permutations(alone) if row[0] == "permutation"]
        of_side = [row for row in of_permutations(of_block) if row[0] == "permutation"]
        assert [p for *_, p in of_side] == pytest.approx([p for *_, p in of_recorder], abs=0.021)


def test_dealt_cohorts_share_nobody_and_are_fitted_each_by_itself(base):
    config = Condition(ADJUSTED, (12, 18)).config(base, 5).dataset
    cohorts = list(deal_cohorts(config, 4))
    assert len({name for one in cohorts for name in one.subjects}) == 4 * 30
    for one in cohorts:
        assert np.bincount(one.group).tolist() == [12, 18]
        ages = np.array([[float(value) for value in one.columns[name]] for name in ("age", "motion")])
        assert np.abs((ages - ages.mean(1, keepdims=True)) @ one.inputs).max() < 1e-3
        assert one.inputs.mean(0) == pytest.approx(0, abs=1e-5)
        assert one.inputs.std(0) == pytest.approx(1, abs=1e-5)
        assert set(one.columns["leverage"]) == {"1", "2", "3", "4"}


def test_the_primary_test_is_also_what_the_table_of_a_run_would_say(base, kept):
    """Over all permuted epochs, two layers and two pairs: against the table of the same ratios."""
    found = studies(Condition(WITHIN_SEXES, (12, 12)), base, [3])
    ratios = kept[0][0]
    table = permutation_tests([ratios], list(ratios.ratios), list(ratios.pairs), finer=False)
    primary = table[table.test == "permutation"]
    assert (len(ratios.epochs), len(primary)) == (6, 4)
    assert ratios.pairs == (("HC/men", "SZ/men"), ("HC/women", "SZ/women"))
    whole = found[found.stage == WHOLE].set_index("test").p
    assert whole["permutation"] == primary.p.iloc[0]
    assert whole["permutation, family-wise"] == primary.p_family.min()
    assert found[found.test == "permutation"].p.nunique() > 1  # the stages are not one another


def test_what_a_classifier_learns_is_studied_by_retraining(base):
    found = studies(Condition(RETRAINED, (6, 6), CLASSIFIER), base, [3])
    assert set(found.stage) == {"early", "late", WHOLE, "data"}
    assert set(TESTS) <= set(found.test)
    assert not found.test.str.startswith("paper").any()
    assert np.allclose(found.p[found.test.isin(TESTS)] * 20, (found.p[found.test.isin(TESTS)] * 20).round())


CELLS = [*NULLS["joint"], *(cells[-1] for name, cells in NULLS.items() if name != "joint")]


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.name}, {cell.condition.groups}")
def test_every_null_has_a_valid_p_of_each_test(base, cell):
    found = studies(cell.condition, base, [cell.first_seed])
    assert found.p.between(0, 1).all()


def test_wide_networks_are_fed_with_residuals(base):
    config = Condition(SPREAD, BALANCED).config(base, 1)
    assert (config.width, len(config.dataset.features)) == (kinds.WIDE, len(kinds.MORE_FEATURES))


def test_the_command_goes_on_where_it_was(base, tmp_path, monkeypatch, caplog):
    made, whole = [], calibrate_command.studies
    monkeypatch.setattr(calibrate_command, "studies", lambda *of: made.append(of) or whole(*of))
    cell = NULLS["autoencoder"][0]
    path = tmp_path / "calibration.csv"
    for runs in (2, 2, 3):
        calibrate_command._table({cell: runs}, 1, path)
    assert [len(seeds) for *_, seeds in made] == [2, 3]
    assert set(read(path).runs) == {3}


@pytest.mark.parametrize(("argument", "value"), [("--only", "nothing of the kind"), ("--runs", "0")])
def test_what_cannot_be_counted_is_refused(argument, value):
    arguments = calibrate_command._parser().parse_args([argument, value])
    with pytest.raises(AutoSpecError, match=argument):
        calibrate_command._choose_cells(arguments)


@pytest.mark.slow
def test_the_primary_test_keeps_its_rate_and_has_power(base):
    null = studies(Condition(NO_EFFECT, (12, 36)), base, range(150))
    primary = rates(null, "null", "12:36").set_index("test").loc[["permutation, early", "permutation, late"]]
    assert (primary.low <= 0.05).all()
    strong = studies(Condition(NO_EFFECT, (24, 72), effect=8.0), base, range(20))
    found = rates(strong, "effect", "24:72").set_index("test")
    assert found.rate["permutation, family-wise, early"] > 0.8
