"""The ``autospec`` command: one screen of help, subcommands by name, mistakes in one line."""

import subprocess
import sys
from importlib import import_module
from importlib.metadata import version

import pytest

from autospec import cli


@pytest.fixture
def typed(monkeypatch, capsys):
    """Type ``autospec ...``; returns (exit message, "" after success; what was printed)."""

    def type_(*arguments):
        monkeypatch.setattr(sys, "argv", ["autospec", *arguments])
        try:
            cli.main()
        except SystemExit as stop:
            return ("" if stop.code in (0, None) else str(stop.code)), capsys.readouterr().out
        return "", capsys.readouterr().out

    return type_


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_is_one_screen_that_names_every_command_with_an_example(typed, arguments):
    message, printed = typed(*arguments)
    assert message == ""
    lines = printed.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    for name, command in cli.COMMANDS.items():
        assert f"autospec {name} {command.example}" in printed


def test_the_version_is_that_of_the_installed_package(typed):
    assert typed("--version") == ("", f"autospec {version('autospec-torch')}\n")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_explains_itself_by_an_example(typed, name):
    message, printed = typed(name, "--help")
    assert message == ""
    assert f"usage: autospec {name}" in printed
    assert f"\n    autospec {name} " in f"\n  {printed}".replace("\n  autospec", "\n    autospec")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["figure"], "autospec figure: unknown command; did you mean 'figures'?"),
        (["xyz"], f"autospec xyz: unknown command; allowed are {', '.join(cli.COMMANDS)}"),
        (["status", "/nowhere"], "there is no folder /nowhere; name the output_dir of the sweep"),
        (["run", "widht=3"], "unknown key 'widht'; did you mean 'width'?"),
    ],
)
def test_a_mistake_ends_in_one_line(typed, tmp_path, monkeypatch, arguments, expected):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    message, _ = typed(*arguments)
    assert message == expected
    assert list(tmp_path.iterdir()) == []


def test_every_command_is_a_module_with_a_main():
    for command in cli.COMMANDS.values():
        assert callable(import_module(command.module).main)


def test_help_cut_off_by_a_pipe_is_no_error():
    command = f"{sys.executable} -m autospec.cli run --help | head -1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("usage: autospec run")


def test_ctrl_c_is_one_line(monkeypatch, capsys):
    def interrupt(name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "import_module", interrupt)
    monkeypatch.setattr(sys, "argv", ["autospec", "show", "spectra.h5", "--live"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interruption_inside_a_callback_is_not_forgotten():
    program = """
import signal
import sys
import threading
from autospec import cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started this may have it ignored

class Thing:
    def __del__(self):
        raise KeyboardInterrupt

def main():
    thing = Thing()
    del thing
    threading.Event().wait(60)
    print("went on")

cli.import_module = lambda name: type("module", (), {"main": staticmethod(main)})
sys.argv = ["autospec", "show"]
cli.main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
