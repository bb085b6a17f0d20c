"""Components that a subject has estimated already: GIFT's outputs and the COBRE time-courses in one HDF5 table."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hostile_files
import nibabel
import numpy as np
import pytest
from scipy.io import savemat

from autospec.cohorts import gift
from autospec.cohorts.exclusions import Account
from autospec.cohorts.mat_files import read_mat
from autospec.cohorts.options import Options
from autospec.cohorts.prepared_file import read_prepared
from autospec.cohorts.source_files import Source
from autospec.errors import AutoSpecError
from autospec.foreign.process import read_apart

Prepare = Callable[..., Account]
RNG = np.random.default_rng(0)
COURSES = RNG.normal(size=(3, 20, 5))
MAPS = RNG.normal(size=(3, 4, 3, 2, 5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with subjects in an order that is not that of the ids."""
    path = tmp_path / "gift"
    path.mkdir()
    (tmp_path / "ids.txt").write_text("sub-3\nsub-1\nsub-2\n")
    (path / "participants.tsv").write_text("participant_id\tdiagnosis\nsub-1\tSZ\nsub-2\tHC\nsub-3\tSZ\n")
    return path


def write_niftis(folder: Path) -> None:
    for number in range(3):
        image = nibabel.Nifti1Image(COURSES[number].astype(np.float32), np.eye(4))
        nibabel.save(image, folder / f"cobre_sub00{number + 1}_timecourses_ica_s1_.nii")
        maps = nibabel.Nifti1Image(MAPS[number].astype(np.float32), np.diag([6.0, 6, 6, 1]))
        nibabel.save(maps, folder / f"cobre_sub00{number + 1}_component_ica_s1_.nii")


def test_gift_volumes_belong_to_the_ids_in_gifts_order(folder: Path, prepared: Prepare, tmp_path: Path) -> None:
    write_niftis(folder)
    prepared(folder, ids=tmp_path / "ids.txt")
    found = read_prepared(tmp_path / "cohort.h5", "timecourses")
    for own, courses in zip(found.subjects["id"], found.data, strict=True):
        assert np.allclose(courses, COURSES[{"sub-3": 0, "sub-1": 1, "sub-2": 2}[own]], atol=1e-6)
    maximum = read_prepared(tmp_path / "cohort.h5", "map_maximum")
    first = list(found.subjects["id"]).index("sub-3")
    assert np.allclose(maximum.data[first], MAPS[0].max(axis=3), atol=1e-6)
    assert maximum.affine is not None and maximum.affine[0, 0] == 6


INSIDE = np.random.default_rng(3).random((4, 3, 2)) > 0.3


def rows(number: int) -> np.ndarray:
    """A subject's maps as GIFT keeps them: (components, voxels of the mask), x fastest."""
    return np.stack([MAPS[number][..., k].ravel(order="F")[INSIDE.ravel(order="F")] for k in range(5)])


def write_version_5(folder: Path, number: int) -> None:
    sets = np.zeros((1, 2), dtype=[("ic", object), ("tc", object)])
    sets[0, 0] = (rows(number), COURSES[number].T)
    sets[0, 1] = (rows(number) + 1, COURSES[number].T + 1)
    savemat(folder / f"cobre_ica_br{number + 1}.mat", {"compSet": sets})


def write_version_7(folder: Path, number: int) -> None:
    with h5py.File(folder / f"cobre_ica_br{number + 1}.mat", "w", userblock_size=512) as file:
        group = file.create_group("compSet")
        group["ic"], group["tc"] = rows(number).T, COURSES[number]


def write_calibrated(folder: Path, number: int) -> None:
    savemat(folder / f"cobre_ica_c{number + 1}-1.mat", {"ic": rows(number), "tc": COURSES[number]})


def write_mask(file: Path, inside: np.ndarray = INSIDE) -> Path:
    nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), np.diag([6.0, 6, 6, 1])), file)
    return file


