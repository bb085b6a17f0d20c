"""Mistakes in the use of the library: each ends in one line, and nothing is lost or written over."""

import copy
import io
import os
import pickle
import threading

import numpy as np
import pytest
import torch
from torch import nn

from autospec import AutoSpecError, SpectralRecorder, open_spectra

LABELS = torch.tensor([0, 1, 0, 1, 0, 1])
INPUTS = torch.linspace(-1, 1, 24).reshape(6, 4)


def _model(width=3):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))


def _recorder(model=None, path=None, **arguments):
    return SpectralRecorder(model or _model(), path, **{"groups": ["HC", "SZ"], "floor": "formula", **arguments})


def _step(recorder, model, labels=LABELS):
    with recorder.batch(labels):
        model(INPUTS).square().mean().backward()


def _recorded(path=None, **arguments):
    """A recorder with one epoch, and its model."""
    model = _model()
    recorder = _recorder(model, path, **arguments)
    _step(recorder, model)
    recorder.end_epoch()
    return recorder, model


def _line(error):
    (line,) = str(error.value).splitlines()
    return line


AFTER_CLOSE = {
    "batch": lambda recorder, state: recorder.batch(LABELS).__enter__(),
    "end_epoch": lambda recorder, state: recorder.end_epoch(),
    "record": lambda recorder, state: recorder.record(step=9),
    "check": lambda recorder, state: recorder.check(INPUTS),
    "rewind": lambda recorder, state: recorder.rewind(0),
    "load_state_dict": lambda recorder, state: recorder.load_state_dict(state),
    "with": lambda recorder, state: recorder.__enter__(),
}


@pytest.mark.parametrize("call", AFTER_CLOSE)
def test_a_closed_recorder_takes_nothing_more_and_its_file_stays(tmp_path, call):
    recorder, _ = _recorded(tmp_path / "spectra.h5")
    state = recorder.state_dict()
    recorder.close()
    with pytest.raises(AutoSpecError, match=r"the recorder is closed; .*resume=True\) goes on with its file"):
        AFTER_CLOSE[call](recorder, state)
    recorder.close()  # twice does no harm
    assert open_spectra(tmp_path / "spectra.h5").complete
    assert len(recorder.spectra.epochs) == 1


IN_BATCH = {
    "end_epoch": lambda recorder: recorder.end_epoch(),
    "state_dict": lambda recorder: recorder.state_dict(),
}


@pytest.mark.parametrize("call", IN_BATCH)
def test_what_belongs_between_batches_is_refused_inside_one(call):
    recorder, model = _recorded()
    with (
        pytest.raises(AutoSpecError, match=r"inside recorder.batch\(...\): call it after the batch"),
        recorder.batch(LABELS),
    ):
        model(INPUTS).mean().backward()
        IN_BATCH[call](recorder)


def test_close_inside_a_batch_writes_what_was_recorded_and_does_not_call_it_complete(tmp_path):
    recorder, model = _recorded(tmp_path / "spectra.h5")
    with pytest.raises(AutoSpecError, match="the batch is lost, the rest written"), recorder.batch(LABELS):
        model(INPUTS).mean().backward()
        recorder.close()
    spectra = open_spectra(tmp_path / "spectra.h5")
    assert (len(spectra.epochs), spectra.complete) == (1, False)


def test_two_threads_cannot_be_inside_a_batch_at_once():
    recorder, model = _recorded()
    begun, told, found = threading.Event(), threading.Event(), []

    def other():
        begun.wait(10)
        try:
            _step(recorder, model)
        except AutoSpecError as error:
            found.append(str(error))
        told.set()

    thread = threading.Thread(target=other)
    thread.start()
    with recorder.batch(LABELS):
        begun.set()
        assert told.wait(10)
        model(INPUTS).mean().backward()
    thread.join(10)
    recorder.end_epoch()
    assert len(found) == 1
    assert "already open, here or in another thread; one batch at a time" in found[0]
    assert recorder.spectra.weight.to_numpy()[-1].tolist() == [1, 0.5, 0.5]


def test_two_recorders_on_one_model_record_the_same_or_are_refused():
    model = _model()
    first, second = _recorder(model), _recorder(model)
    with first.batch(LABELS), second.batch(LABELS):
        model(INPUTS).square().mean().backward()
    first.end_epoch()
    second.end_epoch()
    alone, _ = _recorded()
    for layer in alone.layers:
        for recorder in (first, second):
            np.testing.assert_array_equal(recorder.spectra[layer].gradient, alone.spectra[layer].gradient)
    fast = _recorder(model, engine="per_group")
    with pytest.raises(AutoSpecError, match="engine='per_group' stands in for the model"), first.batch(LABELS):
        _step(fast, model)
    other = _model()  # a model of its own does not mind
    with _recorder(other, engine="per_group").batch(LABELS), first.batch(LABELS):
        other(INPUTS).square().mean().backward()
        model(INPUTS).square().mean().backward()


