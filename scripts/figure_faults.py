"""End `make figures FIGURE=1,4 JOBS=2` at random moments, again and again, and see whether anything is lost.

    python scripts/figure_faults.py
    python scripts/figure_faults.py --kills 5 --seed 7

The command and its workers are ended together by a signal (SIGKILL mostly, SIGTERM, SIGINT, SIGHUP), and the same
command is given again, until it is done: few times while it still starts, mostly while it trains, saves, permutes,
trains networks with permuted labels, or draws. After every end each file of spectra must open; in the end the numbers
and the tables of tests must be those of an undisturbed command. Takes some fifteen seconds of a processor for each end.
Output goes to memory where there is a file system in it: an ended process loses nothing that it has written to either.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
from checkout import copied_checkout

from autospec.errors import AutoSpecError
from autospec.store.read import open_spectra

FIGURES = ("--figure", "1,4", "--jobs", "2")
TINY = (
    "width=4",
    "epochs=20",
    "checkpoint_s=0.02",
    "introspection.permutations=20",
    "introspection.permutation_epochs=3",
    "introspection.retrain=19",
)
IMAGES = ("per_digit: null", "per_digit: 20")
"""In the copy's configuration of MNIST: both figures take a key of the command line, and only one has images."""
SIGNALS = (signal.SIGKILL,) * 7 + (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
MEMORY = Path("/dev/shm")
EARLY = 0.15
"""The share of ends while a launch still starts; the others come after its work has begun."""
PARTS = 8
"""An end comes within so great a part of the time that an undisturbed command works."""
AT_WORK = re.compile(r"begins:|goes on|networks with permuted labels|^figure", re.MULTILINE)

log = logging.getLogger("figure_faults")


class Loss(Exception):
    """Something that an ended command did not keep."""


def main() -> None:
    """Run the campaign that the command line names; exits with 1 at the first loss."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="how often to end the command (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", default=list(TINY), help="of the runs")
    arguments = parser.parse_args()
    memory = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="figure-faults-", dir=memory) as folder:
        try:
            checkout = _with_few_images(copied_checkout(Path(folder)))
            campaign = Campaign(Path(folder), random.Random(arguments.seed), arguments.overrides, checkout)
            campaign.run(arguments.kills)
        except Loss as loss:
            sys.exit(f"LOST: {loss}")


def _with_few_images(checkout: Path) -> Path:
    """The checkout, its data set of images made small."""
    path = checkout / "conf" / "dataset" / "mnist.yaml"
    text = path.read_text("utf-8")
    if IMAGES[0] not in text:
        raise Loss(f"{path} has no line {IMAGES[0]!r}")
    path.write_text(text.replace(*IMAGES), "utf-8")
    return checkout


@dataclass
class Campaign:
    """Figures drawn again and again in folders of their own."""

    folder: Path
    moments: random.Random
    overrides: Sequence[str]
    checkout: Path
    start_s: float = 0.0
    work_s: float = 0.0
    ended_by: Counter[str] = field(default_factory=Counter)

    def run(self, kills: int) -> None:
        """End the command so often, over as many figures as that takes, and compare each with undisturbed ones."""
        self._time_undisturbed(self.folder / "undisturbed")
        undisturbed = results(self.folder / "undisturbed")
        log.info("undisturbed: %d tables and datasets in %.0f s", len(undisturbed), self.start_s + self.work_s)
        killed = round_ = 0
        while killed < kills:
            round_ += 1
            output = self.folder / f"round_{round_}"
            while killed < kills and (ended_by := self._ended_early(output)):
                killed += 1
                self.ended_by[ended_by] += 1
                check_files(output)
                log.info("end %d of %d, by %s", killed, kills, ended_by)
            self._finish(output)
            if results(output) != undisturbed:
                raise Loss(f"{output.name} differs from undisturbed in {_differing(results(output), undisturbed)}")
        counts = ", ".join(f"{count} by {name}" for name, count in self.ended_by.most_common())
        log.info(
            "%d ends (%s) in %d rounds: every file whole, every number and table as undisturbed", killed, counts, round_
        )

    def _time_undisturbed(self, output: Path) -> None:
        began = time.monotonic()
        process = self._launched(output)
        self._await_work(process)
        self.start_s = time.monotonic() - began
        process.wait()
        self.work_s = time.monotonic() - began - self.start_s
        self._refuse_failure(process)

    def _await_work(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until a launch has said that it trains, permutes or draws, or is done."""
        while process.poll() is None and not AT_WORK.search((self.folder / "log").read_text(errors="replace")):
            time.sleep(0.02)

    def _launched(self, output: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "autospec.cli", "figures", *FIGURES, *self.overrides, f"output_dir={output}"]
        path = {"PYTHONPATH": str(self.checkout / "src")}
        with (self.folder / "log").open("wb") as messages:
            return subprocess.Popen(
                command, env=os.environ | path, stdout=messages, stderr=messages, start_new_session=True
            )

    def _ended_early(self, output: Path) -> str:
        """The signal that ended a launch at a random moment; empty where it was done before."""
        process = self._launched(output)
        early = self.moments.random() < EARLY
        if not early:
            self._await_work(process)
        try:
            process.wait(self.moments.uniform(0, self.start_s if early else self.work_s / PARTS))
        except subprocess.TimeoutExpired:
            how = self.moments.choice(SIGNALS)
            os.killpg(process.pid, how)
            self._await_group(process, how)
            return how.name
        self._refuse_failure(process)
        return ""

    def _await_group(self, process: subprocess.Popen[bytes], how: signal.Signals) -> None:
        """Wait until the command and all its workers are gone."""
        process.wait()
        deadline = time.monotonic() + 60
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(process.pid, 0)
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGKILL)
            raise Loss(f"a minute after {how.name} something of the command still runs")
        text = (self.folder / "log").read_text(errors="replace")
        if "Traceback" in text:
            raise Loss(f"{how.name} ended the command in a traceback:\n{text[-2000:]}")

    def _finish(self, output: Path) -> None:
        process = self._launched(output)
        process.wait()
        self._refuse_failure(process)

    def _refuse_failure(self, process: subprocess.Popen[bytes]) -> None:
        if process.returncode:
            text = (self.folder / "log").read_text(errors="replace")
            raise Loss(f"the command ended with {process.returncode}:\n{text[-2000:]}")


