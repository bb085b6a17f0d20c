"""Hostile files: each is refused in one line that names the file and the path, before anything is followed."""

import h5py
import numpy as np
import pytest

from autospec import AutoSpecError, open_spectra
from autospec.cohorts.prepared_file import read_prepared
from autospec.store.read import load_spectra
from autospec.store.schema import GROUP_IS_MARGIN, GROUP_NAMES


def _spectra(path):
    """A file as an earlier version wrote it: nothing but the validator can find what is wrong with it."""
    with h5py.File(path, "w") as file:
        file.attrs.update({"schema_version": 1, "run_id": "r", "complete": True})
        file.create_dataset(GROUP_NAMES, data=["all", "SZ", "HC"], dtype=h5py.string_dtype())
        file[GROUP_IS_MARGIN] = np.zeros(3, dtype=bool)
        file["epoch"], file["groups/weight"] = np.arange(2), np.ones((2, 3))
        for axis, label in enumerate(("epoch", "group")):
            file["groups/weight"].dims[axis].label = label
        gradient = file.create_dataset("layers/net.0/gradient", data=np.ones((2, 3, 4)))
        for axis, label in enumerate(("epoch", "group", "index")):
            gradient.dims[axis].label = label
    return path


def _replace(path, values, **options):
    def edit(file):
        del file[path]
        file.create_dataset(path, data=values, **options)

    return edit


def _external_link(file):
    file["layers/net.1"] = h5py.ExternalLink("/etc/other.h5", "/")


def _soft_link(file):
    file["layers/net.1"] = h5py.SoftLink("/layers/net.0")


def _cycle(file):
    file["layers/net.0/again"] = file["layers"]


def _external_storage(file):
    file.create_dataset("layers/net.0/more", (8,), "u1", external=[("/etc/hostname", 0, 8)])


def _view(file):
    layout = h5py.VirtualLayout(shape=(4,), dtype="f8")
    layout[:] = h5py.VirtualSource("/etc/other.h5", "x", shape=(4,))
    file.create_virtual_dataset("layers/net.0/more", layout)


def _huge(file):
    file.create_dataset("layers/net.0/more", (2**40, 2**10), "f8", chunks=(1, 2**10))


def _huge_chunk(file):
    file.create_dataset("layers/net.0/more", (0, 3), "f4", chunks=(1, 2**28), maxshape=(None, None))


def _hole(file):
    file.create_dataset("layers/net.0/more", (4, 4), "f8", chunks=(2, 4))[:2] = 1


def _no_text(file):
    h5py.h5g.create(file["layers"].id, b"\xff\xfe")


def _deep(file):
    file.create_group("/".join(["layers", *("a" * 40)]))


def _type(file):
    file["layers/net.0/type"] = np.dtype("f8")


def _reference(file):
    file.create_dataset("layers/net.0/more", data=file.ref, dtype=h5py.ref_dtype)


def _unlabelled(file):
    file["layers/net.0/more"] = np.ones((2, 3))


def _longer(file):
    for axis, label in enumerate(("epoch", "index")):
        file.require_dataset("layers/net.0/more", (5, 2), "f8", data=np.ones((5, 2))).dims[axis].label = label


HOSTILE = {
    "a link to another file": (_external_link, "/layers/net.1 is a link to somewhere else"),
    "a soft link": (_soft_link, "/layers/net.1 is a link to somewhere else"),
    "a link back": (_cycle, "/layers/net.0/again is a link back to a folder that it lies in"),
    "data in another file": (_external_storage, "/layers/net.0/more lies in another file"),
    "a view": (_view, "/layers/net.0/more is a view into other datasets"),
    "more than there is": (_huge, "/layers/net.0/more claims 9007199254740992 bytes, of which the file holds 0"),
    "a chunk beyond its dataset": (
        _huge_chunk,
        r"/layers/net.0/more has chunks \(1, 268435456\) larger than its shape",
    ),
    "a chunk that is missing": (_hole, "/layers/net.0/more claims 128 bytes, of which the file holds 64"),
    "a name that is no text": (_no_text, "has a name that is not UTF-8 text"),
    "many folders deep": (_deep, "lies more than 32 folders deep"),
    "a type for a dataset": (_type, "/layers/net.0/type is neither a dataset nor a folder"),
    "a reference": (_reference, "/layers/net.0/more is neither text nor numbers"),
    "a folder for a dataset": (
        lambda f: (f.__delitem__("epoch"), f.create_group("epoch")),
        "/epoch is a folder, not a",
    ),
    "a dataset for a folder": (_replace("groups", 1.0), "/groups is a dataset, not a folder"),
    "a dataset for a layer": (_replace("layers/net.0", 1.0), "/layers/net.0 is float64, not a folder"),
    "text for numbers": (
        _replace("epoch", ["a", "b"], dtype=h5py.string_dtype()),
        "/epoch is object, not whole numbers",
    ),
    "fractions for epochs": (_replace("epoch", [0.5, 1]), "/epoch is float64, not whole numbers"),
    "numbers for names": (_replace(GROUP_NAMES, np.ones(3)), "/groups/name is float64, not text"),
    "other dimensions": (_replace("groups/weight", np.ones(3)), "/groups/weight has 1 dimensions, not 2"),
    "other lengths": (_replace("groups/weight", np.ones((2, 9))), "entries along group, where /groups/"),
    "axes without names": (_unlabelled, "/layers/net.0/more has axes without a name of their own"),
    "more epochs than there are": (_longer, "/layers/net.0/more has 5 entries along epoch, where /epoch has 2"),
    "a version in words": (
        lambda file: file.attrs.update(schema_version="one"),
        "/@schema_version is not a whole number",
    ),
    "a version of many": (
        lambda file: file.attrs.update(schema_version=[1, 1]),
        "/@schema_version is not a whole number",
    ),
    "a run id that is a number": (lambda file: file.attrs.update(run_id=3), "/@run_id is int64, not text"),
    "a shape in words": (
        lambda f: f["layers/net.0"].attrs.update(shape="wide"),
        "/layers/net.0@shape is object, not whole",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_refused_by_path(tmp_path, what):
    path = _spectra(tmp_path / "spectra.h5")
    assert open_spectra(path)["net.0"]["gradient"].shape == (2, 3, 4)
    edit, expected = HOSTILE[what]
    with h5py.File(path, "a") as file:
        edit(file)
    with pytest.raises(AutoSpecError, match=expected) as error:
        load_spectra(path)
    assert str(error.value).startswith(f"{path}: /")
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        (_external_link, "/layers/net.1 is a link to somewhere else"),
        (
            lambda file: file.create_dataset("timecourses", (2, 2**40, 53), "f4", chunks=(1, 1, 53)),
            "/timecourses claims",
        ),
        (lambda file: file.create_dataset("timecourses", data=np.ones((2, 4))), "/timecourses has 2 dimensions, not 3"),
        (lambda file: file.create_dataset("people", data=1.0), "/people is a dataset, not a folder"),
        (lambda file: file.create_dataset("people/id", data=[1 + 2j]), "/people/id is neither text nor numbers"),
    ],
)
def test_a_hostile_cohort_is_refused_by_path(tmp_path, edit, expected):
    path = tmp_path / "cohort.h5"
    with h5py.File(path, "w") as file:
        file.attrs["schema_version"] = 1
        edit(file)
    with pytest.raises(AutoSpecError, match=expected) as error:
        read_prepared(path, "timecourses")
    assert str(error.value).startswith(f"{path}: /")
