"""Layers whose weight gradient is computed as the sum of its groups' products, in place of autograd's own product."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from autospec.capture.agreement import Unsplittable
from autospec.capture.group_passes import refuse_second_order
from autospec.capture.trace_layout import SAMPLE_FIRST, STEP_FIRST, RowTrace

Product = Callable[[Tensor, Tensor, Tensor], None]
"""Writes into its third argument the part of a weight's gradient that some rows and their adjoints make."""


class Products(Protocol):
    """What takes the two sides of a weight's gradient: the ``rows`` that it meets and the ``adjoint`` of its output."""

    def gradient(self, rows: Tensor, adjoint: Tensor, product: Product) -> Tensor:
        """The weight's gradient: the sum of ``product(rows, adjoint)`` over the groups' samples."""


class FusedLinear(torch.autograd.Function):
    """``y = x Wᵀ + b``, or ``x W + b`` where the weight is stored by columns: (..., in) → (rows, out)."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, products: Products, by_columns: bool
    ) -> Tensor:
        ctx.save_for_backward(rows, weight)
        ctx.products, ctx.by_columns = products, by_columns
        return functional.linear(rows.reshape(-1, rows.shape[-1]), weight.mT if by_columns else weight, bias)

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Any, ...]:
        refuse_second_order("fused")
        rows, weight = ctx.saved_tensors
        needs = ctx.needs_input_grad
        of_rows = (adjoint @ (weight.mT if ctx.by_columns else weight)).view(rows.shape) if needs[0] else None
        product = _columns_product if ctx.by_columns else _rows_product
        placed = adjoint.reshape(*rows.shape[:-1], adjoint.shape[-1])
        of_weight = ctx.products.gradient(rows, placed, product) if needs[1] else None
        return of_rows, of_weight, adjoint.sum(0) if needs[2] else None, None, None


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None, products: Products, by_columns: bool) -> Tensor:
    output = FusedLinear.apply(*_cast(rows, weight, bias), products, by_columns)
    if rows.dim() == 2:
        return output
    # not a view, which an in-place activation would be forbidden to change
    return torch.ops.aten._unsafe_view(output, (*rows.shape[:-1], output.shape[-1]))


def _rows_product(rows: Tensor, adjoint: Tensor, out: Tensor) -> None:
    torch.mm(adjoint.reshape(-1, adjoint.shape[-1]).mT, rows.reshape(-1, rows.shape[-1]), out=out)


def _columns_product(rows: Tensor, adjoint: Tensor, out: Tensor) -> None:
    torch.mm(rows.reshape(-1, rows.shape[-1]).mT, adjoint.reshape(-1, adjoint.shape[-1]), out=out)


class FusedConvolution(torch.autograd.Function):
    """A convolution or a transposed one, with ``aten``'s own backward for each group's samples."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, weight: Tensor, bias: Tensor | None, products: Products, options: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(image, weight)
        ctx.products, ctx.options = products, options
        output: Tensor = torch.ops.aten.convolution(image, weight, bias, *options)
        return output

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Any, ...]:
        refuse_second_order("fused")
        image, weight = ctx.saved_tensors
        options = ctx.options

        def backward(image: Tensor, adjoint: Tensor, wanted: list[bool]) -> tuple[Tensor, Tensor, Tensor]:
            sizes = [weight.shape[1] * options[-1] if options[3] else weight.shape[0]] if wanted[2] else None
            found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
                adjoint, image, weight, sizes, *options, wanted
            )
            return found

        def product(image: Tensor, adjoint: Tensor, out: Tensor) -> None:
            out.copy_(backward(image, adjoint, [False, True, False])[1])

        needs_image, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        of_image = of_bias = None
        if needs_image or needs_bias:
            of_image, _, of_bias = backward(image, adjoint, [needs_image, False, needs_bias])
        of_weight = ctx.products.gradient(image, adjoint, product) if needs_weight else None
        return of_image, of_weight, of_bias, None, None


