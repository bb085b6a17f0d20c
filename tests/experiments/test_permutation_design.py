"""Which pairs may be tested by exchanging labels, and how labels are exchanged."""

from dataclasses import replace

import numpy as np
import pytest

from autospec import AutoSpecError
from autospec.experiments.config.schema import IntrospectionConfig
from autospec.experiments.datasets.dataset import Dataset
from autospec.experiments.permutation_design import permutation_design, pick_evenly

CELLS = ("HC/men", "HC/women", "SZ/men", "SZ/women")
MARGINS = {"HC": CELLS[:2], "SZ": CELLS[2:], "men": CELLS[::2], "women": CELLS[1::2]}


def _data(sizes=(6, 5, 4, 7), site=None, subjects=None):
    group = np.repeat(np.arange(4), sizes)
    sex = [CELLS[code].split("/")[1] for code in group]
    return Dataset(
        inputs=np.zeros((len(group), 3), dtype=np.float32),
        target=(group >= 2).astype(np.int64),
        classes=("HC", "SZ"),
        group=group,
        groups=CELLS,
        subjects=subjects or tuple(f"p{number:02}" for number in range(len(group))),
        training=np.ones(len(group), dtype=bool),
        source="",
        simulated=True,
        margins=MARGINS,
        columns={"sex": tuple(sex), **({"site": site} if site else {})},
    )


def _of(data, target=None, residualized=(), **options):
    config = IntrospectionConfig(**{"permutations": 30, **options})
    return permutation_design(data, config, ["diagnosis", "sex"], target, list(range(21)), residualized)


def _pair(design, a, b):
    return next(pair for pair in design.pairs if (pair.a, pair.b) == (a, b))


def test_an_autoencoder_allows_every_pair_and_a_classifier_those_within_its_classes():
    assert len(_of(_data()).pairs) == 6 + 2
    design = _of(_data(), target="diagnosis")
    within = {("HC/men", "HC/women"), ("SZ/men", "SZ/women"), ("men", "women")}
    assert {(pair.a, pair.b) for pair in design.pairs} == within
    assert "diagnosis is what the network is trained to tell apart" in design.refused["HC", "SZ"]


def test_labels_move_within_the_pair_and_its_strata():
    pair = _pair(_of(_data(), target="diagnosis"), "men", "women")
    data = _data()
    assert pair.strata == ("diagnosis",)
    for row in pair.members:
        for diagnosis in (0, 1):
            here = data.target == diagnosis
            assert sorted(row[here]) == sorted(pair.members[0][here])
    assert len({row.tobytes() for row in pair.members}) > 25
    inside = _pair(_of(_data()), "HC/men", "SZ/men").members
    assert (inside[:, np.isin(data.group, [1, 3])] == 0).all()


def test_the_same_seed_gives_the_same_relabellings():
    assert _of(_data()).digest() == _of(_data()).digest()
    assert _of(_data()).digest() != _of(_data(), permutation_seed=1).digest()


def test_site_is_a_stratum_where_it_is_known():
    site = tuple("ab" * 11)
    pair = _pair(_of(_data(site=site)), "HC", "SZ")
    assert set(pair.strata) == {"sex", "site"}
    with pytest.raises(AutoSpecError, match=r"introspection.strata: the data have no column 'hand'; there are sex"):
        _of(_data(), strata=["hand"])


