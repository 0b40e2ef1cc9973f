"""A PyTorch module as a client: say how the module is made, and where its examples come from.

With the data that the manifest names it takes one method::

    import torch
    from fedjob_client.torch import TorchTrainer

    class MyTrainer(TorchTrainer):
        def make_model(self):
            return torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10))

Your own data: override `TorchTrainer.make_loader`. PyTorch is not a dependency of this package; install it beside it.

What of a state dict becomes part of the job's model:

- **Floating-point tensors** (parameters and buffers, frozen ones too): float64 as it is, every other type as float32,
  which holds each float16 and bfloat16 exactly. At the client they are rounded to the module's own types again. What a
  training adds is the difference between what it ended with and what it began with *in the module's types*: a tensor
  that it did not touch adds nothing, and so keeps its bits on the way round.
- **Integer and boolean tensors** (BatchNorm's ``num_batches_tracked``, masks) stay in the module: their mean is no
  value of their type. They begin again with the process.
- ``model.exclude`` of the manifest keeps further tensors at the client.
"""

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any, ClassVar, Final, Literal

import torch

from fedjob_client.cuda.faults import named
from fedjob_client.data.dataset import Dataset
from fedjob_client.errors import DataError, GpuUnavailableError, SettingsError, TrainerError
from fedjob_client.trainer import Array, ClientContext, EvalConfig, Metrics, Params, TrainConfig, Update
from fedjob_protocol.config import Device

__all__ = ["TorchTrainer", "tensors_of"]

EVALUATION_ROWS: Final = 1024
"""Examples in a batch of an evaluation."""
CHECK_EVERY: Final = 16
"""Batches between two questions whether the result is still wanted."""


