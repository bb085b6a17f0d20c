"""Statements on made-up runs whose spectra say what must come out, and the measures they are made of."""

import numpy as np
import pandas as pd
import pytest

from autospec.experiments.statements import command, statements
from autospec.experiments.statements.measures import (
    binomial_p,
    change_by_index,
    distance,
    early,
    growth,
    jump,
    late,
    share_at_floor,
    sign_flip_p,
)
from autospec.experiments.statements.networks import LayerRecord, RunRecord, record_seed, variant_config, variants
from autospec.experiments.statements.picture import draw_statements
from autospec.experiments.statements.statements import STATEMENTS
from autospec.experiments.statements.table import COLUMNS, markdown, statement_table, verdict

RECORDS, INDICES, SEEDS = 10, 6, 8
FLOOR = np.full(RECORDS, -20.0)
LAYERS = ("weight_ih", "weight_hh", "head")


def _layer(level=0.0, slope=0.0, noise=0.0, seed=0):
    """log2 σ falls by one an index, grows by ``slope`` over training, and is noisy."""
    random = np.random.default_rng(seed)
    value = level - np.arange(INDICES) + slope * np.linspace(0, 1, RECORDS)[:, None]
    return LayerRecord(value + noise * random.standard_normal((RECORDS, INDICES)), FLOOR, np.full((RECORDS, 2), level))


def _tests(p):
    rows = [
        {"layer": layer, "test": "permutation", "per": per, "p_family": value, "excess_log2_ratio": excess}
        for layer, value in p.items()
        for per, excess in (("trajectory", -0.5), ("index", 0.1), ("index", -0.9), ("index", 0.2))
    ]
    return pd.DataFrame(rows)


def _seeds(make):
    """``make`` gives a layer for a variant, the layer's name and the seed."""
    return [
        {
            variant: RunRecord({name: make(variant, name, seed) for name in LAYERS}, _tests(dict.fromkeys(LAYERS, 0.5)))
            for variant in variants()
        }
        for seed in range(SEEDS)
    ]


def test_stages_and_distances():
    assert len(early(np.zeros(10))) == len(late(np.zeros(10))) == 2
    assert distance(_layer(), _layer(level=3.0)) == 3.0
    assert np.isnan(distance(_layer(level=-30.0), _layer()))
    assert growth(_layer(slope=-2.0)) == pytest.approx(-2 * 8 / 9)
    assert jump(RunRecord({"a": _layer(slope=9.0)})) == pytest.approx(1.0)


def test_small_values_that_change_most_and_lie_at_the_floor():
    layer = _layer()
    value = layer.value - np.arange(INDICES) * np.linspace(0, 3, RECORDS)[:, None]
    assert change_by_index(LayerRecord(value, FLOOR)) == pytest.approx(1.0)
    assert share_at_floor(LayerRecord(value, FLOOR)) == 0.5  # the last two: -23 and below, and -19.2 at -17 or above
    assert share_at_floor(layer) == 0.0


def test_sign_flips_find_a_shift_and_are_valid_without_one():
    random = np.random.default_rng(0)
    assert sign_flip_p(random.standard_normal((20, 3)) + 3) == pytest.approx(1 / 2000)
    p = [sign_flip_p(random.standard_normal(8)) for _ in range(300)]
    # 300 tests at 0.05: scipy.stats.binom.ppf([0.005, 0.995], 300, 0.05) / 300
    assert 0.02 <= np.mean(np.array(p) <= 0.05) <= 0.087
    assert np.isnan(sign_flip_p(np.ones(5)))


def test_findings_are_counted_against_chance():
    # of scipy.stats.binomtest, 3 of 20 at 0.05, alternative greater
    assert binomial_p([True] * 3 + [False] * 17, 0.05) == pytest.approx(0.0754837)


def test_tasks_differ_where_their_distance_is_larger_than_that_of_seeds():
    apart = _seeds(lambda variant, name, seed: _layer(4.0 * (variant[1] == "classifier"), noise=0.1, seed=seed))
    alike = _seeds(lambda variant, name, seed: _layer(noise=0.1, seed=hash((variant, name, seed)) % 2**32))
    for function in (statements.input_layers_differ_by_task, statements.output_layers_differ_by_task):
        outcome = function(apart)
        assert all(outcome.holds)
        assert outcome.effect == pytest.approx(4.0, abs=0.3)
        assert outcome.p < 0.02
        assert not any(function(alike).holds)


