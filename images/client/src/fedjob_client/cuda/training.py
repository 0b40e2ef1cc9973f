"""Local training with gradients from a GPU: the steps of the optimizer stay on the CPU, where the parameters are few.

So every optimizer works here as it does there; a step costs one copy of the parameters and one of the gradient.
"""

from typing import Any, Final, cast

import numpy as np

from fedjob_client.cuda.gradient import GpuGradient
from fedjob_client.cuda.plan import shape_of
from fedjob_client.data.dataset import Split
from fedjob_client.errors import GpuUnavailableError
from fedjob_client.models.descent import train_batches, train_full_batch
from fedjob_client.models.model import Model, Sums
from fedjob_client.trainer import Array, Metrics, Params, TrainConfig

TRIED_EXAMPLES: Final = 5
CLOSE: Final = 1e-5


class GpuTraining:
    """Trains one model on the examples of one client, which stay on the GPU over epochs and rounds.

    Args:
        link: ``linear``, ``logistic`` or ``softmax``.
        model: The same model on the CPU: the reference.
        train: The training examples, as the model takes them.
        classes: Of softmax regression, else 1.
        threads: Threads of a block; default what suits a GPU.
    """

    def __init__(self, link: str, model: Model, train: Split, *, classes: int = 1, threads: int | None = None) -> None:
        self._link, self._model, self._train = link, model, train
        self._shape = shape_of(train.x.shape[1], classes, threads=threads)
        self._gradient = GpuGradient(link, train, self._shape)

    def train(self, params: Params, config: TrainConfig) -> tuple[Params, Metrics]:
        """Train as `fedjob_client.models.builtin.BuiltinTrainer` does: the same steps over the same batches.

        Raises:
            GpuOutOfMemoryError: Not even one tile of examples fits on the GPU.
            GpuFailedError: A kernel or the GPU failed.
        """
        count = len(self._train)
        if config.batch_size >= count:
            return train_full_batch(self._model, self._gradient, params, count, config)
        numbers = np.arange(count, dtype=np.int32)
        batches = cast("Model", _Batches(self._model, self._gradient))  # all of a model that a training asks for
        return train_batches(batches, params, numbers, numbers, config)

    def try_out(self) -> None:
        """Compile the kernels and compare a small gradient with the reference.

        Raises:
            GpuUnavailableError: They differ.
            Exception: Whatever Numba raises where it cannot compile or launch.
        """
        shape = self._shape
        x = np.arange(TRIED_EXAMPLES * shape.features).reshape(TRIED_EXAMPLES, -1) % 7 - 3
        kind = self._train.y.dtype
        tried = Split(x=x.astype(self._model.dtype), y=(np.arange(TRIED_EXAMPLES) % max(shape.classes, 2)).astype(kind))
        size = (shape.features, shape.classes) if self._link == "softmax" else (shape.features,)
        params = {"w": np.zeros(size, self._model.dtype), "b": np.zeros(shape.classes, self._model.dtype)}
        found, expected = ({name: np.empty_like(array) for name, array in params.items()} for _ in range(2))
        sums = GpuGradient(self._link, tried, shape)(params, found)
        reference = self._model.gradient(params, tried.x, tried.y, expected)
        agree = all(np.allclose(found[name], expected[name], rtol=CLOSE, atol=CLOSE) for name in params)
        if not agree or not np.isclose(sums.loss, reference.loss, rtol=CLOSE) or sums.correct != reference.correct:
            raise GpuUnavailableError("the kernels compute something else than the CPU on this GPU: report it")


class _Batches:
    """A model whose examples are row numbers of those on the GPU."""

    def __init__(self, model: Model, gradient: GpuGradient) -> None:
        self.dtype: np.dtype[Any] = model.dtype
        self.is_classifier = model.is_classifier
        self._gradient = gradient

    def gradient(self, params: Params, x: Array, y: Array, out: Params) -> Sums:  # noqa: ARG002 - `Model.gradient`
        """As `Model.gradient`, of the rows ``x``."""
        return self._gradient(params, out, x)
