import subprocess
import sys

import pytest

from autospec import AutoSpecError
from autospec.experiments.runs.folder import lock_run, run_folder

HOLDER = """
import sys
from autospec.experiments.runs.folder import lock_run, run_folder
with lock_run(run_folder(sys.argv[1], "run")):
    print("locked", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_one_works_and_the_other_says_so(tmp_path, holder):
    expected = f"run run is being worked on by process {holder.pid} on "
    with pytest.raises(AutoSpecError, match=expected), lock_run(run_folder(str(tmp_path), "run")):
        pytest.fail("the lock was given twice")


def test_a_lock_dies_with_its_holder(tmp_path, holder):
    holder.kill()
    holder.wait()
    folder = run_folder(str(tmp_path), "run")
    assert folder.lock.exists()
    with lock_run(folder):
        (folder.path / "result").write_text("")
    assert folder.path.exists()
    assert not folder.lock.exists()


def test_a_folder_to_which_nothing_was_written_is_removed(tmp_path):
    with lock_run(run_folder(str(tmp_path / "outputs"), "run")):
        pass
    assert not (tmp_path / "outputs" / "runs").exists()
