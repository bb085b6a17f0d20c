"""Foreign architectures: nothing is silently wrong, and nearly every trained matrix is exact by some engine."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
from survey.architectures import ARCHITECTURES
from survey.judge import judge
from survey.page import ENGINES, judge_all, page

FAST = [name for name, architecture in ARCHITECTURES.items() if architecture.fast]


def _refuse_missing(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: make survey installs it")


def test_the_survey_has_at_least_sixty_architectures_and_a_sample_of_twelve() -> None:
    assert len(ARCHITECTURES) >= 60
    assert len(FAST) >= 12


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", FAST)
def test_nothing_is_silently_wrong(name: str, engine: str) -> None:
    _refuse_missing(ARCHITECTURES[name].package)
    verdict = judge(ARCHITECTURES[name], engine)
    assert verdict.matrices > 0
    assert not verdict.wrong


@pytest.mark.slow
def test_no_architecture_is_wrong_and_nearly_every_matrix_is_exact_by_one_of_the_engines(request) -> None:
    for architecture in ARCHITECTURES.values():
        _refuse_missing(architecture.package)
    verdicts = judge_all(processes=2)
    if target := request.config.getoption("--survey-page"):
        target.write_text(page(verdicts))
    assert [name for name, of_engine in verdicts.items() if any(v.wrong for v in of_engine.values())] == []
    matrices = {name: of_engine["hooks"].matrices for name, of_engine in verdicts.items()}
    exact = {name: len(set().union(*(v.exact for v in of.values()))) for name, of in verdicts.items()}
    assert all(matrices.values())
    assert sum(exact.values()) >= 0.95 * sum(matrices.values())
    braindecode = [name for name in verdicts if name.startswith("braindecode/")]
    assert [name for name in braindecode if exact[name] < matrices[name]] == []
