"""`fedjob run` with several aggregators: whichever is killed, the job ends in the model of an undisturbed one."""

import shutil
import signal

import pytest

from fedjob_protocol.layout import checkpoint_name
from fedjob_protocol.messages import RoundRecord
from tests.support.runs import Folder, LiveRun, fedjob, live_run, manifest, write_manifest

pytestmark = pytest.mark.integration

ROUNDS = 8


def a_job(replicas: int, ack: str = "Majority", **fields):
    settings = {
        "rounds": ROUNDS,
        "seed": 11,
        "model": {"name": "softmax"},
        "data": {"name": "digits", "partition": {"scheme": "Dirichlet", "alpha": 0.5}},
        "training": {"epochs": 40, "batchSize": 8, "learningRate": 0.05},
        "clientGroups": [{"name": "clients", "replicas": 3}],
        "aggregator": {"replicas": replicas, "replication": {"ack": ack}},
    }
    return manifest("standbys", **{**settings, **fields})


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> list[str]:
    """Digest of each round with one aggregator, when nothing is killed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = fedjob("run", write_manifest(folder, a_job(1)), "--dir", folder / "run", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return Folder(folder / "run").digests()


def leader_of(folder: Folder) -> str | None:
    """Name of the folder and of the program that leads; nothing while none does."""
    known = folder.status().aggregator
    if known is None or known.boot_id is None:
        return None
    index = known.leader.split("-")[-2]
    return "aggregator" if index == "0" else f"aggregator-{index}"


def records(folder: Folder, name: str) -> list[RoundRecord]:
    lines = (folder.path / name / "rounds.jsonl").read_text(encoding="utf-8").splitlines()
    return [RoundRecord.model_validate_json(line) for line in lines]


def kill_leader(run: LiveRun, *, wipe: bool = False) -> str:
    run.wait_until(lambda: leader_of(run.folder) in run.programs(), "a leader that lives")
    name = leader_of(run.folder)
    program = run.programs()[name]
    program.kill()
    program.wait()
    if wipe:
        shutil.rmtree(run.folder.path / name, ignore_errors=True)
    return name


def assert_alike(folder: Folder, digests: list[str], *, unevaluated: int = 0) -> None:
    log = records(folder, leader_of(folder))
    assert [record.round for record in log] == list(range(ROUNDS + 1))
    assert [record.digest for record in log] == digests
    assert sum(not record.metrics for record in log[1:]) <= unevaluated


@pytest.mark.parametrize("replicas", [2, 3])
def test_with_standbys_the_model_is_that_of_one_aggregator(replicas, tmp_path, undisturbed):
    done = fedjob("run", write_manifest(tmp_path, a_job(replicas)), "--dir", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_alike(Folder(tmp_path / "run"), undisturbed)


@pytest.mark.parametrize("wipe", [False, True], ids=["killed", "killed, and its folder deleted"])
def test_the_leader_is_replaced_and_nothing_is_lost(wipe, tmp_path, undisturbed):
    with live_run(write_manifest(tmp_path, a_job(3)), tmp_path / "run") as run:
        led = []
        for committed in (1, 3, 5):
            run.wait_until(lambda committed=committed: run.folder.committed() >= committed, f"round {committed}")
            led.append(kill_leader(run, wipe=wipe))
            run.wait_until(lambda: leader_of(run.folder) not in (None, led[-1]), "another leader")
        assert run.finish() == 0, run.output
    assert_alike(run.folder, undisturbed)
    shown = fedjob("model", "show", run.folder.path, cwd=tmp_path)
    assert undisturbed[-1] in shown.stdout


def test_a_standby_goes_on_with_what_the_strategy_remembers(tmp_path):
    few = {"rounds": 4, "strategy": {"name": "FedAdam"}, "evaluation": {"modes": []}}
    (tmp_path / "one").mkdir()
    calm = fedjob("run", write_manifest(tmp_path / "one", a_job(1, **few)), "--dir", tmp_path / "calm", cwd=tmp_path)
    assert calm.returncode == 0, calm.stdout + calm.stderr
    with live_run(write_manifest(tmp_path, a_job(3, **few)), tmp_path / "run") as run:
        run.wait_until(lambda: run.folder.committed() >= 2, "two rounds")
        kill_leader(run, wipe=True)
        assert run.finish() == 0, run.output
    found = [record.digest for record in records(run.folder, leader_of(run.folder))]
    assert found == Folder(tmp_path / "calm").digests()


def test_a_run_that_was_killed_goes_on_with_the_most_advanced_aggregator(tmp_path, undisturbed):
    file, folder = write_manifest(tmp_path, a_job(3)), tmp_path / "run"
    with live_run(file, folder) as run:
        run.wait_until(lambda: run.folder.committed() >= 3, "three rounds")
        run.signal(signal.SIGKILL)
        run.process.wait()
        led = leader_of(run.folder)
    shutil.rmtree(folder / led)
    with live_run(file, folder, "--resume") as run:
        assert run.finish() == 0, run.output
    assert_alike(run.folder, undisturbed)


def test_an_aggregator_that_lacks_what_is_committed_is_never_promoted(tmp_path):
    file, folder = write_manifest(tmp_path, a_job(3)), tmp_path / "run"
    with live_run(file, folder) as run:
        run.wait_until(lambda: run.folder.committed() >= 3, "three rounds")
        run.signal(signal.SIGINT)
        assert run.finish() == 130
        committed = run.folder.committed()
    for name in ("aggregator", "aggregator-1", "aggregator-2"):
        shutil.rmtree(folder / name)
    with live_run(file, folder, "--resume") as run:
        assert run.finish() == 1
        status = run.folder.status()
    assert (status.phase, status.reason) == ("Failed", "CheckpointLost")
    assert status.rounds.committed == committed


def test_a_standby_that_is_stopped_holds_nobody_up(tmp_path, undisturbed):
    with live_run(write_manifest(tmp_path, a_job(3)), tmp_path / "run") as run:
        run.wait_until(lambda: run.folder.committed() >= 1, "a round")
        standby = next(name for name in run.programs() if "aggregator" in name and name != leader_of(run.folder))
        run.programs()[standby].suspend()
        assert run.finish() == 0, run.output
    assert_alike(run.folder, undisturbed)


def test_without_a_majority_the_round_waits_and_goes_on_when_it_is_back(tmp_path, undisturbed):
    with live_run(write_manifest(tmp_path, a_job(3)), tmp_path / "run") as run:
        run.wait_until(lambda: run.folder.committed() >= 1 and leader_of(run.folder), "a round")
        leader = leader_of(run.folder)
        standbys = [program for name, program in run.programs().items() if "aggregator" in name and name != leader]
        for standby in standbys:
            standby.suspend()
        run.wait_until(lambda: run.folder.status().reason == "ReplicationPending", "the reason why it waits")
        waiting = run.folder.status().rounds.committed
        assert not (run.folder.path / leader / checkpoint_name(waiting + 2)).exists()
        for standby in standbys:
            standby.resume()
        assert run.finish() == 0, run.output
    assert_alike(run.folder, undisturbed)


def test_a_standby_in_place_of_a_frozen_leader(tmp_path, undisturbed):
    with live_run(write_manifest(tmp_path, a_job(3, rounds=ROUNDS)), tmp_path / "run") as run:
        run.wait_until(lambda: run.folder.committed() >= 2 and leader_of(run.folder), "two rounds")
        led = leader_of(run.folder)
        frozen = run.programs()[led]
        frozen.suspend()
        run.wait_until(lambda: leader_of(run.folder) not in (None, led), "another leader", 60.0)
        frozen.resume()  # it is told, gives up what only it has, and follows
        assert run.finish() == 0, run.output
    assert_alike(run.folder, undisturbed)


def test_without_acknowledgement_the_leader_alone_commits(tmp_path, undisturbed):
    with live_run(write_manifest(tmp_path, a_job(3, "None")), tmp_path / "run") as run:
        run.wait_until(lambda: run.folder.committed() >= 3, "three rounds")
        kill_leader(run)
        assert run.finish() == 0, run.output
    # What only the leader had noted of its last round, its metrics, died with it: that is what None gives up.
    assert_alike(run.folder, undisturbed, unevaluated=1)
