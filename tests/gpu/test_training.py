import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from fedjob_client.cuda import buffers
from fedjob_client.cuda.choice import SIMULATED_THREADS
from fedjob_client.cuda.training import GpuTraining
from fedjob_client.errors import GpuFailedError, GpuOutOfMemoryError, GpuUnavailableError
from fedjob_client.models.builtin import MODELS, BuiltinTrainer
from fedjob_client.models.model import Sums
from fedjob_client.settings import Settings
from fedjob_client.trainer import OptimizerSettings, TrainConfig
from fedjob_protocol.config import Device
from tests.gpu.cases import a_case, assert_within_the_bound
from tests.gpu.conftest import SIMULATED
from tests.unit.client.asgi import serving
from tests.unit.client.builders import a_classification, a_context, a_regression

THREADS = SIMULATED_THREADS if SIMULATED else None
MOMENTUM = OptimizerSettings(parameters={"momentum": 0.9})
CASES = {
    "linear": (a_regression(examples=24), 0.01),
    "logistic": (a_classification(examples=24, classes=2), 0.1),
    "softmax": (a_classification(examples=24), 0.1),
}
each_model = pytest.mark.parametrize("name", CASES)


class OutOfMemoryError(Exception):
    """As Numba raises what the driver says."""

    code = 2


class LaunchError(Exception):
    code = 719


@each_model
@pytest.mark.parametrize("batch_size", [9, 1000])
def test_training_on_the_gpu_ends_where_training_on_the_cpu_does(name, batch_size):
    dataset, learning_rate = CASES[name]
    seen: dict[str, list] = {"cpu": [], "gpu": []}
    trained = {}
    for device in (Device.CPU, Device.GPU):
        trainer = BuiltinTrainer(MODELS[name]({}), dataset, device=device)
        assert trainer.backend == device.lower()
        config = TrainConfig(
            round=1, epochs=3, batch_size=batch_size, learning_rate=learning_rate, optimizer=MOMENTUM, seed=4,
            on_epoch=lambda epoch, metrics, to=seen[trainer.backend]: to.append((epoch, dict(metrics))),
        )  # fmt: skip
        update = trainer.train(trainer.init(1), config)
        assert update.num_examples == 24
        trained[trainer.backend] = update.params
    for key, array in trained["cpu"].items():
        assert trained["gpu"][key].dtype == array.dtype
        assert trained["gpu"][key] == pytest.approx(array, rel=1e-4, abs=1e-5)
    assert [epoch for epoch, _ in seen["gpu"]] == [1, 2, 3]
    for (_, on_gpu), (_, on_cpu) in zip(seen["gpu"], seen["cpu"], strict=True):
        assert on_gpu == pytest.approx(on_cpu, rel=1e-4, abs=1e-6)


@each_model
def test_the_same_training_gives_the_same_bits_in_another_trainer(name):
    dataset, learning_rate = CASES[name]
    config = TrainConfig(round=1, epochs=2, batch_size=10, learning_rate=learning_rate, seed=5)
    results = []
    for _ in range(2):
        trainer = BuiltinTrainer(MODELS[name]({}), dataset, device=Device.GPU)
        results.append(trainer.train(trainer.init(0), config).params)
    assert all(np.array_equal(results[0][key], results[1][key]) for key in results[0])


def test_a_manifests_device_is_used():
    trainer = BuiltinTrainer.from_context(replace(a_context(model="softmax", clients=200), device=Device.GPU))
    assert trainer.backend == "gpu"
    assert (
        BuiltinTrainer.from_context(replace(a_context(model="softmax", clients=200), device=Device.AUTO)).backend
        == "gpu"
    )


async def test_the_simple_training_and_health_say_that_they_use_it():
    body = '{"epochs": 3, "num_samples": 20, "learning_rate": 0.01}'
    async with serving(Settings()) as call:
        health = (await call("GET", "/health")).json
        on_gpu = (await call("POST", "/train", body)).json
    assert (health["cuda_available"], health["backend"]) == (True, "gpu")
    async with serving(Settings(device=Device.CPU)) as call:
        assert (await call("GET", "/health")).json["backend"] == "cpu"
        on_cpu = (await call("POST", "/train", body)).json
    assert (on_gpu["backend"], on_cpu["backend"]) == ("gpu", "cpu")
    assert on_gpu["w"] == pytest.approx(on_cpu["w"], rel=1e-5)
    assert on_gpu["b"] == pytest.approx(on_cpu["b"], rel=1e-4)


