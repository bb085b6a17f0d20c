"""The quality page and the script around it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autospec.cohorts.quality import draw_quality, mean_connectivity, read_quality
from autospec.cohorts.quality_page import write_quality_page
from autospec.errors import AutoSpecError

Prepare = Callable[..., Any]
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "prepare_cobre.py"


def test_connectivity_is_averaged_in_fishers_z() -> None:
    rng = np.random.default_rng(0)
    courses = rng.normal(size=(4, 200, 3)) + rng.normal(size=(4, 200, 1))
    expected = np.tanh(np.mean([np.arctanh(np.corrcoef(one.T)[0, 1]) for one in courses]))
    found = mean_connectivity(courses)
    assert found[0, 1] == pytest.approx(expected)
    assert np.isnan(np.diag(found)).all()
    courses[:, :, 2] = 1
    assert mean_connectivity(courses)[0, 2] == 0


@pytest.mark.slow
def test_the_page_is_drawn_with_and_without_maps(bids: Path, prepared: Prepare, tmp_path: Path) -> None:
    for maps in (True, False):
        prepared(bids, maps=maps)
        quality = read_quality(tmp_path / "cohort.h5")
        assert (quality.mean_maps is not None) == maps
        draw_quality(tmp_path / "cohort.h5", tmp_path / f"{maps}.png")
        assert (tmp_path / f"{maps}.png").stat().st_size > 20_000
    with pytest.raises(AutoSpecError, match=r"cannot write .*nowhere/page.png: No such file or directory"):
        draw_quality(tmp_path / "cohort.h5", tmp_path / "nowhere" / "page.png")


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_script_says_who_is_in_the_cohort_and_a_mistake_is_one_line(bids: Path, tmp_path: Path) -> None:
    done = script(bids, "--template", tmp_path / "template.nii.gz", "--output", tmp_path / "c.h5", "--no-maps")
    assert done.returncode == 0
    assert "study: 4 subjects, of whom 4 are joined with the phenotype table" in done.stderr
    assert (tmp_path / "c.png").is_file()
    wrong = script(bids, "--output", tmp_path / "d.h5")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    assert wrong.stderr.startswith("--template: the NeuroMark template")
    assert not (tmp_path / "d.h5").exists()


HOSTILE = "<script>alert(1)</script>"


def test_the_page_is_sortable_and_safe_against_names_with_markup(bids: Path, prepared: Prepare, tmp_path: Path) -> None:
    table = bids / "participants.tsv"
    table.write_text(table.read_text().replace("\tSZ\tM\t", f"\t{HOSTILE}\tM\t"))
    prepared(bids)
    write_quality_page(tmp_path / "cohort.h5", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert HOSTILE not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("<tr>") == 1 + 4
    assert text.count("data:image/png;base64,") == 4
    assert "mask of 210 voxels" in text
    assert 'data-key="time" data-value="2"' in text
    assert text.count("<script>") == 1
    with pytest.raises(AutoSpecError, match=r"page.html: cannot be written"):
        write_quality_page(tmp_path / "cohort.h5", tmp_path / "nowhere" / "page.html")
