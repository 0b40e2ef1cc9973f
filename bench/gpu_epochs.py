"""One epoch of full-batch gradient descent on a GPU, in several ways that compute the same: ours and what others write.

Each way is made once for a `Problem`, with the examples on the device, and is then called with the parameters
``(features + 1, classes)``, the intercepts last; it returns their gradient as a NumPy array, so that every epoch ends
with the host knowing the result, as a training needs it.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from numba import cuda

from fedjob_client.cuda.gradient import GpuGradient
from fedjob_client.cuda.plan import shape_of
from fedjob_client.data.dataset import Split
from fedjob_client.models.builtin import MODELS
from fedjob_client.models.linear import Gram
from fedjob_client.models.logistic import FusedGradient
from fedjob_client.trainer import Params

Array = npt.NDArray[Any]
Epoch = Callable[[Array], Array]
ATOMIC_THREADS: Final = 256
ATOMIC: Final = "an atomic addition per element"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is learned."""

    link: str
    x: Array
    """``(n, features)`` float32."""
    y: Array
    """``(n,)``: float32 values, or classes."""
    classes: int

    @property
    def read_bytes(self) -> int:
        """What an epoch has to read of the device's memory at least: each example once."""
        return self.x.nbytes + 4 * len(self.y)

    @property
    def name(self) -> str:
        """As tables show it."""
        return f"{self.link} {len(self.x):.0e} x {self.x.shape[1]}"


def problem(link: str, examples: int, features: int, classes: int = 1, *, seed: int = 5) -> Problem:
    """Random examples."""
    generator = np.random.default_rng(seed)
    x = generator.random((examples, features), dtype=np.float32) * 2 - 1
    if link == "linear":
        y: Array = x.sum(axis=1) * np.float32(3.5) + np.float32(2) + generator.standard_normal(examples, np.float32) / 2
    else:
        y = generator.integers(0, max(classes, 2), examples)
    return Problem(link=link, x=x, y=y, classes=classes)


def ours(task: Problem, *, threads: int | None = None) -> Epoch:
    """The client's kernels."""
    shape = shape_of(task.x.shape[1], task.classes, threads=threads)
    gradient = GpuGradient(task.link, Split(x=task.x, y=task.y), shape)
    out = {"w": np.empty((shape.features, shape.classes)), "b": np.empty(shape.classes)}

    def epoch(params: Array) -> Array:
        gradient({"w": params[:-1], "b": params[-1]}, out)
        return np.vstack([out["w"], out["b"]])

    return epoch


