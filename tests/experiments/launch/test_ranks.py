"""The processes of one run: one that ends before it joins, or in an error, is named at once."""

import multiprocessing
import os
import signal

import pytest

from autospec.errors import AutoSpecError
from autospec.experiments.launch.ranks import other_ranks
from autospec.recording.processes import Processes


class EndsAtOnce:
    """What another process cannot even begin to do."""

    def __reduce__(self):
        return os._exit, (3,)


def _joins_then_raises(processes: Processes) -> None:
    processes.gather(None)
    raise AutoSpecError("the task knows no loss")


@pytest.mark.slow
def test_a_process_that_ends_before_it_joins_is_no_reason_to_wait():
    line = "another of the 2 processes ended before training began"
    with pytest.raises(AutoSpecError, match=line), other_ranks(2, "cpu", EndsAtOnce()):
        raise AssertionError("nobody is there to train with")
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="signals cannot be held back here")
def test_signals_are_the_first_processs_own_and_the_error_of_another_is_the_runs_line():
    line = r"^process 1 of 2 on \S+: the task knows no loss$"
    with pytest.raises(AutoSpecError, match=line), other_ranks(2, "cpu", _joins_then_raises) as processes:
        (other,) = multiprocessing.active_children()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(other.pid, number)
        assert processes.gather(None) == [None, None]
        processes.gather(None)
    assert multiprocessing.active_children() == []
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
