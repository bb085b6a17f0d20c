"""The report without a browser: what stands in it, what is escaped, what it says of what it cannot show."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_runs import design, record

from autospec.analysis.figure_table import COLUMNS, write_table
from autospec.analysis.permutation import NO_PERMUTATIONS
from autospec.errors import AutoSpecError
from autospec.figures import report_command
from autospec.figures.report import group_tests, pictures
from autospec.figures.report.files import FigurePictures
from autospec.figures.report.page import write_report
from autospec.figures.report.pictures import Album
from autospec.webpage.document import escape

HOSTILE = ("<script>alert(1)</script>", r"$\frac{1}{2}$", "\"a\" 'b' & <b>")


def _table(rows=4, kind="inferential"):
    cells = {
        "panel": "G", "layer": "hidden", "group_a": HOSTILE[0], "group_b": "NA", "test": "permutation", "kind": kind,
        "per": "trajectory", "p": np.linspace(0.9, 0.1, rows), "note": "",
    }  # fmt: skip
    return pd.DataFrame(cells, index=range(rows)).reindex(columns=list(COLUMNS))


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """An output folder of two runs, a figure and its table, and of what cannot be shown."""
    root = tmp_path_factory.mktemp("work") / "outputs"
    for name in ("figures", "tables", "runs/a", "runs/b", "runs/waiting", "runs/damaged"):
        (root / name).mkdir(parents=True)
    design_of_run = design(range(3))
    record(root / "runs/a/spectra.h5", epochs=3, permutation_design=design_of_run)
    record(root / "runs/b/spectra.h5", epochs=3, groups=HOSTILE)
    (root / "runs/a/provenance.json").write_text(json.dumps({"host": HOSTILE[0], "threads": 1}))
    (root / "runs/damaged/spectra.h5").write_bytes(b"not HDF5")
    for name in ("figure_1.png", "figure_1_A.png", "figure_1_B.png"):
        Image.new("RGB", (60, 40), "white").save(root / "figures" / name)
    (root / "figures/figure_1_B.png").write_bytes(b"no picture")
    write_table(_table(), root / "tables/figure_1_tests.csv")
    (root / "tables/other_tests.csv").write_text("a,b\n1,2\n")
    return root


def _without_plotly(text):
    return re.sub(r"<script>/\*\*\s*\* plotly.*?</script>", "", text, flags=re.DOTALL)


def test_a_folder_shows_figures_tests_and_runs_and_says_what_it_cannot(outputs, tmp_path):
    notes = write_report(outputs, tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert len(notes) == 4
    for note, expected in zip(
        sorted(notes),
        [
            f"{outputs}/figures/figure_1_B.png: cannot be read as a picture",
            f"{outputs}/runs/damaged/spectra.h5 is not an HDF5 file",
            f"{outputs}/runs/waiting: no spectra yet",
            f"{outputs}/tables/other_tests.csv cannot be read as a table of tests",
        ],
        strict=True,
    ):
        assert note.startswith(expected)
        assert escape(note) in text
    assert text.count('<img src="data:image/webp;base64,') == 2
    assert 'href="#run-2"' in text
    assert text.count('<div class="spectra"') == 2
    for heading in ("Figures", "Tests", "Runs"):
        assert f'<h2 id="{heading.lower()}">{heading}</h2>' in text


def test_names_from_data_are_text_wherever_they_stand(outputs, tmp_path):
    write_report(outputs, tmp_path / "report.html")
    text = _without_plotly((tmp_path / "report.html").read_text())
    assert text.count("<script>") == 2
    for name in (HOSTILE[0], HOSTILE[2]):
        assert name not in text
        assert escape(name) in text
    assert HOSTILE[1] in text
    assert "NA</td>" in text


def test_nothing_in_the_page_asks_for_an_address(outputs, tmp_path):
    write_report(outputs, tmp_path / "report.html")
    text = _without_plotly((tmp_path / "report.html").read_text())
    assert not re.search(r"""(src|href)=["'](?!#|data:)""", text)
    assert "default-src 'none'" in text


