"""`clientPods: PerRound` on one machine: clients are processes only while they are selected."""

from tests.integration.test_external_clients import TRAINER
from tests.support.runs import Folder, fedjob, live_run, manifest, write_manifest

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


def test_who_is_not_selected_has_no_process(tmp_path):
    (tmp_path / "own_turns.py").write_text(TRAINER, encoding="utf-8")
    for index in range(4):
        (tmp_path / f"hold-1-{index}").touch()
    groups = [{"name": "clients", "replicas": 4, "trainer": "own_turns:Own"}]
    fields = {**JOB, "model": {"name": "own"}, "clientGroups": groups, "evaluation": {"modes": []}}
    file = write_manifest(tmp_path, manifest("held", **fields, clientPods="PerRound"))
    with live_run(file, tmp_path / "run") as run:

        def clients():
            return {name for name in run.programs() if name.startswith("client-")}

        def selected():
            now = run.folder.status().current_round
            return set(now.selected) if now and now.number == 1 else set()

        run.wait_until(lambda: run.folder.committed() >= 0, "the initial model")
        run.wait_until(selected, "that clients are selected")
        chosen = selected()
        assert len(chosen) == 2
        run.wait_until(lambda: clients() == {f"client-{index}" for index in chosen}, "only the selected ones")
        for index in range(4):
            (tmp_path / f"hold-1-{index}").unlink()
        assert run.finish() == 0, run.output
    records = run.folder.rounds()
    assert {item.client for item in records[1].contributors} == chosen