class FusedElman(torch.autograd.Function):
    """The states of one Elman layer, time first: ``h_t = f(W_ih x_t + b + W_hh h_{t-1})``, with f relu or tanh.

    Shapes: inputs (time, n, in) → (time, n, width). The recursions run without autograd, and neither multiplies by an
    activation for the weights' sake: their products are taken over all steps at once.
    """

    @staticmethod
    def forward(
        ctx: Any,
        inputs: Tensor,
        of_input: Tensor,
        of_state: Tensor,
        bias: Tensor | None,
        products: tuple[Products, Products],
        is_relu: bool,
    ) -> Tensor:
        states = functional.linear(inputs, of_input, bias)
        activate, transposed = torch.relu_ if is_relu else torch.tanh_, of_state.mT
        before: Tensor | None = None
        for state in states.unbind(0):
            before = activate(state if before is None else state.addmm_(before, transposed))
        ctx.save_for_backward(inputs, of_input, of_state, states)
        ctx.products, ctx.is_relu = products, is_relu
        return states

    @staticmethod
    def backward(ctx: Any, adjoint: Tensor) -> tuple[Any, ...]:
        refuse_second_order("fused")
        inputs, of_input, of_state, states = ctx.saved_tensors
        delta = adjoint.clone(memory_format=torch.contiguous_format)
        after: Tensor | None = None
        for state, here in zip(reversed(states.unbind(0)), reversed(delta.unbind(0)), strict=True):
            if after is not None:
                here.addmm_(after, of_state)
            if ctx.is_relu:
                torch.ops.aten.threshold_backward.grad_input(here, state, 0, grad_input=here)
            else:
                torch.ops.aten.tanh_backward.grad_input(here, state, grad_input=here)
            after = here
        needs, (ih, hh) = ctx.needs_input_grad, ctx.products
        return (
            delta @ of_input if needs[0] else None,
            ih.gradient(inputs, delta, _rows_product) if needs[1] else None,
            hh.gradient(states[:-1], delta[1:], _rows_product) if needs[2] else None,
            delta.sum((0, 1)) if needs[3] else None,
            None,
            None,
        )


def linear(layer: nn.Linear, products: Mapping[str, Products]) -> Callable[[Tensor], Tensor]:
    """The forward of a fully connected layer."""

    def forward(input: Tensor) -> Tensor:
        return _linear(input, layer.weight, layer.bias, products["weight"], False)

    return forward


def linear_by_columns(layer: Any, products: Mapping[str, Products]) -> Callable[[Tensor], Tensor]:
    """The forward of Transformers' ``Conv1D``."""

    def forward(x: Tensor) -> Tensor:
        return _linear(x, layer.weight, layer.bias, products["weight"], True)

    return forward


def convolution(layer: Any, products: Mapping[str, Products]) -> Callable[..., Tensor]:
    """The forward of a convolution."""
    pads_itself = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    none = (0,) * len(layer.kernel_size)
    options = (layer.stride, layer.padding if pads_itself else none, layer.dilation, False, none, layer.groups)

    def forward(input: Tensor) -> Tensor:
        if not pads_itself:
            mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
            input = functional.pad(input, layer._reversed_padding_repeated_twice, mode=mode)
        output: Tensor = FusedConvolution.apply(*_cast(input, layer.weight, layer.bias), products["weight"], options)
        return output

    return forward


def transposed_convolution(layer: Any, products: Mapping[str, Products]) -> Callable[..., Tensor]:
    """The forward of a transposed convolution."""

    def forward(input: Tensor, output_size: list[int] | None = None) -> Tensor:
        added = layer._output_padding(
            input, output_size, layer.stride, layer.padding, layer.kernel_size, len(layer.kernel_size), layer.dilation
        )
        options = (layer.stride, layer.padding, layer.dilation, True, tuple(added), layer.groups)
        output: Tensor = FusedConvolution.apply(*_cast(input, layer.weight, layer.bias), products["weight"], options)
        return output

    return forward


