"""What cannot be read now is not damage: one line says what to do, and the file stays."""

import errno
import os
import subprocess
import sys

import pytest
from small_runs import record

from autospec import AutoSpecError, open_spectra
from autospec.errors import DamagedFile, UnreadableFile
from autospec.store import opening
from autospec.store.opening import ADVICE, read_bytes
from autospec.store.read import load_spectra


@pytest.fixture
def path(tmp_path):
    record(tmp_path / "spectra.h5", epochs=2)
    return tmp_path / "spectra.h5"


@pytest.mark.parametrize("number", ADVICE)
def test_an_error_of_the_system_is_not_damage(path, monkeypatch, number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(opening, "_Stream", refused)
    monkeypatch.setattr(opening, "RETRY_S", 0.01)
    for read in (open_spectra, read_bytes):
        with pytest.raises(UnreadableFile) as error:
            read(path)
        assert str(error.value) == f"{path} cannot be read now ({os.strerror(number)}): {ADVICE[number]}"


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_while_it_is_read_is_not_damage(path, monkeypatch, number):
    spectra = open_spectra(path)
    monkeypatch.setattr(opening._Stream, "readinto", lambda *_: (_ for _ in ()).throw(OSError(number, "failed")))
    with pytest.raises(UnreadableFile, match="cannot be read now"):
        _ = spectra.training


def test_a_file_that_is_busy_is_waited_for(path, monkeypatch):
    busy = iter([True, True])
    stream = opening._Stream

    def later(*arguments, **keywords):
        if next(busy, False):
            raise BlockingIOError(errno.EAGAIN, "busy")
        return stream(*arguments, **keywords)

    monkeypatch.setattr(opening, "_Stream", later)
    assert open_spectra(path).epochs.tolist() == [0, 1]


def test_an_error_that_hdf5_only_mentions_is_the_systems(path, monkeypatch):
    def locked(*_, **__):
        raise OSError("Unable to synchronously open file (unable to lock file, errno = 37, error message = 'No locks')")

    monkeypatch.setattr(opening.h5py, "File", locked)
    with pytest.raises(UnreadableFile, match=r"No locks available\): the file system has no locks"):
        open_spectra(path)


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_file_that_another_process_holds_is_read(path, mode):
    expected = load_spectra(path).to_frame()
    code = "import h5py, sys; file = h5py.File(sys.argv[1], sys.argv[2]); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(path), mode]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        holder.stdout.readline()
        assert load_spectra(path).to_frame().equals(expected)
        holder.kill()
    assert load_spectra(path).to_frame().equals(expected)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_file_that_may_not_be_read(path):
    path.chmod(0)
    with pytest.raises(UnreadableFile, match="ask its owner for permission"):
        open_spectra(path)


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, expected in (("pipe", "is not a regular file"), (".", "is a folder"), ("nothing", "no such file")):
        with pytest.raises(AutoSpecError, match=expected):
            open_spectra(tmp_path / name)
    with pytest.raises(AutoSpecError, match="/dev/zero is not a regular file"):
        open_spectra("/dev/zero")


def test_a_content_that_is_wrong_is_damage(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DamagedFile, match="is truncated or damaged"):
        open_spectra(path)
