"""The project's own promises: light imports, one-way imports, pins that agree, targets that explain themselves."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _lines(code: str) -> list[str]:
    """What a Python of its own prints."""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return result.stdout.splitlines()


def test_importing_autospec_loads_nothing_heavy():
    heavy = {"torch", "h5py", "numpy", "pandas", "xarray", "matplotlib", "hydra", "scipy", "nibabel", "nilearn"}
    (loaded,) = _lines("import sys, autospec; print(' '.join(sys.modules))")
    assert not heavy & set(loaded.split())


def test_neuroimaging_is_reached_from_autospec_and_is_light_until_used():
    heavy = {"torch", "nibabel", "nilearn", "sklearn", "scipy", "pandas"}
    light = "import autospec; autospec.neuroimaging.constrained_ica"
    # one process for both: what the first statement loads is printed before the second runs
    code = f"import sys\n{light}\nprint(' '.join(sys.modules))\nautospec.neuroimaging.NeuroMarkICA\n"
    before, after = _lines(f"{code}print(' '.join(sys.modules))")
    assert not heavy & set(before.split())
    assert "nilearn" in after.split()


def test_reading_and_planning_never_load_torch():
    reading = "from autospec import open_spectra; open_spectra"
    drawing = "import autospec.analysis.figure_table, autospec.figures.page, autospec.experiments.report.figure"
    planning = (
        "import autospec.experiments.plan, autospec.experiments.launch.command_line, autospec.experiments.launch.sweep"
    )
    code = "\n".join(f"{one}\nprint('torch' in sys.modules)" for one in (reading, drawing, planning))
    assert _lines(f"import sys\n{code}") == ["False"] * 3


def test_imports_run_one_way():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def _pins() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def _requirements() -> list[str]:
    project = PROJECT["project"]
    # the libraries of `make benchmark` bring a torchvision of their own, which breaks transformers beside another torch
    extras = {name: extra for name, extra in project["optional-dependencies"].items() if name != "benchmark"}
    every = [*project["dependencies"], *(one for extra in extras.values() for one in extra)]
    return [text for text in every if not text.startswith("autospec-torch[")]


def test_the_lock_file_pins_everything_that_is_asked_for():
    from packaging.requirements import Requirement

    pins = _pins()
    for text in _requirements():
        requirement = Requirement(text)
        assert requirement.name in pins, f"{requirement.name} is not in requirements.lock; run make lock"
        assert requirement.specifier.contains(pins[requirement.name]), f"{text} against {pins[requirement.name]}"
    assert all(re.fullmatch(r"[\w.]+", pin) for pin in pins.values())


def test_what_is_installed_is_what_is_pinned():
    from importlib.metadata import version

    different = {name: (pin, version(name)) for name, pin in _pins().items() if version(name).split("+")[0] != pin}
    assert different == {}


def test_make_alone_lists_targets_and_each_can_be_planned_without_deleting_anything():
    """``make -n`` prints what a target would do; the environment is not made for it."""
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^make (\S+) +\S", listed, re.MULTILINE)
    assert {"setup", "figures", "test", "test-minimum", "lint", "calibrate", "status", "coverage"} <= set(targets)
    planned = subprocess.run(["make", "-n", *targets], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert not re.search(r"\b(rm|rmdir|unlink)\b", planned)


def test_the_oldest_torch_that_is_allowed_is_the_one_that_is_tested():
    from packaging.requirements import Requirement

    (allowed,) = [Requirement(text) for text in PROJECT["project"]["dependencies"] if text.startswith("torch")]
    command = ["make", "-n", "--always-make", ".venv-minimum/.ready"]
    planned = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (tested,) = re.findall(r"torch==([\d.]+) ", planned)
    assert str(allowed.specifier) == f">={tested}"


def test_the_command_at_the_top_of_every_configuration_file_composes():
    from autospec.experiments.config.grid import compose_config

    files = [path for path in (ROOT / "conf").rglob("*.yaml") if "hydra" not in path.relative_to(ROOT).parts]
    assert len(files) > 40
    for path in files:
        first = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
        words = first.partition("python run.py")[2].split()
        overrides = [word.partition(",")[0] for word in words if "=" in word]
        assert compose_config(ROOT / "conf", overrides).epochs > 0, path