@pytest.mark.parametrize("write", [write_version_5, write_version_7, write_calibrated])
def test_mat_files_of_every_kind_and_version(folder: Path, prepared: Prepare, tmp_path: Path, write: Any) -> None:
    for number in range(3):
        write(folder, number)
    account = prepared(folder, ids=tmp_path / "ids.txt")
    found = read_prepared(tmp_path / "cohort.h5", "timecourses")
    first = list(found.subjects["id"]).index("sub-3")
    assert np.allclose(found.data[first], COURSES[0], atol=1e-6)
    assert any(line.endswith("where their voxels lie; name GIFT's mask with --mask") for line in account.lines)
    with pytest.raises(AutoSpecError, match="has no /map_maximum"):
        read_prepared(tmp_path / "cohort.h5", "map_maximum")
    write_mask(folder / "cobreMask.nii")
    account = prepared(folder, ids=tmp_path / "ids.txt")
    assert not any("--mask" in line for line in account.lines)
    maximum = read_prepared(tmp_path / "cohort.h5", "map_maximum")
    assert np.allclose(maximum.data[first], np.where(INSIDE, MAPS[0].max(axis=3), 0), atol=1e-6)
    assert maximum.affine is not None and maximum.affine[0, 0] == 6
    with h5py.File(tmp_path / "cohort.h5") as root:
        assert np.allclose(root["maps"][first], MAPS[0][INSIDE].T, atol=1e-6)


def test_a_second_session_has_its_own_time_courses_and_maps(folder: Path, tmp_path: Path) -> None:
    write_version_5(folder, 0)
    mask = write_mask(folder / "cobreMask.nii")
    file = folder / "cobre_ica_br1.mat"
    second = gift.read(Source("a", file, maps=file), Options(folder, tmp_path / "x.h5", session=2, mask=mask))
    assert np.allclose(second.timecourses, COURSES[0] + 1)
    assert second.maps is not None and np.allclose(second.maps, MAPS[0][INSIDE].T + 1)
    with pytest.raises(AutoSpecError, match="compSet holds no session 3"):
        gift.read(Source("a", file), Options(folder, tmp_path / "x.h5", session=3))


def test_a_mask_that_is_not_gifts_is_an_error(folder: Path, prepared: Prepare, tmp_path: Path) -> None:
    for number in range(3):
        write_version_7(folder, number)
    mask, ids = write_mask(tmp_path / "mask.nii", INSIDE[::-1]), tmp_path / "ids.txt"
    savemat(folder / "cobre_ica.mat", {"mask_ind": np.flatnonzero(INSIDE.ravel(order="F"))[:, None] + 1.0})
    with pytest.raises(AutoSpecError, match=r"mask.nii: has other voxels than mask_ind in cobre_ica.mat"):
        prepared(folder, ids=ids, mask=mask)
    prepared(folder, ids=ids, mask=write_mask(mask))
    with pytest.raises(AutoSpecError, match=rf"maps of {INSIDE.sum()} voxels, but the mask .* has 24"):
        prepared(folder, ids=ids, mask=write_mask(mask, np.ones((4, 3, 2))))
    with pytest.raises(AutoSpecError, match="is zero everywhere, a mask without voxels"):
        prepared(folder, ids=ids, mask=write_mask(mask, np.zeros((4, 3, 2))))


