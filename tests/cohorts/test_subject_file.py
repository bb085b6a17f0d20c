"""A subject's part: written with checksums, and made anew where it is damaged."""

from __future__ import annotations

import logging
from pathlib import Path

import h5py
import numpy as np
import pytest

from autospec.cohorts.subject_file import Part, has_part, read_part, write_part
from autospec.errors import DamagedFile

RNG = np.random.default_rng(0)
PART = Part(RNG.normal(size=(30, 4)), RNG.normal(size=(4, 50)), RNG.normal(size=4), motion_mm=0.25, regressors=6)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_part(tmp_path / "part.h5", PART, "key")
    return tmp_path / "part.h5"


def test_a_part_comes_back_as_it_was(file: Path) -> None:
    found = read_part(file)
    np.testing.assert_array_equal(found.timecourses, PART.timecourses)
    np.testing.assert_array_equal(found.maps, PART.maps.astype(np.float32))
    assert (found.motion_mm, found.regressors) == (0.25, 6)
    assert np.isnan(found.closeness)
    assert has_part(file, "key")
    assert not has_part(file, "another")
    assert not has_part(file.with_name("none.h5"), "key")


def test_a_flipped_bit_anywhere_is_seen_and_the_part_is_made_anew(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = file.read_bytes()
    unseen = []
    with caplog.at_level(logging.WARNING):
        for place in range(0, len(content), 37):
            damaged = bytearray(content)
            damaged[place] ^= 1 << place % 8
            file.write_bytes(damaged)
            if has_part(file, "key"):
                unseen.append(place)
    # bytes that HDF5 reserves and nobody reads hold no value: what is read is as it was
    for place in unseen:
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        found = read_part(file)
        np.testing.assert_array_equal(found.timecourses, PART.timecourses)
        np.testing.assert_array_equal(found.maps, PART.maps.astype(np.float32))
    assert len(unseen) < len(content) / 37 / 2
    assert "; it is made anew" in caplog.text


def test_a_part_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "part.h5", "w") as root:
        root.attrs.update(key="key", motion_mm=0.5, regressors=np.int64(0), closeness=np.nan, mirrored=np.nan)
        root["timecourses"] = PART.timecourses
    assert has_part(tmp_path / "part.h5", "key")
    assert read_part(tmp_path / "part.h5").maps is None


def test_a_damaged_part_is_named(file: Path) -> None:
    content = bytearray(file.read_bytes())
    at = bytes(content).find(PART.timecourses[3].tobytes())
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(DamagedFile, match=r"part.h5 is truncated or damaged and cannot be read"):
        read_part(file)