def test_two_recorders_of_one_file_lose_nothing(tmp_path):
    path = tmp_path / "spectra.h5"
    first, second = (_recorded(path)[0] for _ in range(2))
    first.close()
    with pytest.raises(AutoSpecError, match="has been written by another recorder or program") as error:
        second.close()
    beside = next(file for file in tmp_path.iterdir() if file != path)
    assert str(beside) in _line(error)
    assert open_spectra(path).complete
    assert open_spectra(beside).complete


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickle.dumps,
    "torch.save": lambda recorder: torch.save(recorder, io.BytesIO()),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_recorder_cannot_be_copied(how):
    with pytest.raises(AutoSpecError, match="a SpectralRecorder cannot be copied or pickled") as error:
        COPIES[how](_recorded()[0])
    assert "save recorder.state_dict() or the file" in _line(error)


def test_a_model_that_holds_its_recorder_is_recorded_with_a_measured_floor():
    model = _model()
    model.kept = _recorder(model, floor="measured")
    _step(model.kept, model)
    model.kept.end_epoch()
    assert model.kept.spectra["0"].floor_measured.to_numpy().tolist() == [1]


def test_a_fork_does_not_write_over_the_file_of_its_parent(tmp_path):
    path = tmp_path / "spectra.h5"
    recorder, model = _recorded(path)
    recorder.write()
    before = path.read_bytes()
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        told = []
        for call in (recorder.close, recorder.end_epoch, recorder.write):
            try:
                call()
            except AutoSpecError as error:
                told.append(str(error))
        os.write(writer, "\n".join(told).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    lines = os.read(reader, 4096).decode().splitlines()
    os.close(reader)
    assert len(lines) == 3
    assert all(f"the recorder belongs to process {os.getpid()}, and this is a fork of it" in line for line in lines)
    assert path.read_bytes() == before
    _step(recorder, model)
    recorder.end_epoch()
    recorder.close()
    assert len(open_spectra(path).epochs) == 2


@pytest.mark.parametrize("labels", [LABELS.tolist(), tuple(LABELS.tolist()), LABELS.numpy(), LABELS.to(torch.uint8)])
def test_labels_of_any_integers(labels):
    model = _model()
    recorder = _recorder(model)
    _step(recorder, model, labels)
    recorder.end_epoch()
    assert recorder.spectra.weight.to_numpy().tolist() == [[1, 0.5, 0.5]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LABELS.bool(), "not (6,) of torch.bool; labels.long() if each is an index into groups"),
        ([0.0, 1, 0, 0, 1, -1], "of torch.float64; labels.long()"),
        (LABELS.where(LABELS > 0, 255).to(torch.uint8), "group label 255 is -1 in torch.uint8"),
        (np.array([0, 1, 65535, 1, 0, 1], np.uint16), "group label 65535 is -1 in torch.uint16"),
        (nn.functional.one_hot(LABELS), "labels.argmax(1) are integers"),
        (LABELS[:, None], "labels.flatten() has one per sample"),
        (LABELS.to(torch.complex64), "not (6,) of torch.complex64"),
        (LABELS[:0], "group labels are of no sample: leave out a batch without samples"),
        ([], "group labels are of no sample"),
        (1, "must be a (batch,) tensor of integers, not ()"),
        (None, "group labels must be integers, an index into groups for each sample (HC = 0, SZ = 1"),
    ],
)
def test_labels_that_are_no_integers_say_how_they_become_such(labels, message):
    model = _model()
    with pytest.raises(AutoSpecError) as error:
        _step(_recorder(model), model, labels)
    assert message in _line(error)


def test_a_thousand_groups(tmp_path):
    model = _model()
    with _recorder(model, tmp_path / "spectra.h5", groups=[f"g{index}" for index in range(1000)]) as recorder:
        _step(recorder, model, [0, 1, 998, 999, 999, -1])
        recorder.end_epoch()
    spectra = open_spectra(tmp_path / "spectra.h5")
    np.testing.assert_allclose(spectra.weight.sel(group=["g0", "g999", "g5"]).to_numpy(), [[1 / 6, 2 / 6, 0]])
    assert "g18, and 981 more" in repr(spectra)


class _Odd(nn.Module):
    """Modules whose names have slashes, line breaks, and one another's beginnings."""

    def __init__(self):
        super().__init__()
        for name in ("a", "a/b", "x\ny"):
            self.add_module(name, nn.Linear(4, 4))

    def forward(self, x):
        for module in self.children():
            x = module(x)
        return x


