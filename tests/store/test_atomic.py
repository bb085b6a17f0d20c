import os
import stat

import pytest

from autospec.errors import AutoSpecError
from autospec.store.atomic import remove_leftovers, write_atomically


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    with write_atomically(path) as temporary:
        temporary.write_text("one")
    with pytest.raises(RuntimeError, match="interrupted"), write_atomically(path) as temporary:
        temporary.write_text("two")
        raise RuntimeError("interrupted")
    assert path.read_text() == "one"
    assert list(tmp_path.iterdir()) == [path]


def test_the_content_is_on_the_disk_before_its_name_is_and_then_the_name(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    synced, sync = [], os.fsync

    def record(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synced.append((kind, path.exists()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", record)
    with write_atomically(path) as temporary:
        temporary.write_text("one")
    assert synced == [("file", False), ("folder", True)]


def test_a_folder_that_cannot_be_synced_is_no_mistake(tmp_path, monkeypatch):
    def files_only(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(os, "fsync", files_only)
    with write_atomically(tmp_path / "a.txt") as temporary:
        temporary.write_text("one")
    assert (tmp_path / "a.txt").read_text() == "one"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    message = r"cannot write .*nowhere/a.txt: No such file or directory; what stood there before is untouched"
    with pytest.raises(AutoSpecError, match=message), write_atomically(tmp_path / "nowhere" / "a.txt") as temporary:
        temporary.write_text("one")


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    for name in (".a.txt.0123abcd", ".b.txt.0123abcd", "a.txt"):
        (tmp_path / name).write_text("")
    remove_leftovers(tmp_path / "a.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".b.txt.0123abcd", "a.txt"]
