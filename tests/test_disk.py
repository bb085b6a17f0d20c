"""Disks that are full, read-only or damaged, on a small file system of the test's own where one can be mounted."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from references import content

from autospec import open_spectra

ROOT = Path(__file__).resolve().parent.parent
RUN = ["dataset.per_digit=10", "epochs=60", "width=8", "checkpoint_s=0"]
SIZE_KB = 1024

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path):
    """A file system of one megabyte in memory."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_KB}k", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here; that takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def _run(output_dir: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "run.py"), *RUN, f"output_dir={output_dir}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _fill(folder: Path, leave_kb: int) -> Path:
    """Fill a disk up to so many kB."""
    filler = folder / "filler"
    free = os.statvfs(folder)
    filler.write_bytes(bytes(free.f_bavail * free.f_frsize - leave_kb * 1024))
    return filler


def test_a_full_disk_ends_a_run_in_a_line_and_the_run_goes_on_when_there_is_room(small_disk, tmp_path):
    assert _run(tmp_path / "undisturbed").returncode == 0
    filler = _fill(small_disk, leave_kb=140)
    full = _run(small_disk)
    (folder,) = (small_disk / "runs").iterdir()
    assert full.returncode == 1
    assert full.stderr.splitlines()[-1].startswith(f"cannot write {folder}/")
    assert full.stderr.splitlines()[-1].endswith("No space left on device; what stood there before is untouched")
    assert len(full.stderr.splitlines()) == 2
    assert not list(folder.glob(".*"))
    if (folder / "spectra.h5").exists():
        assert not open_spectra(folder / "spectra.h5").complete
    filler.unlink()
    assert _run(small_disk).returncode == 0
    (undisturbed,) = (tmp_path / "undisturbed" / "runs").iterdir()
    assert content(folder / "spectra.h5") == content(undisturbed / "spectra.h5")


def test_a_disk_without_room_for_anything(small_disk):
    _fill(small_disk, leave_kb=0)
    result = _run(small_disk)
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "No space left on device" in result.stderr


def test_a_read_only_folder_is_named(small_disk):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    result = _run(small_disk)
    assert result.returncode == 1
    assert result.stderr.startswith(f"output_dir: cannot write or lock {small_disk}/runs/")
    assert result.stderr.endswith(": Read-only file system\n")