def test_names_of_layers_and_groups_with_slashes_and_line_breaks(tmp_path):
    torch.manual_seed(0)
    model, groups = _Odd(), ["a/b", "../x", "a\nb", "%2F", "."]
    with _recorder(model, tmp_path / "spectra.h5", groups=groups, margins={"a/": ["a/b"]}) as recorder:
        _step(recorder, model, [0, 1, 2, 3, 4, -1])
        recorder.end_epoch()
        told = {layer: recorder.spectra[layer].gradient.to_numpy() for layer in recorder.layers}
    spectra = open_spectra(tmp_path / "spectra.h5")
    assert spectra.layers == ["a", "a/b", "x\ny"]
    assert spectra.group_names == ["all", *groups, "a/"]
    for layer, values in told.items():
        np.testing.assert_array_equal(spectra[layer].gradient, values)
    with _recorder(model, tmp_path / "spectra.h5", groups=groups, margins={"a/": ["a/b"]}, resume=True) as recorder:
        assert recorder.epoch == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": ["HC", "BP"]}, "groups were all, HC, SZ, now all, HC, BP"),
        ({"model": _model(5)}, "layer '0' was 3 × 4, now 5 × 4"),
        ({"model": nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))}, "layers were 0, 2, now 0, 1"),
        ({"margins": {"both": ["HC"]}}, "groups were all, HC, SZ, now all, HC, SZ, both"),
    ],
)
def test_resuming_with_another_model_or_other_groups_names_the_difference(tmp_path, arguments, message):
    path = tmp_path / "spectra.h5"
    _recorded(path)[0].close()
    before = path.read_bytes()
    with pytest.raises(AutoSpecError, match="with other groups or layers and cannot be resumed") as error:
        _recorder(path=path, resume=True, **arguments)
    assert _line(error).endswith(message)
    assert path.read_bytes() == before


def test_resuming_with_another_margin_of_the_same_name(tmp_path):
    groups = ["a", "b", "c"]
    _recorded(tmp_path / "spectra.h5", groups=groups, margins={"m": ["a", "b"]})[0].close()
    with pytest.raises(AutoSpecError, match="margin 'm' was of a, b, now a, c"):
        _recorder(path=tmp_path / "spectra.h5", groups=groups, margins={"m": ["a", "c"]}, resume=True)


def test_resuming_with_fewer_singular_values_repeats_none_of_them(tmp_path):
    _recorded(tmp_path / "spectra.h5")[0].close()
    model = _model()
    recorder = _recorder(model, tmp_path / "spectra.h5", resume=True, leading=1)
    _step(recorder, model)
    with pytest.raises(AutoSpecError, match=r"/layers/0/gradient holds \(3, 3\) numbers per record, and now \(3, 1\)"):
        recorder.end_epoch()
    recorder.close(complete=False)
    assert len(open_spectra(tmp_path / "spectra.h5").epochs) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": ["a", "b", "c"]}, "the groups all, HC, SZ; here they are all, a, b, c"),
        ({"model": _model(5)}, "its layer '0', 3 × 4, is 5 × 4 here"),
        ({"model": nn.Linear(4, 3)}, "its layer '0', 3 × 4, is not watched here"),
    ],
)
def test_a_state_of_another_recorder_is_refused(arguments, message):
    state = _recorded()[0].state_dict()
    recorder = _recorder(**arguments)
    with pytest.raises(AutoSpecError) as error:
        recorder.load_state_dict(state)
    assert _line(error).endswith(message)
    with pytest.raises(AutoSpecError, match="this is no state of a recorder"):
        recorder.load_state_dict({})


def test_a_state_of_an_earlier_version_is_taken():
    state = _recorded()[0].state_dict()
    del state["of"]
    recorder = _recorder()
    recorder.load_state_dict(state)
    assert recorder.epoch == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "the model itself is needed, a torch.nn.Module"),
        ({"path": b"x"}, "path=b'x': must be a path as text"),
        ({"path": "."}, "path='.' is a folder; name a file in it, such as spectra.h5"),
        ({"groups": 3}, "groups=3: a list of at least one group name is needed"),
        ({"groups": {"a", "b"}}, "a list of at least one group name is needed"),
        ({"groups": ["a", " "]}, "groups: ' ' is no name"),
        ({"groups": ["a\0"]}, "is no name: it must have letters, and be text that a file can hold"),
        ({"groups": ["\udc00"]}, "is no name"),
        ({"margins": ["HC"]}, "margins=['HC']: must be a dict of lists of groups"),
        ({"attributes": {"a": object()}}, "attributes: must be text, numbers or arrays of them"),
    ],
)
def test_arguments_of_the_wrong_kind(arguments, message):
    with pytest.raises(AutoSpecError) as error:
        _recorder(**arguments)
    assert message in _line(error)


def test_groups_from_a_generator_are_all_there():
    assert _recorder(groups=(name for name in ("a", "b"))).grouping.names == ("all", "a", "b")


def test_a_layer_whose_name_would_be_read_as_another():
    with pytest.raises(AutoSpecError, match="layer 'a%2Fb' has a name that no file can hold: rename its module"):
        _recorder(nn.ModuleDict({"a%2Fb": nn.Linear(4, 2)}))
