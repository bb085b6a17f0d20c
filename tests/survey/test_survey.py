"""Foreign architectures: nothing is silently wrong, and nearly every trained matrix is exact by some engine."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

import pytest
from survey.architectures import ARCHITECTURES, Architecture
from survey.judge import Verdict, judge

FAST = [name for name, architecture in ARCHITECTURES.items() if architecture.fast]
SLOW = [name for name in ARCHITECTURES if name not in FAST]
ENGINES = ("hooks", "per_group")


@cache
def _verdict(name: str, engine: str) -> Verdict:
    return judge(_installed(ARCHITECTURES[name]), engine)


def _installed(architecture: Architecture) -> Architecture:
    if find_spec(architecture.package) is None:
        pytest.skip(f"{architecture.package} is not installed: make survey installs it")
    return architecture


def test_the_survey_has_at_least_sixty_architectures_and_a_sample_of_twelve() -> None:
    assert len(ARCHITECTURES) >= 60
    assert len(FAST) >= 12


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_nothing_is_silently_wrong(name: str, engine: str) -> None:
    verdict = _verdict(name, engine)
    assert verdict.matrices > 0
    assert not verdict.wrong


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_nearly_every_matrix_is_exact_by_one_of_the_engines() -> None:
    matrices, exact = 0, 0
    for name in ARCHITECTURES:
        verdicts = [_verdict(name, engine) for engine in ENGINES]
        by_any = set().union(*(verdict.exact for verdict in verdicts))
        matrices += verdicts[0].matrices
        exact += len(by_any)
        if name.startswith("braindecode/"):
            assert len(by_any) == verdicts[0].matrices, f"{name} is not recorded whole"
    assert exact >= 0.95 * matrices
