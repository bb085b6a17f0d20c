"""A bit that flips is found when the file is read, or was in a byte that says nothing."""

import io
import pickle
import statistics
import time
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from small_runs import design, record

from autospec import AutoSpecError
from autospec.cohorts.prepared_file import Origin, Rows, read_prepared, write_cohort
from autospec.errors import DamagedFile
from autospec.store import write
from autospec.store.atomic import write_atomically
from autospec.store.items import FORMAT, fixed_text
from autospec.store.read import load_spectra
from autospec.store.schema import (
    GROUP_ROWS,
    GROUP_WEIGHT,
    RECORDED_EPOCHS,
    TRAINING_CURVES,
    TRAINING_EPOCHS,
    layer_field,
)
from autospec.store.seal import BLOCK_BYTES, HEAD_BYTES, ROW_BYTES, SEAL, block_checksum, fill_seal
from autospec.store.table import SpectraTable

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
@pytest.mark.parametrize(("step", "kind"), [(23, "spectra"), (5, "cohort")])
def test_many_flipped_bits_change_nothing_in_silence(spectra_file, cohort_file, tmp_path, step, kind):
    path, content = {"spectra": (spectra_file, _spectra_content), "cohort": (cohort_file, _cohort_content)}[kind]
    assert _outcomes(path, content, step, tmp_path)["changed"] == 0


def test_the_checksums_are_the_last_bytes_of_a_file(spectra_file, cohort_file):
    for path in (spectra_file, cohort_file):
        content = path.read_bytes()
        with h5py.File(path) as file:
            seal, place = file[SEAL][:], file[SEAL].id.get_offset()
        assert place + seal.nbytes == len(content)
        assert place == seal[-3]
        assert content[place:] == seal.tobytes()
        assert content.endswith(b"AutoSeal")


def test_a_cohorts_values_carry_hdf5s_checksum_too(cohort_file):
    def check(name, item):
        if isinstance(item, h5py.Dataset) and name != SEAL:
            assert item.fletcher32, name

    with h5py.File(cohort_file) as file:
        file.visititems(check)


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
    with pytest.raises(DamagedFile, match=r"edited\.h5 is damaged: (it was changed or cut off since|its bytes \d+ to)"):
        load_spectra(path)


def test_text_is_kept_to_the_letter():
    texts = ["", "SZ/men", "Ωμέγα"]
    assert [text.decode() for text in fixed_text(texts)] == texts
    assert fixed_text([]).shape == (0,)
    assert fixed_text([["a", "bc"]]).shape == (1, 2)


BIG = BLOCK_BYTES + 5 * ROW_BYTES + 123
"""Two blocks, the last row of the second not whole."""


def _checksums(content):
    starts = range(HEAD_BYTES, len(content), BLOCK_BYTES)
    return [block_checksum(content, start, min(BLOCK_BYTES, len(content) - start)) for start in starts]


