"""Slow and obvious implementations to compare with: loops over samples, float64, full decompositions."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn

Losses = Callable[[nn.Module, Tensor], Tensor]


def sample_gradients(model: nn.Module, parameter: str, inputs: Tensor, losses: Losses) -> Tensor:
    """(n, out, in) float64: what each sample alone adds to the gradient of the batch's mean loss."""
    model = copy.deepcopy(model).double()
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    gradients = []
    for sample in range(len(inputs)):
        model.zero_grad()
        (losses(model, inputs[sample : sample + 1])[0] / len(inputs)).backward()
        weight = model.get_parameter(parameter)
        assert weight.grad is not None
        gradients.append(weight.grad.detach().flatten(1).clone())
    return torch.stack(gradients)


def group_sums(per_sample: Tensor, labels: Sequence[int], groups: int) -> list[Tensor]:
    """The whole batch's gradient, then each group's, as sums over samples."""
    sums = [per_sample.sum(0)]
    for group in range(groups):
        total = torch.zeros_like(per_sample[0])
        for sample, label in enumerate(labels):
            if label == group:
                total = total + per_sample[sample]
        sums.append(total)
    return sums


def full_spectrum(matrix: Tensor) -> np.ndarray:
    """Every singular value, from a full singular value decomposition in float64."""
    return torch.linalg.svd(matrix.double(), full_matrices=True).S.numpy()


def with_spectrum(rows: int, columns: int, values: Sequence[float], seed: int = 0) -> Tensor:
    """A float64 matrix with a prescribed spectrum."""
    generator = torch.Generator().manual_seed(seed)
    left, _ = torch.linalg.qr(torch.randn(rows, rows, dtype=torch.float64, generator=generator))
    right, _ = torch.linalg.qr(torch.randn(columns, columns, dtype=torch.float64, generator=generator))
    middle = torch.zeros(rows, columns, dtype=torch.float64)
    middle[range(len(values)), range(len(values))] = torch.tensor(values, dtype=torch.float64)
    return left @ middle @ right


def content(path: Path) -> dict[str, bytes]:
    """Every number of a spectra file, to the bit, by its path."""
    found: dict[str, bytes] = {}

    def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
        if isinstance(item, h5py.Dataset):
            text = item.dtype.kind == "O"
            found[name] = "\n".join(np.ravel(item.asstr()[()])).encode() if text else item[()].tobytes()

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


BatchLosses = Callable[[nn.Module, dict[str, Tensor]], Tensor]


def weight_gradients(model: nn.Module, batch: dict[str, Tensor], losses: BatchLosses) -> dict[str, Tensor]:
    """(n, out, in) float64 by parameter: what each sample alone adds to every gradient of the batch's mean loss."""
    model = copy.deepcopy(model).double()
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    samples = len(next(iter(batch.values())))
    found: dict[str, list[Tensor]] = {}
    for sample in range(samples):
        model.zero_grad()
        alone = {name: value[sample : sample + 1] for name, value in batch.items()}
        (losses(model, alone)[0] / samples).backward()
        for name, parameter in model.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if gradient.dim() > 1:
                found.setdefault(name, []).append(gradient.flatten(1).clone())
    return {name: torch.stack(gradients) for name, gradients in found.items()}


def unfolded(image: Tensor, layer: nn.Module) -> Tensor:
    """(n, positions, channels · kernel): the windows of a padded image (n, channels, *size), by loops over places."""
    counts = [
        (size - dilation * (kernel - 1) - 1) // stride + 1
        for size, kernel, stride, dilation in zip(
            image.shape[2:], layer.kernel_size, layer.stride, layer.dilation, strict=True
        )
    ]
    windows = []
    for place in itertools.product(*map(range, counts)):
        window = image
        geometry = zip(place, layer.kernel_size, layer.stride, layer.dilation, strict=True)
        for dimension, (position, kernel, stride, dilation) in enumerate(geometry, start=2):
            taken = torch.arange(kernel) * dilation + position * stride
            window = window.index_select(dimension, taken)
        windows.append(window.flatten(1))
    return torch.stack(windows, dim=1)