def atomics(task: Problem) -> Epoch:
    """What tutorials write: a thread for each example, and an atomic addition for each number; linear only."""
    features = task.x.shape[1]
    x, y = cuda.to_device(task.x), cuda.to_device(task.y)
    gradient = cuda.device_array(features + 1, dtype=np.float32)
    factor = np.float32(2 / len(task.y))

    @cuda.jit
    def kernel(x: Any, y: Any, params: Any, gradient: Any) -> None:
        row = cuda.grid(1)
        if row < x.shape[0]:
            error = params[features] - y[row]
            for j in range(features):
                error += x[row, j] * params[j]
            for j in range(features):
                cuda.atomic.add(gradient, j, factor * error * x[row, j])
            cuda.atomic.add(gradient, features, factor * error)

    blocks = -(-len(task.y) // ATOMIC_THREADS)

    def epoch(params: Array) -> Array:
        gradient.copy_to_device(np.zeros(features + 1, dtype=np.float32))
        kernel[blocks, ATOMIC_THREADS](x, y, cuda.to_device(params[:, 0].astype(np.float32)), gradient)
        return gradient.copy_to_host().reshape(-1, 1)

    return epoch


def by_cupy(task: Problem) -> Epoch:
    """The formulas on CuPy arrays, as one writes them in NumPy."""
    import cupy  # noqa: PLC0415 - may not be there

    x, y = cupy.asarray(task.x), cupy.asarray(task.y)
    rows = cupy.arange(len(task.y))

    def epoch(params: Array) -> Array:
        p = cupy.asarray(params, dtype=cupy.float32)
        delta = _delta(cupy, task.link, x @ p[:-1] + p[-1], y, rows)
        return np.vstack([cupy.asnumpy(x.T @ delta), cupy.asnumpy(delta.sum(axis=0))])

    return epoch


def by_torch(task: Problem) -> Epoch:
    """The formulas on PyTorch tensors, without autograd: the most favourable way."""
    import torch  # noqa: PLC0415 - may not be there

    x, y = torch.from_numpy(task.x).cuda(), torch.from_numpy(task.y).cuda()
    n = len(task.y)

    def epoch(params: Array) -> Array:
        p = torch.from_numpy(params.astype(np.float32)).cuda()
        scores = x @ p[:-1] + p[-1]
        if task.link == "linear":
            delta = (scores - y[:, None]) * (2 / n)
        elif task.link == "logistic":
            delta = (torch.sigmoid(scores) - y[:, None]) / n
        else:
            delta = torch.softmax(scores, 1)
            delta[torch.arange(n, device=delta.device), y] -= 1
            delta /= n
        return np.vstack([(x.T @ delta).cpu().numpy(), delta.sum(0).cpu().numpy()])

    return epoch


def on_the_cpu(task: Problem) -> Epoch:
    """What the client does on the CPU: of linear regression's examples it keeps the Gram matrix, made here, once."""
    x, y = _on_host(task)
    if task.link == "linear":
        return _epoch_of(task, Gram.of(x, y).gradient)
    return _epoch_of(task, FusedGradient(x, y)) if task.link == "logistic" else in_numpy(task)


def in_numpy(task: Problem) -> Epoch:
    """The client's NumPy reference: a pass over all examples."""
    x, y = _on_host(task)
    model = MODELS[task.link]({})
    return _epoch_of(task, lambda params, out: model.gradient(params, x, y, out))


def _on_host(task: Problem) -> tuple[Array, Array]:
    y = task.y.astype(np.float64) if task.link == "linear" else task.y
    return task.x.astype(MODELS[task.link]({}).dtype), y


def _epoch_of(task: Problem, gradient: Callable[[Params, Params], Any]) -> Epoch:
    kind = MODELS[task.link]({}).dtype
    shape = task.x.shape[1:] if task.classes == 1 else (task.x.shape[1], task.classes)
    out = {"w": np.empty(shape, kind), "b": np.empty(task.classes, kind)}

    def epoch(params: Array) -> Array:
        given = {"w": params[:-1].reshape(shape).astype(kind), "b": params[-1].astype(kind)}
        gradient(given, out)
        return np.vstack([out["w"].reshape(task.x.shape[1], -1), out["b"]])

    return epoch


def ways(task: Problem) -> dict[str, Callable[[Problem], Epoch]]:
    """Every way that this machine has, by name."""
    found: dict[str, Callable[[Problem], Epoch]] = {"fedjob": ours}
    if task.link == "linear":
        found[ATOMIC] = atomics
        found["NumPy, a pass over the examples"] = in_numpy
    rivals = {"cupy": by_cupy, "torch": by_torch}
    found |= {name: way for name, way in rivals.items() if importlib.util.find_spec(name) is not None}
    return found | {"the client's CPU code": on_the_cpu}


def _delta(library: Any, link: str, scores: Any, y: Any, rows: Any) -> Any:
    n = len(y)
    if link == "linear":
        return (scores - y[:, None]) * np.float32(2 / n)
    if link == "logistic":
        return (1 / (1 + library.exp(-scores)) - y[:, None]).astype(np.float32) / n
    scores = library.exp(scores - scores.max(axis=1, keepdims=True))
    scores /= scores.sum(axis=1, keepdims=True)
    scores[rows, y] -= 1
    return scores / n
