import errno

import pytest
import torch

from autospec import AutoSpecError
from autospec.errors import DamagedFile, UnreadableFile
from autospec.experiments.runs.checkpoint import Checkpoints, random_state, read_checkpoint, restore_random_state
from autospec.experiments.runs.folder import run_folder


@pytest.fixture
def folder(tmp_path):
    folder = run_folder(str(tmp_path), "run")
    folder.path.mkdir(parents=True)
    return folder


def test_the_newest_state_that_can_be_read_is_loaded(folder, caplog):
    checkpoints = Checkpoints(folder)
    assert checkpoints.load(9) is None
    for epoch in (1, 2):
        checkpoints.save(lambda epoch=epoch: {"epoch": epoch, "weight": torch.ones(3)})
    assert checkpoints.load(9)["epoch"] == 2
    whole = folder.checkpoint.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not an archive"):
        folder.checkpoint.write_bytes(damaged)
        assert checkpoints.load(9)["epoch"] == 1
    assert "checkpoint.pt is damaged" in caplog.text
    checkpoints.remove()
    assert list(folder.path.iterdir()) == []


def test_a_flipped_bit_anywhere_is_found(folder):
    Checkpoints(folder).save(lambda: {"epoch": 1, "weight": torch.arange(12.0)})
    whole = folder.checkpoint.read_bytes()
    assert read_checkpoint(folder.checkpoint)["weight"].tolist() == list(range(12))
    for at in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        folder.checkpoint.write_bytes(damaged)
        with pytest.raises(DamagedFile, match="its checksum is another"):
            read_checkpoint(folder.checkpoint)


def test_a_checkpoint_of_an_earlier_version_is_read(folder):
    torch.save({"epoch": 3}, folder.checkpoint)
    assert Checkpoints(folder).load(9) == {"epoch": 3}


def test_a_checkpoint_that_cannot_be_read_now_stays(folder, monkeypatch):
    Checkpoints(folder).save(lambda: {"epoch": 1})

    def refused(*_, **__):
        raise OSError(errno.EIO, "failed")

    monkeypatch.setattr("autospec.store.opening._Stream", refused)
    with pytest.raises(UnreadableFile, match=r"checkpoint\.pt cannot be read now"):
        Checkpoints(folder).load(9)
    assert folder.checkpoint.exists()


def test_a_state_beyond_the_recorded_epochs_is_not_used(folder, caplog):
    """Its spectra were lost, to a damaged file: the run begins anew, and can end."""
    checkpoints = Checkpoints(folder)
    for epoch in (3, 8):
        checkpoints.save(lambda epoch=epoch: {"epoch": epoch})
    assert checkpoints.load(5)["epoch"] == 3
    assert "whose spectra were lost" in caplog.text
    assert checkpoints.load(2) is None
    assert list(folder.path.iterdir()) == []


def test_a_checkpoint_is_data_and_never_code(folder):
    class Harm:
        def __reduce__(self):
            return (folder.path.joinpath("harm").touch, ())

    torch.save({"state": Harm()}, folder.checkpoint)
    assert Checkpoints(folder).load(9) is None
    assert not folder.path.joinpath("harm").exists()


def test_the_random_state_goes_on_where_it_was():
    state = random_state("cpu")
    expected = torch.rand(3)
    restore_random_state(state)
    assert torch.equal(torch.rand(3), expected)


def test_the_state_of_a_gpu_that_is_no_longer_there_is_left(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda _: pytest.fail("there is no GPU"))
    restore_random_state({"cpu": torch.get_rng_state(), "cuda": torch.get_rng_state()})


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the test moves."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    moved = Clock()
    monkeypatch.setattr("autospec.experiments.runs.checkpoint.time", moved)
    return moved


@pytest.mark.parametrize("cost_s", [0.001, 0.05, 3.0])
def test_checkpoints_take_less_than_two_per_cent_of_a_run(folder, clock, cost_s):
    """From when the first has been paid for: what it costs is known only then."""

    def state():
        clock.now += cost_s
        return {"epoch": 1}

    checkpoints, taken = Checkpoints(folder), 0
    while clock.now < 1000:
        clock.now += 0.25  # an epoch
        if checkpoints.due:
            checkpoints.save(state)
            taken += 1
            assert taken == 1 or taken * cost_s <= 0.02 * clock.now
            assert taken * 2 <= clock.now
    assert taken >= min(1000 / 2.5, 0.02 * 1000 / cost_s - 1)


def test_an_interval_that_is_asked_for_is_kept(folder, clock):
    checkpoints, moments = Checkpoints(folder, interval_s=10), []
    while clock.now < 50:
        clock.now += 1
        if checkpoints.due:
            checkpoints.save(lambda: {"epoch": 1})
            moments.append(clock.now)
    assert moments == [10, 20, 30, 40, 50]


def test_a_full_disk_is_named_and_the_old_checkpoint_stays(folder, monkeypatch):
    checkpoints = Checkpoints(folder)
    checkpoints.save(lambda: {"epoch": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    with pytest.raises(AutoSpecError, match=r"checkpoint\.pt: No space left on device"):
        checkpoints.save(lambda: {"epoch": 2})
    assert checkpoints.load(9)["epoch"] == 1