class RecurrentLoop:
    """A stack of recurrent layers by the equations of its cells: a loop over samples, layers, directions and steps.

    ``rows[weight]`` are, per sample, a list of (activation, pre-activation) pairs in the order of time.
    """

    def __init__(self, layer: nn.RNNBase) -> None:
        self.layer = layer
        self.rows: dict[str, list[dict[int, tuple[Tensor, Tensor]]]] = {}

    def run(self, sequence: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """One sample's (time, width) through the stack, begun at states (depths · directions, width)."""
        directions = 2 if self.layer.bidirectional else 1
        finals: list[list[Tensor]] = []
        for depth in range(self.layer.num_layers):
            outputs = []
            for direction in range(directions):
                start = [state[depth * directions + direction] for state in states]
                output, final = self._one_way(sequence, start, f"_l{depth}" + ("_reverse" if direction else ""))
                outputs.append(output)
                finals.append(final)
            sequence = torch.cat(outputs, dim=1)
        return sequence, [torch.stack(parts) for parts in zip(*finals, strict=True)]

    def _one_way(self, sequence: Tensor, state: list[Tensor], suffix: str) -> tuple[Tensor, list[Tensor]]:
        for stem in ("weight_ih", "weight_hh", "weight_hr"):
            self.rows.setdefault(stem + suffix, []).append({})
        times = range(len(sequence))
        outputs = {}
        for time in reversed(times) if suffix.endswith("reverse") else times:
            state = self._step(sequence[time], state, suffix, time)
            outputs[time] = state[0]
        return torch.stack([outputs[time] for time in times]), state

    def _linear(self, stem: str, suffix: str, activation: Tensor, time: int) -> Tensor:
        bias = self.layer.bias and stem != "weight_hr"
        weight = getattr(self.layer, stem + suffix)
        offset = getattr(self.layer, stem.replace("weight", "bias") + suffix) if bias else 0
        value = weight @ activation + offset
        value.retain_grad()
        self.rows[stem + suffix][-1][time] = (activation, value)
        return value

    def _step(self, entering: Tensor, state: list[Tensor], suffix: str, time: int) -> list[Tensor]:
        given = self._linear("weight_ih", suffix, entering, time)
        kept = self._linear("weight_hh", suffix, state[0], time)
        if self.layer.mode.startswith("RNN"):
            return [torch.tanh(given + kept) if self.layer.mode == "RNN_TANH" else torch.relu(given + kept)]
        if self.layer.mode == "GRU":
            (gi_r, gi_z, gi_n), (gh_r, gh_z, gh_n) = given.chunk(3), kept.chunk(3)
            reset, update = torch.sigmoid(gi_r + gh_r), torch.sigmoid(gi_z + gh_z)
            return [(1 - update) * torch.tanh(gi_n + reset * gh_n) + update * state[0]]
        entry, forget, new, show = (given + kept).chunk(4)
        cell = torch.sigmoid(forget) * state[1] + torch.sigmoid(entry) * torch.tanh(new)
        hidden = torch.sigmoid(show) * torch.tanh(cell)
        return [self._linear("weight_hr", suffix, hidden, time) if self.layer.proj_size else hidden, cell]


def retrain_one_by_one(config, design, epochs, only=None):
    """Networks of a ``RetrainingDesign``, trained one after another in a loop of torch alone; the whole batch.

    ``only`` names some of them. Each group's gradient is that of a float64 copy at the weights before the step.
    """
    from autospec.experiments import datasets, models
    from autospec.store.permutations import PermutationRatios
    from autospec.store.schema import PERMUTATION_RATIOS, layer_name

    data = datasets.load(config.dataset)
    inputs = torch.from_numpy(data.inputs)
    numbers = range(len(design.target)) if only is None else only
    found, losses_found = {}, np.zeros((len(epochs), len(design.pairs), len(numbers)))
    for place, number in enumerate(numbers):
        target = torch.from_numpy(design.target[number])
        model = models.build(config, data.inputs.shape[1:], len(data.classes))
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate)
        for epoch in range(config.epochs):
            if epoch in epochs:
                twin = copy.deepcopy(model).double()
                for at, pair in enumerate(design.pairs):
                    member = pair.members[number][design.design.subject]
                    losses = torch.nn.functional.cross_entropy(twin(inputs.double()), target, reduction="none")
                    means = [losses[torch.from_numpy(member == side)].mean() for side in (1, 2)]
                    losses_found[epochs.index(epoch), at, place] = float(torch.log2(means[0] / means[1]).detach())
                    sizes = [float((member == side).sum()) for side in (1, 2)]
                    for name, weight in twin.named_parameters():
                        if weight.dim() < 2 or not weight.requires_grad:
                            continue
                        a, b = (
                            torch.autograd.grad(mean, weight, retain_graph=True)[0].flatten(1).numpy() for mean in means
                        )
                        own = found.setdefault(layer_name(name), {})
                        for quantity, value in _ratios_of_two(a, b, sizes).items():
                            shape = (len(epochs), len(design.pairs), len(numbers), *np.shape(value))
                            own.setdefault(quantity, np.zeros(shape))[epochs.index(epoch), at, place] = value
            torch.nn.functional.cross_entropy(model(inputs), target).backward()
            optimizer.step()
            optimizer.zero_grad()
    assert all(set(own) == set(PERMUTATION_RATIOS) for own in found.values())
    ratios = {layer: {name: values.astype(np.float32) for name, values in own.items()} for layer, own in found.items()}
    pairs = tuple((pair.a, pair.b) for pair in design.pairs)
    sizes, strata = np.zeros((len(pairs), 2), dtype=np.int64), ("",) * len(pairs)
    return PermutationRatios(np.array(epochs), pairs, sizes, strata, {}, "", ratios, losses_found.astype(np.float32))


def _ratios_of_two(a, b, sizes):
    """What two groups' mean gradients differ in, of sizes of the groups, by NumPy's SVD."""
    spectra = [np.linalg.svd(matrix, compute_uv=False) for matrix in (a, b)]
    kept = [values > 1e-10 * values[0] for values in spectra]
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = [np.where(own, values, 0) / np.sum(values[own]) for own, values in zip(kept, spectra, strict=True)]
        entropies = [-np.sum(share[share > 0] * np.log(share[share > 0])) for share in shares]
        ratio = np.where(kept[0] & kept[1], np.log2(spectra[0] / spectra[1]), np.nan)
        norms = [np.linalg.norm(values) for values in spectra]
        whole = np.linalg.norm(sizes[0] * a + sizes[1] * b)
        return {
            "log_ratio": ratio,
            "log_norm": np.log2(norms[0] / norms[1]),
            "log_effective_rank": (entropies[0] - entropies[1]) / np.log(2),
            "cancellation": whole / (sizes[0] * norms[0] + sizes[1] * norms[1]),
        }
