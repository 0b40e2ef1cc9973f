"""The trainer behind the built-in models: a model, an optimizer and the data that the manifest names."""

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from fedjob_client.cuda.choice import TrainingOnGpu, gpu_training
from fedjob_client.data.dataset import Dataset, Split
from fedjob_client.errors import DataError, SettingsError, TrainerError
from fedjob_client.models.cnn import Cnn, convolution_work
from fedjob_client.models.descent import train_batches, train_full_batch
from fedjob_client.models.linear import Gram, LinearRegression, gram_pays
from fedjob_client.models.logistic import FusedGradient, LogisticRegression, kernel_pays
from fedjob_client.models.mlp import Mlp
from fedjob_client.models.model import Model, Sums
from fedjob_client.models.softmax import SoftmaxRegression
from fedjob_client.models.team import Team
from fedjob_client.parameters import read_parameters
from fedjob_client.trainer import Array, ClientContext, EvalConfig, Metrics, Params, TrainConfig, Update
from fedjob_protocol.builtin import CnnParameters, MlpParameters, NoParameters
from fedjob_protocol.config import Device, Role
from fedjob_protocol.messages import MAX_LABELS

EVALUATION_ROWS: Final = 4096
"""Held-out examples that are evaluated at a time."""
COMPILED_CNN_WORK: Final = 2_000_000_000
"""Pixels times weights of convolutions from which compiled kernels pay for importing Numba, and for compiling once."""
EVALUATION_SHARE: Final = 3
"""A training's forward and backward pass cost as much as this many evaluations."""


def _linear(parameters: Mapping[str, Any]) -> Model:
    read_parameters(NoParameters, parameters, where="model.parameters", error=SettingsError)
    return LinearRegression()


def _logistic(parameters: Mapping[str, Any]) -> Model:
    read_parameters(NoParameters, parameters, where="model.parameters", error=SettingsError)
    return LogisticRegression()


def _softmax(parameters: Mapping[str, Any]) -> Model:
    read_parameters(NoParameters, parameters, where="model.parameters", error=SettingsError)
    return SoftmaxRegression()


def _mlp(parameters: Mapping[str, Any]) -> Model:
    settings = read_parameters(MlpParameters, parameters, where="model.parameters", error=SettingsError)
    return Mlp(settings.hidden_sizes)


def _cnn(parameters: Mapping[str, Any]) -> Model:
    return Cnn(read_parameters(CnnParameters, parameters, where="model.parameters", error=SettingsError))


MODELS: Final[Mapping[str, Callable[[Mapping[str, Any]], Model]]] = MappingProxyType(
    {"cnn": _cnn, "linear": _linear, "logistic": _logistic, "mlp": _mlp, "softmax": _softmax}
)
"""Every built-in model, made from ``model.parameters``."""


