import pytest

from autospec.errors import AutoSpecError
from autospec.experiments.report.files import FigureFiles
from autospec.experiments.runs.folder import run_folder
from autospec.figures.report.files import find_files


def _touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_what_experiments_write_is_found_in_its_order(tmp_path):
    figures = {number: FigureFiles(tmp_path, number) for number in (10, 2)}
    for one in figures.values():
        _touch(*one.pictures, one.panel("A"), one.panel("A_tied"), one.table, one.stamp)
    done, waiting = (run_folder(str(tmp_path), name) for name in ("done-w8", "waiting"))
    _touch(done.spectra, done.provenance, waiting.config)
    found = find_files(tmp_path)
    assert found.spectra == (done.spectra,)
    assert found.absent == (f"{waiting.path}: no spectra yet",)
    assert [one.whole.name for one in found.figures] == ["figure_2.png", "figure_10.png"]
    assert [path.name for path in found.figures[0].panels] == ["figure_2_A.png", "figure_2_A_tied.png"]
    assert [path.name for path in found.tables] == ["figure_2_tests.csv", "figure_10_tests.csv"]


def test_a_file_a_run_and_a_folder_of_ones_own(tmp_path):
    own = [tmp_path / "w10.h5", tmp_path / "w8.h5", tmp_path / "sweep" / "a" / "spectra.h5"]
    _touch(*own)
    assert find_files(own[0]).spectra == (own[0],)
    assert find_files(own[2].parent).spectra == (own[2],)
    assert [path.name for path in find_files(tmp_path).spectra] == ["spectra.h5", "w8.h5", "w10.h5"]


def test_nothing_to_show_is_one_line(tmp_path):
    with pytest.raises(AutoSpecError, match=r"absent: no such file or folder$"):
        find_files(tmp_path / "absent")
    with pytest.raises(AutoSpecError, match=r"holds no spectra, figures or tables; name a spectra.h5"):
        find_files(tmp_path)