def test_activations_that_differ_early_alone():
    def make(variant, name, seed):
        layer = _layer(noise=0.1, seed=seed)
        if variant[2] != "sigmoid":
            return layer
        return LayerRecord(layer.value + 3 * (np.arange(RECORDS) < 3)[:, None], FLOOR)

    assert all(statements.slight_differences_early(_seeds(make)).holds)
    throughout = _seeds(lambda variant, name, seed: _layer(3.0 * (variant[2] == "sigmoid"), noise=0.1, seed=seed))
    assert not any(statements.slight_differences_early(throughout).holds)


def test_jumps_and_shrinking():
    seeds = _seeds(lambda variant, name, seed: _layer(slope=-3, noise=0.5 if "bert" in variant[0] else 0.05, seed=seed))
    assert all(statements.bert_jumps_more(seeds).holds)
    assert all(statements.singular_values_shrink(seeds).holds)
    grows = _seeds(lambda variant, name, seed: _layer(slope=3 if name == "head" else -3))
    assert not any(statements.singular_values_shrink(grows).holds)


def test_statements_on_groups_read_their_layer():
    seeds = _seeds(lambda variant, name, seed: _layer(level=1.0 if name == "weight_ih" else 0.1))
    assert all(statements.freesurfer_input_layer(seeds).holds)
    assert not any(statements.lstm_hidden_to_hidden(seeds).holds)
    for seed in seeds:
        for network, layer in (("cobre lstm", "weight_hh"), ("cobre cnn1d", "head"), ("freesurfer mlp", "head")):
            variant = (network, "autoencoder", "relu")
            found = _tests(dict.fromkeys(LAYERS, 0.5) | {layer: 0.02})
            seed[variant] = RunRecord(seed[variant].layers, found)
    for function in (
        statements.lstm_hidden_to_hidden,
        statements.cnn1d_output_layer,
        statements.freesurfer_output_layer,
    ):
        outcome = function(seeds)
        assert all(outcome.holds)
        assert outcome.effect == 0.5  # patients over controls, whom the tests have first
        assert outcome.p < 1e-6
    assert not any(statements.bert_everywhere(seeds).holds)


def test_every_statement_has_a_row_and_a_place_in_the_picture(tmp_path):
    table = statement_table(_seeds(lambda variant, name, seed: _layer(slope=-1, noise=0.1, seed=seed))[:6])
    assert list(table.columns) == list(COLUMNS)
    assert table.statement.tolist() == [f"S{number}" for number in range(1, 14)]
    assert not table.states.str.contains("S1").any()
    assert markdown(table).count("\n") == 14
    draw_statements(table, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


def test_words_for_shares():
    assert [verdict(share) for share in (1.0, 0.9, 0.5, 0.1, 0.0)] == [
        "holds",
        "holds",
        "sometimes",
        "does not hold",
        "does not hold",
    ]
    assert len(STATEMENTS) == 13


def test_too_few_seeds_are_refused(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "--seeds", "1"])
    with pytest.raises(SystemExit, match="--seeds must be 2 or more"):
        command.main()


def test_a_users_table_takes_the_place_of_the_simulated_one():
    config = variant_config(("freesurfer mlp", "autoencoder", "relu"), 3, ["dataset.people.HC.men=9"])
    assert (config.seed, config.dataset.seed, config.dataset.people.HC.men) == (3, 3, 9)
    assert config.introspection.permutations == 99
    assert variant_config(("freesurfer mlp", "classifier", "relu"), 3).introspection.permutations == 0


@pytest.mark.slow
def test_a_seed_is_recorded():
    record = record_seed(1, ["freesurfer mlp"])
    autoencoder = record["freesurfer mlp", "autoencoder", "relu"]
    assert list(autoencoder.layers) == ["hidden.0", "head"]
    assert autoencoder.layers["head"].value.shape == (16, 16)
    assert np.isfinite(autoencoder.layers["head"].ratio).any()
    assert {"permutation", "permutation_scale"} <= set(autoencoder.tests["test"])
    assert not len(record["freesurfer mlp", "classifier", "relu"].tests)
