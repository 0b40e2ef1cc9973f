"""`clientPods: PerRound` on one machine: clients are processes only while they are selected."""

from tests.support.runs import Folder, fedjob, manifest, write_manifest

JOB = {
    "rounds": 3,
    "seed": 5,
    "model": {"name": "softmax"},
    "data": {"name": "digits", "partition": {"scheme": "IID"}, "maxTrainSamples": 300},
    "clientGroups": [{"name": "clients", "replicas": 4}],
    "roundPolicy": {"clientsPerRound": 2},
}


def run(folder, name, **fields):
    file = write_manifest(folder, manifest(name, **JOB, **fields))
    done = fedjob("run", file, "--dir", folder / name, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Folder(folder / name)


def test_clients_that_take_turns_make_the_same_model(tmp_path):
    turns = run(tmp_path, "turns", clientPods="PerRound")
    always = run(tmp_path, "always")
    assert turns.status().model.digest == always.status().model.digest
    assert [record.metrics for record in turns.rounds()] == [record.metrics for record in always.rounds()]
