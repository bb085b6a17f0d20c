"""A short campaign of damaged files, and that the campaign sees what must not be; `make fuzz` is the long one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from fuzz.campaign import CHANGED, CRASH, HANG, TRACEBACK, UNNAMED, VALUE, Result, run
from fuzz.mutations import truncate
from fuzz.targets import TARGETS, Target

from autospec.errors import AutoSpecError

WHOLE = bytes(range(200))


def test_no_damaged_file_of_a_short_campaign_is_read_wrong(tmp_path: Path) -> None:
    result = run(tmp_path, 8 * len(TARGETS), 0, TARGETS)
    assert not result.failures, "\n".join(result.failures)
    assert sum(sum(counts.values()) for counts in result.counts.values()) == 8 * len(TARGETS)
    assert len(result.table().splitlines()) == 3 + len(TARGETS)


def _crash(content: bytes) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(content: bytes) -> None:
    signal.pause()


def _trip(content: bytes) -> None:
    raise KeyError("x")


def _refuse(content: bytes) -> None:
    raise AutoSpecError("something is wrong")


BAD_READERS = {CRASH: _crash, HANG: _hang, TRACEBACK: _trip, UNNAMED: _refuse, CHANGED: lambda content: content[:9]}


@pytest.mark.parametrize("outcome", BAD_READERS)
def test_the_campaign_sees_what_must_not_be(tmp_path: Path, outcome: str) -> None:
    def read(path: Path) -> tuple[object, str]:
        content = path.read_bytes()
        return (list(content) if content == WHOLE else BAD_READERS[outcome](content)), ""

    target = Target("bad.bin", lambda path: path.write_bytes(WHOLE), read, (truncate,))
    result = run(tmp_path, 2, 0, [target], limit_s=0.2 if outcome == HANG else 20)
    assert result.counts["bad.bin"][outcome] == 2
    assert len(result.failures) == 2
    assert f"bad.bin, case 0, truncate: {outcome}" in result.failures[0]


def test_another_value_passes_in_files_without_checksums_alone() -> None:
    for checked in (False, True):
        result = Result()
        result.note(Target("a", Path.touch, lambda path: (None, ""), checked=checked), "case 0", VALUE, "")
        assert bool(result.failures) == checked


def test_the_same_seed_does_the_same_damage(tmp_path: Path) -> None:
    seen: list[list[bytes]] = []
    for name in ("one", "other"):

        def read(path: Path) -> tuple[object, str]:
            (path.parent / f"{time.monotonic_ns()}").write_bytes(path.read_bytes())
            return path.read_bytes(), ""

        (tmp_path / name).mkdir()
        run(tmp_path / name, 10, 3, [Target("a.bin", lambda path: path.write_bytes(WHOLE), read)])
        kept = sorted(file for file in (tmp_path / name / "a_bin").iterdir() if file.name.isdigit())
        seen.append([file.read_bytes() for file in kept])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 12
