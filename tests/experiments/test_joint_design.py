"""All groups of a run at once, and its covariates: how they are permuted, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from experiments.test_permutation_design import CELLS, _data, _of, _of_two, _two_groups

from autospec import AutoSpecError
from autospec.experiments.config.schema import IntrospectionConfig
from autospec.experiments.permutation_design import permutation_design

SIZES = (6, 5, 4, 7)
ALL = "HC/men, HC/women, SZ/men, SZ/women"


def _with(data, **columns):
    return replace(data, columns={**data.columns, **{name: tuple(map(str, own)) for name, own in columns.items()}})


def _ages(number=22, seed=0):
    return np.random.default_rng(seed).uniform(18, 65, number)


def test_all_groups_are_permuted_at_once_where_there_are_three_or_more():
    data = _data()
    design = _of(data)
    assert design.omnibus.groups == CELLS
    assert design.omnibus.strata == ()
    assert (design.omnibus.members[0] == data.group + 1).all()
    assert all(np.bincount(row).tolist() == [0, *SIZES] for row in design.omnibus.members)
    assert len({row.tobytes() for row in design.omnibus.members}) > 25
    assert _of(data, omnibus=False).omnibus is None
    assert _of_two(_two_groups("m" * 6 + "/" + "m" * 6)).omnibus is None


def test_site_stays_with_each_subject():
    site = tuple("ab" * 11)
    omnibus = _of(_data(site=site)).omnibus
    assert omnibus.strata == ("site",)
    here = np.array(site) == "a"
    assert all(sorted(row[here]) == sorted(omnibus.members[0][here]) for row in omnibus.members)


REFUSED = {
    "what is learned": (_data(), {"target": "diagnosis"}, "diagnosis is what the network is trained to tell apart"),
    "taken out": (_data(), {"residualized": ["sex"]}, "the effect of sex was taken out of the data"),
    "few": (_data(sizes=(6, 5, 2, 7)), {}, "SZ/men has 2 subjects; 3 are needed"),
    "alone": (_data(site=tuple(f"s{n}" for n in range(22))), {}, "only 1 distinct permutations within site"),
    "another site": (
        _data(site=tuple("a" * 11 + "b" * 11)),
        {"strata": ["sex"]},
        "HC/men and SZ/men differ in site (by 2.04 SD), which introspection.strata=[sex] leaves out",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_all_groups_that_cannot_be_tested_have_a_reason(case):
    data, options, reason = REFUSED[case]
    design = _of(data, **options)
    assert design.omnibus is None
    assert reason in design.refused_omnibus[ALL]


def test_a_covariate_is_permuted_within_groups_and_strata():
    data = _with(_data(), age=_ages())
    (age,) = _of(data, covariates=["age"], target="diagnosis").covariates
    assert (age.name, age.strata) == ("age", ("sex", "diagnosis", "group"))
    assert age.ranks.shape == (31, 22)
    assert sorted(age.ranks[0]) == list(range(1, 23))
    for row in age.ranks:
        for code in range(4):
            here = data.group == code
            assert sorted(row[here]) == sorted(age.ranks[0][here])


def test_the_same_seed_gives_the_same_orders_and_pairs_do_not_depend_on_what_else_is_asked():
    data = _with(_data(), age=_ages())
    first, again = (_of(data, covariates=["age"]) for _ in range(2))
    np.testing.assert_array_equal(first.covariates[0].ranks, again.covariates[0].ranks)
    np.testing.assert_array_equal(first.omnibus.members, again.omnibus.members)
    assert first.digest() == _of(data).digest() == _of(data, omnibus=False).digest()
    other = _of(data, covariates=["age"], permutation_seed=1)
    assert (other.covariates[0].ranks != first.covariates[0].ranks).any()


def test_a_covariate_that_was_taken_out_or_is_of_visits_has_a_reason():
    data = _with(_data(), age=_ages())
    taken = _of(data, covariates=["age"], residualized=["age"])
    assert taken.refused_covariates == {"age": "the effect of age was taken out of the data (dataset.residualize)"}
    subjects = tuple(f"p{number % 6}" for number in range(12))
    visits = _with(_two_groups("m" * 6 + "/" + "m" * 6, subjects), age=np.tile(np.arange(6), 2))
    config = IntrospectionConfig(permutations=30, covariates=["age"])
    design = permutation_design(visits, config, ["session"], None, [0])
    assert "visits" in design.refused_covariates["age"]


MISTAKES = {
    "no column": ({}, "introspection.covariates: the data have no column 'age'; there are sex"),
    "constant": ({"age": [30] * 22}, "covariate 'age' is 30 for every subject"),
    "NaN": (
        {"age": ["nan", *range(21)]},
        "covariate 'age' is nan for subject 'p00': every subject needs a finite number",
    ),
    "labels": ({"age": ["old"] * 22}, "introspection.covariates: 'age' is 'old' for subject 'p00': a number is needed"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(case):
    columns, message = MISTAKES[case]
    with pytest.raises(AutoSpecError, match=message):
        _of(_with(_data(), **columns), covariates=["age"])


def test_one_value_a_sample_is_refused():
    subjects = tuple(f"p{number // 2:02}" for number in range(22))
    data = _with(_data(sizes=(6, 6, 4, 6), subjects=subjects), age=_ages())
    with pytest.raises(AutoSpecError, match="'age' has two values for subject 'p00', .* it is permuted over subjects"):
        _of(data, covariates=["age"])


def test_fewer_than_three_groups_are_refused_where_they_are_asked_for():
    with pytest.raises(
        AutoSpecError, match=r"introspection.omnibus=true: there are 2 groups \(HC, SZ\), and 3 or more"
    ):
        _of_two(_two_groups("m" * 6 + "/" + "m" * 6), omnibus=True)
