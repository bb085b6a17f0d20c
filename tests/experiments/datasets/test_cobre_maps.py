"""Spatial maps: simulated on the MNI grid, from NIfTI files, and from a prepared cohort."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pandas as pd
import pytest

from autospec.cohorts.prepared_file import write_prepared
from autospec.errors import AutoSpecError
from autospec.experiments import datasets
from autospec.experiments.datasets.simulation.components import CENTRES_MM, DOMAIN_OF, DOMAINS
from autospec.experiments.datasets.simulation.maps import amplitudes, brain
from autospec.experiments.datasets.simulation.subjects import generators, simulate_subjects
from autospec.experiments.datasets.volumes import resample

Make = Callable[..., Any]
LARGE = ["dataset.people={HC: {men: 3000, women: 3000}, SZ: {men: 3000, women: 3000}}"]
AFFINE = np.diag([6.0, 6.0, 6.0, 1.0])


def test_maps_lie_on_the_grid_of_the_template(config: Make) -> None:
    data = datasets.load(config("cobre_maps", "dataset.resolution_mm=12", "dataset.scaling=none"))
    mask, affine = brain(12)
    assert data.inputs.shape == (124, 1, *mask.shape)
    assert (data.inputs[:, 0][:, ~mask] == 0).all()
    assert data.inputs[:, 0][:, mask].std() > 0.1
    assert np.allclose(np.diag(affine)[:3], 12)
    assert 1.5e6 < mask.sum() * 12**3 < 2.2e6


def test_default_resolution_is_6_mm(config: Make) -> None:
    assert datasets.load(config("cobre_maps")).inputs.shape[2:] == brain(6)[0].shape


def test_every_component_has_a_centre_in_the_brain() -> None:
    mask, affine = brain(6)
    assert {name: len(centres) for name, centres in CENTRES_MM.items()} == DOMAINS
    for centre in np.concatenate(list(CENTRES_MM.values())):
        index = np.rint(np.linalg.inv(affine) @ [*centre, 1])[:3].astype(int)
        assert mask[tuple(index)], centre


def test_effects_on_amplitudes_are_recovered(config: Make) -> None:
    """Twelve thousand subjects: the standard error of d is 0.018; five of them are allowed."""
    settings = config("cobre_maps", *LARGE)
    who, what = generators(settings, 2)
    subjects = simulate_subjects(settings, who)
    values = (amplitudes(settings, subjects, what) - 1) / settings.amplitude_sd
    design = np.column_stack([np.ones(len(subjects)), subjects.diagnosis, subjects.sex, subjects.age, subjects.motion])
    found, *_ = np.linalg.lstsq(design, values, rcond=None)
    kinds = ("diagnosis_effects", "sex_effects", "age_effects", "motion_effects")
    for row, key in zip(found[1:], kinds, strict=True):
        said = np.array([getattr(settings, key).get(name, 0.0) for name in DOMAINS])[DOMAIN_OF]
        assert np.abs(row - said).max() < 0.09, key
    rest = np.corrcoef((values - design @ found).T)
    same = (DOMAIN_OF[:, None] == DOMAIN_OF) & ~np.eye(len(DOMAIN_OF), dtype=bool)
    assert rest[same].mean() == pytest.approx(settings.amplitude_correlation, abs=0.03)
    assert np.abs(rest[DOMAIN_OF[:, None] != DOMAIN_OF]).max() < 0.06


def test_maps_are_weaker_where_patients_are(config: Make) -> None:
    cells = "{men: 150, women: 150}"
    data = datasets.load(
        config("cobre_maps", "dataset.resolution_mm=12", f"dataset.people={{HC: {cells}, SZ: {cells}}}")
    )
    _, affine = brain(12)
    difference = data.inputs[data.target == 1, 0].mean(0) - data.inputs[data.target == 0, 0].mean(0)

    def at(domain: str) -> float:
        indices = np.rint([np.linalg.inv(affine) @ [*centre, 1] for centre in CENTRES_MM[domain]])[:, :3].astype(int)
        return float(np.mean([difference[tuple(index)] for index in indices]))

    assert at("AU") < -0.05
    assert abs(at("VI")) < 0.05


def test_diagnosis_can_be_learned_at_the_default_effects(config: Make) -> None:
    from sklearn.linear_model import LogisticRegression

    cells = "{men: 150, women: 150}"
    sizes = ("dataset.resolution_mm=12", f"dataset.people={{HC: {cells}, SZ: {cells}}}", "dataset.holdout=0.5")
    data = datasets.load(config("cobre_maps", *sizes))
    flat = data.inputs.reshape(len(data.inputs), -1)
    model = LogisticRegression(C=1e-4).fit(flat[data.training], data.target[data.training])
    assert model.score(flat[~data.training], data.target[~data.training]) > 0.5 + 3 * 0.5 / np.sqrt(300)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A cohort of four subjects with maps of 6 mm whose values are their number."""
    rows = ["participant_id\tdiagnosis\tsex\tage", "sub-1\tSZ\tM\t20", "sub-2\tHC\tF\t30"]
    rows += ["sub-3\tSZ\tF\t40", "sub-4\tHC\tM\t50"]
    (tmp_path / "participants.tsv").write_text("\n".join(rows) + "\n")
    (tmp_path / "maps").mkdir()
    for number in range(1, 5):
        write_map(tmp_path, number, np.full((8, 6, 4), number))
    return tmp_path