def elman(layer: nn.RNN, products: Mapping[str, Products]) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """The forward of an Elman network of one direction, without initial state or dropout."""

    def forward(input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if hx is not None or not isinstance(input, Tensor) or input.dim() != 3:
            raise Unsplittable(
                "engine='fused': an RNN with an initial state, packed sequences or a single sequence cannot be fused; "
                "use engine='per_group' or 'hooks'"
            )
        states, finals = input.transpose(0, 1) if layer.batch_first else input, []
        for depth in range(layer.num_layers):
            names = f"weight_ih_l{depth}", f"weight_hh_l{depth}"
            biases: list[Tensor] = [getattr(layer, f"bias_{side}_l{depth}") for side in ("ih", "hh") if layer.bias]
            bias = torch.stack(biases).sum(0) if biases else None
            states = FusedElman.apply(
                states,
                *(getattr(layer, name) for name in names),
                bias,
                tuple(products[name] for name in names),
                layer.nonlinearity == "relu",
            )
            finals.append(states[-1])
        states = states.transpose(0, 1) if layer.batch_first else states
        return states, torch.stack(finals)

    return forward


Fused = Callable[[Any, Mapping[str, Products]], Callable[..., Any]]

_FUSED: dict[Callable[..., Any], Fused] = {
    nn.Linear.forward: linear,
    nn.Conv1d.forward: convolution,
    nn.Conv2d.forward: convolution,
    nn.Conv3d.forward: convolution,
    nn.ConvTranspose1d.forward: transposed_convolution,
    nn.ConvTranspose2d.forward: transposed_convolution,
    nn.ConvTranspose3d.forward: transposed_convolution,
    nn.RNN.forward: elman,
}
"""The forward functions that can be replaced, each with what makes its replacement."""

_OWN_STEPS = ("_conv_forward", "_output_padding")
"""What a convolution's forward calls, and a subclass may have of its own."""


def fused_forward(layer: nn.Module) -> Fused | None:
    """What makes the fused forward of a layer; None where its own must run."""
    kind = type(layer)
    if f"{kind.__module__}.{kind.__qualname__}" == "transformers.pytorch_utils.Conv1D":
        return linear_by_columns
    made = None if "forward" in vars(layer) else _FUSED.get(kind.forward)
    if isinstance(layer, nn.RNNBase):
        is_plain = not layer.bidirectional and (layer.num_layers == 1 or not layer.dropout)
        return made if is_plain and layer.get_parameter("weight_hh_l0").device.type == "cpu" else None
    plain = next((base for base in kind.__mro__ if base.__module__ == "torch.nn.modules.conv"), kind)
    is_own = all(getattr(kind, step, None) is getattr(plain, step, None) for step in _OWN_STEPS)
    return made if is_own else None


def sample_dimension(layer: nn.Module, trace: RowTrace, shape: Sequence[int]) -> int | None:
    """Which dimension of what a fused layer's products are of is the samples', where ``shape`` is its output's.

    None where no one dimension holds all samples, in order.
    """
    if isinstance(layer, nn.RNNBase):
        return 1 if trace.how == SAMPLE_FIRST else None
    if trace.how == SAMPLE_FIRST:
        return 0
    if trace.layout is None or isinstance(layer, nn.modules.conv._ConvNd):
        return None
    if not shape:  # a call that a checkpoint makes again
        return 1 if trace.how == STEP_FIRST else None
    lengths, layout = list(shape[:-1]), trace.layout
    return next(
        (d for d, n in enumerate(lengths) if n == layout.samples and math.prod(lengths[d + 1 :]) == layout.inner), None
    )


def _cast(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The tensors as autocast would give them to a product."""
    kind = next(tensor.device.type for tensor in tensors if tensor is not None)
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(tensor if tensor is None else tensor.to(dtype) for tensor in tensors)
