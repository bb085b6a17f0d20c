"""The summary of a run: numbers against slow definitions, words against courses that are made by hand."""

import numpy as np
import pytest
from small_runs import record

from autospec import AutoSpecError
from autospec.analysis.layer_summary import COLUMNS, GradientCourse, summarise, verdict

EPOCHS = np.arange(0, 100, 5)


def _course(rank, effective=None, sigma1=None, cut=False):
    rank = np.asarray(rank, dtype=float)
    effective = rank if effective is None else np.asarray(effective, dtype=float)
    return GradientCourse(EPOCHS[: len(rank)], np.ones(len(rank)) if sigma1 is None else sigma1, rank, effective, cut)


def _say(course, cancellation=1.0):
    return verdict(course, np.broadcast_to(cancellation, course.epochs.shape).astype(float))


FALLEN = [32, 30, 25, 15, 11, *[11] * 15]


def test_a_fall_names_its_ends_and_the_epoch_by_which_it_was_done():
    assert _say(_course(FALLEN)) == "rank fell from 32 to 11 by epoch 20"
    assert _say(_course([11, 15, 25, 30, *[32] * 16])) == "rank rose from 11 to 32 by epoch 20"


def test_the_effective_rank_is_told_where_the_rank_stays():
    effective = [9.31, 8.0, 4.04, *[3.94] * 17]
    assert _say(_course([32] * 20, effective)) == "effective rank fell from 9.3 to 3.9 by epoch 15"


def test_what_hardly_changes_stays():
    assert _say(_course([32] * 20)) == "rank stays 32"
    assert _say(_course([32, 31] * 10)) == "rank stays about 31"


def test_a_rank_that_does_not_settle_varies():
    values = [30, *[10, 28] * 9, 10]
    assert _say(_course(values)) == "rank varies between 10 and 28 since epoch 5"


def test_groups_cancel_from_the_epoch_on_from_which_they_always_do():
    cancellation = np.full(20, 0.5)
    cancellation[3], cancellation[8:] = 0.01, 0.01
    assert _say(_course([4] * 20), cancellation) == "rank stays 4; groups cancel since epoch 40"
    cancellation[-1] = 0.2
    assert _say(_course([4] * 20), cancellation) == "rank stays 4"


def test_a_gradient_that_is_gone_is_told_instead_of_its_rank():
    gone = [4] * 6 + [0] * 14
    effective = np.where(np.array(gone) > 0, 4.0, np.nan)
    assert _say(_course(gone, effective), np.nan) == "no gradient above the noise floor since epoch 30"
    assert _say(_course([0] * 20, [np.nan] * 20), np.nan) == "no gradient above the noise floor"


def test_gaps_are_told():
    sigma1 = np.ones(20)
    sigma1[[2, 7]] = np.nan
    rank = np.where(np.isnan(sigma1), np.nan, 4.0)
    assert _say(_course(rank, sigma1=sigma1)) == "no finite gradient at epoch 10 and 1 more; rank stays 4"
    assert _say(_course([np.nan] * 20, sigma1=np.full(20, np.nan))) == "no finite gradient"


def test_one_epoch_is_enough():
    assert _say(_course([4])) == "rank stays 4"


def test_numbers_are_those_of_the_definitions():
    spectra = record(epochs=20, statistics=("gradient", "rank")).spectra
    table = summarise(spectra)
    assert list(table.columns) == list(COLUMNS)[1:]
    assert table.index.tolist() == spectra.layers
    for layer, row in table.iterrows():
        values = spectra[layer].isel(epoch=-1)
        assert row["sigma1"] == pytest.approx(float(spectra.scaled(layer).sel(group="all", index=1)[-1]), rel=1e-12)
        # the recorder's own ranks, which torch takes from the gradient; of 20 epochs the last two are the end
        assert row["rank"] == float(spectra[layer]["rank_numerical"].sel(group="all")[-2:].min())
        effective = spectra[layer]["rank_effective"].sel(group="all").values
        assert row["effective_rank"] == pytest.approx(effective[-2:].min(), rel=1e-9)
        assert row["effective_rank_change"] == pytest.approx(effective[-2:].min() - effective[0], rel=1e-9)
        assert row["cosine"] == float(values["cosine"].sel(group="SZ", other_group="HC"))
        assert row["cancellation"] == float(values["cancellation"])
        assert row["verdict"]


def test_raw_values_of_unequal_groups_are_scaled():
    """The whole batch over two batches an epoch has weight 2: its mean gradient is half the sum."""
    recorder = record(epochs=2)
    spectra = recorder.spectra
    assert float(spectra.weight.sel(group="SZ")[0]) == pytest.approx(0.5, abs=1e-15)
    assert spectra.summary()["sigma1"].iloc[0] == pytest.approx(float(spectra["0"].gradient.sel(group="all")[-1, 0]))


def test_ranks_of_leading_values_are_not_claimed():
    table = record(epochs=3, leading=2).spectra.summary()
    assert table[["rank", "effective_rank"]].isna().all().all()
    assert set(table["verdict"]) == {"ranks unknown: only leading singular values are stored"}


def test_mistakes_are_one_line():
    with pytest.raises(AutoSpecError, match="gradient spectra of layer '0' were not recorded"):
        record(statistics=("activation",)).spectra.summary()
    with pytest.raises(AutoSpecError, match="in memory has no layer 'nope'; it has 0, 2"):
        summarise(record().spectra, ["nope"])