REFUSED = {
    "two subjects": (_data(sizes=(2, 5, 4, 7)), {}, "a group of 2 subjects; 3 are needed"),
    "nobody left to exchange": (
        _data(site=tuple(f"s{number}" for number in range(22))), {}, "only 1 distinct permutations within sex, site"
    ),
    "a label taken out of the data": (_data(), {"residualized": ["diagnosis"]}, "was taken out of the data"),
    "no permutations": (_data(), {"permutations": 0}, "introspection.permutations=0"),
    "not chosen": (_data(), {"permutation_pairs": [["SZ", "HC"]]}, "not among introspection.permutation_pairs"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_pair_that_cannot_be_tested_has_a_reason(case):
    data, options, reason = REFUSED[case]
    assert reason in _of(data, **options).refused["HC/men", "SZ/men"]


def test_epochs_are_spaced_with_both_ends():
    assert pick_evenly(list(range(1000)), 3) == (0, 500, 999)
    assert pick_evenly([0, 5], 10) == (0, 5)


def _two_groups(sexes, subjects=None, **columns):
    """Controls and patients, by sex or not; ``sexes`` has a letter for each sample, controls' before a slash."""
    controls, patients = sexes.split("/")
    group = np.repeat([0, 1], [len(controls), len(patients)])
    sex = tuple({"m": "men", "w": "women"}[letter] for letter in controls + patients)
    return replace(
        _data(sizes=(len(group), 0, 0, 0), subjects=subjects),
        group=group,
        groups=("HC", "SZ"),
        margins={},
        columns={"sex": sex, **columns},
    )


def _of_two(data, residualized=(), **options):
    config = IntrospectionConfig(**{"permutations": 30, **options})
    return permutation_design(data, config, ["diagnosis"], None, list(range(21)), residualized)


def test_subjects_are_exchanged_with_those_of_equally_many_samples_only():
    """Six controls and six patients, four of each with one sample and two with three."""
    subjects = [f"{who}{number if number < 4 else 4 + number % 2}" for who in "cp" for number in range(10)]
    design = _of_two(_two_groups("m" * 10 + "/" + "m" * 10, tuple(subjects)))
    pair = _pair(design, "HC", "SZ")
    assert pair.strata == ("number of samples",)
    counts = np.bincount(design.subject)
    assert sorted(counts) == [1] * 8 + [3] * 4
    for row in pair.members:
        for count in (1, 3):
            assert sorted(row[counts == count]) == sorted(pair.members[0][counts == count])


def test_groups_whose_subjects_have_other_numbers_of_samples_cannot_be_tested():
    subjects = [f"c{number}" for number in range(12)] + [f"p{number // 2}" for number in range(12)]
    design = _of_two(_two_groups("m" * 12 + "/" + "m" * 12, tuple(subjects)))
    assert design.refused["HC", "SZ"] == "only 1 distinct permutations within sex, number of samples; 20 are needed"


def test_groups_that_differ_in_sex_are_tested_within_sex_or_not_at_all():
    unequal, equal = _two_groups("mmmmmmwwww/mmmmwwwwww"), _two_groups("mmmmmwwwww/mmmmmwwwww")
    refused = _of_two(unequal, strata=[]).refused["HC", "SZ"]
    assert "the two groups differ in sex (by 0.40 SD), which introspection.strata=[] leaves out; add sex" in refused
    assert _pair(_of_two(unequal), "HC", "SZ").strata == ("sex",)
    assert _pair(_of_two(unequal, residualized=["sex"], strata=[]), "HC", "SZ").strata == ()
    assert _pair(_of_two(equal, strata=[]), "HC", "SZ").strata == ()
    apart = _two_groups("mmmmmwwwww/mmmmmwwwww", site=tuple("a" * 10 + "b" * 10))
    assert "differ in site (by 2.00 SD)" in _of_two(apart, strata=["sex"]).refused["HC", "SZ"]


def _visits(subjects, sessions):
    """Samples at visits; the groups are the sessions."""
    group = np.array([{"1": 0, "2": 1}[letter] for letter in sessions])
    whole = _two_groups("m" * len(group) + "/", tuple(subjects), session=tuple(sessions))
    return replace(whole, group=group, groups=("first", "second"))


def test_two_visits_of_a_subject_are_exchanged_with_each_other_alone():
    """Eight subjects with two visits, and three with the first alone, who stay where they are."""
    subjects = [f"p{number}" for number in range(8)] * 2 + ["q0", "q1", "q2"]
    data = _visits(subjects, "1" * 8 + "2" * 8 + "111")
    config = IntrospectionConfig(permutations=400)
    design = permutation_design(data, config, ["session"], None, list(range(21)))
    pair = _pair(design, "first", "second")
    assert pair.strata == ("subject",)
    of_sample = pair.members[:, design.subject]
    first, second = of_sample[:, :8], of_sample[:, 8:16]
    assert (np.sort(np.stack([first, second]), axis=0) == np.array([1, 2])[:, None, None]).all()
    assert (of_sample[:, 16:] == 1).all()
    flips = (first == 2)[1:]
    assert len({row.tobytes() for row in flips}) > 150  # of 256
    assert 0.4 < flips.mean() < 0.6


def test_few_pairs_of_visits_have_too_few_signs():
    data = _visits([f"p{number}" for number in range(4)] * 2, "11112222")
    design = permutation_design(data, IntrospectionConfig(permutations=30), ["session"], None, list(range(21)))
    assert design.refused["first", "second"] == "only 16 distinct permutations within sex, subject; 20 are needed"


def test_a_subject_in_two_groups_of_one_side_cannot_be_exchanged():
    """Of group_by [sex, session] men's two visits are one margin, and each man is in it twice."""
    subjects = [f"{who}{number}" for who in ("m", "m", "w", "w") for number in range(6)]
    data = _data(sizes=(6, 6, 6, 6), subjects=tuple(subjects))  # groups 0 and 1 are one margin, 2 and 3 the other
    design = _of(data)
    assert "several groups on one side of the pair" in design.refused["HC", "SZ"]
    assert _pair(design, "HC/men", "SZ/men").strata == ()
    assert _pair(design, "HC/men", "HC/women").strata == ("subject",)