def test_one_persons_maps_are_in_memory_at_a_time(
    folder: Path, prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_niftis(folder)
    alive: list[Any] = []
    read = gift.read_image_maps

    def track(file: Path) -> np.ndarray:
        assert not any(reference() is not None for reference in alive), "a subject else's maps are still there"
        maps = read(file)
        alive.append(weakref.ref(maps))
        return maps

    monkeypatch.setattr(gift, "read_image_maps", track)
    prepared(folder, ids=tmp_path / "ids.txt")
    assert len(alive) >= 6


def test_a_component_that_never_varies_and_gaps_in_maps_are_named(
    folder: Path, prepared: Prepare, tmp_path: Path
) -> None:
    write_niftis(folder)
    still, gaps = COURSES[1].copy(), MAPS[2].copy()
    still[:, 4], gaps[1, 1, 1, 0] = 3, np.nan
    nibabel.save(nibabel.Nifti1Image(still, np.eye(4)), folder / "cobre_sub002_timecourses_ica_s1_.nii")
    nibabel.save(nibabel.Nifti1Image(gaps, np.diag([6.0, 6, 6, 1])), folder / "cobre_sub003_component_ica_s1_.nii")
    account = prepared(folder, ids=tmp_path / "ids.txt")
    assert account.dropped == {"sub-1": "the time-course of component 5 (from 1) is constant"}
    assert "sub-2: 1 values of the maps are NaN or infinite; figure 8 will leave sub-2 out" in account.lines


def test_chosen_components_lacking_people_and_gaps_are_named(folder: Path, prepared: Prepare, tmp_path: Path) -> None:
    write_niftis(folder)
    (folder / "cobre_sub002_timecourses_ica_s1_.nii").unlink()
    gaps = COURSES[2].copy()
    gaps[3, 4] = np.nan
    nibabel.save(nibabel.Nifti1Image(gaps, np.eye(4)), folder / "cobre_sub003_timecourses_ica_s1_.nii")
    chosen = tmp_path / "components.csv"
    chosen.write_text("index\n5\n1\n")
    account = prepared(folder, ids=tmp_path / "ids.txt", components=chosen)
    assert np.allclose(read_prepared(tmp_path / "cohort.h5", "timecourses").data, [COURSES[0][:, [4, 0]]], atol=1e-6)
    assert account.dropped["sub-2"] == "1 values of the time-courses are NaN or infinite"
    assert account.dropped["sub-1"] == "is number 2 in ids.txt, which GIFT has no file of"


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (None, "--ids: GIFT numbers subjects by their order in its analysis"),
        ("sub-1\nsub-2\n", "2 lines, but GIFT's files count 3 subjects"),
        ("sub-1\nn/a\nsub-2\nsub-3\n", "4 lines, but GIFT's files count 3 subjects; it must have no header line"),
        ("participant_id\nsub-1\nsub-2\nsub-3\n", "4 lines, but GIFT's files count 3 subjects; .* no header line"),
        ("sub-1\nsub-2\nsub-2\n", "twice: sub-2"),
    ],
)
def test_gift_people_are_never_guessed(
    folder: Path, prepared: Prepare, tmp_path: Path, ids: str | None, message: str
) -> None:
    write_niftis(folder)
    if ids is not None:
        (tmp_path / "ids.txt").write_text(ids)
    with pytest.raises(AutoSpecError, match=message):
        prepared(folder, ids=None if ids is None else tmp_path / "ids.txt")


@pytest.mark.parametrize("nobody", ["", "n/a"])
def test_a_line_without_an_id_moves_nobody_up(folder: Path, prepared: Prepare, tmp_path: Path, nobody: str) -> None:
    write_niftis(folder)
    (tmp_path / "ids.txt").write_text(f"sub-1\n{nobody}\nsub-2\n\n\n")
    account = prepared(folder, ids=tmp_path / "ids.txt")
    assert account.dropped["line 2 of ids.txt"] == "holds no id for GIFT's subject there"
    found = read_prepared(tmp_path / "cohort.h5", "timecourses")
    assert list(found.subjects["id"]) == ["sub-1", "sub-2"]
    assert np.allclose(found.data, COURSES[[0, 2]], atol=1e-6)


