"""A convolutional network of two layers: twice (convolution, max-pooling, relu), one hidden layer, softmax.

The network of McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data",
arXiv:1602.05629, section 3: 5 x 5 convolutions with 32 and 64 channels, each followed by 2 x 2 max pooling, 512 hidden
units with relu, softmax: 1,663,370 parameters for MNIST. Convolutions keep the size of the image (zeros around it);
pooling halves it and leaves an odd last row or column out. Relu after the pooling gives what relu before it gives.

Parameters, float32: ``w1`` (k, k, channels of the image, c1), ``b1`` (c1,), ``w2`` (k, k, c1, c2), ``b2`` (c2,),
``w3`` (height/4 · width/4 · c2, hidden), ``b3``, ``w4`` (hidden, classes), ``b4``. Weights start uniform in
±sqrt(6 / inputs) (He et al., arXiv:1502.01852, equation 10), biases at 0.

This is the definition, in NumPy, and what small trainings use. `fedjob_client.models.cnn_compiled` is the fast one; the
tests compare the two.

Parameters of ``model.parameters``: ``channels`` ([32, 64]), ``kernelSize`` (5, odd), ``hiddenSize`` (512).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fedjob_client.errors import DataError
from fedjob_client.models.model import Sums
from fedjob_client.models.softmax import known_classes, probabilities, softmax_delta, softmax_sums
from fedjob_client.trainer import Array, Params
from fedjob_protocol.builtin import CnnParameters

SMALLEST_SIDE = 4
"""Pixels: two poolings leave one of four."""


@dataclass(frozen=True, slots=True)
class Pooled:
    """The output of a convolution and its pooling, and where each value came from."""

    values: Array
    """After relu: ``(n, height/2, width/2, channels)``."""
    places: Array
    """Which of the four pixels was the largest, the first at ties: 0 to 3 row by row, like `values`."""
    patches: Array
    """Input of the convolution, ``(n, height, width, k · k · channels)``."""


class Cnn:
    """The model ``cnn``. Examples are images ``(n, height, width, channels)``.

    Args:
        settings: Sizes of the layers.
    """

    dtype: np.dtype[Any] = np.dtype(np.float32)
    is_classifier = True
    takes_images = True
    block_images: ClassVar[int] = 64
    """Images that are computed at a time, which bounds the memory."""

    def __init__(self, settings: CnnParameters) -> None:
        self.settings = settings

    def init(self, generator: np.random.Generator, shape: tuple[int, ...], classes: int | None) -> Params:
        """Uniform weights, zero biases; see the module.

        Raises:
            DataError: The examples are no images, or too small ones.
        """
        height, width, channels = _image(shape)
        first, second = self.settings.channels
        side, hidden = self.settings.kernel_size, self.settings.hidden_size
        shapes = (
            (side, side, channels, first),
            (side, side, first, second),
            ((height // 4) * (width // 4) * second, hidden),
            (hidden, known_classes(classes)),
        )
        params: Params = {}
        for layer, weights in enumerate(shapes, start=1):
            bound = np.sqrt(6 / np.prod(weights[:-1]))
            params[f"w{layer}"] = generator.uniform(-bound, bound, size=weights).astype(np.float32)
            params[f"b{layer}"] = np.zeros(weights[-1], dtype=np.float32)
        return params

    def misfit(self, params: Params, shape: tuple[int, ...]) -> str | None:
        """See `fedjob_client.models.model.Model.misfit`."""
        height, width, channels = _image(shape)
        shapes = {name: params[name].shape if name in params else () for name in ("w1", "w2", "w3")}
        first, second, third = shapes.values()
        is_cnn = len(first) == len(second) == 4 and len(third) == 2
        if is_cnn and first[2] == channels and third[0] == (height // 4) * (width // 4) * second[3]:
            return None
        return f"are images of {height} x {width} x {channels} (height, width, channels), the model has {shapes}"

    def gradient(self, params: Params, x: Array, y: Array, out: Params) -> Sums:
        """See `fedjob_client.models.model.Model.gradient`."""
        loss, correct = 0.0, 0
        part = out
        for block in self._blocks(len(y)):
            sums = self._gradient(params, x[block], y[block], part, len(y))
            loss += sums.loss
            correct += sums.correct
            if part is not out:
                for name, array in part.items():
                    out[name] += array
            elif block.stop < len(y):
                part = {name: np.empty_like(array) for name, array in out.items()}
        return Sums(loss, correct)

    def score(self, params: Params, x: Array, y: Array) -> Sums:
        """See `fedjob_client.models.model.Model.score`."""
        loss, correct = 0.0, 0
        for block in self._blocks(len(y)):
            sums = softmax_sums(self._scores(params, x[block]), y[block])
            loss += sums.loss
            correct += sums.correct
        return Sums(loss, correct)

    def outputs(self, params: Params, x: Array) -> Array:
        """Probabilities ``(n, classes)``."""
        classes = params["b4"].size
        found = np.empty((len(x), classes), dtype=self.dtype)
        for block in self._blocks(len(x)):
            found[block] = probabilities(self._scores(params, x[block]))
        return found

    def _blocks(self, count: int) -> Iterator[slice]:
        for begin in range(0, count, self.block_images):
            yield slice(begin, min(begin + self.block_images, count))

    def _scores(self, params: Params, x: Array) -> Array:
        """Of at most `block_images` images: ``(n, classes)``."""
        first = _layer(x, params["w1"], params["b1"])
        second = _layer(first.values, params["w2"], params["b2"])
        hidden = _hidden(params, second.values.reshape(len(x), -1))
        return np.asarray(hidden @ params["w4"] + params["b4"])

    def _gradient(self, params: Params, x: Array, y: Array, out: Params, examples: int) -> Sums:
        """The part that some images have in the gradient of the mean over ``examples``."""
        first = _layer(x, params["w1"], params["b1"])
        second = _layer(first.values, params["w2"], params["b2"])
        features = second.values.reshape(len(x), -1)
        hidden = _hidden(params, features)
        delta, sums = softmax_delta(hidden @ params["w4"] + params["b4"], y)
        delta *= self.dtype.type(len(y) / examples)
        np.matmul(hidden.T, delta, out=out["w4"])
        np.sum(delta, axis=0, out=out["b4"])
        delta = delta @ params["w4"].T
        delta *= hidden > 0
        np.matmul(features.T, delta, out=out["w3"])
        np.sum(delta, axis=0, out=out["b3"])
        down = _unpooled((delta @ params["w3"].T).reshape(second.values.shape), second)
        _weights(down, second, out["w2"], out["b2"])
        down = _unpooled(_inputs(down, params["w2"]), first)
        _weights(down, first, out["w1"], out["b1"])
        return sums


def convolution_work(params: Params, shape: tuple[int, ...]) -> int:
    """Pixels times weights of both convolutions: multiplications of one image's forward pass in them."""
    pixels = shape[0] * shape[1]
    return pixels * params["w1"].size + pixels // 4 * params["w2"].size


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    if len(shape) != 3:
        raise DataError(
            f"model cnn: images (height, width, channels) are needed, the examples of this data set have the shape "
            f"{shape}; use softmax or mlp"
        )
    height, width, channels = shape
    if min(height, width) < SMALLEST_SIDE:
        raise DataError(
            f"model cnn: images of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels are needed, these have "
            f"{height} x {width}; use softmax or mlp"
        )
    return height, width, channels


