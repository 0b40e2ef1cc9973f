"""The examples about models, data and how they are divided."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from fedjob_protocol.layout import ROUND_LOG_NAME
from fedjob_protocol.messages import RoundRecord
from fedjob_protocol.survey import Survey
from tests.integration.test_docs_examples import EXAMPLES, MNIST, TWO_CLIENTS, accuracy, run_briefly
from tests.support.cifar import write_folder
from tests.support.runs import fedjob, manifest, write_manifest

SMALL = ("spec.model.parameters={channels: [4, 8], kernelSize: 3, hiddenSize: 32}", "spec.data.maxTestSamples=500")
WITHOUT_FILES = ("spec.data.name=digits", "spec.data.path=null")
PARTITIONS = EXAMPLES / "22-partitions.yaml"


def round_log(folder: Path) -> list[RoundRecord]:
    lines = (folder / "aggregator" / ROUND_LOG_NAME).read_text(encoding="utf-8").splitlines()
    return [RoundRecord.model_validate_json(line) for line in lines]


@pytest.mark.skipif(not MNIST.is_dir(), reason="no MNIST files: name their folder in FEDJOB_TEST_MNIST")
def test_the_convolutional_network_learns_mnist(tmp_path):
    fields = (TWO_CLIENTS, f"spec.data.path={MNIST}", "spec.data.maxTrainSamples=3000", "spec.training.epochs=2")
    assert accuracy(run_briefly(EXAMPLES / "20-cnn-mnist.yaml", tmp_path, *fields, *SMALL)) > 0.7


@pytest.fixture
def cifar_folder(tmp_path):
    """Files of the published size: 184 MB, which pytest would keep for a while."""
    folder = write_folder(tmp_path / "cifar-10-batches-bin", 10_000)
    yield folder
    shutil.rmtree(folder)


def test_the_convolutional_network_learns_from_the_files_of_cifar10(tmp_path, cifar_folder):
    fields = (
        TWO_CLIENTS,
        f"spec.data.path={cifar_folder}",
        "spec.data.maxTrainSamples=400",
        "spec.data.partition={scheme: IID}",
        "spec.training.learningRate=0.003",
        "spec.training.epochs=10",
    )
    assert accuracy(run_briefly(EXAMPLES / "21-cifar10.yaml", tmp_path, *fields, *SMALL)) > 0.25


def test_the_log_says_what_each_part_holds_and_it_is_what_was_shown_before(tmp_path):
    shown = fedjob("partition", PARTITIONS, "-o", "json", "--plot", tmp_path / "parts.png", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    shares = {share.index: share for share in Survey.model_validate_json(shown.stdout).clients}
    assert sum(share.examples for share in shares.values()) == 1000
    with Image.open(tmp_path / "parts.png") as picture:
        assert picture.size[0] > 800
    assert accuracy(run_briefly(PARTITIONS, tmp_path)) > 0.6
    for record in round_log(tmp_path / "run")[1:]:
        assert len(record.contributors) == 8
        for contribution in record.contributors:
            share = shares[contribution.client]
            assert (contribution.examples, contribution.labels) == (share.examples, share.labels)


@pytest.mark.parametrize("partition", ["{scheme: ByLabel}", "{scheme: QuantitySkew, alpha: 1}"])
def test_the_schemes_that_the_example_names_run(tmp_path, partition):
    table = fedjob("partition", PARTITIONS, "--set", f"spec.data.partition={partition}", cwd=tmp_path)
    assert table.returncode == 0, table.stderr
    assert "8 clients, 1000 examples" in table.stdout
    assert len(table.stdout.splitlines()) == 10
    run_briefly(PARTITIONS, tmp_path, f"spec.data.partition={partition}")


def test_ten_of_twenty_clients_take_part_and_the_model_predicts(tmp_path):
    status = run_briefly(
        EXAMPLES / "23-twenty-clients.yaml", tmp_path, *WITHOUT_FILES, *SMALL, "spec.training.batchSize=8"
    )
    assert accuracy(status) > 0.5
    contributors = [{each.client for each in record.contributors} for record in round_log(tmp_path / "run")[1:]]
    assert [len(clients) for clients in contributors] == [10, 10]
    assert contributors[0] != contributors[1]
    predicted = fedjob("predict", tmp_path / "run", "-o", "json", cwd=tmp_path)
    assert predicted.returncode == 0, predicted.stderr
    assert len(json.loads(predicted.stdout)["outputs"]) == 8


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        (
            {"model": {"name": "cnn"}, "data": {"name": "synthetic-logistic"}},
            "images (height, width, channels) are needed",
        ),
        (
            {"data": {"name": "digits", "partition": {"scheme": "Dirichlet", "alpha": 1e-9}}, "clients": 12},
            "Dirichlet with alpha 1e-09 left clients without an example",
        ),
        (
            {"data": {"name": "digits", "partition": {"scheme": "IID"}, "maxTrainSamples": 2}, "clients": 3},
            "2 examples cannot be divided among 3 clients",
        ),
    ],
)
def test_data_that_do_not_fit_end_the_job_before_anything_is_trained(tmp_path, fields, complaint):
    clients = fields.get("clients", 1)
    given = {name: value for name, value in fields.items() if name != "clients"}
    spec = {"rounds": 2, "model": {"name": "softmax"}, "training": {}, **given}
    group = {"name": "clients", "replicas": clients, "backoffLimit": 0}
    job = write_manifest(tmp_path, manifest("misfit", **spec, clientGroups=[group], evaluation={"modes": []}))
    done = fedjob("run", job, "--dir", tmp_path / "run", "-o", "json", cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    status = json.loads(done.stdout.splitlines()[-1])["status"]
    assert (done.returncode, status["phase"]) == (1, "Failed")
    assert complaint in status["message"]
    assert status["rounds"].get("committed", -1) < 1


def test_fedprox_holds_clients_near_the_model_and_without_mu_is_fedavg(tmp_path):
    def digest(name: str, strategy: dict) -> str:
        (tmp_path / name).mkdir()
        spec = {
            "rounds": 2,
            "model": {"name": "softmax"},
            "data": {"name": "digits", "partition": {"scheme": "ByLabel"}},
            "training": {"epochs": 3, "batchSize": 16},
            "clientGroups": [{"name": "clients", "replicas": 2}],
            "evaluation": {"modes": []},
        }
        job = write_manifest(tmp_path / name, manifest("prox", **spec, strategy=strategy))
        done = fedjob("run", job, "--dir", tmp_path / name / "run", "-o", "json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])["status"]["model"]["digest"]

    plain = digest("plain", {"name": "FedAvg"})
    assert digest("free", {"name": "FedProx", "parameters": {"mu": 0}}) == plain
    assert digest("held", {"name": "FedProx", "parameters": {"mu": 1}}) != plain
    losses = {
        name: [contribution.metrics["loss"] for contribution in round_log(tmp_path / name / "run")[1].contributors]
        for name in ("plain", "held")
    }
    # Held near a model that fits all, a client fits its own classes less.
    assert all(held > plain for held, plain in zip(sorted(losses["held"]), sorted(losses["plain"]), strict=True))