class BuiltinTrainer:
    """Trains a built-in model on a data set; implements `fedjob_client.trainer.Trainer`.

    Args:
        model: The model.
        dataset: The client's data.
        threads: Threads that the model may compute with; only the convolutional network uses more than one.
        device: Where to train; evaluations and predictions are computed on the CPU.

    Raises:
        DataError: When data are used that do not fit the model.
    """

    def __init__(self, model: Model, dataset: Dataset, *, threads: int = 1, device: Device = Device.CPU) -> None:
        self._model = model
        self._dataset = dataset
        self._threads = threads
        self._device = device

    @classmethod
    def from_context(cls, context: ClientContext) -> "BuiltinTrainer":
        """The trainer that a job's settings name.

        Raises:
            SettingsError: The model or one of its parameters is not known, or a GPU is asked for that it cannot use.
            GpuUnavailableError: A GPU is asked for, and there is none that can be used.
            DataError: The data cannot be read, or do not fit the model.
        """
        make = MODELS.get(context.model.name)
        if make is None:
            known = ", ".join(sorted(MODELS))
            raise SettingsError(f"model.name: {context.model.name!r} is not known; known: {known}; or name a trainer")
        device = context.device if context.role is Role.TRAINER else Device.CPU
        trainer = cls(make(context.model.parameters), context.load_data(), threads=context.threads, device=device)
        if device is not Device.CPU:
            trainer._gpu  # noqa: B018 - what cannot be done is said at the start
        return trainer

    @property
    def backend(self) -> str:
        """Where it trains: ``cpu`` or ``gpu``."""
        return "cpu" if self._gpu is None else "gpu"

    @property
    def num_examples(self) -> int:
        """Training examples that this client holds."""
        return len(self._train)

    @property
    def num_test_examples(self) -> int | None:
        """Held-out examples, once they were read."""
        test = self._dataset.loaded_test
        return None if test is None else len(test)

    @property
    def label_counts(self) -> tuple[int, ...] | None:
        """Training examples of each class; ``None`` for values, and for more than `MAX_LABELS` classes."""
        classes = self._dataset.num_classes
        if classes is None or classes > MAX_LABELS:
            return None
        return tuple(int(count) for count in np.bincount(self._dataset.train.y, minlength=classes))

    @property
    def dataset(self) -> Dataset:
        """The client's data."""
        return self._dataset

    @property
    def is_classifier(self) -> bool:
        """Whether outputs are class probabilities."""
        return self._model.is_classifier

    def init(self, seed: int) -> Params:
        """The model's initial parameters; the same for the same seed."""
        generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed)))
        return self._model.init(generator, self._train.x.shape[1:], self._dataset.num_classes)

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Train: full-batch where the batch is at least the client's data, else mini-batches."""
        self._check_shapes(params)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # checked afterwards, as a whole
            if self._gpu is not None:
                trained, metrics = self._gpu.train(params, config)
            elif config.batch_size < len(self._train):
                trained, metrics = train_batches(
                    self._model_for(params, self._train, config.epochs), params, self._train.x, self._train.y, config
                )
            else:
                gradient = self._full_gradient(params, config)
                trained, metrics = train_full_batch(self._model, gradient, params, len(self._train), config)
        return Update(params=trained, num_examples=len(self._train), metrics=metrics)

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:  # noqa: ARG002 - nothing to choose
        """Loss and accuracy, or loss, rmse and r2, over the held-out examples."""
        test = self._test
        if len(test) == 0:
            raise DataError("evaluation: there are no held-out examples")
        self._check_fit(params, test.x, "evaluation: the held-out examples")
        model = self._model_for(params, test, 1 / EVALUATION_SHARE)
        loss, correct = 0.0, 0
        for begin in range(0, len(test), EVALUATION_ROWS):
            rows = slice(begin, begin + EVALUATION_ROWS)
            sums = model.score(params, test.x[rows], test.y[rows])
            loss += sums.loss
            correct += sums.correct
        if self._model.is_classifier:
            return {"loss": loss / len(test), "accuracy": correct / len(test)}
        spread = float(((test.y - test.y.mean()) ** 2).sum())
        metrics = {"loss": loss / len(test), "rmse": float(np.sqrt(loss / len(test)))}
        return metrics | ({"r2": 1 - loss / spread} if spread > 0 else {})

    def predict(self, params: Params, inputs: Array) -> Array:
        """One output per row of ``inputs``; a row of numbers without columns is one feature each."""
        examples = np.ascontiguousarray(inputs, dtype=self._model.dtype)
        examples = examples.reshape(len(examples), -1)
        if self._model.takes_images:
            image = self._dataset.image
            if image is None or examples.shape[1] != math.prod(image):
                raise DataError(f"predict: the inputs have {examples.shape[1]} values, the model takes images {image}")
            examples = examples.reshape(-1, *image)
        self._check_fit(params, examples, "predict: the inputs")
        return self._model.outputs(params, examples)

    @cached_property
    def _train(self) -> Split:
        return self._fitting(self._dataset.train)

    @cached_property
    def _test(self) -> Split:
        return self._fitting(self._dataset.test)

    @cached_property
    def _gpu(self) -> TrainingOnGpu | None:
        """The examples on a GPU, kept over rounds; ``None``: computes on the CPU."""
        return gpu_training(self._device, self._model, self._train, self._dataset.num_classes)

    @cached_property
    def _gram(self) -> Gram:
        """Kept over rounds: the data do not change."""
        return Gram.of(self._train.x, self._train.y)

    @cached_property
    def _fused(self) -> FusedGradient:
        """Kept over rounds: the data do not change."""
        return FusedGradient(self._train.x, self._train.y)

    def _full_gradient(self, params: Params, config: TrainConfig) -> Callable[[Params, Params], Sums]:
        x, y = self._train.x, self._train.y
        if isinstance(self._model, LinearRegression) and gram_pays(x.shape[1], config.epochs):
            return self._gram.gradient
        if isinstance(self._model, LogisticRegression) and kernel_pays(x.size, config.epochs):
            return self._fused
        model = self._model_for(params, self._train, config.epochs)
        return lambda params, out: model.gradient(params, x, y, out)

    def _model_for(self, params: Params, split: Split, epochs: float) -> Model:
        """The model, computed as it pays for so many examples. By size only: the same job takes the same way."""
        if not isinstance(self._model, Cnn):
            return self._model
        work = convolution_work(params, split.x.shape[1:]) * len(split) * epochs
        return self._compiled_cnn if work >= COMPILED_CNN_WORK else self._model

    @cached_property
    def _compiled_cnn(self) -> Model:
        from fedjob_client.models.cnn_compiled import CompiledCnn  # noqa: PLC0415 - Numba takes half a second to import

        assert isinstance(self._model, Cnn)
        return CompiledCnn(self._model.settings, Team(self._threads))

    def _fitting(self, split: Split) -> Split:
        """Examples as the model takes them and of its type, and labels that it can use."""
        shape = split.image if self._model.takes_images and split.image is not None else (-1,)
        x = np.ascontiguousarray(split.x.reshape(len(split.x), *shape), dtype=self._model.dtype)
        if not self._model.is_classifier:
            return Split(x=x, y=split.y.astype(np.float64))
        classes = self._dataset.num_classes
        if classes is None or split.y.dtype.kind != "i":
            raise DataError("model: a classifier needs class labels; this data set has values, use the model linear")
        if isinstance(self._model, LogisticRegression) and classes != 2:
            raise DataError(f"model logistic: two classes are needed, this data set has {classes}; use softmax")
        return Split(x=x, y=split.y)

    @cached_property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: array.shape for name, array in self.init(0).items()}

    def _check_shapes(self, params: Params) -> None:
        given = {name: array.shape for name, array in params.items()}
        if given != self._shapes:
            own = self._shapes
            name = next(name for name in sorted({*given, *own}) if given.get(name) != own.get(name))
            raise TrainerError(
                f"the model to train has {_shape(given, name)}, model and data of this job make {_shape(own, name)}: "
                "one of them was changed since the model began; go on as before, or begin anew"
            )

    def _check_fit(self, params: Params, x: Array, what: str) -> None:
        misfit = self._model.misfit(params, x.shape[1:])
        if misfit is not None:
            raise DataError(f"{what} {misfit}")


def _shape(shapes: Mapping[str, tuple[int, ...]], name: str) -> str:
    return f"{name!r} with shape {list(shapes[name])}" if name in shapes else f"no {name!r}"