def test_real_outputs_of_gift(tmp_path: Path) -> None:
    real = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "gift_outputs"
    if not real.is_dir():
        pytest.skip(f"there are no outputs of GIFT at {real}")
    options = Options(real, Path("x.h5"))
    assert gift.read(Source("a", real / "lores_ica_br1_match.mat"), options).timecourses.shape == (50, 20)
    assert gift.read(Source("a", real / "nostat_ica_c1-1.mat"), options).timecourses.shape == (50, 20)
    mean = real / "fbirnp3_rest_mean_timecourses_ica_s_all_.nii"
    assert gift.read(Source("a", mean), options).timecourses.shape == (161, 100)
    unmixing = read_mat(real / "lores_ica.mat")
    # what grid they lie on the files do not say: any that is large enough
    shape = (40, 40, int(unmixing["mask_ind"].max()) // 1600 + 1)
    flat = np.zeros(np.prod(shape), dtype=bool)
    flat[unmixing["mask_ind"].astype(int).ravel() - 1] = True
    inside = flat.reshape(shape, order="F")
    mask = write_mask(tmp_path / "loresMask.nii", inside)
    match = real / "lores_ica_br1_match.mat"
    maps = gift.read(Source("a", match, maps=match), Options(real, Path("x.h5"), mask=mask)).maps
    assert maps is not None and maps.shape == (20, 4848)
    volume = np.zeros(inside.shape)
    volume[inside] = maps[7]
    assert np.array_equal(volume.ravel(order="F")[flat], read_mat(match)["compSet"][0]["ic"][7])
    assert unmixing["icasig"].shape == (20, 4848)
    assert unmixing["mask_ind"].shape == (4848, 1)


def test_a_file_that_is_no_matlab_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x_ica_br1.mat").write_bytes(b"no matlab file at all" * 20)
    with pytest.raises(AutoSpecError, match=r"x_ica_br1.mat: cannot be read as a MATLAB file"):
        read_mat(tmp_path / "x_ica_br1.mat")


@pytest.fixture
def table(tmp_path: Path) -> tuple[Path, np.ndarray]:
    """Six subjects of (100 components, 140 volumes) as one table, with its two CSV files."""
    path = tmp_path / "cobre"
    path.mkdir()
    values = np.random.default_rng(1).normal(size=(6, 100, 140))
    with h5py.File(path / "COBRE_AllData.h5", "w") as file:
        file["COBRE_dataset"] = values.reshape(6, 14000)
    chosen = np.random.default_rng(2).permutation(100)[:53] + 1
    (path / "correct_indices_GSP.csv").write_text("\n".join(map(str, chosen)) + "\n")
    (path / "labels_COBRE.csv").write_text("1\n2\n1\n2\n2\n1\n")
    return path, values[:, chosen - 1].transpose(0, 2, 1)


def test_the_hdf5_table_is_read_by_rows_indices_and_labels(
    table: tuple[Path, np.ndarray], prepared: Prepare, tmp_path: Path, config: Any
) -> None:
    from autospec.experiments import datasets

    folder, expected = table
    prepared(folder, template=None)
    found = read_prepared(tmp_path / "cohort.h5", "timecourses")
    assert found.data.shape == (6, 140, 53)
    assert np.allclose(found.data, expected, atol=1e-6)
    assert list(found.subjects["id"])[:2] == ["row-001", "row-002"]
    assert list(found.subjects["diagnosis"]) == ["SZ", "HC", "SZ", "HC", "HC", "SZ"]
    data = datasets.load(config("cobre_timeseries", f"dataset.path={tmp_path}", "dataset.group_by=[diagnosis]"))
    assert [data.classes[code] for code in data.target] == ["SZ", "HC", "SZ", "HC", "HC", "SZ"]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("labels_COBRE.csv", "1\n2\n", "2 labels for 6 subjects"),
        ("labels_COBRE.csv", "1\n2\n1\n2\n2\n3\n", "label 3 is unknown; 1 is SZ, 2 is HC"),
        ("correct_indices_GSP.csv", "0\n1\n", "components must be different numbers from 1 to 100"),
        ("correct_indices_GSP.csv", "5\n5\n", "components must be different numbers from 1 to 100"),
        ("correct_indices_GSP.csv", "1.5\n", "must hold whole numbers"),
        ("labels_COBRE.csv", "1\n2\nnan\n2\n2\n1\n", "labels_COBRE.csv: must hold whole numbers"),
        ("labels_COBRE.csv", "1\n2\ninf\n2\n2\n1\n", "labels_COBRE.csv: must hold whole numbers"),
        ("other_labels.csv", "1\n", r"2 files fit \*label\*.csv; name one with --labels"),
    ],
)
def test_what_is_wrong_with_the_lists_is_said(
    table: tuple[Path, np.ndarray], prepared: Prepare, file: str, content: str, message: str
) -> None:
    (table[0] / file).write_text(content)
    with pytest.raises(AutoSpecError, match=message):
        prepared(table[0])


