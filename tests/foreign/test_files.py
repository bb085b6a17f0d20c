"""Hostile files: each reader refuses them in one line, before anything is allocated for what they claim."""

import gzip
import os
import resource
import time
import zlib

import hostile_files as make
import numpy as np
import pytest
from cohort_files import write_image

from autospec.cohorts.cobre_hdf5 import table_shape, whole_numbers
from autospec.cohorts.levels import levels_file, levels_of
from autospec.cohorts.mat_files import read_mat
from autospec.cohorts.motion import read_motion
from autospec.cohorts.tables import read_cells
from autospec.errors import AutoSpecError
from autospec.experiments.datasets.fingerprint import digest
from autospec.experiments.datasets.mnist import _idx
from autospec.experiments.runs.checkpoint import read_checkpoint
from autospec.foreign.files import file_bytes, read_text, unpacked
from autospec.foreign.process import read_apart
from autospec.neuroimaging.repetition_time import repetition_time_s
from autospec.neuroimaging.scans import load_image, read_values
from autospec.store.read import open_spectra

READERS = {
    "table.tsv": read_cells,
    "scan.nii.gz": lambda path: read_values(load_image(path, "scan")),
    "plain.img": lambda path: read_values(load_image(path, "scan")),
    "part.mat": read_mat,
    "table.h5": lambda path: read_apart(table_shape, path),
    "motion.par": read_motion,
    "list.csv": whole_numbers,
    "idx3-ubyte": lambda path: _idx(path, 3),
    "source": lambda path: digest([path]),
    "spectra.h5": open_spectra,
    "checkpoint.pt": read_checkpoint,
}

NO_FILES = {
    "a pipe": make.pipe,
    "a folder": lambda path: path.mkdir(),
    "a device": make.device,
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", READERS)
def test_what_is_no_file_is_refused_at_once(tmp_path, name, kind):
    path = tmp_path / name
    NO_FILES[kind](path)
    began = time.monotonic()
    with pytest.raises(
        AutoSpecError, match="is a (pipe|folder|device), not a file|no such file|not a regular"
    ) as error:
        READERS[name](path)
    assert time.monotonic() - began < 1
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


HOSTILE = {
    "a gzip bomb as a table": ("a.tsv.gz", make.gzip_bomb, read_cells, "unpacks to .* over 100 times as many"),
    "a gzip bomb as images": ("a.gz", make.gzip_bomb, lambda path: _idx(path, 3), "unpacks to .* over 100 times"),
    "a million columns": ("a.tsv", make.wide_table, read_cells, "has 1000000 columns, more than the 20000"),
    "voxels that are not there": (
        "a.nii",
        lambda path: make.nifti(path, 32767, 32767, 32767),
        READERS["scan.nii.gz"],
        "its header claims .* bytes, and the file has 608",
    ),
    "packed voxels that are not there": (
        "a.nii.gz",
        lambda path: make.nifti(path, 32767, 32767, 32767),
        repetition_time_s,
        "unpacks to .* over 100 times as many",
    ),
    "fewer than no voxels": (
        "a.nii",
        lambda path: make.nifti(path, -4, 4, 4),
        READERS["scan.nii.gz"],
        "its header says -4 × 4 × 4 voxels",
    ),
    "a variable that is not there": ("a.mat", make.mat_claim, read_mat, "its header claims .* the file has"),
    "a packed variable that is not there": ("a.mat", make.mat_bomb, read_mat, "unpacks to 4294967280 bytes"),
    "values never written": ("a.mat", make.unwritten, read_mat, "/tc claims .* of which the file holds 0"),
    "a link to another file": ("a.mat", make.link, read_mat, "/tc is a link to somewhere else"),
    "values of another file": ("a.mat", make.borrowed, read_mat, "/tc lies in another file"),
    "a circle of folders": ("a.mat", make.circle, read_mat, "/tc/again is a link back"),
    "a circle of structs": ("a.mat", make.circle_of_references, read_mat, "its structs lie 32 levels deep"),
    "a table in another file": (
        "a.h5",
        make.link,
        lambda path: read_apart(table_shape, path),
        "/tc is a link to somewhere else",
    ),
    "a cell without an end": (
        "a.csv",
        lambda path: path.write_text('"' + "1" * 200_000),
        whole_numbers,
        "cannot be read as a list of numbers: field larger",
    ),
    "a list with NUL": ("a.csv", lambda path: path.write_bytes(b"1,\x002"), whole_numbers, "as a list of numbers"),
    "a table that is no text": ("a.tsv", lambda path: path.write_bytes(b"\xff\xfe\x00"), read_cells, "as a table"),
    "motion that is no text": (
        "a.par",
        lambda path: path.write_bytes(b"\xff" * 9),
        read_motion,
        "is no UTF-8 text .* at byte 0",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_a_line_without_memory_for_what_it_claims(tmp_path, case):
    name, write, read, message = HOSTILE[case]
    write(tmp_path / name)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(AutoSpecError, match=message) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)
    assert name in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_lists_within_lists_in_a_sidecar(tmp_path):
    make.nifti(tmp_path / "a.nii", 4, 4, 4)
    make.deep_json(tmp_path / "a.json")
    with pytest.raises(AutoSpecError, match=r"a.json: cannot be read as JSON \(maximum recursion depth"):
        repetition_time_s(tmp_path / "a.nii")
    make.deep_json(levels_file(tmp_path / "a.tsv"))
    with pytest.raises(AutoSpecError, match=r"a.json: cannot be read as JSON \(maximum recursion depth"):
        levels_of(tmp_path / "a.tsv", {})


def test_members_of_a_gzip_follow_one_another_as_gzip_allows(tmp_path):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"one ") + gzip.compress(b"two") + bytes(3))
    assert unpacked(path, 100).read() == b"one two"
    path.write_bytes(gzip.compress(os.urandom(300_000)))
    assert len(unpacked(path, 300_200).read()) == 300_000
    with pytest.raises(AutoSpecError, match="a.gz: unpacks to more than the 299999 bytes|has .* bytes, more than"):
        unpacked(path, 299_999)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(AutoSpecError, match="a.gz: is truncated or damaged: it ends before its end was written"):
        unpacked(path, 400_000)
    path.write_bytes(zlib.compress(b"no gzip"))
    with pytest.raises(AutoSpecError, match="a.gz: is truncated or damaged"):
        unpacked(path, 100)


def test_sizes_and_text_of_small_files(tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffä\n".encode())
    assert (file_bytes(path), read_text(path)) == (6, "ä\n")
    monkeypatch.setattr("autospec.foreign.files.read_bytes.__defaults__", (5,))
    with pytest.raises(AutoSpecError, match="a.txt: has 6 bytes, more than the 5 that such a file may have"):
        read_text(path)


def test_what_a_header_leaves_out_is_named_and_a_checksum_is_looked_at(tmp_path, caplog):
    make.nifti(tmp_path / "a.nii", 4, 4, 2)
    assert read_values(load_image(tmp_path / "a.nii", "scan")).shape == (4, 4, 2)
    assert "a.nii: its header explains 480 of 608 bytes; the rest is not read" in caplog.text
    write_image(tmp_path / "b.nii.gz", np.random.default_rng(0).normal(size=(20, 20, 20, 9)))
    content = bytearray((tmp_path / "b.nii.gz").read_bytes())
    content[-6] ^= 1  # within the checksum: every voxel would be read
    (tmp_path / "b.nii.gz").write_bytes(content)
    with pytest.raises(AutoSpecError, match="scan .*b.nii.gz: is truncated or damaged: CRC check failed"):
        read_values(load_image(tmp_path / "b.nii.gz", "scan"))
