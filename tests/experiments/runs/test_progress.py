import logging

import pytest

from autospec.experiments.runs.progress import ConsoleHandler, duration


@pytest.fixture
def console(monkeypatch):
    """Say something under a logger's name, as if each time by another run of one process."""
    monkeypatch.setattr(ConsoleHandler, "_messages_about_data", set())

    def say(name, text):
        ConsoleHandler().handle(logging.makeLogRecord({"name": name, "msg": text, "levelno": logging.INFO}))

    return say


def test_a_cohort_is_described_once_in_a_sweep(console, capsys):
    for _ in range(2):
        console("autospec.experiments.datasets.cobre_maps", "124 people")
        console("autospec.experiments.run", "begins")
    assert capsys.readouterr().err.splitlines() == ["124 people", "begins", "begins"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (89.9, "90 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")]
)
def test_a_duration_has_the_unit_that_reads_best(seconds, text):
    assert duration(seconds) == text