def test_a_calibrated_file_with_as_many_volumes_as_components_is_not_turned(
    folder: Path, prepared: Prepare, tmp_path: Path
) -> None:
    square = np.random.default_rng(5).normal(size=(3, 5, 5))
    for number in range(3):
        savemat(folder / f"cobre_ica_c{number + 1}-1.mat", {"tc": square[number], "ic": rows(number)})
    prepared(folder, ids=tmp_path / "ids.txt")
    found = read_prepared(tmp_path / "cohort.h5", "timecourses")
    for subject, courses in zip(found.subjects["id"], found.data, strict=True):
        assert np.allclose(courses, square[{"sub-3": 0, "sub-1": 1, "sub-2": 2}[subject]], atol=1e-6)


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("place", ["sub-{0}/func", "sub-{0}/func/task-rest", "sub-{0}/ses-1/func/task-rest"])
def test_time_courses_of_halfpipe_are_read(
    folder: Path, prepared: Prepare, tmp_path: Path, header: bool, place: str
) -> None:
    for number in range(3):
        file = folder / place.format(number + 1) / f"sub-{number + 1}_task-rest_feature-corr_atlas-x_timeseries.tsv"
        file.parent.mkdir(parents=True)
        lines = ["\t".join("abcde")] if header else []
        lines += ["\t".join(map(repr, row)) for row in COURSES[number].tolist()]
        file.write_text("\n".join(lines) + "\n")
        file.with_name(f"sub-{number + 1}_task-rest_desc-confounds_timeseries.tsv").write_text("trans_x\n0\n")
    assert not prepared(folder).dropped
    found = read_prepared(tmp_path / "cohort.h5", "timecourses")
    assert list(found.subjects["id"]) == ["sub-1", "sub-2", "sub-3"]
    assert np.allclose(found.data, COURSES, atol=1e-6)


def test_several_features_of_halfpipe_must_be_chosen_from(folder: Path, prepared: Prepare, tmp_path: Path) -> None:
    for number in range(3):
        for feature in ("a", "b"):
            name = f"sub-{number + 1}_task-rest_feature-{feature}_timeseries.tsv"
            file = folder / f"sub-{number + 1}" / "func" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            values = COURSES[number] * (1 if feature == "a" else 2)
            file.write_text("\n".join("\t".join(map(repr, row)) for row in values.tolist()) + "\n")
    with pytest.raises(AutoSpecError, match="every subject has several, choose with --scans"):
        prepared(folder)
    prepared(folder, scans="sub-{id}/func/*_feature-b_timeseries.tsv")
    assert np.allclose(read_prepared(tmp_path / "cohort.h5", "timecourses").data, 2 * COURSES, atol=1e-6)


def test_a_file_that_kills_its_reader_leaves_its_subject_out_by_name_and_the_others_stay(
    folder: Path, prepared: Prepare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        write_version_5(folder, number)
    hostile_files.mat_claim(folder / "cobre_ica_br2.mat")

    def deadly(function: Any, path: Path) -> Any:
        return read_apart(hostile_files.die, path, 11) if path.name.endswith("br3.mat") else read_apart(function, path)

    monkeypatch.setattr("autospec.cohorts.mat_files.read_apart", deadly)
    account = prepared(folder, ids=tmp_path / "ids.txt")
    assert list(read_prepared(tmp_path / "cohort.h5", "timecourses").subjects["id"]) == ["sub-3"]
    assert "its header claims" in account.dropped["sub-1"]
    assert account.dropped["sub-2"].endswith("its reader died of it (SIGSEGV); the file is damaged")


def test_maps_that_fit_neither_side_of_the_time_courses_are_an_error(tmp_path: Path) -> None:
    savemat(tmp_path / "x_ica_br1.mat", {"tc": np.zeros((4, 20)), "ic": np.zeros((7, 30))})
    with pytest.raises(AutoSpecError, match=r"its 7 maps \(ic\) fit neither side .* \(4, 20\)"):
        gift.read(Source("a", tmp_path / "x_ica_br1.mat"), Options(tmp_path, tmp_path / "out.h5"))
    savemat(tmp_path / "x_ica_br1.mat", {"tc": np.zeros((4, 20))})
    with pytest.raises(AutoSpecError, match="holds no matrix 'ic'"):
        gift.read(Source("a", tmp_path / "x_ica_br1.mat"), Options(tmp_path, tmp_path / "out.h5"))