def test_the_tests_of_a_run_and_the_reasons_where_there_are_none(outputs, tmp_path):
    write_report(outputs / "runs/a/spectra.h5", tmp_path / "a.html")
    tested = (tmp_path / "a.html").read_text()
    assert re.search(r"<h4>Tests</h4>.*<td>permutation</td>", tested, re.DOTALL)
    write_report(outputs / "runs/b/spectra.h5", tmp_path / "b.html")
    assert escape(f"not tested: {NO_PERMUTATIONS}.") in (tmp_path / "b.html").read_text()


def test_the_folder_of_a_run_shows_what_lies_beside_its_spectra(outputs, tmp_path):
    assert write_report(outputs / "runs/a", tmp_path / "a.html") == []
    assert f"<th>host</th><td><pre>{escape(HOSTILE[0])}</pre></td>" in (tmp_path / "a.html").read_text()


def test_a_file_without_epochs_or_without_gradients_says_so(tmp_path):
    record(tmp_path / "none.h5", epochs=0)
    write_report(tmp_path / "none.h5", tmp_path / "none.html")
    text = (tmp_path / "none.html").read_text()
    assert "No gradient spectra are recorded, so there is nothing to draw." in text
    assert "none recorded yet" in text
    record(tmp_path / "activation.h5", epochs=2, statistics=("activation",))
    write_report(tmp_path / "activation.h5", tmp_path / "activation.html")
    assert "No gradient spectra are recorded" in (tmp_path / "activation.html").read_text()


def test_of_a_long_table_the_inferential_rows_then_the_smallest_p_are_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(group_tests, "MOST_ROWS", 6)
    monkeypatch.setattr(group_tests, "ROWS_AT_ONCE", 5)
    table = pd.concat([_table(20, "descriptive"), _table(3), _table(20, "exploratory")], ignore_index=True)
    write_table(table, tmp_path / "figure_1_tests.csv")
    html = group_tests.figure_tests(tmp_path / "figure_1_tests.csv")
    assert "6 of 43 rows: the inferential ones first" in html
    kinds = re.findall(r"<td>(inferential|exploratory|descriptive)</td>", html)
    assert kinds == ["inferential"] * 3 + ["exploratory"] * 3
    shown = [float(p) for p in re.findall(r'data-value="([\d.]+)" class="number">', html)]
    np.testing.assert_allclose(shown[3:], np.linspace(0.9, 0.1, 20)[-3:])


def test_pictures_without_room_are_named(outputs, monkeypatch):
    figure = FigurePictures(outputs / "figures/figure_1.png", (outputs / "figures/figure_1_A.png",))
    size = 200
    album = Album(size)
    one = album.figures([figure])
    used = size - album.room
    assert 0 < used < size
    assert one.count("<img") == 2
    tight = Album(used - 1)
    assert tight.figures([figure]).count("<img") == 1
    assert tight.left_out == [f"{outputs / 'figures/figure_1_A.png'}: left out, since pictures take 24 MB already"]
    assert pictures.name_of(figure.panels[0]) == "Figure 1 A"


def test_the_command_names_the_page_and_what_it_lacks(outputs, tmp_path, capsys):
    report_command.main([str(outputs / "runs/a/spectra.h5"), "--output", str(tmp_path / "own.html")])
    assert capsys.readouterr().out == f"{tmp_path / 'own.html'}\n"
    report_command.main([str(outputs / "runs/b/spectra.h5")])
    assert capsys.readouterr().out == f"{outputs / 'runs/b/spectra_report.html'}\n"
    report_command.main([str(outputs)])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == str(outputs / "report.html")
    assert all(line.startswith("not shown: ") for line in lines[:-1])


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("absent", "absent: no such file or folder"),
        ("runs/damaged/spectra.h5", "damaged/spectra.h5 is not an HDF5 file"),
    ],
)
def test_a_mistake_ends_in_one_line(outputs, path, expected):
    with pytest.raises(SystemExit) as ended:
        report_command.main([str(outputs / path)])
    assert str(ended.value.code).endswith(expected)


def test_a_damaged_provenance_names_its_file(tmp_path):
    record(tmp_path / "spectra.h5", epochs=1)
    (tmp_path / "provenance.json").write_text("{")
    with pytest.raises(AutoSpecError, match=r"provenance.json is damaged"):
        write_report(tmp_path / "spectra.h5", tmp_path / "a.html")
