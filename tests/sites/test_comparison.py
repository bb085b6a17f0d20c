"""The three ways side by side, with what the wire carries where this process may have a network of its own."""

import shutil
import subprocess
import sys

import pandas as pd
import pytest

from autospec import open_spectra
from autospec.sites.cohort import simulated_cohort

MAIN = """
import sys
from pathlib import Path
from autospec.sites.comparison import Plan, compare

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    compare(Plan(folder, steps=3, every=3), is_alone=True).to_csv(folder / "ways.csv", index=False)
"""


@pytest.mark.slow
def test_bytes_on_the_wire_are_those_of_the_formula_and_their_headers(tmp_path):
    script = tmp_path / "compare.py"
    script.write_text(MAIN)
    alone = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    found = all(map(shutil.which, ("unshare", "ip")))
    if not found or subprocess.run([*alone, "true"], check=False, capture_output=True).returncode:
        pytest.skip("no network namespace may be made here")
    subprocess.run([*alone, sys.executable, str(script), str(tmp_path)], check=True, timeout=280)
    table = pd.read_csv(tmp_path / "ways.csv").set_index("way")
    assert (table["sent_bytes"] == table["formula_bytes"]).all()
    headers = table["wire_bytes"] / table["sent_bytes"]
    assert ((headers > 1.0) & (headers < 1.15)).all()
    assert (table["within"] == 1.0).all()
    assert (table.loc[["gradient", "dad"], "error"] < 1e-10).all()
    assert 0 < table.loc["rank-dad", "error"] <= table.loc["rank-dad", "bound"] < 1
    assert (
        table.loc["rank-dad", "sent_bytes"] < table.loc["dad", "sent_bytes"] < table.loc["gradient", "sent_bytes"] / 2
    )
    spectra = open_spectra(tmp_path / "rank-dad_B.h5")
    assert spectra.simulated
    assert spectra.group_names == ["all", "A", "B", "C"]


def test_a_simulated_cohort_has_a_site_for_everyone():
    cohort = simulated_cohort({"A": 5, "B": 3})
    assert cohort["site"].tolist() == ["A"] * 5 + ["B"] * 3
    assert set(cohort["diagnosis"]) <= {0, 1}
    assert simulated_cohort({"A": 5, "B": 3}).equals(cohort)
