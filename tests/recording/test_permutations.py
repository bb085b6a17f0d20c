"""Permutations that a recorder draws itself: against ratios computed subject by subject, and every mistake."""

import numpy as np
import pytest
import torch
from references import full_spectrum, sample_gradients
from torch import nn

from autospec import AutoSpecError, AutoSpecWarning, SpectralRecorder, open_spectra

N = 14
LABELS = torch.tensor([0, 1] * 7)
SUBJECTS = [f"s{place // 2 * 2 + place % 2:02}" for place in range(N)]
ASKED = {"permutations": 25, "target_is_group": False, "floor": "formula"}


def _model():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4)).double()


def _losses(model, x):
    return (model(x) - x).square().mean(1)


def _epoch(recorder, model, inputs, order, subjects=SUBJECTS, labels=LABELS, size=5):
    """One epoch without steps, in batches of the given order."""
    for places in torch.as_tensor(order).split(size):
        with recorder.batch(labels[places], subject=[subjects[place] for place in places]):
            _losses(model, inputs[places]).mean().backward()
        model.zero_grad()
    recorder.end_epoch()


def _inputs():
    return torch.randn(N, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_the_ratios_of_every_partition_are_those_of_its_subjects_added_up():
    model, inputs = _model(), _inputs()
    recorder = SpectralRecorder(model, groups=["a", "b"], **ASKED)
    order = torch.randperm(N).tolist()
    _epoch(recorder, model, inputs, order)
    design = recorder._header.permutations
    (pair,) = design.pairs
    assert pair.members[0].tolist() == [1 + label for _, label in sorted(zip(SUBJECTS, LABELS.tolist(), strict=True))]
    assert all(sorted(row) == sorted(pair.members[0]) for row in pair.members)
    assert len({row.tobytes() for row in pair.members}) > 20

    alone = sample_gradients(model, "0.weight", inputs, _losses) * N  # of its own loss, not of its part of the mean
    sizes = {place: len(batch) for batch in torch.as_tensor(order).split(5) for place in batch.tolist()}
    own = {name: alone[place] / sizes[place] for place, name in enumerate(SUBJECTS)}
    weight = {name: 1 / sizes[place] for place, name in enumerate(SUBJECTS)}
    found = recorder.table["null/layers/0/log_ratio"][0, 0]
    for partition, row in enumerate(pair.members):
        sides = [[name for name, code in zip(sorted(SUBJECTS), row, strict=True) if code == side] for side in (1, 2)]
        a, b = (full_spectrum(sum(own[n] for n in side)) / sum(weight[n] for n in side) for side in sides)
        assert found[partition] == pytest.approx(np.log2(a / b), abs=1e-5)


def test_partitions_do_not_depend_on_the_order_in_which_subjects_come(tmp_path):
    inputs, tables = _inputs(), []
    for order in (list(range(N)), list(reversed(range(N)))):
        model = _model()
        recorder = SpectralRecorder(model, groups=["a", "b"], reduction="sum", **ASKED)
        for _ in range(2):
            for places in torch.tensor(order).split(5):
                with recorder.batch(LABELS[places], subject=[SUBJECTS[place] for place in places]):
                    _losses(model, inputs[places]).sum().backward()
            recorder.end_epoch()
        tables.append(recorder.spectra.tests())
    assert tables[0]["p"].tolist() == pytest.approx(tables[1]["p"].tolist(), nan_ok=True)


@pytest.mark.parametrize("by", ["subject", "samples", "everything"])
def test_whose_samples_are_can_be_said_in_three_ways(by):
    model, inputs = _model(), _inputs()
    whole = {} if by == "subject" else {"subjects": np.array(SUBJECTS), "strata": {"sex": ["f", "m"] * 7}}
    if by == "subject":
        whole = {"strata": {"sex": dict(zip(SUBJECTS, ["f", "m"] * 7, strict=True))}}
    recorder = SpectralRecorder(model, groups=["a", "b"], **ASKED, **whole)
    places = torch.arange(N)
    said = {"subject": {"subject": SUBJECTS}, "samples": {"samples": places}, "everything": {}}[by]
    with recorder.batch(LABELS, **said):
        _losses(model, inputs).mean().backward()
    recorder.end_epoch()
    # groups and sexes are the same here, so that nobody can change places
    assert recorder._header.permutations.refused == {
        ("a", "b"): "only 1 distinct permutations within sex; 20 are needed"
    }


def test_labels_move_within_strata():
    model, inputs = _model(), _inputs()
    sites = {name: place // 7 for place, name in enumerate(SUBJECTS)}
    recorder = SpectralRecorder(model, groups=["a", "b"], strata={"site": sites}, **ASKED)
    _epoch(recorder, model, inputs, range(N))
    (pair,) = recorder._header.permutations.pairs
    assert pair.strata == ("site",)
    here = np.array([sites[name] == 0 for name in sorted(SUBJECTS)])
    assert all(sorted(row[here]) == sorted(pair.members[0][here]) for row in pair.members)


def test_a_target_has_no_test_and_asks_for_no_subjects(tmp_path):
    model, inputs = _model(), _inputs()
    path = tmp_path / "s.h5"
    asked = {**ASKED, "target_is_group": True}
    with SpectralRecorder(model, path, groups=["a", "b"], **asked) as recorder:
        with recorder.batch(LABELS):
            _losses(model, inputs).mean().backward()
        recorder.end_epoch()
    tests = open_spectra(path).tests()
    assert tests["p"].isna().all()
    assert tests["note"].str.startswith("the groups are what the model is trained to tell apart").all()


def test_margins_and_chosen_pairs(tmp_path):
    model, inputs = _model(), _inputs()
    labels = torch.tensor([0, 1, 2, 3] * 3 + [0, 1])
    groups, margins = ["a/x", "a/y", "b/x", "b/y"], {"a": ["a/x", "a/y"], "b": ["b/x", "b/y"]}
    recorder = SpectralRecorder(model, groups=groups, margins=margins, pairs=[("b", "a")], **ASKED)
    _epoch(recorder, model, inputs, range(N), labels=labels)
    tests = recorder.spectra.tests()
    tested = tests[tests["p"].notna() & (tests["test"] != "omnibus")]
    assert set(zip(tested["group_a"], tested["group_b"], strict=True)) == {("a", "b")}
    assert set(tests[tests["p"].isna() & (tests["test"] == "permutation")]["note"]) == {"not among pairs="}


def test_a_label_without_an_effect_gives_a_p_that_is_not_small_and_an_effect_a_small_one():
    found = {}
    for effect in (0.0, 3.0):
        model, inputs = _model(), torch.randn(40, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        labels, names = torch.arange(40) % 2, list(range(40))
        inputs[labels == 1] *= 1 + effect
        recorder = SpectralRecorder(model, groups=["a", "b"], **{**ASKED, "permutations": 199})
        _epoch(recorder, model, inputs, range(40), names, labels, size=40)
        tests = recorder.spectra.tests("b", "a")
        found[effect] = tests[tests["test"] == "permutation"]["p"].max()
    assert found[3.0] < 0.01 < 0.05 < found[0.0]


def test_ever_rarer_epochs_or_evenly_spaced_ones():
    for options, expected in (({}, [0, 1, 2, 4]), ({"epochs": 7, "permutation_epochs": 3}, [0, 3, 6])):
        model, inputs = _model(), _inputs()
        recorder = SpectralRecorder(model, groups=["a", "b"], **ASKED, **options)
        for _ in range(7):
            _epoch(recorder, model, inputs, range(N), size=N)
        assert recorder.table.permutation_epochs == expected


def test_a_checkpoint_and_a_file_go_on_with_the_same_partitions(tmp_path):
    path, inputs = tmp_path / "s.h5", _inputs()
    model = _model()
    with SpectralRecorder(model, path, groups=["a", "b"], **ASKED) as recorder:
        _epoch(recorder, model, inputs, range(N))
        state = recorder.state_dict()
    before = open_spectra(path).permutations
    with SpectralRecorder(model, path, groups=["a", "b"], resume=True, **ASKED):
        pass  # nothing more was recorded: what the file says stays
    after = open_spectra(path).permutations
    assert (after.pairs, after.permutation_design, after.subjects.tolist()) == (
        before.pairs,
        before.permutation_design,
        before.subjects.tolist(),
    )
    for load in (True, False):
        recorder = SpectralRecorder(model, path, groups=["a", "b"], resume=True, **ASKED)
        if load:
            recorder.load_state_dict(state)
        _epoch(recorder, model, inputs, list(reversed(range(N))))
        assert recorder._header.permutations.digest() == before.permutation_design
        recorder.close()
    with SpectralRecorder(model, path, groups=["a", "b"], resume=True, **ASKED) as recorder:
        recorder.rewind(1)
        with pytest.raises(AutoSpecError, match="the subjects of this epoch, or their groups, are not those whose"):
            _epoch(recorder, model, inputs, range(N - 1))
        recorder.rewind(1)


def test_a_subject_who_comes_late_is_left_out_and_named():
    model, inputs = _model(), _inputs()
    recorder = SpectralRecorder(model, groups=["a", "b"], **ASKED)
    _epoch(recorder, model, inputs, range(N - 1))
    with pytest.warns(AutoSpecWarning, match="subject 's13' came after labels were permuted"):
        _epoch(recorder, model, inputs, range(N))
    values = recorder.table["null/layers/0/log_norm"]
    assert values.shape[0] == 2
    with pytest.raises(AutoSpecError, match="subject 's00' came in another group when labels were permuted"):
        _epoch(recorder, model, inputs, range(N), labels=1 - LABELS)


def test_a_subject_in_two_groups_has_no_test():
    model, inputs = _model(), _inputs()
    recorder = SpectralRecorder(model, groups=["a", "b"], **ASKED)
    _epoch(recorder, model, inputs, range(N), subjects=["same"] * N)
    assert "a subject has samples in several groups" in recorder._header.permutations.refused["a", "b"]


def _batch_without_subject(recorder):
    with recorder.batch(LABELS):
        pass


def _batch_of_other_length(recorder):
    with recorder.batch(LABELS, subject=SUBJECTS[:3]):
        pass


MISTAKES = {
    "target": ({"target_is_group": None}, None, r"permutations=25: say by target_is_group=True or False"),
    "few": ({"permutations": 5}, None, r"permutations=5: with fewer than 19 no p can reach 0.05"),
    "engine": ({"engine": "fused"}, None, r"permutations=25 and engine='fused' do not go together"),
    "pair": ({"pairs": [("a", "c")]}, None, r"pairs: there is no group 'c'; there are a, b"),
    "one": ({"pairs": ["ab"]}, None, r"pairs: 'ab' must be two groups"),
    "overlap": ({"pairs": [("a", "m")], "margins": {"m": ["a", "b"]}}, None, "a and m share samples"),
    "strata": ({"strata": {"sex": ["f"]}}, None, r"strata: 'sex' must say the level of each subject by name"),
    "levels": (
        {"strata": {"sex": ["f", "m"]}, "subjects": ["x", "x"]},
        None,
        "subject 'x' has two values of 'sex', f and m",
    ),
    "length": ({"strata": {"sex": ["f"]}, "subjects": ["x", "y"]}, None, "'sex' has 1 values, but subjects has 2"),
    "names": ({"subjects": [1.5]}, None, r"subjects=1.5: whose each sample is, is said by a whole number or a name"),
    "nobody": ({}, _batch_without_subject, r"recorder.batch\(group, subject=...\) says whose each sample is"),
    "fewer": ({}, _batch_of_other_length, "14 group labels, but 3 subjects"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake):
    options, act, message = MISTAKES[mistake]
    with pytest.raises(AutoSpecError, match=message) as raised:
        recorder = SpectralRecorder(_model(), groups=["a", "b"], **{**ASKED, **options})
        act(recorder)
    assert "\n" not in str(raised.value)


def test_a_stratum_that_lacks_a_subject_names_it():
    model = _model()
    recorder = SpectralRecorder(model, groups=["a", "b"], strata={"sex": {"s00": "f"}}, **ASKED)
    with pytest.raises(AutoSpecError, match="strata: 'sex' has no value for subject 's01'"):
        _epoch(recorder, model, _inputs(), range(N))


def test_more_than_the_memory_holds_is_said_before_it_is_taken(monkeypatch):
    monkeypatch.setattr("autospec.recording.permutation_sums.os.sysconf", lambda name: 10)
    model = _model()
    recorder = SpectralRecorder(model, groups=["a", "b"], **ASKED)
    _epoch(recorder, model, _inputs(), range(N))  # one row a sample: no gradient of each subject is made
    recorder = SpectralRecorder(model, groups=["a", "b"], **ASKED)
    with (
        pytest.raises(AutoSpecError, match="permutations keep every subject's gradient: .* for 14 subjects"),
        recorder.batch(LABELS, subject=SUBJECTS),
    ):
        _losses(model, _inputs()[:, None].expand(-1, 3, -1)).mean().backward()


def test_there_is_no_test_of_a_pair_that_is_not_there():
    recorder = SpectralRecorder(_model(), groups=["a", "b"], floor="formula")
    with pytest.raises(AutoSpecError, match="has no pair 'a' and 'c' of groups that share no sample; there are a"):
        recorder.spectra.tests("a", "c")


def test_losses_that_were_not_given_are_named_as_the_reason():
    model, inputs = _model(), _inputs()
    recorder = SpectralRecorder(model, groups=["a", "b"], **ASKED)
    _epoch(recorder, model, inputs, range(N))
    tests = recorder.spectra.tests()
    assert set(tests[tests["test"] == "permutation_loss"]["note"]) == {
        "the losses of samples were not given (batch.losses)"
    }
