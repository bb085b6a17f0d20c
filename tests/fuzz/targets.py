"""Every kind of file that is read, whole: how one is made, and how it is read to the last value."""

from __future__ import annotations

import gzip
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pandas as pd
import torch
from fuzz.mutations import BYTES, GZIP, TEXT, Mutation
from scipy.io import savemat
from small_runs import design, record

from autospec.cohorts import cobre_hdf5, gift
from autospec.cohorts.cobre_hdf5 import whole_numbers
from autospec.cohorts.exclusions import Account
from autospec.cohorts.levels import levels_of
from autospec.cohorts.motion import read_motion
from autospec.cohorts.options import Options
from autospec.cohorts.prepared_file import Origin, read_prepared, write_cohort
from autospec.cohorts.source_files import Source
from autospec.cohorts.subject_file import Part, read_part, write_part
from autospec.cohorts.tables import read_table
from autospec.experiments.datasets.freesurfer.stats import read_subjects
from autospec.experiments.datasets.mnist import _idx
from autospec.experiments.datasets.volumes import read_maps
from autospec.experiments.runs.checkpoint import _checkpoint_bytes, read_checkpoint
from autospec.neuroimaging.repetition_time import repetition_time_s
from autospec.neuroimaging.scans import open_scan, read_values
from autospec.store.read import load_spectra

RNG = np.random.default_rng(0)
MAPS = RNG.normal(size=(2, 4, 4, 3)).astype(np.float32) + 5


def structure(values: object) -> object:
    """Shapes, names and kinds, without the values."""
    if isinstance(values, np.ndarray) and values.dtype != object:
        return values.shape, values.dtype.kind
    if isinstance(values, np.ndarray | list | tuple):
        return [structure(value) for value in values]
    if isinstance(values, dict):
        return {name: structure(value) for name, value in values.items()}
    return type(values).__name__


def words(values: object) -> object:
    """Nothing: all of it is text, names as values."""
    return type(values)


