"""Disks that are full or read-only: a small file system of the test's own, where one can be mounted."""

import os
import subprocess
from pathlib import Path

import pytest
from references import content

from autospec import open_spectra

RUN = ["dataset.per_digit=10", "epochs=60", "width=8", "checkpoint_s=0"]


@pytest.fixture
def mount(tmp_path):
    """Put a file system of one megabyte in memory where output goes."""
    folder = tmp_path / "outputs"

    def mounted() -> Path:
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
        if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("no file system can be mounted here; that takes root")
        return folder

    yield mounted
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)


def _fill(folder: Path, leave_kb: int) -> Path:
    """Fill a disk up to so many kB."""
    filler = folder / "filler"
    free = os.statvfs(folder)
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - leave_kb * 1024))
    return filler


def test_a_full_disk_ends_a_run_in_a_line_and_it_goes_on_when_there_is_room(run, mount, tmp_path):
    assert run(*RUN) == ""
    (tmp_path / "outputs").rename(tmp_path / "undisturbed")
    disk = mount()
    filler = _fill(disk, leave_kb=140)
    message = run(*RUN)
    (folder,) = (disk / "runs").iterdir()
    assert message.startswith(f"cannot write {folder}/")
    assert message.endswith("No space left on device; what stood there before is untouched")
    assert not list(folder.glob(".*"))
    assert not open_spectra(folder / "spectra.h5").complete
    filler.unlink()
    assert run(*RUN) == ""
    (undisturbed,) = (tmp_path / "undisturbed" / "runs").iterdir()
    assert content(folder / "spectra.h5") == content(undisturbed / "spectra.h5")


def test_a_disk_without_room_for_anything(run, mount):
    _fill(mount(), leave_kb=0)
    message = run(*RUN)
    assert len(message.splitlines()) == 1
    assert "No space left on device" in message


def test_a_read_only_folder_is_named(run, mount):
    disk = mount()
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    message = run(*RUN)
    assert message.startswith(f"output_dir: cannot write or lock {disk}/runs/")
    assert message.endswith(": Read-only file system")
