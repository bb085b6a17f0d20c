"""Run AutoSpec where things are unlike on a developer's machine, and see whether anything is lost: `make faults`.

    python scripts/environments.py
    python scripts/environments.py --only "ASCII locale" "umask 077"

In each environment a tiny run is stopped half-way, gone on with, looked at by `status` and `show`. Each command must
end well, or with one line and without a traceback; the numbers must be those of an undisturbed run. Takes six minutes
of a processor.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
from checkout import copied_checkout

TINY = ("figure=fig1", "panel=A", "dataset.per_digit=10", "epochs=60", "checkpoint_s=0.02", "introspection.every=2")
SLOW = ("epochs=4000",)
"""Long enough to be stopped half-way."""

log = logging.getLogger("environments")


class Loss(Exception):
    """Something that an environment made a command lose, or a traceback."""


@dataclass(frozen=True)
class Environment:
    """What is unlike.

    Attributes:
        variables: Of the environment; None takes one away.
        prepare: Called in the new process, before the program.
        output: The name of the folder that output goes to.
        prefix: What stands before the command.
        between: What happens to the folder between two launches.
        stop: The signal that stops the first launch.
        may_refuse: Whether commands may end in a line instead of well.
    """

    variables: dict[str, str | None] = field(default_factory=dict)
    prepare: Callable[[], None] | None = None
    output: str = "outputs"
    prefix: Sequence[str] = ()
    between: Callable[[Path], None] = lambda folder: None
    stop: signal.Signals = signal.SIGKILL
    may_refuse: bool = False


def _edit_configuration(folder: Path) -> None:
    for path in folder.glob("runs/*/config.yaml"):
        path.write_bytes(path.read_bytes().replace(b"epochs: ", b"epochs: 1") + b"\xff\x00nonsense: [")


def _clock_set_back(folder: Path) -> None:
    """What was written seems to be of tomorrow."""
    tomorrow = time.time() + 86400
    for path in folder.rglob("*"):
        os.utime(path, (tomorrow, tomorrow))


def _private() -> None:
    os.umask(0o077)


def _few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


UNPRIVILEGED = ("setpriv", "--inh-caps=-all", "--bounding-set=-all") if os.getuid() == 0 else ()
"""Root without its privileges, whom a folder's permissions bind."""