class TorchTrainer:
    """A client around a `torch.nn.Module`.

    `make_model` has to be written, everything else can be overridden: `make_loader` for data of your own, `forward` for
    modules that take other arguments than one tensor, `loss`, `metrics`, `outputs` and `make_optimizer`.

    Raises:
        GpuUnavailableError: ``device: GPU`` was asked for and PyTorch finds none.
    """

    task: ClassVar[Literal["classification", "regression"]] = "classification"
    """What the default `loss`, `metrics` and `outputs` are for."""

    def __init__(self, context: ClientContext) -> None:
        self.context = context
        self.device = _device(context.device)
        torch.set_num_threads(context.threads)
        self.model = self.make_model().to(self.device)

    @property
    def backend(self) -> str:
        """Where it computes, for the job's status."""
        return "gpu" if self.device.type == "cuda" else "cpu"

    @property
    def num_examples(self) -> int | None:
        """Training examples of this client; ``None`` where the loader does not know before it has read them."""
        if self.context.role != "Trainer":
            return None
        examples = getattr(self.make_loader("train", 1, torch.Generator()), "dataset", None)
        return len(examples) if isinstance(examples, Sized) else None

    # What a subclass says

    def make_model(self) -> Any:
        """Make the module; its values are drawn anew by `init`.

        Raises:
            TrainerError: A subclass has to do it.
        """
        raise TrainerError(f"{type(self).__name__} has no method make_model")

    def make_loader(self, split: Literal["train", "test"], batch_size: int, generator: Any) -> Iterable[Any]:
        """Make the batches of one pass; by default of the data that the manifest names.

        Args:
            split: Training examples of this client, or held-out ones.
            batch_size: Examples in a batch.
            generator: Source of the order in which training examples come: a `torch.Generator`.
        """
        examples = getattr(self.data, split)
        y = examples.y if self.task == "classification" else examples.y.astype("float32")
        tensors = torch.utils.data.TensorDataset(torch.from_numpy(examples.x.astype("float32")), torch.from_numpy(y))
        loader: Iterable[Any] = torch.utils.data.DataLoader(
            tensors, batch_size, shuffle=split == "train", generator=generator
        )
        return loader

    def forward(self, batch: Any) -> tuple[Any, Any]:
        """Outputs of `model` for a batch, and what they should have been.

        By default the batch is ``x, y``, and ``x`` is given in the type of the module's parameters.
        """
        x, y = batch
        return self.model(self._in_own_type(x)), y

    def loss(self, outputs: Any, targets: Any) -> Any:
        """Mean loss of a batch; cross-entropy, or the mean squared error for regression."""
        if self.task == "classification":
            return torch.nn.functional.cross_entropy(outputs.float(), targets)
        return torch.nn.functional.mse_loss(outputs.float().reshape(targets.shape), targets)

    def metrics(self, outputs: Any, targets: Any) -> Mapping[str, Any]:
        """Means over a batch besides the loss; accuracy for classification.

        Numbers, or tensors of one value, which are read at the end of the epoch: a GPU is not waited for before.
        """
        if self.task == "classification":
            return {"accuracy": (outputs.argmax(-1) == targets).float().mean()}
        return {}

    def outputs(self, inputs: Any) -> Any:
        """What ``/predict`` answers for a tensor of inputs: class probabilities, or values."""
        found = self.model(inputs).float()
        return found.softmax(-1) if self.task == "classification" else found

    def make_optimizer(self, parameters: Iterable[Any], config: TrainConfig) -> Any:
        """Make the optimizer that the manifest names, for the parameters that are not frozen.

        Raises:
            SettingsError: The manifest names one that is not known here, or parameters that it does not have.
        """
        settings = config.optimizer
        make = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}.get(settings.name)
        if make is None:
            raise SettingsError(
                f"training.optimizer.name: {settings.name!r} is not known; known: SGD, Adam, AdamW; or override "
                "make_optimizer"
            )
        given = dict(settings.parameters)
        options: dict[str, Any] = {to: given.pop(name) for name, to in _PLAIN.items() if name in given}
        if settings.name != "SGD" and ("beta1" in given or "beta2" in given):
            options["betas"] = (given.pop("beta1", 0.9), given.pop("beta2", 0.999))
        if given:
            raise SettingsError(f"training.optimizer.parameters: {settings.name} has no {', '.join(sorted(given))}")
        try:
            return make(parameters, lr=config.learning_rate, **options)
        except (TypeError, ValueError) as error:
            raise SettingsError(f"training.optimizer.parameters: {settings.name}: {error}") from error

    # What a client asks for

    def init(self, seed: int) -> Params:
        """The initial model: the module made anew under a seed."""
        torch.manual_seed(seed)
        self.model = self.make_model().to(self.device)
        return tensors_of(self.model)

    def train(self, params: Params, config: TrainConfig) -> Update:
        """Train for some epochs; what is returned is the difference to where it began, in the module's types.

        Raises:
            GpuOutOfMemoryError: A batch does not fit on the GPU: a smaller ``training.batchSize`` may.
            GpuFailedError: The GPU or a kernel failed.
        """
        with named("training on the GPU"):
            return self._train(params, config)

    def _train(self, params: Params, config: TrainConfig) -> Update:
        self._load(params)
        before = tensors_of(self.model)
        torch.manual_seed(config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        loader = self.make_loader("train", config.batch_size, generator)
        trained = [item for item in self.model.parameters() if item.requires_grad]
        optimizer = self.make_optimizer(trained, config)
        pull = Proximal(config.proximal_mu, trained)
        sums = _Means()
        with reproducible():
            for epoch in range(1, config.epochs + 1):
                sums = self._train_epoch(loader, optimizer, pull, config)
                config.on_epoch(epoch, sums.means())
        after = tensors_of(self.model)
        delta = {name: after[name] - before[name] for name in after}
        return Update(delta=delta, num_examples=sums.count, metrics=sums.means())

    def evaluate(self, params: Params, config: EvalConfig) -> Metrics:  # noqa: ARG002 - nothing to choose
        """Loss and metrics over the held-out examples."""
        sums = _Means()
        with named("evaluating on the GPU"), torch.no_grad(), reproducible():
            self._load(params)
            self.model.eval()
            for batch in self.make_loader("test", EVALUATION_ROWS, torch.Generator()):
                outputs, targets = self.forward(_on(self.device, batch))
                sums.add({"loss": self.loss(outputs, targets), **self.metrics(outputs, targets)}, len(targets))
            if sums.count == 0:
                raise DataError("evaluation: there are no held-out examples")
            return sums.means()

    def predict(self, params: Params, inputs: Array) -> Array:
        """One output for each row of inputs."""
        with named("predicting on the GPU"), torch.no_grad():
            self._load(params)
            self.model.eval()
            found: Array = self.outputs(self._in_own_type(torch.as_tensor(inputs).to(self.device))).cpu().numpy()
        return found

    @property
    def data(self) -> Dataset:
        """The data that the manifest names, read once."""
        if not hasattr(self, "_data"):
            self._data = self.context.load_data()
        return self._data

    def _in_own_type(self, x: Any) -> Any:
        """A tensor of numbers in the type of the parameters; integers are left to modules that look things up."""
        kind = next((item.dtype for item in self.model.parameters() if item.is_floating_point()), torch.float32)
        return x.to(kind) if x.is_floating_point() else x

    def _train_epoch(self, loader: Iterable[Any], optimizer: Any, pull: "Proximal", config: TrainConfig) -> "_Means":
        self.model.train()
        sums = _Means()
        for number, batch in enumerate(loader):
            if number % CHECK_EVERY == 0:
                config.check_cancelled()
            optimizer.zero_grad()
            outputs, targets = self.forward(_on(self.device, batch))
            loss = self.loss(outputs, targets)
            loss.backward()
            pull.add()
            optimizer.step()
            sums.add({"loss": loss.detach(), **self.metrics(outputs.detach(), targets)}, len(targets))
        if sums.count == 0:
            raise DataError("training: there are no examples")
        return sums

    def _load(self, params: Params) -> None:
        """Put a model into the module; raises `TrainerError` if it is another one."""
        with torch.no_grad():
            state = {name: value for name, value in self.model.state_dict().items() if value.is_floating_point()}
            given = {name: tuple(array.shape) for name, array in params.items()}
            own = {name: tuple(value.shape) for name, value in state.items()}
            if given != own:
                raise TrainerError(f"the job's model is not the module's: {_difference(given, own)}")
            for name, value in state.items():
                value.copy_(torch.from_numpy(params[name]))


_PLAIN: Final = {
    "momentum": "momentum",
    "dampening": "dampening",
    "nesterov": "nesterov",
    "weightDecay": "weight_decay",
    "epsilon": "eps",
}
"""Parameters of optimizers: the manifest's name, and PyTorch's."""


def tensors_of(model: Any) -> Params:
    """The floating-point tensors of a module's state dict, as copies; see the top of this module.

    Returns:
        Arrays by name: float64 where the tensor is float64, else float32.
    """
    arrays = {}
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            kind = torch.float64 if value.dtype == torch.float64 else torch.float32
            arrays[name] = value.detach().to("cpu", kind, copy=True).contiguous().numpy()
    if not arrays:
        raise TrainerError(f"the module {type(model).__name__} has no floating-point tensor")
    return arrays


class Proximal:
    """FedProx's term mu/2 · |w - w_start|², as what it adds to the gradient.

    Li et al. 2020, "Federated Optimization in Heterogeneous Networks", arXiv:1812.06127, equation 2.

    Args:
        mu: 0 adds nothing.
        parameters: Those that are trained, as they are at the start.
    """

    def __init__(self, mu: float, parameters: Sequence[Any]) -> None:
        self._mu = mu
        self._start = [(item, item.detach().clone()) for item in parameters] if mu else []

    def add(self) -> None:
        """Add it to the gradients as they stand."""
        for item, start in self._start:
            if item.grad is not None:
                item.grad.add_(item.detach() - start, alpha=self._mu)


class _Means:
    """Means over examples, batch by batch; of tensors they stay where these are until they are read."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: defaultdict[str, Any] = defaultdict(float)

    def add(self, means: Mapping[str, Any], count: int) -> None:
        self.count += count
        for name, value in means.items():
            exact = value.detach().double() if isinstance(value, torch.Tensor) else float(value)
            self._sums[name] = self._sums[name] + exact * count

    def means(self) -> dict[str, float]:
        return {name: float(value) / self.count if self.count else math.nan for name, value in self._sums.items()}


@contextmanager
def reproducible() -> Any:
    """Have PyTorch choose algorithms that give the same bits each time; where there is none it warns."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, when it is first used
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


def _device(asked: Device) -> Any:
    has_gpu = asked is not Device.CPU and torch.cuda.is_available()
    if asked is Device.GPU and not has_gpu:
        raise GpuUnavailableError(
            "device: GPU was asked for, and PyTorch finds none: use Auto or CPU, or install its CUDA build"
        )
    return torch.device("cuda" if has_gpu else "cpu")


def _on(device: Any, batch: Any) -> Any:
    """A batch on a device: a tensor, or tensors in a tuple, list or dict."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, Mapping):
        return {name: _on(device, item) for name, item in batch.items()}
    if isinstance(batch, tuple | list):
        return [_on(device, item) for item in batch]
    return batch


def _difference(given: Mapping[str, tuple[int, ...]], own: Mapping[str, tuple[int, ...]]) -> str:
    missing, unknown = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
    if missing or unknown:
        return f"missing {missing[:5]}, unknown {unknown[:5]}"
    name = next(name for name in own if own[name] != given[name])
    return f"{name!r} has shape {given[name]}, the module needs {own[name]}"