def columns(values: object) -> object:
    """The width of a table or list alone: its rows are of subjects, whom joining names."""
    return np.shape(values)[1:]


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        name: Of the file.
        make: Writes a whole one.
        read: Reads it: what it holds, and what was named as lost.
        mutations: What may happen to its bytes.
        checked: Whether we write it with checksums, so that no change may go unseen.
    """

    name: str
    make: Callable[[Path], object]
    read: Callable[[Path], tuple[object, str]]
    mutations: tuple[Mutation, ...] = BYTES
    checked: bool = False
    structure: Callable[[object], object] = structure

    @property
    def is_hdf5(self) -> bool:
        return self.name.endswith((".h5", "v73.mat"))

    def content(self, path: Path) -> tuple[bytes, bytes, str]:
        """What a file holds and its structure, as bytes to compare, and what was named as lost."""
        values, lost = self.read(path)
        return pickle.dumps(values), pickle.dumps(self.structure(values)), lost


def _spectra(path: Path) -> None:
    statistics = ("gradient", "activation", "rank", "subspace")
    record(path, epochs=3, statistics=statistics, permutation_design=design([0, 2], 5), group_sizes=[12, 6, 6])


def _of_spectra(path: Path) -> tuple[object, str]:
    spectra = load_spectra(path)
    layers = {
        name: {key: (value.dims, value.values.tobytes()) for key, value in spectra[name].variables.items()}
        for name in spectra.layers
    }
    parts = [spectra.attributes, layers, sorted(map(sorted, spectra.members.values())), spectra.sizes, spectra.shapes]
    return [*parts, spectra.training.to_dict(), spectra.weight.values.tobytes(), vars(spectra.permutations)], ""


def _cohort(path: Path) -> None:
    people = pd.DataFrame({"id": ["ä1", "b2"], "sex": ["M", "F"], "age": [30.0, np.nan]})
    data = {"timecourses": RNG.normal(size=(2, 20, 4)), "map_maximum": MAPS, "affine": np.eye(4)}
    write_cohort(path, people, data, Origin("a source", settings='{"a": 1}', account=("two subjects",)))


def _of_cohort(path: Path) -> tuple[object, str]:
    parts = [read_prepared(path, name) for name in ("timecourses", "map_maximum")]
    return [(one.subjects.to_csv(), one.data, one.affine, one.source, one.simulated) for one in parts], ""


def _part(path: Path) -> None:
    write_part(path, Part(RNG.normal(size=(20, 4)), RNG.normal(size=(4, 50)), RNG.normal(size=4), 0.25, 6), "a key")


def _of_part(path: Path) -> tuple[object, str]:
    part = read_part(path)
    return [getattr(part, name) for name in ("timecourses", "maps", "match", "motion_mm", "regressors")], ""


def _checkpoint(path: Path) -> None:
    state = {"epoch": 3, "training": {"weights": torch.arange(300.0)}, "random": {"cpu": torch.zeros(9).byte()}}
    path.write_bytes(_checkpoint_bytes(state))


def _of_checkpoint(path: Path) -> tuple[object, str]:
    state = read_checkpoint(path)
    weights, random = state["training"]["weights"], state["random"]["cpu"]
    return [state["epoch"], weights.numpy().tobytes(), random.numpy().tobytes()], ""


def _mat(path: Path) -> None:
    sets = np.zeros((1, 2), dtype=[("ic", object), ("tc", object)])
    for session in range(2):
        sets[0, session] = (RNG.normal(size=(4, 30)), RNG.normal(size=(4, 20)))
    savemat(path, {"compSet": sets, "mask_ind": np.arange(1.0, 31)}, do_compression="packed" in path.name)


def _mat_73(path: Path) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["mask_ind"] = np.arange(1.0, 31)
        for name, shape in (("ic", (30, 4)), ("tc", (20, 4))):
            field = file.create_dataset(f"compSet/{name}", (2, 1), h5py.ref_dtype)
            for session in range(2):
                values = RNG.normal(size=shape)
                file.create_dataset(f"#refs#/{name}{session}", data=values, compression="gzip", chunks=shape)
                field[session, 0] = file[f"#refs#/{name}{session}"].ref


def _of_mat(path: Path) -> tuple[object, str]:
    return gift.read(Source("a", path), Options(path.parent, path.with_name("out.h5"), session=2)).timecourses, ""


def _cobre(path: Path) -> None:
    path.with_name("labels.csv").write_text("1,2,1\n")
    path.with_name("index.csv").write_text("1,3,5\n")
    with h5py.File(path, "w") as file:
        file.create_dataset("COBRE_dataset", data=RNG.normal(size=(3, 400)), chunks=(1, 400), compression="gzip")


def _of_cobre(path: Path) -> tuple[object, str]:
    options = Options(path.parent, path.with_name("out.h5"))
    folder = cobre_hdf5.find_sources(options, Account())
    return [cobre_hdf5.read(source, options).timecourses for source in folder.sources], ""


def _image(path: Path) -> None:
    image = nibabel.Nifti1Image((RNG.normal(size=(5, 4, 3, 6)) * 100).astype(np.int16), np.diag([3.0, 3, 3, 1]))
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((3, 3, 3, 2.0))
    nibabel.save(image, path)


def _of_image(path: Path) -> tuple[object, str]:
    scan = open_scan(path)
    return [read_values(scan), np.asarray(scan.affine), repetition_time_s(path)], ""


def _map(path: Path) -> None:
    for index, values in enumerate(MAPS):
        nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), path.with_name(f"other{index}_map.nii.gz"))
    nibabel.save(nibabel.Nifti1Image(MAPS[0] + 1, np.eye(4)), path)


def _of_map(path: Path) -> tuple[object, str]:
    account = Account()
    others = [path.with_name(f"other{index}_map.nii.gz") for index in range(2)]
    maps, readable = read_maps([*others, path], ["a", "b", "c"], None, account)
    return [maps, readable], " ".join(account.text())


def _table(path: Path) -> None:
    separator = "\t" if ".tsv" in path.name else ","
    rows = [separator.join([f"sub-{row:02d}", ("SZ", "HC")[row % 2], str(20 + row)]) for row in range(30)]
    text = "\n".join([separator.join(("participant_id", "diagnosis", "age")), *rows, ""]).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)


def _of_table(path: Path) -> tuple[object, str]:
    table = read_table(path)
    return np.array([list(table.columns), *table.to_numpy().tolist()], dtype=object), ""


def _motion(path: Path) -> None:
    np.savetxt(path, RNG.normal(size=(20, 6)) / [100, 100, 100, 1, 1, 1], fmt="%.5f")


def _of_motion(path: Path) -> tuple[object, str]:
    motion = read_motion(path)
    return motion.parameters, ""


STATS = """# Title Segmentation Statistics
# cvs_version 7.0.0
# Measure EstimatedTotalIntraCranialVol, eTIV, Estimated Total Intracranial Volume, 1500000.5, mm^3
# ColHeaders  Index SegId NVoxels Volume_mm3 StructName normMean normStdDev normMin normMax normRange
  1   10      8612     7000.1  Left-Thalamus   83.3   10.4    27.0   114.0    87.0
  2   17      4357     4000.2  Left-Hippocampus    65.6     8.2     0.0    88.0    88.0
