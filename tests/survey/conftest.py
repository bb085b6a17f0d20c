"""make survey: pytest tests/survey --survey-page docs/survey.md."""

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--survey-page", type=Path, help="where the survey's table is written")
