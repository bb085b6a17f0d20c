from dataclasses import asdict, dataclass, field
from typing import Annotated

import numpy as np
import pytest
from annotated_types import Ge, Lt

from autospec.errors import AutoSpecError
from autospec.spectra.settings import Allowed, Count, RecorderSettings, check_settings, mistakes
from autospec.spectra.statistics import STATISTICS
from autospec.store.schema import MEASURE_NAMES, STATISTIC_NAMES

DEFAULTS = asdict(RecorderSettings())


def test_the_defaults_are_allowed_and_stay_as_they_are():
    assert check_settings(RecorderSettings, DEFAULTS) == RecorderSettings()


def test_every_mistake_is_named_at_once():
    values = {"every": 0, "leading": -1, "engine": "turbo", "reduction": "max", "statistics": ["gradient", "colour"]}
    with pytest.raises(AutoSpecError) as mistake:
        check_settings(RecorderSettings, {**DEFAULTS, **values})
    assert sorted(str(mistake.value).splitlines()) == [
        "engine=turbo: allowed are hooks, fast, per_group, passes, fused",
        "every=0: must be 1 or more",
        "leading=-1: must be 1 or more, or None",
        "reduction=max: allowed are mean, sum",
        "statistics=['gradient', 'colour']: unknown colour; allowed are gradient, activation, adjoint, rank, tied, "
        f"subspace, {', '.join(MEASURE_NAMES)}",
    ]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("every", 2.5, "every=2.5: must be a whole number"),
        ("every", None, "every=None: must be a whole number"),
        ("every", "often", "every=often: must be a whole number"),
        ("bins", 0, "bins=0: must be 1 or more, or None"),
        ("statistics", "gradient", "statistics=gradient: must be one or more of gradient, activation"),
        ("statistics", [], "statistics=[]: must be one or more of gradient, activation"),
    ],
)
def test_a_mistake_says_what_is_allowed(key, value, message):
    with pytest.raises(AutoSpecError) as mistake:
        check_settings(RecorderSettings, {**DEFAULTS, key: value})
    assert str(mistake.value).startswith(message)
    assert len(str(mistake.value).splitlines()) == 1


def test_numbers_of_numpy_and_tuples_are_taken():
    settings = check_settings(RecorderSettings, {**DEFAULTS, "every": np.int64(3), "statistics": ("rank", "gradient")})
    assert (settings.every, settings.statistics) == (3, ["rank", "gradient"])
    assert type(settings.every) is int


def test_each_name_that_is_allowed_can_be_computed():
    assert tuple(STATISTICS) == STATISTIC_NAMES


@dataclass
class _Part:
    share: Annotated[float, Ge(0), Lt(1), Allowed("must be at least 0 and below 1")] = 0.0
    counts: list[Count] = field(default_factory=list)


@dataclass
class _Whole:
    size: Count | None = None
    part: _Part = field(default_factory=_Part)


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan"), float("inf")])
def test_keys_of_a_configuration_are_named_with_their_place(share):
    whole = asdict(_Whole(0, _Part(share)))
    expected = ["size=0: must be 1 or more, or null", f"part.share={share}: must be at least 0 and below 1"]
    assert mistakes(_Whole, whole) == expected
    assert mistakes(_Whole, whole, "run.") == [f"run.{line}" for line in expected]


def test_a_configuration_without_a_mistake_has_none():
    assert mistakes(_Whole, asdict(_Whole(3, _Part(0.5, [1, 2])))) == []
