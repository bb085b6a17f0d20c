"""What a recorder makes of a foreign model, matrix by matrix, held against each group's own backward pass."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from survey.architectures import SAMPLES, Architecture
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.utils._pytree import tree_flatten

from autospec import AutoSpecError, SpectralRecorder
from autospec.store.schema import layer_name

GROUP = torch.tensor([0, 1, 0, 1, 1, -1])
GROUPS = ["a", "b"]


@dataclass
class Verdict:
    """The outcome of each trained matrix of one architecture, and what was said where recording was refused."""

    name: str
    engine: str
    matrices: int = 0
    exact: list[str] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    wrong: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def judge(architecture: Architecture, engine: str) -> Verdict:
    """Build, record one batch, compare; nothing is trained."""
    torch.manual_seed(0)
    model, inputs, keywords = architecture.build()
    model = model.double().eval()
    inputs, keywords = _double(inputs), _double(keywords)
    expected = _reference(model, inputs, keywords)
    aliases = _aliases(model, expected)
    verdict = Verdict(architecture.name, engine, len(expected))
    try:
        spectra = _recorded(model, inputs, keywords, engine)
    except AutoSpecError as error:
        verdict.refused = dict.fromkeys(expected, str(error))
        return verdict
    for name, values in expected.items():
        recorded = next((alias for alias in aliases[name] if alias in spectra), None)
        if recorded is None:
            verdict.refused[name] = "not recorded"
            continue
        got, right = spectra[recorded][:, : values.shape[1]], values
        if np.isnan(got[1:]).all() and not np.isnan(got[0]).any():
            verdict.shared.append(name)
            got, right = got[:1], values[:1]
        error = float(np.abs(got - right).max() / max(float(right.max()), 1e-300))
        if error <= architecture.tolerance or float(right.max()) < 1e-14:
            verdict.exact.append(name)
        else:
            verdict.wrong[name] = error
    return verdict


def _aliases(model: nn.Module, names: Collection[str]) -> dict[str, list[str]]:
    """The names under which each matrix may be stored: a tied one takes that of its first use."""
    by_parameter: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_parameter.setdefault(id(parameter), []).append(layer_name(name))
    groups = {name: group for group in by_parameter.values() for name in group}
    return {name: groups.get(name, [name]) for name in names}


def _double(tree: Any) -> Any:
    def one(leaf: Any) -> Any:
        return leaf.double() if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf

    return torch.utils._pytree.tree_map(one, tree)


def _outputs(returned: Any) -> list[Tensor]:
    leaves = tree_flatten(returned if not hasattr(returned, "to_tuple") else dict(returned))[0]
    outputs = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.requires_grad]
    return [leaf for leaf in outputs if leaf.dim() and len(leaf) == SAMPLES]


def _cotangents(outputs: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(output.shape, generator=generator, dtype=output.dtype) for output in outputs]


def _reference(model: nn.Module, inputs: Any, keywords: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The singular values (all, a, b) of every matrix that is trained and reached, by masked backward passes."""
    with parametrize.cached():
        outputs = _outputs(model(*inputs, **keywords))
        effective = _effective_weights(model)
    cotangents = _cotangents(outputs)
    named = {layer_name(name): p for name, p in model.named_parameters() if p.requires_grad and _is_matrix(p)}
    named = {name: p for name, p in named.items() if "parametrizations" not in name} | effective
    spectra: dict[str, list[np.ndarray]] = {name: [] for name in named}
    for members in (torch.ones(SAMPLES, dtype=torch.bool), GROUP == 0, GROUP == 1):
        masked = [v * members.reshape(-1, *[1] * (v.dim() - 1)) for v in cotangents]
        grads = torch.autograd.grad(outputs, list(named.values()), masked, retain_graph=True, allow_unused=True)
        for name, gradient in zip(named, grads, strict=True):
            if gradient is not None:
                spectra[name].append(torch.linalg.svdvals(gradient.flatten(1)).numpy())
    return {name: np.stack(values) for name, values in spectra.items() if values}


def _effective_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights that are computed from parameters, as the layers used them: what is recorded of them."""
    return {
        layer_name(f"{name}.{local}".lstrip(".")): getattr(module, local)
        for name, module in model.named_modules()
        if parametrize.is_parametrized(module)
        for local in module.parametrizations
        if _is_matrix(getattr(module, local)) and getattr(module, local).requires_grad
    }


def _is_matrix(parameter: Tensor) -> bool:
    return parameter.dim() >= 2 and min(parameter.flatten(1).shape) > 1


def _recorded(model: nn.Module, inputs: Any, keywords: Mapping[str, Any], engine: str) -> dict[str, np.ndarray]:
    recorder = SpectralRecorder(model, groups=GROUPS, reduction="sum", engine=engine)
    try:
        with recorder.batch(GROUP):
            outputs = _outputs(model(*inputs, **keywords))
            loss = sum((o * v).sum() for o, v in zip(outputs, _cotangents(outputs), strict=True))
            loss.backward()
        recorder.end_epoch()
        spectra = recorder.spectra
        return {name: spectra[name].gradient.values[0] for name in recorder.layers}
    finally:
        recorder.close()
        model.zero_grad()