def check_files(output: Path) -> None:
    """Open every file of spectra.

    Args:
        output: The folder that output goes to.

    Raises:
        Loss: One cannot be read.
    """
    for path in output.glob("runs/*/spectra.h5"):
        try:
            open_spectra(path)
        except AutoSpecError as error:
            raise Loss(str(error)) from error
    if damaged := list(output.glob("runs/*/spectra.damaged*")):
        raise Loss(f"{damaged[0]} was set aside")


def results(output: Path) -> dict[str, bytes]:
    """Every number and every table that a command left, by file.

    Args:
        output: The folder that output goes to.
    """
    found = {f"tables/{path.name}": path.read_bytes() for path in sorted(output.glob("tables/*.csv"))}
    for path in sorted(output.glob("runs/*/spectra.h5")):

        def visit(name: str, item: h5py.Dataset | h5py.Group, run: str = path.parent.name) -> None:
            if isinstance(item, h5py.Dataset):
                values = item[()]
                found[f"{run}/{name}"] = repr(values.tolist()).encode() if values.dtype == object else values.tobytes()

        with h5py.File(path, "r") as file:
            file.visititems(visit)
    return found


def _differing(found: dict[str, bytes], expected: dict[str, bytes]) -> str:
    names = [name for name in {**found, **expected} if found.get(name) != expected.get(name)]
    return ", ".join(names[:5])


if __name__ == "__main__":
    main()
