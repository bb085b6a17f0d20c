"""Damage files of every kind in every way, again and again, and see what their readers make of it: `make fuzz`.

    PYTHONPATH=tests python -m fuzz.campaign
    PYTHONPATH=tests python -m fuzz.campaign --inputs 500 --seed 7 --only spectra.h5

Each damaged file is read in a process of its own, for a minute at most, and what came of it is counted: the same
values; refused in one line that names the file; a part left out by name; another value in its place, as of a bit
within it; something changed without a word; a refusal that does not name the file; a traceback; the end of the
process; no end at all. Ends with 1 where there is any of the last five, or another value in a file that we write.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import h5py
from fuzz.mutations import edit_hdf5
from fuzz.targets import TARGETS, Target

from autospec.errors import AutoSpecError
from autospec.foreign.process import close_reader

SAME, REFUSED, NAMED, VALUE, CHANGED = "same", "refused", "named loss", "another value", "changed silently"
UNNAMED, TRACEBACK, CRASH, HANG = "refused unclearly", "traceback", "crash", "hang"
OUTCOMES = (SAME, REFUSED, NAMED, VALUE, CHANGED, UNNAMED, TRACEBACK, CRASH, HANG)
NEVER = (CHANGED, UNNAMED, TRACEBACK, CRASH, HANG)

LIMIT_S = 60.0
STRUCTURE_SHARE = 0.15
"""Of the inputs of an HDF5 file, so many are edits of its structure."""

log = logging.getLogger("fuzz")


@dataclass
class Result:
    """What came of a campaign: outcomes by target, and the cases that must not be."""

    counts: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    def note(self, target: Target, case: str, outcome: str, detail: str) -> None:
        """Count a case."""
        self.counts.setdefault(target.name, Counter())[outcome] += 1
        if outcome in NEVER or (outcome == VALUE and target.checked):
            self.failures.append(f"{target.name}, {case}: {outcome}: {detail}")

    def table(self) -> str:
        """The counts, a row per kind of file, as Markdown."""
        rows = [("file", *OUTCOMES), *(("---",) * (1 + len(OUTCOMES)),)]
        for name, counts in self.counts.items():
            rows.append((name, *(str(counts[outcome]) for outcome in OUTCOMES)))
        total: Counter[str] = sum(self.counts.values(), Counter())
        rows.append(("all", *(str(total[outcome]) for outcome in OUTCOMES)))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def run(folder: Path, inputs: int, seed: int, targets: Sequence[Target], limit_s: float = LIMIT_S) -> Result:
    """Damage and read so many files.

    Args:
        folder: To work in.
        inputs: How many, shared among the targets.
        seed: Of what happens to them.
        targets: The kinds of files.
        limit_s: Seconds that reading one may take.

    Returns:
        What came of it.
    """
    result = Result()
    for place, target in enumerate(targets):
        own = folder / target.name.replace(".", "_")
        own.mkdir()
        whole, path = own / "whole" / target.name, own / target.name
        whole.parent.mkdir()
        target.make(path)
        shutil.copy(path, whole)
        reader = Reader(target, path, limit_s)
        share = inputs * (place + 1) // len(targets) - inputs * place // len(targets)
        with contextlib.closing(reader):
            expected, detail = reader.read()
            assert expected == SAME, f"{target.name} is not read even whole: {detail}"
            for case in range(share):
                what = damage(whole, path, target, random.Random(f"{seed} {target.name} {case}"))
                result.note(target, f"case {case}, {what}", *reader.read())
        log.info("%s: %s", target.name, dict(result.counts.get(target.name, {})))
    return result


def damage(whole: Path, path: Path, target: Target, chance: random.Random) -> str:
    """Write a damaged copy of a file, and return the name of what happened to it."""
    path.unlink(missing_ok=True)
    if target.is_hdf5 and chance.random() < STRUCTURE_SHARE:
        shutil.copy(whole, path)
        with contextlib.suppress(Exception), warnings.catch_warnings():  # not every edit is possible everywhere
            warnings.simplefilter("ignore")
            edit_hdf5(path, chance)
        return "structure"
    mutation = chance.choice(target.mutations)
    path.write_bytes(mutation(bytearray(whole.read_bytes()), chance))
    return mutation.__name__


class Reader:
    """The process that reads the damaged files of one kind, begun anew when one has ended it."""

    def __init__(self, target: Target, path: Path, limit_s: float) -> None:
        self._target, self._path, self._limit_s = target, path, limit_s
        self._expected, self._structure, _ = target.content(path)
        self._told = _Told()
        close_reader()  # the fork shall have its own
        self._begin()

    def _begin(self) -> None:
        self._line, other = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=self._serve, args=(other,))
        self._process.start()
        other.close()

    def read(self) -> tuple[str, str]:
        """What comes of reading the file as it is now: the outcome, and a few words."""
        try:
            self._line.send(True)
            if self._line.poll(self._limit_s):
                outcome: tuple[str, str] = self._line.recv()
                return outcome
            self._process.kill()
            found = HANG, f"longer than {self._limit_s:.0f} s"
        except (EOFError, ConnectionError):
            self._process.join()
            found = CRASH, f"exit code {self._process.exitcode}"
        self.close()
        self._begin()
        return found

    def close(self) -> None:
        """End the process."""
        self._line.close()
        self._process.join(5)
        self._process.kill()
        self._process.join()

    def _serve(self, line: Connection) -> None:
        self._line.close()
        logging.getLogger().handlers = [self._told]
        warnings.simplefilter("ignore")
        with contextlib.suppress(EOFError), _silence():
            while line.recv():
                line.send(self._outcome())
        close_reader()

    def _outcome(self) -> tuple[str, str]:
        self._told.lines.clear()
        try:
            content, structure, lost = self._target.content(self._path)
        except AutoSpecError as error:
            text = " ".join([str(error), *self._told.lines])
            is_clear = self._path.name in text and "\n" not in text
            return (REFUSED if is_clear else UNNAMED), text
        except BaseException as error:  # noqa: BLE001 (that there is none is what is asked)
            frame = traceback.extract_tb(error.__traceback__)[-1]
            return TRACEBACK, f"{type(error).__name__}: {str(error)[:200]} at {frame.filename}:{frame.lineno}"
        if content == self._expected:
            return SAME, ""
        if told := " ".join([lost, *self._told.lines]).strip():
            return NAMED, told
        return (VALUE if structure == self._structure else CHANGED), ""


class _Told(logging.Handler):
    """Keeps what is warned of."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """HDF5 and nibabel print of damaged files what nobody needs."""
    h5py._errors.silence_errors()
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.close(null)


def main() -> None:
    """Run the campaign that the command line names."""
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=5000, help="how many damaged files (default: 5000)")
    parser.add_argument("--seed", type=int, default=0, help="of what happens to them (default: 0)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="kinds of files (default: all)")
    options = parser.parse_args()
    targets = [target for target in TARGETS if not options.only or target.name in options.only]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        result = run(Path(folder), options.inputs, options.seed, targets)
    sys.stdout.write(f"{result.table()}\n\n{options.inputs} inputs, {time.monotonic() - began:.0f} s\n")
    if result.failures:
        sys.exit("\n".join(result.failures))


if __name__ == "__main__":
    main()
