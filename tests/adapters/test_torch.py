"""PyTorch modules as clients: the library itself, and whole jobs of real processes."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models import resnet18

from fedjob_client.errors import GpuFailedError, GpuOutOfMemoryError, GpuUnavailableError, SettingsError, TrainerError
from fedjob_client.torch import TorchTrainer, tensors_of
from fedjob_client.trainer import EvalConfig, OptimizerSettings, TrainConfig
from fedjob_protocol.config import Device, Role
from fedjob_protocol.weights import decode, encode
from tests.support.markdown import blocks
from tests.support.repository import ROOT
from tests.support.runs import fedjob, manifest, write_manifest
from tests.unit.client.builders import a_context

EXAMPLE = ROOT / "examples" / "50-pytorch"


def trainer_of(make, **context):
    class Mine(TorchTrainer):
        def make_model(self):
            return make()

    return Mine(a_context(**context))


def perceptron():
    return nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))


def normalized():
    return nn.Sequential(nn.Linear(64, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


def half_frozen(kind):
    """A network of one type whose first layer is frozen."""
    net = perceptron().to(kind)
    net[0].requires_grad_(False)
    return net


def learn(trainer, *, rounds=3, **config):
    params = trainer.init(7)
    for number in range(1, rounds + 1):
        update = trainer.train(params, TrainConfig(round=number, seed=number, **config))
        params = {name: params[name] + update.delta[name] for name in params}
    return params


def bits(arrays):
    return {name: array.tobytes() for name, array in arrays.items()}


def completed(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["status"]


@pytest.mark.parametrize("make", [perceptron, normalized], ids=["plain", "with BatchNorm"])
def test_a_module_learns_the_digits(make):
    trainer = trainer_of(make)
    params = learn(trainer, epochs=3, learning_rate=0.1)
    metrics = trainer.evaluate(params, EvalConfig(round=3))
    assert metrics["accuracy"] > 0.85
    assert metrics["loss"] < 1.0


def test_the_same_seed_gives_the_same_bits():
    first, again = (learn(trainer_of(normalized), rounds=2, learning_rate=0.1) for _ in range(2))
    assert bits(first) == bits(again)
    assert bits(first) != bits(learn(trainer_of(normalized), rounds=1, learning_rate=0.1))


@pytest.mark.parametrize(
    "settings", [("SGD", {"momentum": 0.9}), ("Adam", {"beta1": 0.8}), ("AdamW", {"weightDecay": 0.1})]
)
def test_the_optimizers_of_the_manifest_train(settings):
    name, parameters = settings
    trainer = trainer_of(perceptron)
    optimizer = OptimizerSettings(name=name, parameters=parameters)
    before, after = trainer.init(7), learn(trainer, rounds=1, learning_rate=0.01, optimizer=optimizer)
    assert bits(before) != bits(after)


def test_an_unknown_optimizer_or_parameter_is_named():
    trainer = trainer_of(perceptron)
    with pytest.raises(SettingsError, match="'Lion' is not known; known: SGD, Adam, AdamW"):
        learn(trainer, optimizer=OptimizerSettings(name="Lion"))
    with pytest.raises(SettingsError, match="SGD has no beta1"):
        learn(trainer, optimizer=OptimizerSettings(name="SGD", parameters={"beta1": 0.9}))


def test_fedprox_keeps_a_training_near_where_it_began():
    def distance(mu):
        trainer = trainer_of(perceptron)
        update = trainer.train(trainer.init(7), TrainConfig(round=1, learning_rate=0.1, epochs=3, proximal_mu=mu))
        return sum(float(np.square(array).sum()) for array in update.delta.values()) ** 0.5

    free, held, tight = distance(0.0), distance(0.5), distance(5.0)
    assert free > 1.2 * held > 1.2 * 1.2 * tight


def test_one_step_of_fedprox_is_plain_and_the_second_is_pulled_back():
    def after(mu, epochs):
        trainer = trainer_of(perceptron)
        config = TrainConfig(round=1, learning_rate=0.1, epochs=epochs, batch_size=2000, proximal_mu=mu)
        return trainer.train(trainer.init(7), config).delta

    assert bits(after(0.0, 1)) == bits(after(1.0, 1))
    one, two, pulled = after(0.0, 1)["2.weight"], after(0.0, 2)["2.weight"], after(1.0, 2)["2.weight"]
    assert pulled == pytest.approx(two - 0.1 * one, abs=1e-6)


def test_progress_is_told_after_each_epoch():
    told = []
    trainer = trainer_of(perceptron)
    config = TrainConfig(round=1, epochs=2, on_epoch=lambda epoch, metrics: told.append((epoch, sorted(metrics))))
    trainer.train(trainer.init(7), config)
    assert told == [(1, ["accuracy", "loss"]), (2, ["accuracy", "loss"])]


def test_resnet18_goes_round_and_back_bit_for_bit():
    torch.manual_seed(1)
    net = resnet18()
    with torch.no_grad():
        for value in net.buffers():
            value.add_(1)  # running means, variances and counters differ from those of a new module
    expected = {name: value.clone() for name, value in net.state_dict().items()}
    arrays, _ = decode(encode(tensors_of(net)))
    trainer = trainer_of(resnet18)
    trainer._load({name: np.array(array) for name, array in arrays.items()})
    found = trainer.model.state_dict()
    floats = {name for name, value in expected.items() if value.is_floating_point()}
    assert floats == set(arrays)
    assert all(torch.equal(found[name], expected[name]) for name in floats)
    counters = set(expected) - floats
    assert len(counters) == 20
    assert all(found[name] == 0 for name in counters)  # they stay at the client: its own are those of a new module


def test_counters_of_batchnorm_go_on_at_the_client():
    trainer = trainer_of(normalized)
    learn(trainer, rounds=2, batch_size=512)
    assert trainer.model[1].num_batches_tracked.item() == 2 * -(-trainer.num_examples // 512)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_what_a_training_does_not_touch_keeps_its_bits(kind):
    trainer = trainer_of(lambda: half_frozen(kind))
    params = trainer.init(7)
    trained = learn(trainer, rounds=2, learning_rate=0.1)
    frozen = {"0.weight", "0.bias"}
    assert bits({name: params[name] for name in frozen}) == bits({name: trained[name] for name in frozen})
    assert not np.array_equal(params["2.weight"], trained["2.weight"])
    assert trainer.model[0].weight.dtype is kind


def test_a_mean_that_no_bfloat16_is_changes_nothing_that_is_not_trained():
    trainer = trainer_of(lambda: half_frozen(torch.bfloat16))
    params = trainer.init(7)
    params["0.weight"] += np.float32(1e-4)  # as after an average: between two values of the type
    update = trainer.train(params, TrainConfig(round=1))
    assert not update.delta["0.weight"].any()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda params: params.pop("0.bias"), r"missing \['0.bias'\]"),
        (lambda params: params.update({"extra": np.zeros(1, np.float32)}), r"unknown \['extra'\]"),
        (lambda params: params.update({"0.bias": np.zeros(3, np.float32)}), r"'0.bias' has shape \(3,\).*\(16,\)"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_a_model_of_another_architecture_is_named(change, told):
    trainer = trainer_of(perceptron)
    params = trainer.init(7)
    change(params)
    with pytest.raises(TrainerError, match=told):
        trainer.train(params, TrainConfig(round=1))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_named():
    context = a_context()
    object.__setattr__(context, "device", Device.GPU)

    class Mine(TorchTrainer):
        def make_model(self):
            return perceptron()

    with pytest.raises(GpuUnavailableError, match="device: GPU was asked for, and PyTorch finds none"):
        Mine(context)


def test_a_class_without_a_model_is_told_what_it_needs():
    with pytest.raises(TrainerError, match="TorchTrainer has no method make_model"):
        TorchTrainer(a_context())


def test_an_evaluator_announces_no_examples():
    assert trainer_of(perceptron, role=Role.EVALUATOR).num_examples is None


def test_predictions_are_probabilities():
    trainer = trainer_of(perceptron)
    found = trainer.predict(trainer.init(7), np.zeros((3, 64)))
    assert found.shape == (3, 10)
    assert found.sum(axis=1) == pytest.approx(np.ones(3))


def test_the_example_is_short_and_learns(tmp_path):
    code = (EXAMPLE / "digits_net/client.py").read_text(encoding="utf-8")
    assert len([line for line in code.splitlines() if line.strip()]) <= 15
    done = fedjob("run", EXAMPLE / "job.yaml", "--dir", tmp_path / "run", "-o", "json", cwd=tmp_path)
    status = completed(done)
    assert next(item["value"] for item in status["metrics"] if item["name"] == "accuracy") > 0.85


def test_the_code_of_the_readme_runs_twice_to_the_same_digest(tmp_path):
    (code,) = [block for block in blocks(ROOT / "images/client/README.md", "python") if "import torch" in block]
    (tmp_path / "my_trainer.py").write_text(code, encoding="utf-8")
    job = manifest(
        "readme",
        rounds=2,
        model={"name": "mine"},
        data={"name": "digits", "partition": {"scheme": "IID"}},
        clientGroups=[{"name": "clients", "replicas": 2, "trainer": "my_trainer:MyTrainer"}],
    )
    file = write_manifest(tmp_path, job)
    digests = {
        completed(fedjob("run", file, "--dir", tmp_path / name, "-o", "json", cwd=tmp_path))["model"]["digest"]
        for name in ("first", "second")
    }
    assert len(digests) == 1


def test_a_frozen_bfloat16_layer_is_the_same_in_all_checkpoints(tmp_path):
    (tmp_path / "frozen.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from fedjob_client.torch import TorchTrainer\n"
        "class Mine(TorchTrainer):\n"
        "    def make_model(self):\n"
        "        net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10)).to(torch.bfloat16)\n"
        "        net[0].requires_grad_(False)\n"
        "        return net\n",
        encoding="utf-8",
    )
    job = manifest(
        "frozen",
        rounds=3,
        model={"name": "mine"},
        data={"name": "digits", "partition": {"scheme": "IID"}},
        clientGroups=[{"name": "clients", "replicas": 3, "trainer": "frozen:Mine"}],
    )
    file = write_manifest(tmp_path, job)
    done = fedjob("run", file, "--dir", tmp_path / "run", "-o", "json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    checkpoints = sorted((tmp_path / "run" / "aggregator" / "checkpoints").glob("round-*.safetensors"))
    models = [decode(file.read_bytes())[0] for file in checkpoints]
    assert len(models) >= 2
    assert len({model["0.weight"].tobytes() for model in models}) == 1
    assert len({model["2.weight"].tobytes() for model in models}) == len(models)
    assert not (models[0]["0.weight"].view(np.uint32) & 0xFFFF).any()  # still values of bfloat16


def test_layers_of_resnet18_that_nobody_trains_keep_their_bits_through_a_whole_job(tmp_path):
    (tmp_path / "vision.py").write_text(
        "import torch\n"
        "from torchvision.models import resnet18\n"
        "from fedjob_client.torch import TorchTrainer\n"
        "class Mine(TorchTrainer):\n"
        "    def make_model(self):\n"
        "        net = resnet18(num_classes=10)\n"
        "        for name, value in net.named_parameters():\n"
        "            value.requires_grad_(name.startswith('fc.'))\n"
        "        return net\n"
        "    def forward(self, batch):\n"
        "        x, y = batch\n"
        "        return self.model(x.reshape(-1, 1, 8, 8).repeat(1, 3, 4, 4)), y\n",
        encoding="utf-8",
    )
    job = manifest(
        "vision",
        rounds=2,
        model={"name": "resnet18"},
        data={"name": "digits", "partition": {"scheme": "IID"}, "maxTrainSamples": 32},
        training={"epochs": 1, "batchSize": 16, "learningRate": 0.1},
        evaluation={"modes": []},
        clientGroups=[{"name": "clients", "replicas": 2, "trainer": "vision:Mine"}],
    )
    file = write_manifest(tmp_path, job)
    completed(fedjob("run", file, "--dir", tmp_path / "run", "-o", "json", cwd=tmp_path))
    checkpoints = tmp_path / "run" / "aggregator" / "checkpoints"
    first, last = (decode((checkpoints / f"round-{number:06}.safetensors").read_bytes())[0] for number in (1, 2))
    changed = {name for name in first if first[name].tobytes() != last[name].tobytes()}
    averaged = {name for name in first if name.startswith("fc.") or "running_" in name}
    assert changed == averaged
    net = resnet18(num_classes=10)
    net.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in last.items()}, strict=False)
    assert all(torch.equal(torch.from_numpy(np.array(last[name])), net.state_dict()[name]) for name in last)


def test_a_model_is_pulled_as_a_file_of_pytorch(tmp_path):
    completed(fedjob("run", EXAMPLE / "job.yaml", "--dir", tmp_path / "run", "--set", "spec.rounds=1", "-o", "json",
                     cwd=tmp_path))  # fmt: skip
    done = fedjob("model", "pull", tmp_path / "run", "--format", "pt", "--output", tmp_path / "m.pt", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = torch.load(tmp_path / "m.pt", weights_only=True)
    expected = decode((tmp_path / "run/aggregator/checkpoints/round-000001.safetensors").read_bytes())[0]
    assert loaded.keys() == expected.keys()
    assert all(np.array_equal(loaded[name].numpy(), array) for name, array in expected.items())


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), GpuOutOfMemoryError),
        (RuntimeError("CUDA error: device-side assert triggered"), GpuFailedError),
    ],
)
def test_what_goes_wrong_on_a_gpu_gets_its_name(error, expected):
    class Broken(TorchTrainer):
        def make_model(self):
            return perceptron()

        def forward(self, batch):
            raise error

        def outputs(self, inputs):
            raise error

    trainer = Broken(a_context())
    params = trainer.init(7)
    for call in (
        lambda: trainer.train(params, TrainConfig(round=1)),
        lambda: trainer.evaluate(params, EvalConfig(round=1)),
        lambda: trainer.predict(params, np.zeros((3, 64))),
    ):
        with pytest.raises(expected):
            call()
