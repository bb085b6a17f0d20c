import gzip
from dataclasses import replace

import numpy as np
import pytest

from autospec import AutoSpecError
from autospec.experiments.config.schema import MnistConfig
from autospec.experiments.datasets import mnist

LABELS = [3, 0, 1, 3, 9, 0]


def _idx(values):
    """What an idx file of unsigned bytes holds: LeCun's page on MNIST."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in values.shape)
    return head + values.astype(np.uint8).tobytes()


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(0, 256, (len(LABELS), 28, 28))


@pytest.fixture(params=[".", "MNIST/raw"], ids=["files in the folder", "as torchvision downloads them"])
def folder(request, tmp_path, images):
    place = tmp_path / request.param
    place.mkdir(parents=True, exist_ok=True)
    (place / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(images)))
    (place / "train-labels-idx1-ubyte").write_bytes(_idx(np.array(LABELS)))
    return tmp_path


def _config(folder, **changes):
    return replace(MnistConfig(path=str(folder)), **changes)


def test_images_of_the_chosen_digits_in_their_order(folder, images):
    data = mnist.load(_config(folder, digits=[3, 0]))
    assert data.subjects == ("image-0", "image-1", "image-3", "image-5")
    assert data.groups == data.classes == ("3", "0")
    assert data.target.tolist() == data.group.tolist() == [0, 1, 0, 1]
    np.testing.assert_array_equal(data.inputs[:, 0], (images[[0, 1, 3, 5]] / np.float32(255)).astype(np.float32))
    assert not data.simulated


def test_at_most_so_many_of_each_digit(folder):
    assert mnist.load(_config(folder, digits=[3, 0], per_digit=1)).subjects == ("image-0", "image-1")


def test_the_embedded_images_are_five_hundred_of_each_digit():
    data = mnist.load(MnistConfig())
    assert data.inputs.shape == (2000, 1, 28, 28)
    assert np.bincount(data.target).tolist() == [500] * 4
    assert (data.inputs.min(), data.inputs.max()) == (0, 1)


def test_a_folder_without_the_files_is_named(tmp_path):
    with pytest.raises(AutoSpecError, match=r"dataset\.path=.*: there is no train-images-idx3-ubyte or .*\.gz"):
        mnist.load(_config(tmp_path))


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"\0\0\x0d\3" + b[4:]], ids=["cut", "another type"])
def test_a_damaged_file_is_named(folder, images, damage):
    file = next(folder.rglob("train-images*"))
    file.write_bytes(gzip.compress(damage(_idx(images))))
    with pytest.raises(AutoSpecError, match="train-images-idx3-ubyte.gz is truncated or no idx file"):
        mnist.load(_config(folder))


def test_a_cut_gzip_file_is_named(folder):
    file = next(folder.rglob("train-images*"))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(AutoSpecError, match="train-images-idx3-ubyte.gz: is truncated or damaged"):
        mnist.load(_config(folder))


def test_images_without_labels_are_refused(folder, images):
    file = next(folder.rglob("train-images*"))
    file.write_bytes(gzip.compress(_idx(images[:-1])))
    with pytest.raises(AutoSpecError, match="6 labels"):
        mnist.load(_config(folder))


def test_a_digit_without_images_is_named(folder):
    with pytest.raises(AutoSpecError, match="there is no image of a 5"):
        mnist.load(_config(folder, digits=[3, 5]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"digits": []}, "must be distinct digits from 0 to 9"),
        ({"digits": [1, 1]}, "must be distinct digits from 0 to 9"),
        ({"digits": [10]}, "must be distinct digits from 0 to 9"),
        ({"per_digit": 0}, r"dataset\.per_digit=0: must be 1 or more"),
        ({"target": "sex"}, r"dataset\.target=sex: MNIST has only digit"),
        ({"scaling": "feature"}, "MNIST has only unit"),
        ({"group_by": ["sex"]}, r"MNIST has only \[digit\]"),
    ],
)
def test_values_that_mnist_does_not_have(changes, message):
    with pytest.raises(AutoSpecError, match=message):
        mnist.check(replace(MnistConfig(), **changes))
