"""The process for readers: what kills it, keeps it busy or takes memory is one line, and the next file is read."""

import os
import signal

import hostile_files
import numpy as np
import pytest

from autospec.cohorts.mat_files import variables
from autospec.errors import AutoSpecError
from autospec.foreign import process
from autospec.foreign.files import file_bytes
from autospec.foreign.process import read_apart


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"12345")
    return path


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_what_kills_a_reader_is_one_line_and_the_next_file_is_read(file, number):
    with pytest.raises(AutoSpecError) as error:
        read_apart(hostile_files.die, file, number)
    assert str(error.value) == f"{file}: its reader died of it ({number.name}); the file is damaged"
    assert read_apart(file_bytes, file) == 5


def test_what_never_ends_is_ended(file, monkeypatch):
    read_apart(file_bytes, file)
    monkeypatch.setattr(process, "LIMIT_S", 0.1)
    with pytest.raises(AutoSpecError, match=r"a.bin: was not read within 0 s; the file is damaged, or the disk slow"):
        read_apart(hostile_files.wait, file)
    monkeypatch.undo()
    assert read_apart(file_bytes, file) == 5


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (hostile_files.allocate, "a.bin: claims more memory than its size explains; it is damaged"),
        (hostile_files.fail, "a.bin: is truncated or damaged: one line and another"),
        (variables, "a.bin: cannot be read as a MATLAB file"),
    ],
)
def test_what_a_reader_raises_is_one_line(file, function, message):
    with pytest.raises(AutoSpecError, match=message) as error:
        read_apart(function, file)
    assert "\n" not in str(error.value)


def test_a_fork_has_a_reader_of_its_own(file):
    read_apart(file_bytes, file)
    readable, writable = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.write(writable, b"%d" % read_apart(file_bytes, file))
        finally:
            process.close_reader()
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writable)
    assert os.read(readable, 10) == b"5"
    os.close(readable)
    assert read_apart(file_bytes, file) == 5


def test_arrays_come_back_as_they_are(tmp_path):
    from scipy.io import savemat

    values = np.random.default_rng(0).normal(size=(300, 400))
    savemat(tmp_path / "a.mat", {"values": values})
    np.testing.assert_array_equal(read_apart(variables, tmp_path / "a.mat")["values"], values)
