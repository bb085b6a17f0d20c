"""What installs: the base package alone, extras that are missing, other Hydra applications, the wheel."""

import os
import re
import shutil
import site
import subprocess
import sys
from pathlib import Path

import pytest
from small_runs import record

from autospec.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
WINGS = {
    "autospec.figures": "matplotlib, scipy: pip install 'autospec-torch[figures]'",
    "autospec.neuroimaging": "nibabel, nilearn, sklearn, scipy: pip install 'autospec-torch[neuroimaging]'",
    "autospec.cohorts": "nibabel, nilearn, scipy, matplotlib, tqdm: pip install 'autospec-torch[neuroimaging]'",
    "autospec.experiments": "hydra, omegaconf, ",
}


def _with_base_package(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code where only the base package's own requirements can be imported."""
    command = [sys.executable, str(ROOT / "tests" / "base_package.py"), code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def test_the_base_package_imports_completely():
    code = f"""
import pkgutil, autospec
from importlib import import_module
wings = ({", ".join(repr(wing) for wing in (*WINGS, "autospec.integrations"))})
walked = [name for _, name, _ in pkgutil.walk_packages(autospec.__path__, "autospec.", onerror=lambda name: None)]
modules = [name for name in walked if not name.startswith(wings)]
for name in modules:
    import_module(name)
for name in autospec.__all__:
    name == "neuroimaging" or getattr(autospec, name)
print(len(modules))
"""
    ended = _with_base_package(code)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 50


def test_the_snippet_of_the_readme_runs_with_the_base_package(tmp_path):
    """The first Python block of the README, with a model and two batches, then the reading of what it wrote."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    recording, reading = (next(block for block in blocks if text in block) for text in ("with recorder", "summary()"))
    assert len([line for line in recording.splitlines() if line]) == 10
    recording = "\n".join(line for line in recording.splitlines() if "plot_differences" not in line) + "\n"
    setting = """
import torch
from torch import nn
model = nn.Sequential()
model.add_module("hidden", nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))
loss_fn, epochs = nn.MSELoss(), 2
optimizer = torch.optim.Adam(model.parameters())
loader = [(torch.randn(6, 4), torch.randn(6, 2), torch.tensor([0, 1, 0, 1, 1, -1])) for _ in range(2)]
"""
    ended = _with_base_package(setting + recording + reading + "\nprint(len(spectra.to_frame()))", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout.splitlines()[-1]) > 0


def test_a_missing_extra_is_one_line_that_says_which_to_install():
    code = f"""
from importlib import import_module
from autospec.errors import MissingExtra
for wing in {list(WINGS)}:
    try:
        import_module(wing)
    except MissingExtra as error:
        print(error)
"""
    ended = _with_base_package(code)
    assert ended.returncode == 0, ended.stderr
    for line, (wing, expected) in zip(ended.stdout.splitlines(), WINGS.items(), strict=True):
        assert line.startswith(f"{wing} needs {expected}")
        assert re.search(r"pip install 'autospec-torch\[\w+\]'$", line)


def test_tests_between_groups_name_the_extra_that_they_need():
    code = """
import numpy as np
from autospec.analysis import p_values
from autospec.errors import MissingExtra
try:
    p_values.benjamini_hochberg(np.array([0.1, 0.2]))
except MissingExtra as error:
    print(error)
"""
    ended = _with_base_package(code)
    assert ended.stdout == "autospec.analysis needs scipy: pip install 'autospec-torch[figures]'\n", ended.stderr


def test_exports_name_the_extra_that_they_need(tmp_path):
    record(tmp_path / "a.h5", epochs=1, attributes={"config": "width: 1"})
    code = """
import autospec
spectra = autospec.open_spectra("a.h5")
for export in (lambda: spectra.to_netcdf("a.nc"), lambda: spectra.to_parquet("a"), lambda: autospec.open_sweep(".")):
    try:
        export()
    except autospec.AutoSpecError as error:
        print(error)
"""
    ended = _with_base_package(code, cwd=tmp_path)
    assert ended.stdout.splitlines() == [
        "Spectra.to_netcdf needs h5netcdf: pip install 'autospec-torch[export]'",
        "Spectra.to_parquet needs pyarrow: pip install 'autospec-torch[export]'",
        "autospec.open_sweep needs yaml: pip install 'autospec-torch[export]'",
    ], ended.stderr


def test_a_command_whose_extra_is_missing_says_so_in_one_line():
    code = """
import sys
from autospec.cli import COMMANDS, main
for name in COMMANDS:
    sys.argv = ["autospec", name, "--help"]
    try:
        main()
    except SystemExit as stop:
        print(stop.code)
"""
    ended = _with_base_package(code)
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == len(COMMANDS)
    assert all(re.search(r"needs .*: pip install 'autospec-torch\[\w+\]'$", line) for line in lines)
    assert "autospec report needs matplotlib, scipy, plotly: pip install 'autospec-torch[report]'" in lines


def test_another_hydra_application_sees_nothing_of_autospec(tmp_path):
    application = tmp_path / "application.py"
    application.write_text(
        "import hydra, sys\n"
        "@hydra.main(version_base='1.3', config_path=None)\n"
        "def main(config):\n"
        "    print('ran', [name for name in sys.modules if name.startswith('autospec')])\n"
        "main()\n"
    )
    for arguments in ([], ["--info", "plugins"], ["--hydra-help"]):
        command = [sys.executable, str(application), *arguments]
        ended = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
        assert "autospec" not in (ended.stdout + ended.stderr).replace("ran []", "").lower()


@pytest.mark.slow
def test_the_wheel_trains_on_mnist_in_an_empty_folder(tmp_path):
    """Its own files come from the wheel; the packages that it needs are those of this environment."""
    source, wheels, environment, empty = (tmp_path / name for name in ("source", "wheels", "environment", "empty"))
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.split("\0")[:-1]:
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*build, "--wheel-dir", str(wheels), str(source)], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    install = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "install", "--quiet"]
    (wheel,) = wheels.glob("*.whl")
    subprocess.run([*install, "--no-deps", "--no-index", str(wheel)], check=True)
    (packages / "borrowed.pth").write_text("\n".join(site.getsitepackages()) + "\n")
    empty.mkdir()
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(environment / "bin" / "autospec"), "run", "figure=fig1", "panel=A", "epochs=3"]
    ended = subprocess.run(command, cwd=empty, env=clean, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    code = (
        "import autospec, sys; spectra = autospec.open_spectra(sys.argv[1]);"
        "print(autospec.__file__, spectra.complete, spectra.simulated, spectra.groups['size'].iloc[0])"
    )
    (path,) = empty.glob("outputs/runs/mnist-mlp-*/spectra.h5")
    told = [str(environment / "bin" / "python"), "-c", code, str(path)]
    printed = subprocess.run(told, cwd=empty, env=clean, capture_output=True, text=True, check=True).stdout.split()
    assert printed == [str(packages / "autospec" / "__init__.py"), "True", "False", "2000"]
