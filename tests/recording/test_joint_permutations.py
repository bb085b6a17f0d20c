"""All groups at once, and covariates, in a loop of one's own: against what is computed subject by subject."""

import numpy as np
import pytest
import torch
from references import full_spectrum, sample_gradients
from scipy.stats import spearmanr
from torch import nn

from autospec import AutoSpecError, SpectralRecorder, open_spectra

N = 24
LABELS = torch.arange(N) % 3
SUBJECTS = [f"s{place:02}" for place in range(N)]
AGES = {name: 20.0 + 3 * (place * 7 % 11) for place, name in enumerate(SUBJECTS)}  # with ties
GROUPS = ["a", "b", "c"]
ASKED = {"permutations": 25, "target_is_group": False, "floor": "formula"}


def _model(relu=False):
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU() if relu else nn.Tanh(), nn.Linear(3, 4)).double()


def _losses(model, x):
    return (model(x) - x).square().mean(1)


def _inputs():
    return torch.randn(N, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def _epoch(recorder, model, inputs, subjects=SUBJECTS, labels=LABELS, size=7, order=None):
    for places in torch.as_tensor(order if order is not None else range(N)).split(size):
        with recorder.batch(labels[places], subject=[subjects[place] for place in places]):
            _losses(model, inputs[places]).mean().backward()
        model.zero_grad()
    recorder.end_epoch()


def _alone(model, inputs, layer, size=7):
    """(N, out, in) what each subject adds to the epoch's gradient, and (N,) the weight of its loss."""
    sizes = np.array([len(batch) for batch in torch.arange(N).split(size) for _ in batch])
    gradients = sample_gradients(model, f"{layer}.weight", inputs, _losses) * N
    return torch.stack(list(gradients)).detach().numpy() / sizes[:, None, None], 1 / sizes


@pytest.mark.parametrize("several", [False, True], ids=["one sample", "two samples"])
def test_deviations_of_all_groups_are_those_of_its_subjects_added_up(several):
    model, inputs = _model(), _inputs()
    subjects = [f"s{place % 12:02}" for place in range(N)] if several else SUBJECTS
    labels = torch.tensor([int(name[1:]) % 3 for name in subjects])
    recorder = SpectralRecorder(model, groups=GROUPS, **ASKED)
    _epoch(recorder, model, inputs, subjects, labels)
    omnibus = recorder._header.permutations.omnibus
    names = sorted(set(subjects))
    assert omnibus.groups == ("a", "b", "c")
    assert all(sorted(row) == sorted(omnibus.members[0]) for row in omnibus.members)
    for layer in ("0", "2"):
        alone, weight = _alone(model, inputs, layer)
        deviations = np.empty((3, 26, 3))
        for partition, row in enumerate(omnibus.members):
            code = dict(zip(names, row, strict=True))
            inside = [np.array([code[name] == group for name in subjects]) for group in (1, 2, 3)]
            sums = [torch.from_numpy(alone[own].sum(0)) for own in inside]
            logs = np.log2([full_spectrum(one) / weight[own].sum() for one, own in zip(sums, inside, strict=True)])
            deviations[:, partition] = logs - logs.mean(0)
        excess = deviations - deviations.mean(1, keepdims=True)
        z2 = (excess / deviations.std(1, keepdims=True)) ** 2
        arrays = {
            name: recorder.table[f"null/omnibus/layers/{layer}/{name}"][0] for name in ("dispersion", "log_excess")
        }
        np.testing.assert_allclose(arrays["dispersion"], z2.mean(0), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(arrays["log_excess"], excess[:, 0], atol=1e-5)


def test_a_covariate_is_correlated_with_what_each_subject_adds_to_each_singular_value():
    model, inputs = _model(), _inputs()
    recorder = SpectralRecorder(model, groups=GROUPS, covariates={"age": AGES}, **ASKED)
    _epoch(recorder, model, inputs, order=torch.randperm(N, generator=torch.Generator().manual_seed(2)), size=N)
    (age,) = recorder._header.permutations.covariates
    group = LABELS.numpy()
    for row in age.ranks:  # within groups
        assert all(sorted(row[group == code]) == sorted(age.ranks[0][group == code]) for code in range(3))
    for layer in ("0", "2"):
        alone, weight = _alone(model, inputs, layer, size=N)
        u, _, v = np.linalg.svd(alone.sum(0), full_matrices=False)
        added = np.einsum("oi,sof,if->si", u, alone, v) / weight[:, None]
        found = recorder.table[f"null/covariate/layers/{layer}/rank_correlation"][0, 0]
        expected = [[spearmanr(row, column).statistic for column in added.T] for row in age.ranks]
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_both_are_in_the_file_in_the_table_and_gone_on_with(tmp_path):
    path, inputs = tmp_path / "s.h5", _inputs()
    asked = {**ASKED, "covariates": {"age": AGES, "motion": dict.fromkeys(SUBJECTS, 0.1) | {"s00": 0.2, "s01": 0.4}}}
    for epochs in (1, 2):
        model = _model()
        with SpectralRecorder(model, path, groups=GROUPS, resume=epochs > 1, **asked) as recorder:
            for _ in range(epochs):
                _epoch(recorder, model, inputs)
        spectra = open_spectra(path)
        permutations = spectra.permutations
        assert permutations.omnibus.names == ("a", "b", "c")
        assert permutations.covariates.names == ("age", "motion")
        assert permutations.covariates.strata == ("group", "group")
        tests = spectra.tests().set_index(["test", "group_a", "layer"]).sort_index()
        for test, asked_for in (("omnibus", "a, b, c"), ("covariate", "age"), ("covariate", "motion")):
            rows = tests.loc[test, asked_for]
            assert rows.index.tolist() == ["0", "2"]
            assert ((rows.p >= 1 / 26) & (rows.p_family >= rows.p)).all()
            assert (rows.relabellings == 25).all()
        assert tests.loc["omnibus", "a, b, c"].excess_log2_ratio.gt(0).all()
        assert tests.loc["covariate", "age"].rank_correlation.abs().lt(1).all()
    assert spectra.tests("a", "b").test.isin(["omnibus", "covariate"]).sum() == 0


@pytest.mark.parametrize("planted", ["omnibus", "covariate"])
def test_a_planted_effect_is_found_by_either(planted):
    torch.manual_seed(0)
    labels, ages = torch.arange(60) % 3, torch.linspace(20, 60, 60)[torch.randperm(60)]
    subjects = [f"s{place:02}" for place in range(60)]
    scale = 1 + 5.0 * (labels == 2) if planted == "omnibus" else 1 + (ages - 20) / 10
    inputs = torch.randn(60, 4, dtype=torch.float64) * scale[:, None]
    model = _model()
    asked = {"permutations": 99, "target_is_group": False, "covariates": {"age": ages}, "subjects": subjects}
    recorder = SpectralRecorder(model, groups=GROUPS, **asked)
    with recorder.batch(labels, samples=torch.arange(60)):
        _losses(model, inputs).mean().backward()
    recorder.end_epoch()
    tests = recorder.spectra.tests()
    found = tests[tests.test == planted]
    assert found.p_family.min() == 0.01
    if planted == "omnibus":
        assert "c" in set(found.larger)
    else:
        assert found.rank_correlation.max() > 0.1


def test_a_target_has_no_test_of_all_groups_but_one_of_a_covariate_within_classes():
    model, inputs = _model(), _inputs()
    asked = {**ASKED, "target_is_group": True, "covariates": {"age": AGES}}
    recorder = SpectralRecorder(model, groups=GROUPS, **asked)
    _epoch(recorder, model, inputs)
    tests = recorder.spectra.tests().set_index("test")
    assert tests.p[["omnibus"]].isna().all()
    assert tests.note["omnibus"].str.contains("trained to tell apart").all()
    assert tests.p["covariate"].notna().all()


def test_dead_units_and_two_groups_do_no_harm():
    model, inputs = _model(relu=True), _inputs()
    with torch.no_grad():
        model[0].bias[1] = -100.0
    recorder = SpectralRecorder(model, groups=["a", "b"], covariates={"age": AGES}, **ASKED)
    _epoch(recorder, model, inputs, labels=LABELS % 2)
    assert recorder._header.permutations.omnibus is None
    found = recorder.table["null/covariate/layers/0/rank_correlation"][0, 0]
    assert np.isnan(found[:, 2]).all()
    assert np.isfinite(found[:, :2]).all()
    tests = recorder.spectra.tests()
    assert "omnibus" not in set(tests.test)
    assert tests[tests.test == "covariate"].p.notna().all()


@pytest.mark.parametrize(
    ("options", "message"),
    {
        "two groups": ({"groups": ["a", "b"], "omnibus": True}, r"omnibus=True: there are 2 groups \(a, b\), and 3 or"),
        "no permutations": ({"omnibus": True, "permutations": 0}, r"omnibus=\.\.\.: needs permutations=1000"),
        "covariate alone": ({"covariates": {"age": AGES}, "permutations": 0}, r"covariates=\.\.\.: needs permutations"),
        "NaN": ({"covariates": {"age": AGES | {"s05": np.nan}}}, "covariate 'age' is nan for subject 's05'"),
        "text": ({"covariates": {"age": AGES | {"s05": "old"}}}, "covariate 'age' is 'old' for subject 's05': a"),
        "a list": ({"covariates": {"age": list(AGES.values())}}, "needs subjects= as well"),
        "short": ({"covariates": {"age": [1.0]}, "subjects": SUBJECTS}, "has 1 values, but subjects has 24 samples"),
        "two values": (
            {"covariates": {"age": [1.0, 2.0]}, "subjects": ["s00", "s00"]},
            "covariate 'age' has two values for subject 's00', 1.0 and 2.0; it is permuted over subjects",
        ),
    }.values(),
)  # fmt: skip
def test_mistakes_are_refused_at_once(options, message):
    with pytest.raises(AutoSpecError, match=message):
        SpectralRecorder(_model(), **{"groups": GROUPS, **ASKED, **options})


@pytest.mark.parametrize(
    ("ages", "message"),
    [
        (dict.fromkeys(SUBJECTS, 30.0), "covariate 'age' is 30 for every subject"),
        ({"s00": 30.0}, "covariate 'age' has no value for subject 's01'"),
    ],
)
def test_mistakes_that_subjects_show(ages, message):
    model, inputs = _model(), _inputs()
    recorder = SpectralRecorder(model, groups=GROUPS, covariates={"age": ages}, **ASKED)
    with pytest.raises(AutoSpecError, match=message):
        _epoch(recorder, model, inputs)


def test_a_covariate_that_goes_with_the_group_has_no_test_but_a_reason():
    model, inputs = _model(), _inputs()
    ages = {name: float(place % 3) for place, name in enumerate(SUBJECTS)}
    recorder = SpectralRecorder(model, groups=GROUPS, covariates={"age": ages}, **ASKED)
    _epoch(recorder, model, inputs)
    tests = recorder.spectra.tests()
    notes = tests[tests.test == "covariate"].note
    assert notes.tolist() == ["only 1 distinct permutations within group; 20 are needed"] * 2


def _unequal(recorder, model, inputs, epochs=1):
    """Eight subjects of a group with three samples each, of the other with one."""
    subjects = [f"a{place // 3}" for place in range(12)] + [f"b{place}" for place in range(12)]
    labels = torch.tensor([0] * 12 + [1] * 12)
    for _ in range(epochs):
        _epoch(recorder, model, inputs, subjects, labels)


def test_subjects_are_exchanged_with_those_of_equally_many_samples_only():
    model, inputs = _model(), _inputs()
    recorder = SpectralRecorder(model, groups=["a", "b"], **ASKED)
    _unequal(recorder, model, inputs)
    assert recorder._header.permutations.refused == {
        ("a", "b"): "only 1 distinct permutations within number of samples; 20 are needed"
    }
    subjects = [f"s{place % 16:02}" for place in range(N)]  # eight of them have two samples, four in each group
    labels = torch.tensor([place % 16 % 2 for place in range(N)])
    recorder = SpectralRecorder(model, groups=["a", "b"], **ASKED)
    _epoch(recorder, model, inputs, subjects, labels)
    (pair,) = recorder._header.permutations.pairs
    assert pair.strata == ("number of samples",)
    twice = np.arange(16) < 8
    assert all(row[twice].sum() == pair.members[0][twice].sum() for row in pair.members)


def test_the_number_of_samples_is_that_of_the_first_epoch_also_after_a_checkpoint(tmp_path):
    inputs, path = _inputs(), tmp_path / "s.h5"
    subjects = [f"s{place % 16:02}" for place in range(N)]
    labels = torch.tensor([place % 16 % 2 for place in range(N)])
    model = _model()
    recorder = SpectralRecorder(model, path, groups=["a", "b"], **ASKED)
    for _ in range(2):
        _epoch(recorder, model, inputs, subjects, labels)
    state, members = recorder.state_dict(), recorder._header.permutations.pairs[0].members
    recorder.close()
    again = SpectralRecorder(model, path, groups=["a", "b"], resume=True, **ASKED)
    again.load_state_dict(state)
    np.testing.assert_array_equal(again._header.permutations.pairs[0].members, members)
    _epoch(again, model, inputs, subjects, labels)
    again.close()
    assert open_spectra(path).permutations.strata == ("number of samples",)


@pytest.mark.slow
def test_subjects_with_unequal_numbers_of_samples_keep_the_rate():
    """Null loops with three samples of most subjects of one group and of few of the other."""
    found = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        several = random.random(32) < np.repeat([0.75, 0.25], 16)
        whose = np.repeat(np.arange(32), np.where(several, 3, 1))
        own = torch.from_numpy(random.standard_normal((32, 4)))[whose]
        inputs = own + 0.3 * torch.from_numpy(random.standard_normal(own.shape))
        torch.manual_seed(seed)
        model = _model()
        recorder = SpectralRecorder(model, groups=["a", "b"], **{**ASKED, "permutations": 19, "permutation_seed": seed})
        with recorder.batch(torch.from_numpy(whose // 16), subject=whose):
            _losses(model, inputs).mean().backward()
        recorder.end_epoch()
        tests = recorder.spectra.tests()
        found += int(tests[tests.test == "permutation"].p.iloc[0] <= 0.05 + 1e-9)
    assert found <= 11  # scipy.stats.binom.ppf(0.995, 100, 0.05)


def test_pairs_may_be_permuted_more_often_than_all_groups(tmp_path):
    path, inputs, model = tmp_path / "s.h5", _inputs(), _model()
    with SpectralRecorder(
        model, path, groups=GROUPS, covariates={"age": AGES}, **{**ASKED, "permutations": 230}
    ) as recorder:
        _epoch(recorder, model, inputs)
    tests = open_spectra(path).tests().set_index("test").relabellings
    assert set(tests["permutation"]) == set(tests["covariate"]) == {230}
    assert set(tests["omnibus"]) == {199}
