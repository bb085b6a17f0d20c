"""Whether a graph alone fixes whose the rows of its layers are, so that one proof holds for every pass of its kind.

A mask or a matrix moves samples by its values where two dimensions of one tensor range over the samples, or where a
product is summed over them. A graph whose nodes are all of the sorts below, at shapes that rule both out, has neither.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence

from torch import Tensor, nn
from torch.autograd.graph import Node

from autospec.capture.trace_graph import BackwardGraph


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ELEMENT_BY_ELEMENT = _names(
    "Abs Add Addcdiv Addcmul Atan Celu Clamp ClampMax ClampMin Clone Copy Cos Div Elu Erf Exp Expand Expm1 Gelu "
    "Hardsigmoid Hardswish Hardtanh LeakyRelu Lerp Log Log1P LogSigmoid MaskedFill Maximum Minimum Mish "
    "Mul NativeDropout Neg Pow PreluKernel Reciprocal Relu Rsqrt Rsub Sgn Sigmoid Silu Sin Softplus Sqrt Sub Tanh "
    "Threshold ToCopy Where"
)
"""Nodes that give each place of the output from the same place of what they are given, or of what is repeated there."""

_BY_CONSTANTS = _names(
    "Alias ConstantPadNd Permute ReshapeAlias Select Slice Split SplitWithSizes Squeeze T Transpose "
    "Unbind UnsafeSplit UnsafeView Unsqueeze View"
)
"""Nodes that move places by numbers that the graph's fingerprint holds, and repeat none."""

_IN_AN_ORDER = _names("Cat Flip Roll Stack")
"""Nodes that put pieces in an order, which is another one at a later batch where the program says so."""

_WITHIN_A_ROW = _names(
    "BinaryCrossEntropy BinaryCrossEntropyWithLogits CudnnBatchNorm CudnnRnn FusedRmsNorm HuberLoss KlDiv L1Loss "
    "MiopenBatchNorm MkldnnRnnLayer MseLoss NativeBatchNorm NativeGroupNorm NativeLayerNorm NllLoss NllLoss2D "
    "SmoothL1Loss ThnnFusedGruCell ThnnFusedLstmCell"
)
"""Nodes that hand nothing from one row on to another by values, whatever the shapes."""

_OVER_DIMENSIONS = _names("Amax Amin LinalgVectorNorm Logsumexp Max Mean Min Norm Std Sum Var")
_ALONG_A_DIMENSION = _names("Cumsum LogSoftmax SafeSoftmax Softmax")

_OF_MAPS = _names(
    "AdaptiveAvgPool2D AdaptiveAvgPool3D AdaptiveMaxPool2D AdaptiveMaxPool3D AvgPool2D AvgPool3D Convolution "
    "MaxPool2DWithIndices MaxPool3DWithIndices ReflectionPad1D ReflectionPad2D ReplicationPad1D UpsampleBicubic2D "
    "UpsampleBilinear2D UpsampleLinear1D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D "
    "UpsampleTrilinear3D"
)
"""Nodes that work map by map, where the first dimension is that of the samples."""

_BY_WEIGHT = {"Mm": (0, 1, "mat2"), "Addmm": (1, 2, "mat2"), "Convolution": (0, 1, "weight")}
"""Products of rows and a weight: the places of both among the arguments, and the name under which one is saved."""

_OF_BOTH = _names(
    "Baddbmm Bmm ScaledDotProductEfficientAttention ScaledDotProductFlashAttention ScaledDotProductFlashAttentionForCpu"
)
"""Products of two tensors, sample by sample: a matrix of data among them has no gradient."""


def has_steady_rows(graph: BackwardGraph, samples: int, model: nn.Module) -> bool:
    """Whether no value of a later batch can make a row another sample's, or join samples that were apart."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    return all(
        _is_steady(node, following, samples, weights)
        for node, following in zip(graph.place, graph.following, strict=True)
    )


def _is_steady(node: Node, following: Sequence[tuple[Node | None, int]], samples: int, weights: set[int]) -> bool:
    name = _operation(node.name())
    if name == "AccumulateGrad" or name in _BY_CONSTANTS or name in _WITHIN_A_ROW:
        return True
    shape = tuple(node._input_metadata[0].shape)
    given = list(_given(following))
    if name in _ELEMENT_BY_ELEMENT:
        return not any(_repeats_samples(one, shape, samples) for one in given)
    if name in _OVER_DIMENSIONS:
        # what is summed up to one number is a loss; whatever it is spread over again shows that
        return not shape or all(shape.count(samples) >= one.count(samples) for one in given)
    if name in _ALONG_A_DIMENSION:
        return bool(shape) and shape[_dimensions(node)[0] % len(shape)] != samples
    if name in _IN_AN_ORDER:
        along = [shape[dimension % len(shape)] for dimension in _dimensions(node)]
        return bool(along) and all(length % samples for length in along)
    if name in _OF_BOTH:
        count = 2 if name.endswith("mm") else 3
        return shape[0] % samples == 0 and all(after is not None for after, _ in following[-count:])
    if name in _OF_MAPS and shape[0] % samples:
        return False
    if name in _BY_WEIGHT:
        return _is_by_weight(node, following, *_BY_WEIGHT[name], weights)
    return name in _OF_MAPS


def _is_by_weight(
    node: Node, following: Sequence[tuple[Node | None, int]], rows: int, weight: int, saved: str, weights: set[int]
) -> bool:
    """Whether the second factor of a product is a weight, or computed from weights; no matrix of data."""
    if following[rows][0] is None:
        return _is_parameter(following[weight][0])  # else it may be a matrix of data times rows
    if following[weight][0] is not None:
        return True
    matrix = getattr(node, f"_saved_{saved}", None)
    return isinstance(matrix, Tensor) and matrix.untyped_storage().data_ptr() in weights


def _is_parameter(node: Node | None) -> bool:
    """Whether a node is a parameter's, or its transpose's."""
    if node is not None and _operation(node.name()) == "T":
        node = node.next_functions[0][0]
    return node is not None and _operation(node.name()) == "AccumulateGrad"


def _given(following: Sequence[tuple[Node | None, int]]) -> Iterator[tuple[int, ...]]:
    """The shapes of what a node is given, but for parameters."""
    for after, place in following:
        if after is not None and _operation(after.name()) != "AccumulateGrad":
            yield tuple(after._input_metadata[place].shape)


def _repeats_samples(given: tuple[int, ...], shape: tuple[int, ...], samples: int) -> bool:
    """Whether something is repeated as often as there are samples, or rows in another dimension."""
    padded = (1,) * (len(shape) - len(given)) + given
    repeated = [length for before, length in zip(padded, shape, strict=True) if before != length]
    return any(length == samples or (length % samples == 0 and shape.count(length) > 1) for length in repeated)


def _dimensions(node: Node) -> list[int]:
    """Along which dimensions a node works; negative ones are kept as large numbers."""
    dimensions = getattr(node, "_saved_dims", None)
    dimensions = [getattr(node, "_saved_dim", 0)] if dimensions is None else dimensions
    return [int(each) - 2**64 if each >= 2**63 else int(each) for each in dimensions]


@functools.cache
def _operation(name: str) -> str:
    """What a node is called without what all nodes are called."""
    return re.sub(r"Backward\d*$", "", name.rpartition("::")[2])
