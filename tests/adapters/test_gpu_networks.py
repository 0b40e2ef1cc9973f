"""The built-in networks by PyTorch: on a GPU, and where there is none on the CPU, which computes the same."""

import importlib
import logging

import numpy as np
import pytest
import torch

from fedjob_client.cuda import choice, networks
from fedjob_client.cuda.networks import GpuNetwork
from fedjob_client.errors import GpuOutOfMemoryError, GpuUnavailableError, TrainerError
from fedjob_client.models.builtin import BuiltinTrainer
from fedjob_client.models.cnn import Cnn
from fedjob_client.models.mlp import Mlp
from fedjob_client.trainer import OptimizerSettings, TrainConfig
from fedjob_protocol.builtin import CnnParameters
from fedjob_protocol.config import Device
from tests.support.repository import ROOT
from tests.unit.client.builders import a_context, some_images

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CLOSE = 1e-4 if DEVICE == "cpu" else networks.CLOSE
"""Of the largest value of an array."""
MODELS = {
    "mlp": Mlp((7, 5)),
    "cnn": Cnn(CnnParameters(channels=(3, 4), kernel_size=3, hidden_size=6)),
}
IMAGE = (9, 8, 2)
"""Odd, so that pooling leaves a row out."""


@pytest.fixture(params=MODELS)
def both(request):
    """The same model on the CPU, as it is without PyTorch, and by PyTorch."""
    model, data = MODELS[request.param], some_images(image=IMAGE, examples=23)
    reference = BuiltinTrainer(model, data)
    return reference, GpuNetwork(model, reference._train, device=DEVICE)


def assert_close(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].shape == array.shape
        assert found[name].dtype == array.dtype
        assert np.abs(found[name] - array).max() <= CLOSE * np.abs(array).max(), name


@pytest.mark.parametrize("batch_size", [5, 100], ids=["batches, the last one smaller", "all at once"])
@pytest.mark.parametrize(
    ("optimizer", "mu"),
    [
        (OptimizerSettings(name="SGD"), 0.0),
        (OptimizerSettings(name="SGD", parameters={"momentum": 0.9, "weightDecay": 0.1}), 0.5),
        (OptimizerSettings(name="Adam", parameters={"beta1": 0.8, "epsilon": 1e-3, "weightDecay": 0.1}), 0.0),
    ],
    ids=["SGD", "momentum, decay, FedProx", "Adam"],
)
def test_it_takes_the_steps_that_the_cpu_takes(both, batch_size, optimizer, mu):
    reference, network = both
    told = {"cpu": [], "torch": []}

    def config(where):
        return TrainConfig(
            round=1, seed=9, epochs=2, batch_size=batch_size, learning_rate=0.05, optimizer=optimizer, proximal_mu=mu,
            on_epoch=lambda epoch, metrics: told[where].append((epoch, metrics)),
        )  # fmt: skip

    params = reference.init(3)
    kept = {name: array.copy() for name, array in params.items()}
    found, metrics = network.train(params, config("torch"))
    expected = reference.train(params, config("cpu"))
    assert_close(found, expected.params)
    assert_close(params, kept)  # untouched
    assert metrics == pytest.approx(expected.metrics, rel=CLOSE)
    for (epoch, by_torch), (number, by_cpu) in zip(told["torch"], told["cpu"], strict=True):
        assert epoch == number
        assert by_torch == pytest.approx(by_cpu, rel=CLOSE)


def test_the_same_seed_gives_the_same_bits(both):
    reference, network = both
    config = TrainConfig(round=1, seed=9, epochs=2, batch_size=5, learning_rate=0.05)
    first, again = (network.train(reference.init(3), config)[0] for _ in range(2))
    assert {name: array.tobytes() for name, array in first.items()} == {
        name: array.tobytes() for name, array in again.items()
    }


def test_it_is_tried_out_and_what_computes_something_else_is_not_used(both, monkeypatch):
    _, network = both
    network.try_out()
    right = networks._forward
    monkeypatch.setattr(networks, "_forward", lambda tensors, x: right(tensors, x) * 1.1)
    with pytest.raises(GpuUnavailableError, match="something else on this GPU than the CPU"):
        network.try_out()


def limited_to(rows, monkeypatch):
    """Play a memory in which so many examples fit; returns how many were tried each time."""
    tried, right = [], networks._forward

    def forward(tensors, x):
        tried.append(len(x))
        if len(x) > rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return right(tensors, x)

    monkeypatch.setattr(networks, "_forward", forward)
    return tried


