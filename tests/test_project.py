"""The project's own promises: light imports, one-way imports, pins that agree, targets that explain themselves."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(' '.join(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(result.stdout.split())


def test_importing_autospec_loads_nothing_heavy():
    heavy = {"torch", "h5py", "numpy", "pandas", "xarray", "matplotlib", "hydra", "scipy", "nibabel", "nilearn"}
    assert not heavy & _loaded_by("import autospec")


def test_neuroimaging_is_reached_from_autospec_and_is_light_until_used():
    heavy = {"torch", "nibabel", "nilearn", "sklearn", "scipy", "pandas"}
    assert not heavy & _loaded_by("import autospec; autospec.neuroimaging.constrained_ica")
    assert "nilearn" in _loaded_by("import autospec; autospec.neuroimaging.NeuroMarkICA")


@pytest.mark.parametrize(
    "statement",
    [
        "from autospec import open_spectra; open_spectra",
        "import autospec.analysis.figure_table, autospec.figures.page, autospec.experiments.report.files",
        "import autospec.experiments.plan, autospec.experiments.launch.command_line, autospec.experiments.launch.sweep",
    ],
)
def test_reading_and_planning_never_load_torch(statement):
    assert "torch" not in _loaded_by(statement)


def test_imports_run_one_way():
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout


def _pins() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def _requirements() -> list[str]:
    project = PROJECT["project"]
    return [
        *project["dependencies"],
        *project["optional-dependencies"]["experiments"],
        *project["optional-dependencies"]["dev"],
    ]


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


def test_the_conda_environment_holds_python_and_the_lock_file_and_nothing_else():
    lines = [line.strip() for line in (ROOT / "environment.yml").read_text().splitlines()]
    entries = [line[2:] for line in lines if line.startswith("- ")]
    assert entries == ["conda-forge", "python=3.11", "pip", "pip:", "-r requirements.lock", "-e ."]
    assert PROJECT["project"]["requires-python"] == ">=3.11"


def test_make_alone_lists_every_target_and_none_deletes():
    makefile = (ROOT / "Makefile").read_text()
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z-]+):", makefile, re.MULTILINE)
    assert set(re.findall(r"^make (\S+)", listed, re.MULTILINE)) == set(targets)
    assert not re.search(r"\brm\b|rmdir|unlink|clean", makefile)


def test_every_configuration_file_begins_with_the_command_that_runs_it():
    for path in (ROOT / "conf").rglob("*.yaml"):
        if "hydra" in path.parts:
            continue
        first = next(line for line in path.read_text().splitlines() if not line.startswith("# @package"))
        assert first.startswith("# python run.py"), path


def test_ci_calls_the_commands_of_the_readme():
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    readme = (ROOT / "README.md").read_text()
    assert "make test" in commands
    assert all(command in readme for command in commands)
