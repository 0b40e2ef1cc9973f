"""`clientPods: PerRound` on a real API server: clients take turns on the GPUs that there are."""

import pytest

from tests.support.cluster.cluster import eventually
from tests.support.cluster.jobs import a_job, a_steered_job, steered_template
from tests.support.cluster.steered import DIARY, hold_file

TURNS = {"clientPods": "PerRound", "roundPolicy": {"clientsPerRound": 4, "deadlineSeconds": 300}}
ALL_THE_TIME = {"roundPolicy": {"clientsPerRound": 4}}
EVALUATED = {"evaluation": {"modes": ["Evaluator"]}}


def digest(cluster, namespace, name):
    return cluster.status(namespace, name)["model"]["digest"]


@pytest.fixture(autouse=True)
def as_many_gpus_as_before(cluster):
    yield
    cluster.set_gpus(0)


def test_eight_clients_take_turns_on_two_gpus_and_make_the_model_of_those_that_have_one_each(cluster, home):
    cluster.set_gpus(2)
    cluster.most_gpus_held()
    cluster.submit(home, a_job("turns", clients=8, rounds=3, group={"gpus": 1}, **TURNS, **EVALUATED))
    cluster.until_phase(home, "turns", "Complete", seconds=180)
    assert cluster.most_gpus_held() == 2
    status = cluster.status(home, "turns")
    assert [(row["reported"], row.get("failed", 0)) for row in status["recentRounds"][1:]] == [(4, 0)] * 3
    assert all(row["metrics"] for row in status["recentRounds"][1:])
    eventually(lambda: not cluster.pods(home, "turns", "client"), "the end of the clients")

    cluster.set_gpus(8)
    cluster.submit(home, a_job("each", clients=8, rounds=3, group={"gpus": 1}, **ALL_THE_TIME, **EVALUATED))
    cluster.until_phase(home, "each", "Complete", seconds=180)

    assert cluster.most_gpus_held() == 8
    assert digest(cluster, home, "turns") == digest(cluster, home, "each")


def test_whoever_waits_for_its_turn_is_told_of_and_gets_what_another_gives_back(cluster, home, folder):
    cluster.set_gpus(2)
    hold_file(folder, 1).touch()
    job = a_steered_job("j", folder, clients=4, rounds=1, group={"gpus": 1}, **TURNS)
    cluster.submit(home, job)

    def in_turns():
        return cluster.status(home, "j").get("gpus") == {"requested": 4, "held": 2, "waiting": 2}

    eventually(in_turns, "two that train and two that wait")

    def told():
        found = cluster.condition(home, "j", "ClientsReady")
        return found if "2 of 4 whose turn it is are ready; 2 GPUs are missing" in found["message"] else None

    condition = eventually(told, "what the others wait for")
    assert (condition["status"], condition["reason"]) == ("True", "GpuUnavailable")
    assert "Insufficient nvidia.com/gpu" in condition["message"]
    shown = cluster.server.kubectl("get", "federatedjobs", "j", "-n", home, "-o", "wide").stdout
    assert " 2/4 " in shown, shown

    hold_file(folder, 1).unlink()
    cluster.until_phase(home, "j", "Complete")


def test_a_job_waits_for_a_single_gpu_and_starts_by_itself_when_there_is_one(cluster, home):
    cluster.set_gpus(0)
    cluster.most_gpus_held()
    cluster.submit(home, a_job("j", clients=3, rounds=1, group={"gpus": 1}, clientPods="PerRound"))
    message = cluster.until_reason(home, "j", "GpuUnavailable")["message"]
    assert "1 GPU is missing" in message
    assert len(cluster.pods(home, "j", "client")) == 1
    cluster.set_gpus(1)
    cluster.until_phase(home, "j", "Complete")
    assert cluster.most_gpus_held() == 1


def test_what_a_client_wrote_to_its_volume_is_there_at_its_next_turn(cluster, home, folder):
    template = steered_template(folder)
    container = template["spec"]["containers"][0]
    container["env"].append({"name": DIARY, "value": "/keep/diary"})
    container["volumeMounts"] = [{"name": "keep", "mountPath": "/keep"}]
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    group = {"template": template, "volumeClaimTemplates": [{"metadata": {"name": "keep"}, "spec": spec}]}
    policy = {"clientsPerRound": 1}
    job = a_steered_job("j", folder, clients=2, rounds=6, group=group, clientPods="PerRound", roundPolicy=policy)

    cluster.submit(home, job)
    cluster.until_phase(home, "j", "Complete", seconds=120)

    rounds = {row["number"]: row["contributors"] for row in cluster.status(home, "j")["recentRounds"][1:]}
    for index in range(2):
        claim = f"j-{cluster.job(home, 'j')['metadata']['uid'][:8]}-keep-{index}"
        mine = [number for number, clients in rounds.items() if clients == [index]]
        diary = cluster.volume(home, claim) / "diary"
        assert [int(line) for line in diary.read_text(encoding="utf-8").split()] == mine


def test_a_client_whose_node_has_no_device_after_all_is_replaced(cluster, home):
    cluster.set_gpus(1)
    cluster.refuse_gpus(3)
    cluster.submit(home, a_job("j", clients=1, rounds=1, group={"gpus": 1, "backoffLimit": 1}, clientPods="PerRound"))
    cluster.until_phase(home, "j", "Complete", seconds=120)
    assert cluster.status(home, "j")["clients"]["lost"] == 0


def test_a_suspended_job_gives_everything_back_in_the_middle_of_a_wave(cluster, home, folder):
    cluster.set_gpus(2)
    hold_file(folder, 1).touch()
    cluster.submit(home, a_steered_job("j", folder, clients=4, rounds=1, group={"gpus": 1}, **TURNS))
    eventually(lambda: cluster.status(home, "j").get("gpus", {}).get("held") == 2, "two that train")
    cluster.change(home, "j", suspend=True)
    cluster.until_phase(home, "j", "Suspended")
    assert cluster.pods(home, "j") == []
    hold_file(folder, 1).unlink()
    cluster.change(home, "j", suspend=False)
    cluster.until_phase(home, "j", "Complete")
