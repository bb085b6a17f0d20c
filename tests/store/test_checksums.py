"""A bit that flips is found when the file is read, or was in a byte that says nothing."""

import pickle

import h5py
import numpy as np
import pandas as pd
import pytest
from small_runs import design, record

from autospec import AutoSpecError
from autospec.cohorts.prepared_file import Origin, Rows, read_prepared, write_cohort
from autospec.errors import DamagedFile
from autospec.store.checksums import DIGEST, fixed_text, item_lines, structure_digest
from autospec.store.read import load_spectra

STATISTICS = ("gradient", "activation", "adjoint", "rank", "tied", "subspace")


@pytest.fixture(scope="module")
def spectra_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "spectra.h5"
    record(path, epochs=3, statistics=STATISTICS, permutation_design=design([0, 2]), group_sizes=[12, 6, 6])
    return path


@pytest.fixture(scope="module")
def cohort_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("cohort") / "cohort.h5"
    subjects = pd.DataFrame({"id": ["ä1", "b2"], "sex": [1, 2], "site": ["x", ""]})
    maps = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    data = {
        "timecourses": np.arange(24.0).reshape(2, 4, 3),
        "affine": np.eye(4),
        "maps": Rows(maps.shape, maps.__getitem__),
    }
    write_cohort(path, subjects, data, Origin("a source", settings='{"a": 1}', account=("two subjects",)))
    return path


def _spectra_content(path):
    spectra = load_spectra(path)
    layers = {
        name: {key: (value.dims, value.values.tobytes()) for key, value in spectra[name].variables.items()}
        for name in spectra.layers
    }
    parts = [spectra.attributes, layers, spectra.members, spectra.sizes, spectra.shapes, spectra.training.to_dict()]
    return pickle.dumps([*parts, spectra.weight.values.tobytes(), vars(spectra.permutations)])


def _cohort_content(path):
    parts = [read_prepared(path, name) for name in ("timecourses", "maps")]
    return pickle.dumps([(one.subjects.to_csv(), one.data, one.affine, one.source, one.simulated) for one in parts])


def _outcomes(path, content, step, tmp_path):
    """What came of flipping a bit of every so many bytes: same, refused, changed."""
    whole, expected = path.read_bytes(), content(path)
    outcomes = {"same": 0, "refused": 0, "changed": 0}
    flipped = tmp_path / "flipped.h5"
    for at in range(0, len(whole), step):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        flipped.write_bytes(damaged)
        try:
            outcome = "same" if content(flipped).replace(b"flipped.h5", path.name.encode()) == expected else "changed"
        except AutoSpecError as error:
            outcome = "refused"
            assert str(flipped) in str(error)
            assert len(str(error).splitlines()) == 1
        outcomes[outcome] += 1
        flipped.unlink()
    return outcomes


@pytest.mark.parametrize(("step", "kind"), [(997, "spectra"), (211, "cohort")])
def test_a_flipped_bit_changes_nothing_in_silence(spectra_file, cohort_file, tmp_path, step, kind):
    path, content = {"spectra": (spectra_file, _spectra_content), "cohort": (cohort_file, _cohort_content)}[kind]
    outcomes = _outcomes(path, content, step, tmp_path)
    assert outcomes["changed"] == 0
    assert outcomes["refused"] > 10  # the same are bytes that HDF5 leaves empty


@pytest.mark.slow
@pytest.mark.parametrize(("step", "kind"), [(61, "spectra"), (13, "cohort")])
def test_many_flipped_bits_change_nothing_in_silence(spectra_file, cohort_file, tmp_path, step, kind):
    path, content = {"spectra": (spectra_file, _spectra_content), "cohort": (cohort_file, _cohort_content)}[kind]
    assert _outcomes(path, content, step, tmp_path)["changed"] == 0


def test_every_value_has_a_checksum(spectra_file, cohort_file):
    for path in (spectra_file, cohort_file):
        with h5py.File(path) as file:
            file.visititems(_assert_checked)
            assert len(file.attrs[DIGEST]) == 64


def _assert_checked(name, item):
    if isinstance(item, h5py.Dataset):
        assert item.fletcher32 or item.size == 0, name


def test_the_digest_of_what_is_written_is_that_of_the_file(spectra_file):
    with h5py.File(spectra_file) as file:
        lines = item_lines("", file)
        file.visititems(lambda path, item: lines.extend(item_lines(path, item)))
        assert structure_digest(lines) == file.attrs[DIGEST]


def test_text_that_hdf5_would_hang_on_is_not_read(spectra_file, tmp_path):
    """HDF5 walks a heap by the sizes that stand in it, and without end where one is wrong."""
    damaged = bytearray(spectra_file.read_bytes())
    heap = damaged.find(b"GCOL")
    for at in range(heap + 16, heap + 80):
        damaged[at] = 0xFF
    path = tmp_path / "hang.h5"
    path.write_bytes(damaged)
    with pytest.raises(DamagedFile, match=r"hang\.h5 is damaged: its text from byte \d+ on is not what was written"):
        load_spectra(path)


EDITS = {
    "a dataset less": lambda file: file.__delitem__("layers/0/cosine"),
    "a dataset more": lambda file: file.create_dataset("more", data=1.0),
    "another shape": lambda file: (
        file.__delitem__("training/loss"),
        file.create_dataset("training/loss", data=np.ones(3, "f4")),
    ),
    "another attribute": lambda file: file.attrs.update({"engine": "another"}),
    "another text": lambda file: file["groups/name"].__setitem__(1, b"HC"),
    "another name": lambda file: file.move("layers/2", "layers/3"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_structure_that_was_edited_is_refused(spectra_file, tmp_path, edit):
    path = tmp_path / "edited.h5"
    path.write_bytes(spectra_file.read_bytes())
    with h5py.File(path, "a") as file:
        EDITS[edit](file)
    with pytest.raises(DamagedFile, match=r"edited\.h5 is damaged: its names, attributes or texts are not those"):
        load_spectra(path)


def test_text_is_kept_to_the_letter():
    texts = ["", "SZ/men", "Ωμέγα"]
    assert [text.decode() for text in fixed_text(texts)] == texts
    assert fixed_text([]).shape == (0,)
    assert fixed_text([["a", "bc"]]).shape == (1, 2)


def test_words_of_zeros_that_read_as_ones_are_seen(spectra_file, tmp_path):
    """Which fletcher32 alone takes for the same."""
    content = bytearray(spectra_file.read_bytes())
    zeros = np.array([5.0, 5.0, 5.0]).tobytes()  # the numerical rank of a full one: zeros in every word but the last
    at = bytes(content).find(zeros)
    assert at > 0
    content[at : at + 4] = b"\xff" * 4
    path = tmp_path / "spectra.h5"
    path.write_bytes(content)
    with pytest.raises(AutoSpecError, match="is truncated or damaged and cannot be read"):
        load_spectra(path)


def test_a_table_of_checksums_that_is_none_is_damage(spectra_file, tmp_path):
    path = tmp_path / "spectra.h5"
    path.write_bytes(spectra_file.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["text_checksums"] = "text"
    with pytest.raises(DamagedFile, match="is truncated or damaged and cannot be read"):
        load_spectra(path)
