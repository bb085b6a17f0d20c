"""Kill a sweep at random moments, again and again, and see whether anything is lost: `make faults`.

    python scripts/faults.py
    python scripts/faults.py --kills 10 --runs 3 --seed 7

A sweep of tiny runs is begun, killed (SIGKILL), begun again with the same command, until it is done; then the next
one. After every kill each file must open and hold every epoch up to its checkpoint once, with the spectra of those at
which they are taken; in the end each must be complete and hold the numbers of a sweep that nobody disturbed. Takes
about half an hour.
"""

from __future__ import annotations

import argparse
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
from checkout import copied_checkout

from autospec.experiments.runs.checkpoint import read_checkpoint
from autospec.store.read import open_spectra

EVERY = 2
TINY = ("dataset.per_digit=10", "width=4", "epochs=120", "batch_size=20", "checkpoint_s=0.02")
EARLY = 0.15
"""The share of kills while a launch still starts; the others come up to so many seconds after its training began."""
AFTER_S = 2.5

log = logging.getLogger("faults")


def main() -> None:
    """Run the campaign that the command line names; exits with 1 at the first loss."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how often to kill (default: 100)")
    parser.add_argument("--runs", type=int, default=20, help="runs of a sweep (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        try:
            checkout = copied_checkout(Path(folder))
            Campaign(Path(folder), arguments.runs, random.Random(arguments.seed), checkout).run(arguments.kills)
        except Loss as loss:
            sys.exit(f"LOST: {loss}")


class Loss(Exception):
    """Something that a killed sweep did not keep."""


@dataclass
class Campaign:
    """Sweeps of equal runs in a folder, and what is known of them."""

    folder: Path
    runs: int
    moments: random.Random
    checkout: Path
    start_s: float = 0.0
    in_writing: int = 0
    half_written: set[Path] = field(default_factory=set)
    reached: dict[Path, int] = field(default_factory=dict)

    def run(self, kills: int) -> None:
        """Kill so many times, over as many sweeps as that takes, and compare each with an undisturbed one."""
        undisturbed = self._undisturbed()
        killed = sweeps = 0
        while killed < kills:
            sweeps += 1
            output_dir = self.folder / f"sweep_{sweeps}"
            while killed < kills and self._killed(output_dir):
                killed += 1
                self._check(output_dir)
                log.info("kill %d of %d: %s", killed, kills, self._course(output_dir))
            self._finish(output_dir, self.runs)
            _compare(output_dir, undisturbed)
        log.info(
            "%d kills in %d sweeps of %d runs, %d of them while a file was written: every file always whole, "
            "no epoch lost or doubled, every number as undisturbed",
            killed,
            sweeps,
            self.runs,
            self.in_writing,
        )

    def _undisturbed(self) -> dict[str, dict[str, bytes]]:
        """The numbers of each run of an undisturbed sweep; notes how long it takes until the first has begun."""
        began = time.monotonic()
        process = self._launched(self.folder / "undisturbed", self.runs)
        self._await_training(process)
        self.start_s = time.monotonic() - began
        process.wait()
        self._refuse_failure(process)
        log.info("undisturbed: %d runs take %.0f s", self.runs, time.monotonic() - began)
        return {path.parent.name: _numbers(path) for path in _spectra(self.folder / "undisturbed")}

    def _launched(self, output_dir: Path, runs: int) -> subprocess.Popen[bytes]:
        sweep = [*TINY, f"introspection.every={EVERY}", f"seed=range(1,{runs + 1})", f"output_dir={output_dir}"]
        path = {"PYTHONPATH": str(self.checkout / "src")}
        with (self.folder / "log").open("wb") as messages:
            command = [sys.executable, str(self.checkout / "run.py"), "-m", *sweep]
            return subprocess.Popen(command, env=os.environ | path, stdout=messages, stderr=messages)

    def _await_training(self, process: subprocess.Popen[bytes]) -> None:
        while process.poll() is None and not re.search(" begins: | goes on ", (self.folder / "log").read_text()):
            time.sleep(0.02)

    def _killed(self, output_dir: Path) -> bool:
        """Launch the sweep and kill it at a random moment; False where it was done before."""
        process = self._launched(output_dir, self.runs)
        early = self.moments.random() < EARLY
        if not early:
            self._await_training(process)
        try:
            process.wait(self.moments.uniform(0, self.start_s if early else AFTER_S))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            half_written = set(output_dir.glob("runs/*/.*.????????"))
            self.in_writing += bool(half_written - self.half_written)
            self.half_written = half_written
            return True
        self._refuse_failure(process)
        return False

    def _finish(self, output_dir: Path, runs: int) -> None:
        process = self._launched(output_dir, runs)
        process.wait()
        self._refuse_failure(process)

    def _refuse_failure(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode:
            raise Loss(f"the sweep ended with {process.returncode}:\n{(self.folder / 'log').read_text()[-2000:]}")

    def _check(self, output_dir: Path) -> None:
        """Every file opens, and holds each epoch up to the last checkpoint once."""
        for path in _spectra(output_dir):
            found, recorded = _epochs(path), _epochs(path, "epoch")
            if not np.array_equal(found, np.arange(len(found))):
                raise Loss(f"{path} holds epochs {found.tolist()}")
            if not np.array_equal(recorded[recorded % EVERY == 0], np.arange(0, len(found), EVERY)):
                raise Loss(f"{path} holds {len(found)} epochs and spectra of {recorded.tolist()}")
            saved = max([self.reached.get(path, 0), *_saved_epochs(path.parent)])
            if len(found) < saved:
                raise Loss(f"{path} holds {len(found)} epochs, a checkpoint {saved}")
            self.reached[path] = saved

    def _course(self, output_dir: Path) -> str:
        epochs = [len(_epochs(path)) for path in _spectra(output_dir)]
        return f"{output_dir.name}, {len(epochs)} of {self.runs} runs begun, {sum(epochs)} epochs kept"


def _spectra(output_dir: Path) -> list[Path]:
    return sorted(output_dir.glob("runs/*/spectra.h5"))


def _saved_epochs(run: Path) -> Iterator[int]:
    """The epochs of a run's checkpoints that are whole: renamed into place, so each must be."""
    for path in run.glob("checkpoint*.pt"):
        yield int(read_checkpoint(path)["training"]["recorder"]["epoch"])


def _numbers(path: Path) -> dict[str, bytes]:
    """Every dataset of a file as bytes, by its path."""
    found: dict[str, bytes] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            values = item[()]
            found[name] = repr(values.tolist()).encode() if values.dtype == object else values.tobytes()

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise Loss(f"{path} cannot be read: {error}") from error
    return found


def _epochs(path: Path, dataset: str = "training/epoch") -> npt.NDArray[np.int64]:
    return np.frombuffer(_numbers(path).get(dataset, b""), dtype=np.int64)


def _compare(output_dir: Path, undisturbed: dict[str, dict[str, bytes]]) -> None:
    found = {path.parent.name: path for path in _spectra(output_dir)}
    if set(found) != set(undisturbed):
        raise Loss(f"{output_dir.name} has the runs {sorted(found)}, undisturbed they are {sorted(undisturbed)}")
    for run, path in found.items():
        if not open_spectra(path).complete:
            raise Loss(f"{run} is not complete, and nothing more is done for it")
        numbers = _numbers(path)
        if numbers != undisturbed[run]:
            different = [name for name in undisturbed[run] if numbers.get(name) != undisturbed[run][name]]
            raise Loss(f"{run} differs from undisturbed in {', '.join(different)}")


if __name__ == "__main__":
    main()
