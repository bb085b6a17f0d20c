"""autospec show --live: what it draws while a file grows, and how it ends."""

import io
import subprocess
import sys

import h5py
import pytest
from small_runs import record

from autospec import AutoSpecError, open_spectra
from autospec.figures import live, show_command


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_it_waits_for_a_file_follows_it_and_ends_with_the_run(tmp_path):
    path, out, waits = tmp_path / "spectra.h5", Terminal(), []

    def grow(seconds):
        """What a run does while the reader waits."""
        waits.append(seconds)
        if len(waits) <= 3:
            record(path, epochs=len(waits), overwrite=True)
            with h5py.File(path, "a") as file:
                file.attrs["complete"] = len(waits) == 3

    # a file that is edited has another digest than was written
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("autospec.store.opening.structure_digest", lambda lines: None)
        patch.setattr("autospec.store.opening.DIGEST", "absent")
        live.watch(path, None, out, grow)
    drawn = out.getvalue().split("\x1b[H\x1b[2J")
    assert drawn[0] == f"waiting for {path}\n"
    assert ["epoch 0   1 records" in drawn[1], "epoch 1   2 records" in drawn[2]] == [True, True]
    assert drawn[1].splitlines()[0].endswith("   not complete")
    assert drawn[3].splitlines()[0].endswith("   complete")
    assert drawn[-1].endswith(f"{path} is complete\n")
    assert all(seconds >= live.POLL_S for seconds in waits)


def test_a_complete_file_is_drawn_once(tmp_path, capsys):
    record(tmp_path / "spectra.h5", epochs=4)
    show_command.main([str(tmp_path), "--live", "--layers", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("complete")
    assert any(line.startswith("training loss") and "▁" in line for line in lines)
    (row,) = [line for line in lines if line.startswith("2 ")]
    assert "█" in row


def test_ctrl_c_ends_in_one_line(tmp_path):
    def interrupt(seconds):
        raise KeyboardInterrupt

    for out in (Terminal(), io.StringIO()):
        live.watch(tmp_path / "absent.h5", None, out, interrupt)
        assert out.getvalue().endswith(f"no longer watching {tmp_path / 'absent.h5'}\n")
        assert out.getvalue().count("\n") == 2


def test_more_layers_than_lines_and_no_records_yet(tmp_path):
    record(tmp_path / "a.h5", epochs=2)
    text = live.screen(open_spectra(tmp_path / "a.h5"), height=3)
    assert len(text.splitlines()) < 10
    record(tmp_path / "b.h5", epochs=0)
    assert "no spectra are recorded yet" in live.screen(open_spectra(tmp_path / "b.h5"))


def test_a_file_of_something_else_is_one_line(tmp_path):
    (tmp_path / "x.h5").write_text("no spectra")
    with pytest.raises(AutoSpecError, match="is not an HDF5 file"):
        live.watch(tmp_path / "x.h5", None, io.StringIO())


@pytest.mark.slow
def test_it_needs_no_torch(tmp_path):
    record(tmp_path / "spectra.h5", epochs=2)
    code = f"""
import sys
sys.modules["torch"] = None
from autospec.figures import show_command
show_command.main([{str(tmp_path)!r}])
show_command.main([{str(tmp_path)!r}, "--live"])
show_command.main([{str(tmp_path)!r}, "--differences", "SZ", "HC"])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "the file holds no permutations" in ended.stdout
