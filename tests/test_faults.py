"""A short fault campaign; `make faults` is the long one."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "faults.py"


@pytest.mark.slow
def test_a_sweep_that_is_killed_loses_nothing():
    command = [sys.executable, str(SCRIPT), "--kills", "3", "--runs", "3", "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "no epoch lost or doubled, every number as undisturbed" in result.stderr.splitlines()[-1]