def write_map(folder: Path, number: int, values: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    file = folder / "maps" / f"sub-{number}_map.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), file)
    return file


def load(config: Make, folder: Path, *overrides: str) -> Any:
    return datasets.load(config("cobre_maps", f"dataset.path={folder}", "dataset.scaling=none", *overrides))


def test_a_folder_of_maps_is_joined_with_its_participants(config: Make, folder: Path) -> None:
    data = load(config, folder)
    assert data.inputs.shape == (4, 1, 8, 6, 4)
    assert data.subjects == ("sub-1", "sub-2", "sub-3", "sub-4")
    assert data.inputs[:, 0, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert not data.simulated
    assert len(datasets.fingerprint(config("cobre_maps", f"dataset.path={folder}"))) == 16


def test_maps_are_resampled_on_request(config: Make, folder: Path) -> None:
    data = load(config, folder, "dataset.resolution_mm=12")
    assert data.inputs.shape == (4, 1, 4, 3, 2)
    assert data.inputs[:, 0, 1, 1, 1].tolist() == [1, 2, 3, 4]
    assert "maps are resampled to 4 × 3 × 2 voxels of 12 mm: dataset.resolution_mm" in data.account
    assert not any("resampled" in line for line in load(config, folder).account)


def test_columns_have_names_where_a_table_is_read_alone(config: Make, folder: Path) -> None:
    table = folder / "participants.tsv"
    table.write_text(table.read_text().replace("sex", "Gender"))
    assert load(config, folder, "dataset.columns.sex=Gender").groups == ("HC/men", "HC/women", "SZ/men", "SZ/women")
    with pytest.raises(AutoSpecError, match=r"dataset.path is a prepared cohort with our names; give --column sex="):
        datasets.check(config("cobre_maps", f"dataset.path={folder / 'cohort.h5'}", "dataset.columns.sex=Gender"))


@pytest.mark.parametrize("flip", [1, -1])
def test_resampling_interpolates_linearly_in_space(flip: int) -> None:
    """A ramp along x in mm stays that ramp on any grid, also where voxels run from right to left."""
    affine = np.array([[flip * 4.0, 0, 0, 10], [0, 6.0, 0, 0], [0, 0, 6.0, 0], [0, 0, 0, 1]])
    x_mm = flip * 4.0 * np.arange(10) + 10
    ramp = np.broadcast_to(x_mm[:, None, None], (10, 4, 4)).astype(np.float32)
    new = resample(ramp, affine, 3)
    assert new.shape == (13, 7, 7)
    assert np.allclose(new[:, 0, 0], x_mm.min() + 3 * np.arange(13), atol=1e-4)


def test_a_fourth_dimension_of_components_gives_their_maximum(config: Make, folder: Path) -> None:
    write_map(folder, 1, np.stack([np.full((8, 6, 4), value) for value in (5, 9, 7)], axis=3))
    assert load(config, folder).inputs[0].max() == 9


def test_maps_that_cannot_be_used_are_named(config: Make, folder: Path) -> None:
    truncated = folder / "maps" / "sub-1_map.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:-20])
    (folder / "maps" / "sub-2_map.nii.gz").write_text("no image")
    write_map(folder, 3, np.where(np.arange(8)[:, None, None] == 1, np.nan, np.ones((8, 6, 4))))
    write_map(folder, 9, np.ones((8, 6, 4)))
    data = load(config, folder)
    assert data.subjects == ("sub-4",)
    reasons = dict(line.removeprefix("left out: ").split(": ", 1) for line in data.account if "left out" in line)
    assert reasons["sub-1"].startswith("sub-1_map.nii.gz cannot be read")
    assert reasons["sub-2"].startswith("sub-2_map.nii.gz cannot be read")
    assert reasons["sub-3"] == "has missing values (NaN or infinite) in its map"
    assert reasons["sub-9"] == "is in maps but has no row in the phenotype table"


@pytest.mark.parametrize("place", [20, 40, 60])
def test_a_map_that_is_damaged_within_is_named(config: Make, folder: Path, place: int) -> None:
    """Not cut off: bytes within the compressed stream are others."""
    write_map(folder, 1, np.random.default_rng(0).normal(size=(8, 6, 4)))
    damaged = folder / "maps" / "sub-1_map.nii.gz"
    content = bytearray(damaged.read_bytes())
    content[place : place + 8] = b"\xff" * 8
    damaged.write_bytes(bytes(content))
    assert any(
        line.startswith("left out: sub-1: sub-1_map.nii.gz cannot be read") for line in load(config, folder).account
    )


@pytest.mark.parametrize("other", ["shape", "affine"])
def test_a_map_on_another_grid_is_an_error(config: Make, folder: Path, other: str) -> None:
    shape = (8, 6, 5) if other == "shape" else (8, 6, 4)
    write_map(folder, 3, np.ones(shape), AFFINE if other == "shape" else 2 * AFFINE)
    with pytest.raises(AutoSpecError, match=r"subject sub-3 has a map .* on another grid than sub-1_map.nii.gz"):
        load(config, folder)


def test_mistakes_end_in_one_line(config: Make, folder: Path, tmp_path: Path) -> None:
    for file in folder.glob("maps/*"):
        file.write_text("no image")
    with pytest.raises(AutoSpecError, match="none of 4 maps can be read"):
        load(config, folder)
    for file in folder.glob("maps/*"):
        file.unlink()
    with pytest.raises(AutoSpecError, match=r"there is no maps/sub-\*_map.nii\* or"):
        load(config, folder)
    with pytest.raises(AutoSpecError, match="there is no prepared cohort"):
        load(config, tmp_path / "nothing")
    with pytest.raises(AutoSpecError, match=r"dataset.resolution_mm=0: must be from 1 to 20, or null"):
        load(config, folder, "dataset.resolution_mm=0")


def test_a_prepared_cohort_gives_the_maximum_over_components(config: Make, tmp_path: Path) -> None:
    maps = np.random.default_rng(0).normal(size=(2, 8, 6, 4))
    subjects = pd.DataFrame({"id": ["a", "b"], "diagnosis": ["SZ", "HC"], "sex": ["F", "M"]})
    file = tmp_path / "maps.h5"
    write_prepared(file, subjects, {"map_maximum": maps, "affine": AFFINE}, "a cohort")
    assert np.allclose(load(config, file).inputs[:, 0], maps, atol=1e-6)
    coarse = load(config, file, "dataset.resolution_mm=12")
    assert max(coarse.inputs.shape[2:]) <= 5
    assert any(line.endswith("voxels of 12 mm: dataset.resolution_mm") for line in coarse.account)
    write_prepared(file, subjects, {"map_maximum": maps}, "a cohort")
    with pytest.raises(AutoSpecError, match="has no /affine to resample by"):
        load(config, file, "dataset.resolution_mm=12")


def test_resampling_is_as_nilearn_has_it_and_loses_no_plane_to_rounding() -> None:
    from nibabel import Nifti1Image
    from nilearn.image import resample_img

    rng = np.random.default_rng(0)
    values = rng.normal(size=(9, 11, 8)).astype(np.float32)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = (-16, -20, -12)
    moved = resample(values, affine, 6)
    target = np.diag([6.0, 6.0, 6.0, 1.0])
    target[:3, 3] = affine[:3, 3]
    image = Nifti1Image(values, affine)
    theirs = resample_img(image, target, moved.shape, interpolation="linear", force_resample=True, copy_header=True)
    assert np.allclose(moved, theirs.get_fdata(), atol=1e-6)
    for _ in range(20):
        odd = np.diag([*rng.choice([10 / 3, 1.1, 2.3, 0.9375], 3), 1.0])
        odd[:3, 3] = rng.normal(size=3) * 77
        assert (resample(np.ones((10, 11, 12), dtype=np.float32), odd, 1) == 1).all()
