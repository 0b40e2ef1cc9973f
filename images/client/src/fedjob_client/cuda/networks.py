"""The built-in networks on a GPU, by PyTorch: the same steps over the same batches as on the CPU.

Examples stay on the device over epochs and rounds, and a training leaves it only at the end of each epoch, so nothing
waits for the host in between. Parameters keep the layout of `fedjob_client.models`, which any other client, evaluator
or server of the job computes with; `_forward` says what that is in PyTorch's words. Convolutions use what PyTorch uses
by itself, TF32 on GPUs that have it.

PyTorch is no dependency of this package: only `fedjob_client.cuda.choice` imports this, where it is installed.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from torch.nn import functional

from fedjob_client.cuda.faults import named
from fedjob_client.data.dataset import Split
from fedjob_client.errors import GpuOutOfMemoryError, GpuUnavailableError
from fedjob_client.models.model import Model, Sums, training_metrics
from fedjob_client.models.optimizers import optimizer_settings
from fedjob_client.torch import Proximal, reproducible
from fedjob_client.trainer import Array, Metrics, Params, TrainConfig
from fedjob_protocol.optimizers import AdamParameters

TRIED_EXAMPLES: Final = 4
CLOSE: Final = 0.02
"""Of the largest value of an array: TF32 keeps ten bits of each factor."""


class GpuNetwork:
    """Trains `fedjob_client.models.mlp.Mlp` or `fedjob_client.models.cnn.Cnn` on the examples of one client.

    Args:
        model: The same model on the CPU: the reference.
        train: The training examples, as the model takes them.
        device: In PyTorch's words: ``cuda``; ``cpu`` computes the same there.
    """

    def __init__(self, model: Model, train: Split, *, device: str) -> None:
        self._model, self._device = model, torch.device(device)
        self._most = max(1, len(train))
        """Examples whose gradient is computed at once; fewer after the memory did not suffice."""
        x, y = torch.from_numpy(train.x), torch.from_numpy(train.y)
        try:
            with named("copying the examples to the GPU"):
                x, y = x.to(self._device), y.to(self._device)
        except GpuOutOfMemoryError:
            self._free()  # each batch is copied when its turn comes
        self._x, self._y = x, y

    def train(self, params: Params, config: TrainConfig) -> tuple[Params, Metrics]:
        """Train as `fedjob_client.models.builtin.BuiltinTrainer` does.

        Returns:
            The trained parameters and the last epoch's metrics.

        Raises:
            TrainerError: The optimizer or one of its parameters is not known.
            GpuOutOfMemoryError: The GPU has too little memory for the gradient of one example.
            GpuFailedError: The GPU or a kernel failed.
        """
        with named("training on the GPU"), reproducible():
            tensors = {name: self._parameter(array) for name, array in params.items()}
            optimizer = _optimizer(list(tensors.values()), config)
            pull = Proximal(config.proximal_mu, list(tensors.values()))
            generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence(config.seed)))
            metrics: Metrics = {}
            for epoch in range(1, config.epochs + 1):
                loss, correct = self._zeros()
                for rows in self._batches(generator, config.batch_size):
                    sums = self._gradient(tensors, rows)
                    pull.add()
                    optimizer.step()
                    loss += sums[0]
                    correct += sums[1]
                    config.check_cancelled()
                metrics = training_metrics(self._model, Sums(loss.item(), int(correct.item())), len(self._y))
                config.on_epoch(epoch, metrics)
            return {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items()}, metrics

    def try_out(self) -> None:
        """Compare the gradient of a few examples with the reference.

        Raises:
            GpuUnavailableError: They differ.
            Exception: Whatever PyTorch raises where it cannot compute.
        """
        count = min(TRIED_EXAMPLES, len(self._y))
        if count == 0:
            return
        x, y = self._x[:count].cpu().numpy(), self._y[:count].cpu().numpy()
        params = self._model.init(np.random.default_rng(0), x.shape[1:], int(self._y.max()) + 1)
        expected = {name: np.empty_like(array) for name, array in params.items()}
        loss = self._model.gradient(params, x, y, expected).loss
        with reproducible():
            tensors = {name: self._parameter(array) for name, array in params.items()}
            found = self._gradient(tensors, torch.arange(count, device=self._y.device))[0].item()
        agree = all(_close(tensors[name].grad.cpu().numpy(), array) for name, array in expected.items())
        if not agree or abs(found - loss) > CLOSE * max(1.0, loss):
            raise GpuUnavailableError("PyTorch computes something else on this GPU than the CPU: report it")

    def _batches(self, generator: np.random.Generator, batch_size: int) -> Iterator[Any]:
        """Numbers of the examples of each batch, as `fedjob_client.models.descent` chooses them."""
        count = len(self._y)
        if batch_size >= count:
            yield torch.arange(count, device=self._y.device)
            return
        order = torch.from_numpy(generator.permutation(count)).to(self._y.device)
        yield from order.split(batch_size)

    def _gradient(self, tensors: dict[str, Any], rows: Any) -> tuple[Any, Any]:
        """Have each parameter's ``grad`` be that of the mean loss over some examples.

        Returns:
            Sum of the losses, and how many were classified right; both still on the device.
        """
        while True:
            try:
                with named("training on the GPU"):
                    return self._sums(tensors, rows, rows.split(self._most))
            except GpuOutOfMemoryError:
                tried = min(self._most, len(rows))
                if tried == 1:
                    raise
            self._most = tried // 2
            self._free()  # not in the handler: what it caught holds the tensors that did not fit

    def _sums(self, tensors: dict[str, Any], rows: Any, parts: tuple[Any, ...]) -> tuple[Any, Any]:
        for tensor in tensors.values():
            tensor.grad = None
        loss, correct = self._zeros()
        for part in parts:
            x, y = (whole[part].to(self._device, non_blocking=True) for whole in (self._x, self._y))
            scores = _forward(tensors, x)
            summed = functional.cross_entropy(scores, y, reduction="sum")
            (summed / len(rows)).backward()
            loss += summed.detach()
            correct += (scores.detach().argmax(1) == y).sum()
        return loss, correct

    def _parameter(self, array: Array) -> Any:
        return torch.tensor(array, device=self._device, requires_grad=True)

    def _zeros(self) -> tuple[Any, Any]:
        loss = torch.zeros((), dtype=torch.float64, device=self._device)
        return loss, torch.zeros((), dtype=torch.int64, device=self._device)

    def _free(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


def _forward(tensors: dict[str, Any], x: Any) -> Any:
    """Scores ``(n, classes)`` of the network with these parameters."""
    layers = len(tensors) // 2
    first = 1
    if tensors["w1"].dim() == 4:
        x = x.permute(0, 3, 1, 2)  # images as PyTorch has them; in memory the channels stay last
        for first in (1, 2):
            kernel = tensors[f"w{first}"].permute(3, 2, 0, 1)
            x = functional.conv2d(x, kernel, padding=kernel.shape[2] // 2)
            x = functional.relu(functional.max_pool2d(x, 2) + tensors[f"b{first}"][:, None, None])
        x, first = x.permute(0, 2, 3, 1).flatten(1), 3
    for layer in range(first, layers):
        x = functional.relu(x @ tensors[f"w{layer}"] + tensors[f"b{layer}"])
    return x @ tensors[f"w{layers}"] + tensors[f"b{layers}"]


def _optimizer(tensors: list[Any], config: TrainConfig) -> Any:
    """PyTorch's, with the same formulas as `fedjob_client.models.optimizers`."""
    settings = optimizer_settings(config)
    plain = {"lr": config.learning_rate, "weight_decay": settings.weight_decay}
    if isinstance(settings, AdamParameters):
        return torch.optim.Adam(tensors, betas=(settings.beta1, settings.beta2), eps=settings.epsilon, **plain)
    return torch.optim.SGD(tensors, momentum=settings.momentum, **plain)


def _close(found: Array, expected: Array) -> bool:
    return bool(np.abs(found - expected).max() <= CLOSE * np.abs(expected).max())
