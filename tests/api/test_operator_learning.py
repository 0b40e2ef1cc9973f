"""What a manifest says of model, data and training holds on a cluster, too; the round log says on what was trained."""

from fedjob_protocol.layout import ROUND_LOG_NAME
from fedjob_protocol.messages import RoundRecord
from tests.support.cluster.jobs import a_job

JOB_SECONDS = 90.0


def test_a_network_learns_with_adam_and_a_schedule_from_whole_classes(cluster, home):
    job = a_job(
        "cnn",
        clients=3,
        rounds=2,
        model={"name": "cnn", "parameters": {"channels": [2, 4], "kernelSize": 3, "hiddenSize": 16}},
        data={"name": "digits", "partition": {"scheme": "ByLabel"}, "maxTrainSamples": 300},
        training={
            "epochs": 2,
            "batchSize": 16,
            "learningRate": 0.01,
            "optimizer": {"name": "Adam", "parameters": {"beta2": 0.99}},
            "learningRateSchedule": {"name": "Cosine", "parameters": {"minLearningRate": 0.001}},
        },
        evaluation={"modes": ["Evaluator"]},
    )
    cluster.apply(home, job)
    status = cluster.until_phase(home, "cnn", "Complete", seconds=JOB_SECONDS)
    assert {metric["name"] for metric in status["metrics"]} == {"accuracy", "loss"}
    uid = cluster.job(home, "cnn")["metadata"]["uid"]
    claim = cluster.api.get("persistentvolumeclaims", home, f"cnn-{uid[:8]}-aggregator-0")
    log = cluster.folder / "node" / "volumes" / claim["metadata"]["uid"] / ROUND_LOG_NAME
    records = [RoundRecord.model_validate_json(line) for line in log.read_text(encoding="utf-8").splitlines()]
    for record in records[1:]:
        assert [sum(each.labels) for each in record.contributors] == [each.examples for each in record.contributors]
        held = [tuple(count > 0 for count in each.labels) for each in record.contributors]
        assert [sum(owners) for owners in zip(*held, strict=True)] == [1] * 10  # every class in one client's hands


def test_a_schedule_that_does_not_exist_is_named_before_a_pod_is_made(cluster, home):
    training = {"epochs": 1, "learningRate": 0.01, "learningRateSchedule": {"name": "Linear"}}
    cluster.submit(home, a_job("j", training=training))
    status = cluster.until_phase(home, "j", "Failed")
    assert status["reason"] == "InvalidSpec"
    assert 'learningRateSchedule.name: "Linear" is not built in' in status["message"]
    assert cluster.pods(home, "j") == []
