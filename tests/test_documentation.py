"""The documentation does what it says: its Python runs, its commands exist, its links lead somewhere, it builds."""

import contextlib
import importlib.util
import io
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from browser import chromium, open_tab
from documentation_blocks import PAGES, ROOT, RUN_ELSEWHERE, SETTINGS, blocks_of, commands_of, reason_not_run

from autospec.cli import COMMANDS

BLOCKS = {page: blocks_of(page) for page in PAGES}
PYTHON = {page: [block for block in blocks if block.language == "python"] for page, blocks in BLOCKS.items()}


CHEAP = {"show", "compare", "report"}
RUN_HERE = [
    pytest.param(page, marks=pytest.mark.slow if page in ("README.md", "docs/tutorial.md") else ())
    for page in PAGES
    if PYTHON[page] and page not in RUN_ELSEWHERE
]


@pytest.mark.parametrize("page", RUN_HERE)
def test_the_code_of_a_page_runs_and_prints_what_it_says(page, tmp_path, monkeypatch):
    """Python blocks one after the other, as a reader would, and between them the commands that take no time."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    exec(SETTINGS.get(page, ""), names)
    for block in BLOCKS[page]:
        if block.language == "python" and not reason_not_run(block):
            if '"spectra.h5", groups=' in block.text:  # a page may show several ways to make the file
                Path("spectra.h5").unlink(missing_ok=True)
            printed = io.StringIO()
            # a traceback names the page and the line
            code = compile("\n" * block.line + block.text, page, "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, names)
            assert block.output in (None, printed.getvalue()), f"{page}:{block.line}"
        for words in commands_of(block):
            if words[0] == "autospec" and words[1] in CHEAP and "RUN_ID" not in " ".join(words):
                assert _type(words[1:]) != "", f"{page}:{block.line}"


def _type(words):
    """What a command prints."""
    printed = io.StringIO()
    module = import_module(COMMANDS[words[0]].module)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setattr(sys, "argv", [f"autospec {words[0]}", *words[1:]])
        try:
            module.main()
        except SystemExit as stop:
            assert stop.code in (None, 0), stop.code
    return printed.getvalue()


def test_blocks_that_are_not_run_are_few():
    every = [block for page, blocks in PYTHON.items() if page not in RUN_ELSEWHERE for block in blocks]
    not_run = [f"{block.page}:{block.line}: {reason_not_run(block)}" for block in every if reason_not_run(block)]
    assert len(every) >= 20
    assert len(not_run) <= 3, not_run


def test_pages_that_run_elsewhere_do():
    for page in set(RUN_ELSEWHERE) & set(PAGES):
        assert Path(page).name in (ROOT / RUN_ELSEWHERE[page]).read_text()


COMMAND_LINES = [
    pytest.param(words, id=f"{page}:{block.line}:{' '.join(words)[:40]}")
    for page, blocks in BLOCKS.items()
    for block in blocks
    for words in commands_of(block)
]


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_a_command_exists_with_its_options_and_keys(words):
    program, *rest = words
    if program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in rest if "=" not in word} <= set(targets)
        given = dict(word.split("=", 1) for word in rest if "=" in word)
        _check_keys("run", [f"figure={_figure(given.get('FIGURE', '1'))}", *given.get("ARGS", "").split()])
    elif program == "autospec":
        assert rest[0] in COMMANDS
        options = {word.partition("=")[0] for word in rest[1:] if word.startswith("--")}
        assert all(option in _help(rest[0]) or option == "--config-dir" for option in options)
        _check_keys(rest[0], rest[1:])
    elif words[:2] == ["python", "run.py"]:
        _check_keys("run", rest[1:])
    elif program == "python":
        assert rest[0] in ("-m", "-c") or (ROOT / rest[0]).exists()
    else:
        assert program in {"pip", "bash", "git", "torchrun", ".venv/bin/python"}


def _figure(asked):
    first = asked.split(",")[0]
    return f"fig{first}" if first.isdigit() else first


HELP: dict[str, str] = {}


def _help(command):
    """What a command says of itself; asked for once."""
    if command not in HELP:
        HELP[command] = _type([command, "--help"])
    return HELP[command]


def _check_keys(command, words):
    """Compose the configuration of the first run that the words ask for, but for Hydra's own keys and placeholders."""
    from autospec.experiments.config.grid import compose_config

    if command not in ("run", "figures", "retrain"):
        return
    keys = [word for word in words if "=" in word and not word.startswith(("--", "hydra"))]
    if any("_target_" in word or "experiment=" in word or "custom" in word for word in keys):
        return  # a module of the reader's
    first = [re.sub(r"^([^=]*=[^\[,]*),.*", r"\1", word) for word in keys]
    assert compose_config(ROOT / "conf", first).epochs > 0


LINK = re.compile(r"\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", [*PAGES, "CHANGELOG.md"])
def test_links_lead_to_files_and_headings_that_are_there(page):
    text = (ROOT / page).read_text()
    for target in LINK.findall(re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue  # an address, which is not looked up
        path, _, heading = target.partition("#")
        file = (ROOT / page).parent / path if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}, target


def test_files_that_pages_name_are_there():
    """Paths in backquotes that begin with a folder of the repository."""
    for page in PAGES:
        for path in re.findall(r"`((?:src|tests|conf|scripts|docs)/[\w./]*)`", (ROOT / page).read_text()):
            assert (ROOT / path).exists(), f"{page}: {path}"


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install 'autospec-torch[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_whole_and_loads_nothing_from_elsewhere(site):
    pages = {path.relative_to(site).with_suffix(".md").as_posix() for path in site.rglob("*.html")}
    assert {page.removeprefix("docs/") for page in PAGES if page.startswith("docs/")} <= pages
    loads = re.compile(r"""<(?:script|img|iframe|source)[^>]*\bsrc=["'](\w+:)?//|<link[^>]*\bhref=["']https?://""")
    for path in site.rglob("*.html"):
        assert not loads.search(path.read_text()), path
        for target in re.findall(r"""(?:href|src)=["']([^"'#?]+)""", path.read_text()):
            assert re.match(r"\w+:|/", target) or (path.parent / target).exists(), f"{path.name}: {target}"
    assert "SpectralRecorder" in (site / "reference/recording.html").read_text()


@pytest.mark.slow
@pytest.mark.skipif(chromium() is None, reason="Chromium is not installed: apt-get install chromium")
def test_pages_open_without_a_network_at_both_widths(site, tmp_path):
    with open_tab() as tab:
        for name in ("index.html", "mathematics.html", "reference/reading.html"):
            for width, phone in ((1280, False), (390, True)):
                tab.open(site / name, width, 900, phone)
                assert tab.value("document.documentElement.scrollWidth") == width
                assert tab.value("document.querySelector('h1').getBoundingClientRect().height") > 20
        assert tab.console == []
        assert tab.requests == []
