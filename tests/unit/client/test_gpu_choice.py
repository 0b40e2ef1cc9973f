import logging

import numpy as np
import pytest

from fedjob_client.cuda import choice
from fedjob_client.cuda.driver import SIMULATOR_VARIABLE
from fedjob_client.errors import GpuFailedError, GpuUnavailableError, SettingsError
from fedjob_client.models.builtin import BuiltinTrainer
from fedjob_client.models.softmax import SoftmaxRegression
from fedjob_client.settings import Settings
from fedjob_client.training import guarded
from fedjob_protocol.config import Device, Role
from tests.unit.client.asgi import serving
from tests.unit.client.builders import a_classification, a_context

NO_DRIVER = "there is no NVIDIA driver (libcuda.so.1 cannot be loaded)"


@pytest.fixture(autouse=True)
def without_a_gpu(monkeypatch):
    monkeypatch.setattr(choice, "missing_for_gpu", lambda: NO_DRIVER)


def on(device, **changes):
    context = a_context(**changes)
    return type(context)(**{name: getattr(context, name) for name in context.__slots__} | {"device": device})


def test_a_gpu_that_was_asked_for_and_is_not_there_is_an_error_at_the_start():
    with pytest.raises(GpuUnavailableError, match="there is no NVIDIA driver"):
        BuiltinTrainer.from_context(on(Device.GPU, model="softmax"))


@pytest.mark.parametrize("device", [Device.AUTO, Device.CPU])
def test_without_one_auto_goes_on_and_reports_the_cpu(device, caplog):
    caplog.set_level(logging.INFO)
    trainer = BuiltinTrainer.from_context(on(device, model="softmax"))
    assert trainer.backend == "cpu"
    assert ("device: Auto: computing on the CPU: there is no NVIDIA driver" in caplog.text) == (device is Device.AUTO)


def test_cpu_never_looks_for_one(monkeypatch):
    monkeypatch.setattr(choice, "missing_for_gpu", lambda: pytest.fail("it looked"))
    assert BuiltinTrainer.from_context(on(Device.CPU, model="softmax")).backend == "cpu"
    assert choice.simple_backend(Device.CPU) == "cpu"


@pytest.mark.parametrize("model", ["mlp", "cnn"])
def test_a_network_without_pytorch_says_what_to_install(monkeypatch, caplog, model):
    monkeypatch.setattr(choice, "ask_driver", lambda: None)
    monkeypatch.setattr(choice, "cuda_available", lambda: True)
    monkeypatch.setattr(choice, "NETWORKS_PACKAGE", "no_such_package")
    data = {"model": model, "data": "digits"}
    choice.missing_for_networks.cache_clear()
    try:
        with pytest.raises(
            GpuUnavailableError, match=r"there is a GPU, but PyTorch, .* is not installed: install torch"
        ):
            BuiltinTrainer.from_context(on(Device.GPU, **data))
        assert BuiltinTrainer.from_context(on(Device.AUTO, **data)).backend == "cpu"
    finally:
        choice.missing_for_networks.cache_clear()
    assert [record.levelname for record in caplog.records] == ["WARNING"]  # somebody pays for that GPU


def test_more_classes_than_the_kernels_take_are_refused(monkeypatch):
    monkeypatch.setattr(choice, "missing_for_gpu", lambda: None)
    many = a_classification(classes=129)
    with pytest.raises(SettingsError, match="at most 128 classes, the data have 129"):
        choice.gpu_training(Device.GPU, SoftmaxRegression(), many.train, many.num_classes)


def test_an_evaluator_computes_on_the_cpu_whatever_its_job_says():
    trainer = BuiltinTrainer.from_context(on(Device.GPU, model="softmax", role=Role.EVALUATOR))
    assert trainer.backend == "cpu"


def test_kernels_that_do_not_run_are_named_before_the_job_starts(monkeypatch, caplog):
    monkeypatch.setattr(choice, "missing_for_gpu", lambda: None)
    data = a_classification()

    def fails(*_args, **_kwargs):
        raise RuntimeError("nvvm: no such architecture")

    monkeypatch.setattr("fedjob_client.cuda.training.GpuTraining.try_out", fails)
    with pytest.raises(GpuUnavailableError, match="GPU cannot be computed on: nvvm: no such architecture"):
        choice.gpu_training(Device.GPU, SoftmaxRegression(), data.train, data.num_classes)
    assert choice.gpu_training(Device.AUTO, SoftmaxRegression(), data.train, data.num_classes) is None


def test_a_gpu_without_the_package_for_it_says_what_to_install(monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv(SIMULATOR_VARIABLE, raising=False)
    monkeypatch.setattr(choice, "ask_driver", lambda: None)
    monkeypatch.setattr(choice, "PACKAGE", "no_such_package")
    choice.missing_for_gpu.cache_clear()
    try:
        with pytest.raises(GpuUnavailableError, match=r"install fedjob-client\[cuda\], or use the image client-cuda"):
            choice.check_gpu()
    finally:
        choice.missing_for_gpu.cache_clear()


async def test_the_simple_training_says_why_it_cannot_use_a_gpu():
    async with serving(Settings(device=Device.GPU)) as call:
        refused = await call("POST", "/train")
    assert (refused.status, refused.json["word"]) == (503, "unavailable")
    assert refused.json["detail"].startswith("GpuUnavailable: there is no NVIDIA driver")


def test_a_failed_gpu_ends_the_process_so_that_its_successor_gets_a_new_context(monkeypatch, tmp_path):
    ended = []
    monkeypatch.setenv("FEDJOB_TERMINATION_LOG", str(tmp_path / "termination"))
    monkeypatch.setattr("fedjob_client.training.exit_now", ended.append)

    def train():
        raise GpuFailedError("training on the GPU: a kernel failed while it ran (CUDA error 719)")

    guarded(train, "round 3")()
    assert ended == [1]
    assert '"reason":"GpuFailed"' in (tmp_path / "termination").read_text()


def test_predictions_and_evaluations_need_no_gpu():
    data = a_classification()
    trainer = BuiltinTrainer(SoftmaxRegression(), data, device=Device.GPU)
    assert trainer.predict(trainer.init(0), np.zeros((2, 5))).shape == (2, 3)
