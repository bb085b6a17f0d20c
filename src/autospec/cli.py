"""The ``autospec`` command: finds the module of a subcommand and calls its ``main``.

Modules are named, not imported: the library stands below the experiments, whose packages may not be installed.
"""

from __future__ import annotations

import difflib
import io
import os
import signal
import sys
import threading
from dataclasses import dataclass
from importlib import import_module

from autospec.errors import AutoSpecError, require_extra


@dataclass(frozen=True)
class Command:
    """A subcommand: the module whose ``main()`` reads ``sys.argv``, one line of help, an example, what it needs.

    ``needs`` is an extra and its modules, where the command needs more than the part of the package that it is in.

    To add one, add an entry to ``COMMANDS``; the module's own parser explains it in full.
    """

    module: str
    help: str
    example: str
    needs: tuple[str, ...] = ()


COMMANDS = {
    "run": Command(
        "autospec.experiments.launch.command_line",
        "train one network and record its spectra, or many with -m",
        "figure=fig1 panel=A epochs=100",
    ),
    "figures": Command(
        "autospec.experiments.report.figures_command",
        "train what is missing, test the groups, draw figures of the paper",
        "--figure 1",
    ),
    "show": Command(
        "autospec.figures.show_command",
        "say what is in a spectra file and what happened in each layer; draw it",
        "spectra.h5 --picture spectra.png",
    ),
    "compare": Command(
        "autospec.figures.compare_command",
        "say where two runs part, layer by layer",
        "first/spectra.h5 second/spectra.h5",
    ),
    "power": Command(
        "autospec.figures.power_command",
        "say how many subjects an effect needs, from a pilot's spectra",
        "spectra.h5 --effect 0.3",
    ),
    "report": Command(
        "autospec.figures.report_command",
        "write one page of HTML of a run, or of all runs and figures of a folder",
        "outputs",
        ("report", "matplotlib", "scipy", "plotly"),
    ),
    "status": Command(
        "autospec.experiments.runs.status_command",
        "say which runs are done, running, failed, stale",
        "outputs",
    ),
    "prepare": Command(
        "autospec.cohorts.prepare_command",
        "make one file of a cohort from its scans or components",
        "study --template neuromark.nii.gz --output cohort.h5",
    ),
    "retrain": Command(
        "autospec.experiments.validation.retrain_command",
        "test a classifier's groups by whole runs with permuted labels",
        "figure=fig4 panel=B",
    ),
    "methods": Command(
        "autospec.experiments.report.methods_command",
        "write the methods paragraph of a run",
        "outputs/runs/RUN_ID",
    ),
}


def main() -> None:
    """Run the subcommand that ``sys.argv`` names; exits with 1 and one line after a mistake."""
    let_every_letter_through()
    sys.unraisablehook = interrupt_again
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        sys.stdout.write(screen())
        return
    if name == "--version":
        from autospec import __version__

        sys.stdout.write(f"autospec {__version__}\n")
        return
    try:
        command = _find_command(name)
        if command.needs:
            require_extra(f"autospec {name}", *command.needs)
        sys.argv = [f"autospec {name}", *arguments]
        import_module(command.module).main()
        sys.stdout.flush()
    except AutoSpecError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except BrokenPipeError:  # `autospec run --help | head`: nobody reads on
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def interrupt_again(ignored: sys.UnraisableHookArgs) -> None:
    """Interrupt once more where an interruption came inside a callback, which Python prints and forgets."""
    if ignored.exc_type is KeyboardInterrupt:
        # a moment later: at once it would come inside this callback
        threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGINT)).start()
    else:
        sys.__unraisablehook__(ignored)


def let_every_letter_through() -> None:
    """Escape what the console's encoding lacks (σ₁ in an ASCII locale) instead of failing at it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def screen() -> str:
    """What ``autospec --help`` prints: every subcommand with one line and an example."""
    lines = ["usage: autospec COMMAND ...", ""]
    for name, command in COMMANDS.items():
        lines += [f"  {name:<9} {command.help}", f"  {'':<9}   autospec {name} {command.example}"]
    lines += ["", "`autospec COMMAND --help` explains a command; `autospec --version` prints the version."]
    return "\n".join(lines) + "\n"


def _find_command(name: str) -> Command:
    if name in COMMANDS:
        return COMMANDS[name]
    close = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean {close[0]!r}?" if close else f"allowed are {', '.join(COMMANDS)}"
    raise AutoSpecError(f"autospec {name}: unknown command; {hint}")


if __name__ == "__main__":
    main()