ENVIRONMENTS = {
    "as it is": Environment(),
    "SIGTERM": Environment(stop=signal.SIGTERM),
    "SIGINT": Environment(stop=signal.SIGINT),
    "SIGHUP": Environment(stop=signal.SIGHUP),
    "no HOME": Environment({"HOME": None, "USER": None, "LOGNAME": None}),
    "a HOME that cannot be written": Environment({"HOME": "/proc", "XDG_CACHE_HOME": "/proc/x"}),
    "ASCII locale": Environment({"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "ASCII locale, a path with spaces and letters": Environment(
        {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        output="männer und frauen",
        may_refuse=True,
    ),
    "a path with spaces and letters": Environment(output="männer & frauen  患者 $HOME"),
    "umask 077": Environment(prepare=_private),
    "64 open files": Environment(prepare=_few_files),
    "without privileges": Environment(prefix=UNPRIVILEGED),
    "a clock that goes backwards": Environment(between=_clock_set_back),
    "config.yaml edited between launches": Environment(between=_edit_configuration),
    "a disk that is full": Environment(may_refuse=True),
    "a checkout that cannot be written": Environment(prefix=UNPRIVILEGED),
}


def main() -> None:
    """Go through the environments that the command line names; exits with 1 at the first loss."""
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=ENVIRONMENTS, default=list(ENVIRONMENTS))
    names = parser.parse_args().only
    with tempfile.TemporaryDirectory(prefix="environments-") as folder:
        try:
            checkout = copied_checkout(Path(folder))
            undisturbed = Trial(Path(folder, "undisturbed"), Environment(), checkout).numbers()
            for number, name in enumerate(names):
                _try(name, Path(folder, str(number)), checkout, undisturbed)
        except Loss as loss:
            sys.exit(f"LOST: {loss}")
    log.info("%d environments: nothing lost, no traceback", len(names))


def _try(name: str, folder: Path, checkout: Path, undisturbed: dict[str, bytes]) -> None:
    environment = ENVIRONMENTS[name]
    with contextlib.ExitStack() as stack:
        if name == "a disk that is full" and not stack.enter_context(_small_disk(folder)):
            log.info("%s: skipped, as no file system can be mounted", name)
            return
        if name == "a checkout that cannot be written":
            stack.enter_context(_read_only(checkout))
        trial = Trial(folder, environment, checkout)
        if environment.may_refuse:
            trial.refused()
        elif trial.stopped_and_gone_on() != undisturbed:
            raise Loss(f"{name}: the numbers differ from those of an undisturbed run")
    log.info("%s: %s", name, "refused in a line" if environment.may_refuse else "as undisturbed")


@contextlib.contextmanager
def _small_disk(folder: Path) -> Iterator[bool]:
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    mounted = os.getuid() == 0 and not subprocess.run(command, capture_output=True, check=False).returncode
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@contextlib.contextmanager
def _read_only(folder: Path) -> Iterator[None]:
    subprocess.run(["chmod", "-R", "a-w", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(folder)], check=True)


@dataclass
class Trial:
    """A run in an environment."""

    folder: Path
    environment: Environment
    checkout: Path

    @property
    def output(self) -> Path:
        """Where output goes."""
        return self.folder / self.environment.output

    def numbers(self) -> dict[str, bytes]:
        """Every dataset of the run, made in one go."""
        self._ended(self._launched("run", *TINY, self._key()))
        return self._numbers()

    def stopped_and_gone_on(self) -> dict[str, bytes]:
        """Every dataset of the run, stopped once and gone on with; `status` and `show` look on."""
        process = self._launched("run", *TINY, self._key())
        self._stop_half_way(process)
        self._ended(self._launched("status", str(self.output)))
        self.environment.between(self.output)
        self._ended(self._launched("run", *TINY, self._key()))
        told = self._ended(self._launched("status", str(self.output)))
        if "1 done" not in told:
            raise Loss(f"status says after the end: {told}")
        self._ended(self._launched("show", str(self._spectra())))
        self._ended(self._launched("run", "figure=fig1", "panel=Z", self._key()), refused=True)
        return self._numbers()

    def refused(self) -> None:
        """A run that cannot be made ends in one line."""
        self._ended(self._launched("run", *TINY, *SLOW, self._key()), refused=True)

    def _key(self) -> str:
        return f"output_dir='{self.output}'"

    def _launched(self, *arguments: str) -> subprocess.Popen[str]:
        self.folder.mkdir(exist_ok=True, parents=True)
        inherited = {**os.environ, "PYTHONPATH": str(self.checkout / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
        changed = {
            name: value for name, value in {**inherited, **self.environment.variables}.items() if value is not None
        }
        return subprocess.Popen(
            [*self.environment.prefix, sys.executable, "-m", "autospec.cli", *arguments],
            env=changed,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
            preexec_fn=self.environment.prepare,  # noqa: PLW1509 (this program has one thread)
        )

    def _stop_half_way(self, process: subprocess.Popen[str]) -> None:
        """Stop a launch when its first checkpoint is there."""
        while process.poll() is None and not list(self.output.glob("runs/*/checkpoint.pt")):
            time.sleep(0.01)
        process.send_signal(self.environment.stop)
        told = process.communicate()[0]
        if "Traceback" in told:
            raise Loss(f"{self.environment.stop.name} ended a run in a traceback:\n{told}")

    def _ended(self, process: subprocess.Popen[str], refused: bool = False) -> str:
        told = process.communicate(timeout=600)[0]
        if "Traceback" in told or (process.returncode != 0) != refused:
            raise Loss(f"{process.args!r} ended with {process.returncode}:\n{told[-2000:]}")
        return told

    def _spectra(self) -> Path:
        (path,) = self.output.glob("runs/*/spectra.h5")
        return path

    def _numbers(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {}

        def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset):
                values = item[()]
                found[name] = repr(values.tolist()).encode() if values.dtype == object else values.tobytes()

        with h5py.File(self._spectra(), "r") as file:
            file.visititems(visit)
        return found


if __name__ == "__main__":
    main()