@pytest.mark.parametrize("value", [0.0, 1.0, 2.0, -0.5, np.nan])
def test_equal_numbers_that_become_zeros_are_seen(value):
    """Which cancel in sums and exclusive ors of even many."""
    content = bytearray(np.full(BIG // 8 + 1, value).tobytes())
    whole = _checksums(content)
    for start, length in ((48, 4096), (4096, 2 * ROW_BYTES), (HEAD_BYTES, 62 * ROW_BYTES), (1 << 18, 1 << 17)):
        damaged = bytearray(content)
        damaged[start : start + length] = (b"\0" if value else b"\xff") * length
        assert _checksums(damaged) != whole


def test_flipped_bits_and_exchanged_words_are_seen():
    rng = np.random.default_rng(0)
    content = bytearray(rng.bytes(BIG))
    whole = _checksums(content)
    for _ in range(100):
        damaged = bytearray(content)
        column, bit = 8 * int(rng.integers(1023)), int(rng.integers(64))
        for row in rng.choice(63, size=2, replace=False).tolist():  # the same bit of two rows
            damaged[HEAD_BYTES + row * ROW_BYTES + column + bit // 8] ^= 1 << bit % 8
        assert _checksums(damaged) != whole
        a, b = sorted(int(place) for place in rng.integers(HEAD_BYTES, BIG - 8, size=2))
        damaged = bytearray(content)
        damaged[a : a + 8], damaged[b : b + 8] = content[b : b + 8], content[a : a + 8]
        assert (damaged == content) == (_checksums(damaged) == whole)


def test_rows_that_change_places_are_seen():
    content = bytearray(np.random.default_rng(0).bytes(BIG))
    rows = [slice(HEAD_BYTES + row * ROW_BYTES, HEAD_BYTES + (row + 1) * ROW_BYTES) for row in (3, 7)]
    changed = bytearray(content)
    changed[rows[0]], changed[rows[1]] = content[rows[1]], content[rows[0]]
    assert _checksums(changed) != _checksums(content)


def test_what_stands_before_the_first_block_is_hdf5s_own(spectra_file, tmp_path):
    """Its superblock, of which a flag changes while someone holds the file open for writing."""
    content = bytearray(spectra_file.read_bytes())
    content[20] ^= 1
    path = tmp_path / "spectra.h5"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match="is truncated or damaged and cannot be read"):
        load_spectra(path)


def test_a_file_that_was_opened_for_writing_and_not_changed_is_whole(spectra_file, tmp_path):
    path = tmp_path / "spectra.h5"
    path.write_bytes(spectra_file.read_bytes())
    with h5py.File(path, "r+"):
        assert load_spectra(path).layers
    assert path.read_bytes() == spectra_file.read_bytes()


@pytest.mark.parametrize("at", [-1, -9, -17, -30])
def test_checksums_that_are_damaged_are_damage(spectra_file, tmp_path, at):
    content = bytearray(spectra_file.read_bytes())
    content[at] ^= 4
    path = tmp_path / "spectra.h5"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"spectra\.h5 is damaged: (it was changed|its checksums|its length)"):
        load_spectra(path)


def test_a_file_without_its_checksums_is_read_as_it_is(spectra_file, tmp_path):
    path = tmp_path / "spectra.h5"
    path.write_bytes(spectra_file.read_bytes())
    with h5py.File(path, "a") as file:
        del file[SEAL]
        file.attrs["engine"] = "another"
    assert load_spectra(path).attributes["engine"] == "another"


def test_room_that_is_not_at_the_end_is_not_filled():
    with pytest.raises(RuntimeError, match="is not at its end"):
        fill_seal(memoryview(bytearray(b"x" * 500)), 40)


EARLIER = Path(__file__).parent.parent / "data" / "digests" / "spectra.h5"
"""With fletcher32, Adler-32, a digest of the structure and checksums of text, as an earlier version wrote it."""


def test_a_file_of_an_earlier_version_is_read_and_its_damage_is_seen(tmp_path):
    expected = _spectra_content(EARLIER)
    assert load_spectra(EARLIER)["0"].gradient.shape == (2, 3, 5)
    outcomes = _outcomes(EARLIER, _spectra_content, 499, tmp_path)
    assert outcomes["changed"] == 0
    assert outcomes["refused"] > 10
    assert _spectra_content(EARLIER) == expected


def test_text_of_an_earlier_version_that_hdf5_would_hang_on_is_not_read(tmp_path):
    """HDF5 walks a heap by the sizes that stand in it, and without end where one is wrong."""
    damaged = bytearray(EARLIER.read_bytes())
    heap = damaged.find(b"GCOL")
    for at in range(heap + 16, heap + 80):
        damaged[at] = 0xFF
    path = tmp_path / "hang.h5"
    path.write_bytes(damaged)
    with pytest.raises(DamagedFile, match=r"hang\.h5 is damaged: its text from byte \d+ on is not what was written"):
        load_spectra(path)


def test_the_structure_of_an_earlier_version_that_was_edited_is_refused(tmp_path):
    path = tmp_path / "edited.h5"
    path.write_bytes(EARLIER.read_bytes())
    with h5py.File(path, "a") as file:
        file.attrs["engine"] = "another"
    with pytest.raises(DamagedFile, match=r"edited\.h5 is damaged: its names, attributes or texts are not those"):
        load_spectra(path)


def test_a_table_of_checksums_of_text_that_is_none_is_damage(tmp_path):
    path = tmp_path / "spectra.h5"
    path.write_bytes(EARLIER.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["text_checksums"] = "text"
    with pytest.raises(DamagedFile, match="is truncated or damaged and cannot be read"):
        load_spectra(path)


def _processor_s(call):
    began = time.process_time()
    call()
    return time.process_time() - began


@pytest.mark.slow
@pytest.mark.parametrize(("epochs", "width"), [(200, 32), (2000, 64)])
def test_checksums_take_little_of_the_time_and_size_of_writing(tmp_path, epochs, width):
    """Against the same file without them, written whole, in one run: processor time, arms in turn, medians."""
    table, header = _a_run(epochs, width)
    path = tmp_path / "spectra.h5"

    def without():
        stream = io.BytesIO()
        with h5py.File(stream, "w", libver=FORMAT) as file:
            write._fill(file, table, header)
        with write_atomically(path) as temporary:
            temporary.write_bytes(stream.getvalue())

    def sealed():
        write.write_spectra(path, table, header)

    sizes = []
    for arm in (without, sealed):
        arm()
        sizes.append(path.stat().st_size)
    assert sizes[1] < 1.005 * sizes[0]
    took = [(_processor_s(without), _processor_s(sealed), _processor_s(without)) for _ in range(60)]
    plain, checked, again = (statistics.median(column) for column in zip(*took, strict=True))
    assert checked < 1.1 * max(plain, again)  # a machine that does other things blurs what is 1.04 to 1.07


def _a_run(epochs, width):
    """What an autoencoder's run of figure 1 holds."""
    names = ["all", "0", "1", "2", "3"]
    table, rng = SpectraTable(), np.random.default_rng(0)
    fields = {RECORDED_EPOCHS: 0, GROUP_ROWS: np.ones(5), GROUP_WEIGHT: np.ones(5)}
    for layer in ("hidden.0", "head"):
        fields[layer_field(layer, "gradient", ("group", "index"))] = rng.normal(size=(5, width))
        fields[layer_field(layer, "cosine", ("group", "other_group"))] = rng.normal(size=(5, 5))
        fields[layer_field(layer, "floor/gradient", ("group",))] = rng.normal(size=5)
        fields[layer_field(layer, "rows", ("group",), "int64")] = np.ones(5)
    for epoch in range(epochs):
        table.append(fields | {RECORDED_EPOCHS: epoch}, "epoch")
        table.append({TRAINING_EPOCHS: epoch, TRAINING_CURVES[0]: 0.5}, "training_epoch")
    return table, write.Header(names, layers={"hidden.0": {"shape": (32, 784)}, "head": {"shape": (784, 32)}})
