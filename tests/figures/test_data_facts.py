"""What a picture says of the data it was drawn from."""

import json

import pytest

from autospec.figures.data_facts import (
    DataFacts,
    adjustment_sentence,
    extent_words,
    imbalance_sentence,
    read_facts,
)


def _imbalance(covariate, value, one="HC", other="SZ", adjusted=False):
    return {"covariate": covariate, "one": one, "other": other, "standardised": value, "adjusted": adjusted}


def test_facts_come_out_of_the_file_and_unknown_ones_are_passed_over():
    kept = {"study": "mine", "adjusted_for": ["age"], "motion_cut": 0.5, "of_tomorrow": 1}
    facts = read_facts({"facts": json.dumps(kept)})
    assert facts == DataFacts(study="mine", adjusted_for=["age"], motion_cut=0.5)
    assert read_facts({}) is None
    assert read_facts({"facts": "{}"}) is None


ADJUSTMENTS = {
    "NOT ADJUSTED for any covariate.": DataFacts(),
    "ADJUSTED: age taken out of every value (residualize).": DataFacts(adjusted_for=["age"]),
    "ADJUSTED: age, sex and site taken out of every value (residualize); harmonised by site.": DataFacts(
        adjusted_for=["age", "sex", "site"], harmonized_by=["site"]
    ),
    "ADJUSTED: subjects matched by age and motion.": DataFacts(matched_by=["age", "motion"]),
}


@pytest.mark.parametrize("sentence", ADJUSTMENTS)
def test_what_was_taken_out_is_said_and_that_nothing_was(sentence):
    assert adjustment_sentence(ADJUSTMENTS[sentence]) == sentence


def test_imbalances_have_the_sign_of_the_pair_that_is_drawn():
    facts = DataFacts(imbalances=[_imbalance("age", -0.41), _imbalance("motion", 0.3, adjusted=True)])
    assert (
        imbalance_sentence(facts, [("SZ", "HC")])
        == "Imbalance above 0.25 SD: age +0.41 (SZ less HC); motion -0.30 (SZ less HC, taken out)."
    )
    assert "age -0.41 (HC less SZ)" in imbalance_sentence(facts, [("HC", "SZ")])


def test_imbalances_of_other_pairs_are_not_named_and_many_are_counted():
    facts = DataFacts(imbalances=[_imbalance(f"site {n}", 0.5) for n in range(5)])
    assert imbalance_sentence(facts, [("men", "women")]) == "No known covariate differs by more than 0.25 SD."
    assert imbalance_sentence(facts, [("HC", "SZ")]).endswith("site 2 +0.50 (HC less SZ) and 2 more.")
    assert "site 4" in imbalance_sentence(facts, [("HC", "SZ")], most=None)
    apart = DataFacts(imbalances=[_imbalance("site A", None)])
    assert "site A without overlap (HC less SZ)" in imbalance_sentence(apart, [("HC", "SZ")])


def test_how_much_of_the_data_was_used():
    courses = DataFacts(shape=[75, 53], time_points=75, session="last")
    assert extent_words(courses) == [
        "75 × 53 volumes × components of each subject",
        "the first 75 volumes",
        "session last",
        "no motion cut",
    ]
    assert extent_words(DataFacts(shape=[14, 17, 14], resolution_mm=12, motion_cut=0.3)) == [
        "14 × 17 × 14 voxels of each subject",
        "maps at 12 mm",
        "motion cut 0.3",
    ]
    assert extent_words(DataFacts(shape=[39]))[0] == "39 values of each subject"
