"""Problems for the kernels, their exact gradients, and the bound that `fedjob_client.cuda.gradient` promises."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fedjob_client.cuda.gradient import GpuGradient
from fedjob_client.cuda.plan import Shape, shape_of
from fedjob_client.data.dataset import Split
from fedjob_client.models.builtin import MODELS
from tests.gpu.conftest import SIMULATED

U = 2.0**-24


@dataclass(frozen=True)
class Case:
    link: str
    split: Split
    params: dict[str, Any]
    shape: Shape

    def empty(self):
        return {name: np.empty_like(array) for name, array in self.params.items()}

    def gradient(self, capacity=None):
        return GpuGradient(self.link, self.split, self.shape, capacity=capacity)

    def rows(self, rows):
        return Case(self.link, Split(x=self.split.x[rows], y=self.split.y[rows]), self.params, self.shape)


def a_case(link, examples, features, classes=1, *, seed=0, scale=1.0, shift=0.0):
    """A random problem; on the simulator with blocks of few threads."""
    generator = np.random.default_rng(seed)
    model = MODELS[link]({})
    x = (scale * generator.normal(size=(examples, features)) + shift).astype(model.dtype)
    weights = (features, classes) if link == "softmax" else (features,)
    params = {
        "w": (generator.normal(size=weights) / np.sqrt(features)).astype(model.dtype),
        "b": generator.normal(size=classes).astype(model.dtype),
    }
    y = 10 * generator.normal(size=examples) if link == "linear" else generator.integers(0, max(classes, 2), examples)
    return Case(link, Split(x=x, y=y), params, shape_of(features, classes, threads=4 if SIMULATED else None))


def exact(case):
    """Gradient, loss and right answers by the NumPy reference in float64."""
    params = {name: array.astype(np.float64) for name, array in case.params.items()}
    out = {name: np.empty_like(array) for name, array in params.items()}
    sums = MODELS[case.link]({}).gradient(params, case.split.x.astype(np.float64), case.split.y, out)
    return out, sums


def bounds(case):
    """How far each component, and the mean loss, may be off."""
    x = np.abs(case.split.x.astype(np.float64))
    w, b = np.abs(case.params["w"].astype(np.float64)), np.abs(case.params["b"].astype(np.float64))
    size = (x @ w).reshape(len(x), -1) + b
    m = 2 * (np.abs(case.split.y) + size[:, 0]) if case.link == "linear" else 1 + size.max(axis=1)
    summed = min(64, len(x)) if case.shape.is_narrow else case.shape.threads
    k = (case.shape.features + summed + 16) * U
    loss = (m**2).mean() if case.link == "linear" else (2 * m + np.log(max(case.shape.classes, 2))).mean()
    return k * np.append(x.T @ m, m.sum()) / len(x), k * loss


def assert_within_the_bound(case, out, sums):
    expected, right = exact(case)
    limits, loss_limit = bounds(case)
    columns = case.shape.features, case.shape.classes
    for found, wanted, limit in (
        (out["w"].reshape(columns), expected["w"].reshape(columns), limits[:-1, None]),
        (out["b"], expected["b"], limits[-1]),
    ):
        # What comes back is rounded to the model's type once more.
        assert (np.abs(found - wanted) <= limit + U * np.abs(wanted)).all(), np.abs(found - wanted).max()
    count = len(case.split)
    assert abs(sums.loss - right.loss) / count <= loss_limit
    assert sums.correct == right.correct or ties(case) >= abs(sums.correct - right.correct)


def ties(case):
    """Examples whose best two scores are too close for float32."""
    if case.link == "linear":
        return 0
    x = case.split.x.astype(np.float64)
    scores = (x @ case.params["w"].astype(np.float64)).reshape(len(x), -1) + case.params["b"]
    if case.link == "logistic":
        scores = np.column_stack([scores, np.zeros(len(x))])
    best = np.sort(scores, axis=1)[:, -2:]
    size = (np.abs(x) @ np.abs(case.params["w"])).reshape(len(x), -1).max(axis=1) + np.abs(case.params["b"]).max()
    return int((best[:, 1] - best[:, 0] <= (case.shape.features + 16) * U * size).sum())