"""


def _stats(path: Path) -> None:
    for name in ("a", "b"):
        file = path.with_name("subjects") / name / "stats" / "aseg.stats"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(STATS)
    path.write_text(STATS)


def _of_stats(path: Path) -> tuple[object, str]:
    account = Account()
    shutil.copy(path, path.with_name("subjects") / "b" / "stats" / "aseg.stats")
    table = read_subjects(path.with_name("subjects"), account)
    lacking = "a value is missing" if (table == "").any(axis=None) else ""
    return table.to_csv(), " ".join(line for line in account.text() if "cannot be read" in line) or lacking


def _images(path: Path) -> None:
    head = bytes([0, 0, 8, 3]) + b"".join(length.to_bytes(4, "big") for length in (5, 28, 28))
    content = head + RNG.integers(0, 255, 5 * 784, dtype=np.uint8).tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def _sidecar(path: Path) -> None:
    _image(path.with_name("sub-1_bold.nii"))
    path.write_text('{"RepetitionTime": 2.0, "TaskName": "rest", "SliceTiming": [0, 0.5, 1]}')


def _levels(path: Path) -> None:
    path.write_text('{"sex": {"Description": "sex", "Levels": {"1": "M", "2": {"Description": "F"}}}}')


TARGETS = (
    Target("spectra.h5", _spectra, _of_spectra, checked=True),
    Target("cohort.h5", _cohort, _of_cohort, checked=True),
    Target("part.h5", _part, _of_part, checked=True),
    Target("checkpoint.pt", _checkpoint, _of_checkpoint, checked=True),
    Target("plain.mat", _mat, _of_mat),
    Target("packed.mat", _mat, _of_mat),
    Target("v73.mat", _mat_73, _of_mat),
    Target("cobre.h5", _cobre, _of_cobre),
    Target("scan.nii", _image, _of_image),
    Target("scan.nii.gz", _image, _of_image, GZIP),
    Target("map.nii.gz", _map, _of_map, GZIP),
    Target("people.tsv", _table, _of_table, TEXT, structure=columns),
    Target("people.csv", _table, _of_table, TEXT, structure=columns),
    Target("people.tsv.gz", _table, _of_table, GZIP, structure=columns),
    Target("motion.par", _motion, _of_motion, TEXT, structure=columns),
    Target(
        "components.csv",
        lambda path: path.write_text("component\n" + "\n".join(map(str, range(1, 30))) + "\n"),
        lambda path: (whole_numbers(path), ""),
        TEXT,
        structure=columns,
    ),
    Target("aseg.stats", _stats, _of_stats, TEXT),
    Target("images-idx3-ubyte", _images, lambda path: (_idx(path, 3), "")),
    Target("images-idx3-ubyte.gz", _images, lambda path: (_idx(path, 3), ""), GZIP),
    Target("sub-1_bold.json", _sidecar, lambda path: (repetition_time_s(path.with_suffix(".nii")), ""), TEXT),
    Target("people.json", _levels, lambda path: (levels_of(path.with_suffix(".tsv"), {}), ""), TEXT, structure=words),
)
