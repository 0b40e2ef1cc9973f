"""Linear regression by the client's own trainer beside the plain NumPy loop.

``regression.py fedjob`` and ``regression.py numpy`` train once in a process of their own and print the seconds and the
weights as JSON; `regression` calls both in turn.
"""

import json
import sys
import time
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from children import HERE, run_python
from report import Check, Row, Section

EXAMPLES: Final = 1_000_000
FEATURES: Final = 10
EPOCHS: Final = 100
LEARNING_RATE: Final = 0.01
RUN_SECONDS: Final = 120.0
LARGEST_DIFFERENCE: Final = 1e-6

Vector = npt.NDArray[np.float64]


def regression(folder: Path, *, quick: bool) -> Section:  # noqa: ARG001 - needs no folder
    """Seconds of both, each in a fresh process per repeat, with one thread as in `fedjob run`."""
    seconds: dict[str, list[float]] = {"fedjob": [], "numpy": []}
    weights: dict[str, list[float]] = {}
    for _ in range(2 if quick else 5):
        for which, values in seconds.items():
            answer = json.loads(run_python([str(HERE / "regression.py"), which], timeout=RUN_SECONDS))
            values.append(answer["seconds"])
            weights[which] = answer["weights"]
    difference = max(abs(a - b) for a, b in zip(weights["fedjob"], weights["numpy"], strict=True))
    if difference > LARGEST_DIFFERENCE:
        sys.exit(f"bench: the two trainings differ by {difference}, so their times cannot be compared")
    rows = (
        Row(name="fedjob client's trainer", unit="s", values=tuple(seconds["fedjob"]), note="the same iterates"),
        Row(name="plain NumPy loop, float64", unit="s", values=tuple(seconds["numpy"])),
    )
    ratio = rows[1].median / rows[0].median
    return Section(
        name="regression",
        title=f"Linear regression, {EXAMPLES:,} x {FEATURES}, {EPOCHS} epochs over the full batch, one thread",
        rows=rows,
        checks=(Check(name="times faster than the plain loop", value=ratio, unit="x", goal=5, at_most=False),),
    )


def plain(x: Vector, y: Vector) -> Vector:
    """The loop as it is written down in every course."""
    w, b = np.zeros(FEATURES), 0.0
    for _ in range(EPOCHS):
        error = x @ w + b - y
        w -= LEARNING_RATE * 2 / len(y) * (x.T @ error)
        b -= LEARNING_RATE * 2 / len(y) * error.sum()
    return np.append(w, b)


def _once(which: str) -> None:
    generator = np.random.default_rng(5)
    x = generator.uniform(-1, 1, size=(EXAMPLES, FEATURES))
    y = x.sum(axis=1) * 3.5 + 2.0 + generator.normal(0, 0.5, size=EXAMPLES)
    if which == "numpy":
        began = time.perf_counter()
        weights = plain(x, y)
        seconds = time.perf_counter() - began
    else:
        weights, seconds = _by_the_client(x, y)
    print(json.dumps({"seconds": seconds, "weights": weights.tolist()}))


def _by_the_client(x: Vector, y: Vector) -> tuple[Vector, float]:
    from fedjob_client.data.dataset import Dataset, Split  # noqa: PLC0415 - the plain loop shall not import it
    from fedjob_client.models.builtin import BuiltinTrainer  # noqa: PLC0415
    from fedjob_client.models.linear import LinearRegression  # noqa: PLC0415
    from fedjob_client.trainer import TrainConfig  # noqa: PLC0415

    split = Split(x=x, y=y)
    trainer = BuiltinTrainer(LinearRegression(), Dataset.of(split, split, num_classes=None))
    config = TrainConfig(round=1, epochs=EPOCHS, batch_size=EXAMPLES, learning_rate=LEARNING_RATE)
    began = time.perf_counter()
    update = trainer.train(trainer.init(0), config)
    seconds = time.perf_counter() - began
    assert update.params is not None
    return np.append(update.params["w"], update.params["b"]), seconds


if __name__ == "__main__":
    _once(sys.argv[1])
