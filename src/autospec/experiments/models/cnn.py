"""Convolutional networks in one, two and three dimensions: ``depth`` strided convolutions of ``width`` channels."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from autospec.experiments.config.schema import Architecture, ExperimentConfig
from autospec.experiments.models.shape import DataShape, activation_of

KERNEL, STRIDE, PADDING = 3, 2, 1

_DIMENSIONS = {Architecture.cnn1d: 1, Architecture.cnn2d: 2, Architecture.cnn3d: 3}
_CONVOLUTION: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.Module]] = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


class ConvolutionalNetwork(nn.Module):
    """Strided convolutions, then as many transposed ones back, or a global average and a linear head.

    ``image`` is the shape (channels, ...) that a sample is convolved as. Every size is met exactly: a convolution
    takes a length of n to ⌈n/2⌉, its transpose ⌈n/2⌉ to n, by way of ``output_padding``.
    """

    def __init__(
        self, shape: DataShape, image: tuple[int, ...], width: int, depth: int, activation: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        channels, *size = image
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        for layer in range(depth):
            source = width if layer else channels
            self.encoder.append(_CONVOLUTION[len(size)](source, width, KERNEL, STRIDE, PADDING))
            if shape.classes is None:
                # two lengths are strided to one: what is added at the end says which of them to go back to
                padding = [1 - length % 2 for length in size]
                back = _TRANSPOSED[len(size)](width, source, KERNEL, STRIDE, PADDING, padding)
                self.decoder.insert(0, back)
            size = [(length + 1) // 2 for length in size]
        self.activation = activation()
        self.head = nn.Linear(width, shape.classes) if shape.classes else None
        self._image = image
        self._is_series = shape.is_series

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, ...) → (n, classes), or the shape of the input."""
        # a series comes as (time, channels), a convolution takes channels first
        image = inputs.transpose(1, 2) if self._is_series else inputs
        state = image.reshape(len(inputs), *self._image)
        for layer in self.encoder:
            state = self.activation(layer(state))
        if self.head is not None:
            return self.head(state.flatten(2).mean(2))
        output = self._decode(state).reshape_as(image)
        return output.transpose(1, 2) if self._is_series else output

    def _decode(self, state: Tensor) -> Tensor:
        """The transposed convolutions, with the activation between them and a linear end."""
        *inner, last = self.decoder
        for layer in inner:
            state = self.activation(layer(state))
        return last(state)


def build(config: ExperimentConfig, shape: DataShape) -> ConvolutionalNetwork:
    """Return the untrained convolutional network of a configuration.

    Args:
        config: its width, depth and activation.
        shape: of a sample, and the number of classes.
    """
    image = _image(shape, _DIMENSIONS[config.architecture])
    return ConvolutionalNetwork(shape, image, config.width, config.depth, activation_of(config))


def _image(shape: DataShape, dimensions: int) -> tuple[int, ...]:
    """The shape that a sample is convolved as: a time series is its channels over time, or one image of them."""
    if not shape.is_series:
        return shape.inputs
    time, channels = shape.inputs
    return (channels, time) if dimensions == 1 else (1, channels, time)