def failing(monkeypatch, where, error, *, passing=0, times=None):
    """Let a function of the buffers raise after some calls, so many times or for ever."""
    original, calls = getattr(buffers, where), []

    def wrapped(*args, **kwargs):
        calls.append(1)
        number = len(calls) - passing
        if number > 0 and (times is None or number <= times):
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(buffers, where, wrapped)
    return calls


def test_data_that_do_not_fit_are_streamed_in_halves_until_they_do(monkeypatch):
    case = a_case("softmax", 64, 3, 3)
    failing(monkeypatch, "_Slot", OutOfMemoryError(), times=2)
    gradient, out = case.gradient(), case.empty()
    assert_within_the_bound(case, out, gradient(case.params, out))
    assert gradient.capacity == 16


def test_memory_that_runs_out_in_mid_epoch_costs_a_retry_and_no_bit(monkeypatch):
    case = a_case("logistic", 64, 3)
    gradient = case.gradient(capacity=32)
    calm, out = case.empty(), case.empty()
    expected = gradient(case.params, calm)
    original, calls = buffers.Buffers._send, []

    def send(self, *args):
        calls.append(1)
        if len(calls) == 2:  # the second half of the examples is on its way
            raise OutOfMemoryError
        original(self, *args)

    monkeypatch.setattr(buffers.Buffers, "_send", send)
    assert gradient(case.params, out) == expected
    assert all(np.array_equal(out[name], calm[name]) for name in out)
    assert gradient.capacity == 16


def test_a_gpu_without_room_for_anything_is_named(monkeypatch):
    case = a_case("linear", 64, 3)
    calls = failing(monkeypatch, "_Slot", OutOfMemoryError())
    with pytest.raises(GpuOutOfMemoryError, match=r"no room for .* examples at a time .* other programs fill it"):
        case.gradient()(case.params, case.empty())
    assert 1 < len(calls) < 10


def test_a_kernel_that_cannot_be_launched_is_named(monkeypatch):
    case = a_case("linear", 9, 3)

    def kernel(*_args, **_kwargs):
        raise LaunchError

    monkeypatch.setattr("fedjob_client.cuda.gradient.gradient_kernel", kernel)
    with pytest.raises(GpuFailedError, match="training linear regression on the GPU: a kernel failed while it ran"):
        case.gradient()(case.params, case.empty())


def test_a_gpu_that_computes_something_else_than_the_cpu_is_not_used(monkeypatch):
    dataset, _ = CASES["softmax"]
    training = GpuTraining("softmax", MODELS["softmax"]({}), dataset.train, classes=3, threads=THREADS)
    training.try_out()

    def wrong(self, params, out, rows=None):
        for array in out.values():
            array[...] = 0
        return Sums(0.0, 0)

    monkeypatch.setattr("fedjob_client.cuda.training.GpuGradient.__call__", wrong)
    with pytest.raises(GpuUnavailableError, match="compute something else than the CPU"):
        training.try_out()


MEMORY = """
import os, sys
import numpy as np
from tests.gpu.cases import a_case
from numba import cuda

case = a_case("softmax", int(sys.argv[1]), 3, 3)
gradient, out = case.gradient(), case.empty()
rows = np.arange(5)

def used():
    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        import gc, tracemalloc
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    free, total = cuda.current_context().get_memory_info()
    return total - free

if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
    import tracemalloc
    tracemalloc.start()
for number in range(int(sys.argv[2])):
    gradient(case.params, out)
    gradient(case.params, out, rows)
    if number == 8:
        before = used()
print(used() - before)
"""


def test_memory_does_not_grow_over_the_rounds():
    examples, rounds = (6, 25) if SIMULATED else (100_000, 1000)
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(examples), str(rounds)],
        capture_output=True, text=True, check=True, timeout=100,
    )  # fmt: skip
    assert int(done.stdout) < 64 * 1024
