import os
import signal

import pytest

from autospec.experiments.runs.signals import postpone_signals


@pytest.fixture
def heard():
    """A handler of USR2 as SLURM's requeueing sets one, and what it has heard."""
    came = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: came.append(number))
    yield came
    signal.signal(signal.SIGUSR2, before)


def test_a_signal_waits_until_it_may_act(heard):
    with postpone_signals() as signals:
        assert signals.names == ""
        os.kill(os.getpid(), signal.SIGUSR2)
        assert signals.names == "SIGUSR2"
        assert heard == []
        signals.act()
        assert heard == [signal.SIGUSR2]
        assert signals.names == ""
    assert heard == [signal.SIGUSR2]


def test_a_signal_that_nobody_looked_for_acts_in_the_end(heard):
    with postpone_signals():
        os.kill(os.getpid(), signal.SIGUSR2)
    assert heard == [signal.SIGUSR2]


def test_a_second_signal_of_a_kind_acts_at_once(heard):
    with postpone_signals():
        os.kill(os.getpid(), signal.SIGUSR2)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert heard == [signal.SIGUSR2]


def test_what_ends_a_process_does_so_with_the_status_of_a_signal():
    with pytest.raises(SystemExit) as stopped, postpone_signals() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        signals.act()
    assert stopped.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_the_keyboard_interrupts_between_epochs():
    with pytest.raises(KeyboardInterrupt), postpone_signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.names == "SIGINT"
        signals.act()


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with postpone_signals() as signals:
            os.kill(os.getpid(), signal.SIGTERM)
            assert signals.names == ""
    finally:
        signal.signal(signal.SIGTERM, before)


def test_an_error_is_not_hidden_by_a_signal_that_waits(heard):
    with pytest.raises(ValueError, match="of the run"), postpone_signals():
        os.kill(os.getpid(), signal.SIGUSR2)
        raise ValueError("of the run")
    assert heard == []