def test_memory_that_runs_out_in_mid_epoch_is_met_with_smaller_parts_of_each_batch(both, monkeypatch):
    reference, network = both
    config = TrainConfig(round=1, seed=9, batch_size=10, learning_rate=0.05)
    expected = reference.train(reference.init(3), config)
    tried = limited_to(3, monkeypatch)
    found, metrics = network.train(reference.init(3), config)
    assert tried == [10, 5, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1]  # 23 examples in batches of 10, 10 and 3
    assert_close(found, expected.params)
    assert metrics == pytest.approx(expected.metrics, rel=CLOSE)


def test_memory_that_does_not_suffice_for_one_example_is_named(both, monkeypatch):
    reference, network = both
    limited_to(0, monkeypatch)
    for _ in range(2):  # what was learned from the first failure does not break the second
        with pytest.raises(GpuOutOfMemoryError, match="training on the GPU: the GPU has too little memory left"):
            network.train(reference.init(3), TrainConfig(round=1, seed=9))


def test_examples_that_do_not_fit_stay_with_the_host(monkeypatch):
    model, data = MODELS["mlp"], some_images(image=IMAGE, examples=23)
    reference, right = BuiltinTrainer(model, data), torch.Tensor.to

    def to(tensor, *arguments, **options):
        if tensor.shape[:1] == (23,) and tensor.dim() > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return right(tensor, *arguments, **options)

    monkeypatch.setattr(torch.Tensor, "to", to)
    network = GpuNetwork(model, reference._train, device=DEVICE)
    network.try_out()
    config = TrainConfig(round=1, seed=9, batch_size=10, learning_rate=0.05)
    assert_close(network.train(reference.init(3), config)[0], reference.train(reference.init(3), config).params)


def test_an_unknown_optimizer_is_named_as_on_the_cpu(both):
    reference, network = both
    config = TrainConfig(round=1, seed=9, optimizer=OptimizerSettings(name="Lion"))
    with pytest.raises(TrainerError, match="'Lion' is not known; known: Adam, SGD"):
        network.train(reference.init(3), config)


def on_a_gpu(**parameters):
    context = a_context(**parameters)
    return type(context)(**{name: getattr(context, name) for name in context.__slots__} | {"device": Device.GPU})


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_built_in_network_trains_by_it_where_a_gpu_is_found(monkeypatch, caplog, model):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(choice, "missing_for_networks", lambda: None)
    monkeypatch.setattr(choice, "NETWORKS_DEVICE", DEVICE)
    trainer = BuiltinTrainer.from_context(on_a_gpu(model=model))
    assert trainer.backend == "gpu"
    assert "training on a GPU" in caplog.text
    params = trainer.init(1)
    config = TrainConfig(round=1, seed=1, epochs=2, learning_rate=0.1)
    update = trainer.train(params, config)
    assert update.metrics["accuracy"] > 0.8
    plain = BuiltinTrainer.from_context(a_context(model=model)).train(params, config)
    assert update.metrics == pytest.approx(plain.metrics, rel=0.02)


def test_a_pytorch_that_finds_no_gpu_is_named(monkeypatch):
    monkeypatch.setattr(choice, "ask_driver", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    choice.missing_for_networks.cache_clear()
    try:
        with pytest.raises(GpuUnavailableError, match=f"PyTorch {torch.__version__.split('+')[0]}.* finds none"):
            BuiltinTrainer.from_context(on_a_gpu())
    finally:
        choice.missing_for_networks.cache_clear()


def test_the_bench_compares_two_that_learn_the_same(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    gpu, compared = importlib.import_module("gpu"), importlib.import_module("gpu_networks")
    ways = {"fedjob": compared.ours(120, 50, DEVICE), "plain": compared.plain(120, 50, DEVICE)}
    rates, losses = gpu.in_turns(ways, 120)
    gpu.compare_losses(losses)
    assert [len(values) for values in rates.values()] == [gpu.REPEATS, gpu.REPEATS]
    assert ways["fedjob"]() == pytest.approx(ways["plain"](), rel=gpu.LARGEST_LOSS_DIFFERENCE)
    assert ways["fedjob"]() < losses[0]
    with pytest.raises(SystemExit, match=r"0\.5000 and 0\.6000 differ"):
        gpu.compare_losses([0.5, 0.6])