def _layer(x: Array, weights: Array, bias: Array) -> Pooled:
    """Convolution, pooling, relu."""
    side = weights.shape[0]
    padded = np.pad(x, ((0, 0), (side // 2, side // 2), (side // 2, side // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))  # (n, h, w, channels, k, k)
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(*x.shape[:3], -1)
    quads = _quads(patches @ weights.reshape(-1, weights.shape[3]))
    places = quads.argmax(axis=3)
    top = np.take_along_axis(quads, places[:, :, :, np.newaxis], axis=3)[:, :, :, 0] + bias
    return Pooled(np.maximum(top, 0), places, patches)


def _quads(z: Array) -> Array:
    """Pixels in fours: ``(n, height/2, width/2, 4, channels)``."""
    count, height, width, channels = z.shape
    even = z[:, : height // 2 * 2, : width // 2 * 2].reshape(count, height // 2, 2, width // 2, 2, channels)
    return even.transpose(0, 1, 3, 2, 4, 5).reshape(count, height // 2, width // 2, 4, channels)


def _hidden(params: Params, features: Array) -> Array:
    return np.asarray(np.maximum(features @ params["w3"] + params["b3"], 0))


def _unpooled(delta: Array, layer: Pooled) -> Array:
    """Derivative by the output of the convolution: of each largest pixel of four that relu let pass, 0 elsewhere."""
    count, height, width, _ = layer.patches.shape
    _, half_height, half_width, channels = delta.shape
    quads = np.zeros((count, half_height, half_width, 4, channels), dtype=delta.dtype)
    passed = (delta * (layer.values > 0))[:, :, :, np.newaxis]
    np.put_along_axis(quads, layer.places[:, :, :, np.newaxis], passed, axis=3)
    pixels = quads.reshape(count, half_height, half_width, 2, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    full = np.zeros((count, height, width, channels), dtype=delta.dtype)
    full[:, : 2 * half_height, : 2 * half_width] = pixels.reshape(count, 2 * half_height, 2 * half_width, channels)
    return full


def _weights(delta: Array, layer: Pooled, weights: Array, bias: Array) -> None:
    """Write the gradient of a convolution's weights and biases."""
    flat = delta.reshape(-1, delta.shape[3])
    patches = layer.patches.reshape(len(flat), -1)
    np.matmul(patches.T, flat, out=weights.reshape(-1, weights.shape[3]))
    np.sum(flat, axis=0, out=bias)


def _inputs(delta: Array, weights: Array) -> Array:
    """Derivative by the input of a convolution."""
    count, height, width, _ = delta.shape
    side, channels = weights.shape[0], weights.shape[2]
    patches = (delta @ weights.reshape(-1, weights.shape[3]).T).reshape(count, height, width, side, side, channels)
    padded = np.zeros((count, height + side - 1, width + side - 1, channels), dtype=delta.dtype)
    for row in range(side):
        for column in range(side):
            padded[:, row : row + height, column : column + width] += patches[:, :, :, row, column]
    edge = side // 2
    return padded[:, edge : edge + height, edge : edge + width]
