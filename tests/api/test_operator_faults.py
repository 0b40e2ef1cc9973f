"""Rounds exactly once and a status that tells the truth, whatever happens between the operator and its API server."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.support.cluster.access import ApiError
from tests.support.cluster.cluster import eventually
from tests.support.cluster.impatient_operator import PATIENCE, STUCK
from tests.support.cluster.jobs import a_job, a_steered_job
from tests.support.cluster.operators import tracebacks
from tests.support.cluster.steered import hold_file
from tests.support.repository import ROOT

PATIENCE_SECONDS = 3
IMPATIENT = ("-P", "-m", "tests.support.cluster.impatient_operator")
CRD = "federatedjobs.fedjob.dev"


@contextmanager
def again_and_again(work, seconds) -> Iterator[None]:
    """Do something in the background until the block is left."""
    done = threading.Event()

    def loop():
        while not done.wait(seconds):
            work()

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def rounds(status):
    return [entry["number"] for entry in status["recentRounds"]]


@pytest.fixture
def calm(tmp_path):
    """A folder for a job that nobody disturbs."""
    path = tmp_path / "calm"
    path.mkdir()
    return path


def holding(folder, *numbers):
    for number in numbers:
        hold_file(folder, number).touch()


def release(folder, *numbers):
    for number in numbers:
        hold_file(folder, number).unlink()


def test_somebody_else_writes_to_the_job_all_the_time(cluster, operator, namespace, folder, calm):
    cluster.submit(namespace, a_steered_job("calm", calm, rounds=6))
    cluster.submit(namespace, a_steered_job("j", folder, rounds=6))
    count = iter(range(10**9))

    def meddle():
        with suppress(ApiError):
            note = {"metadata": {"annotations": {"example.com/count": str(next(count))}}}
            cluster.api.patch("federatedjobs", namespace, "j", note)
            cluster.api.patch("federatedjobs", namespace, "j", {"status": {"message": "somebody else's"}}, "status")

    with again_and_again(meddle, 0.03):
        status = cluster.until_phase(namespace, "j", "Complete")

    undisturbed = cluster.until_phase(namespace, "calm", "Complete")
    assert rounds(status) == list(range(7))
    assert status["term"] == 1
    assert status["model"]["digest"] == undisturbed["model"]["digest"]
    assert tracebacks(operator) == []


@pytest.mark.parametrize("in_stream", [False, True])
def test_watches_break_and_begin_anew(cluster, operators, namespace, folder, in_stream):
    holding(folder, 2, 3)
    with cluster.proxy() as proxy:
        operator = operators.start(namespace, proxy=proxy)
        cluster.submit(namespace, a_steered_job("j", folder))
        cluster.until_committed(namespace, "j", 1)

        # While nothing is watched a client goes and nobody hears of it.
        proxy.plain.expire_watches(6, in_stream=in_stream)
        assert proxy.drop_watches() >= 2
        cluster.api.delete("pods", namespace, "j-client-0-0", gracePeriodSeconds=0)
        release(folder, 2)
        cluster.until_committed(namespace, "j", 2)
        with again_and_again(proxy.drop_watches, 0.5):
            release(folder, 3)
            status = cluster.until_phase(namespace, "j", "Complete")

        assert rounds(status) == [0, 1, 2, 3]
        assert proxy.plain.watches_started > 4
        assert tracebacks(operator) == []


def test_the_operator_is_killed_again_and_again(cluster, operators, namespace, folder, calm):
    operator = operators.start(namespace)
    holding(folder, 2, 4)
    cluster.submit(namespace, a_steered_job("calm", calm, rounds=5))
    cluster.submit(namespace, a_steered_job("j", folder, rounds=5, evaluated=True))
    for number in (2, 4):
        cluster.until_committed(namespace, "j", number - 1)
        operator.kill()
        release(folder, number)
        operator.start()

    status = cluster.until_phase(namespace, "j", "Complete")

    undisturbed = cluster.until_phase(namespace, "calm", "Complete")
    assert rounds(status) == [0, 1, 2, 3, 4, 5]
    assert status["model"]["digest"] == undisturbed["model"]["digest"]
    assert {entry["attempt"] for entry in status["recentRounds"]} == {1}
    assert status["term"] == 3


def test_an_operator_that_is_asked_to_stop_hands_over_at_once(cluster, operators, namespace, folder):
    holding(folder, 2)
    first = operators.start(namespace)
    cluster.submit(namespace, a_steered_job("j", folder))
    cluster.until_committed(namespace, "j", 1)
    second = operators.start(namespace, beside=first)
    assert "waiting" in second.probe("/readyz")[1]["message"]

    first.stop()
    release(folder, 2)

    assert first.returncode == 0
    assert cluster.until_phase(namespace, "j", "Complete", seconds=30)["term"] == 2
    lease = cluster.api.get("leases", first.settings.own_namespace, "fedjob-operator")
    assert lease["spec"]["leaseTransitions"] == 1


def test_the_aggregator_and_a_node_are_lost_in_the_middle_of_a_round(cluster, operator, namespace, folder, calm):
    holding(folder, 2)
    cluster.submit(namespace, a_steered_job("calm", calm))
    cluster.submit(namespace, a_steered_job("j", folder))
    cluster.until_committed(namespace, "j", 1)

    cluster.crash((namespace, "j-aggregator-0-0"))
    cluster.lose_node_of((namespace, "j-client-0-0"))
    cluster.collect((namespace, "j-client-0-0"))
    release(folder, 2)

    status = cluster.until_phase(namespace, "j", "Complete")
    undisturbed = cluster.until_phase(namespace, "calm", "Complete")
    assert rounds(status) == [0, 1, 2, 3]
    assert status["model"]["digest"] == undisturbed["model"]["digest"]


def test_an_api_server_that_cannot_be_reached_kills_nobody(cluster, operators, namespace, folder):
    holding(folder, 1)
    with cluster.proxy() as proxy:
        operator = operators.start(
            namespace, proxy=proxy, arguments=IMPATIENT, PYTHONPATH=str(ROOT), **{PATIENCE: str(PATIENCE_SECONDS)}
        )
        cluster.submit(namespace, a_steered_job("j", folder))
        cluster.until_committed(namespace, "j", 0)
        before = cluster.job(namespace, "j")["metadata"]["resourceVersion"]

        proxy.refuse()
        release(folder, 1)
        verdicts = watch_health(operator, 3 * PATIENCE_SECONDS)
        assert cluster.job(namespace, "j")["metadata"]["resourceVersion"] == before, "it was cut off"
        proxy.accept()

        assert set(verdicts) == {200}
        assert rounds(cluster.until_phase(namespace, "j", "Complete")) == [0, 1, 2, 3]
        assert tracebacks(operator) == []


def watch_health(operator, seconds):
    """What a liveness probe sees over some time."""
    codes: list[int] = []
    with suppress(AssertionError):
        eventually(lambda: codes.append(operator.probe("/healthz")[0]), "the end of the time", seconds)
    return codes


def test_a_pass_that_does_not_end_fails_the_liveness_probe(cluster, operators, namespace):
    operator = operators.start(
        namespace, arguments=IMPATIENT, PYTHONPATH=str(ROOT), **{PATIENCE: str(PATIENCE_SECONDS)}
    )
    assert operator.probe("/healthz")[0] == 200

    cluster.submit(namespace, a_job(STUCK))

    eventually(lambda: operator.probe("/healthz")[0] == 500, "the failure of the probe", 30)
    assert operator.is_running


@pytest.fixture
def lax_crd(cluster):
    """The CRD takes any spec and any status, as one of another release might."""
    crd = cluster.api.get("customresourcedefinitions", None, CRD)
    (version,) = crd["spec"]["versions"]
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    replace_version(cluster, {**version, "schema": {"openAPIV3Schema": anything}})
    eventually(lambda: takes_anything(cluster), "a CRD that takes anything")
    yield
    replace_version(cluster, version)
    eventually(lambda: not takes_anything(cluster), "the CRD as it was")


def replace_version(cluster, version):
    cluster.api.patch("customresourcedefinitions", None, CRD, {"spec": {"versions": [version]}})


def takes_anything(cluster):
    manifest = a_job("nonsense") | {"spec": "nonsense"}
    with suppress(ApiError):
        return bool(cluster.api.create("federatedjobs", "default", manifest, dryRun="All"))
    return False


NONSENSE = {
    "text-for-rounds": {"rounds": "many"},
    "no-groups": {"clientGroups": None},
    "a-list-for-a-model": {"model": ["mlp"]},
    "a-template-of-numbers": {"clientGroups": [{"name": "clients", "replicas": 2, "template": {"spec": 7}}]},
    "another-group": {"clientGroups": [{"name": "others", "replicas": 1}]},
    "fewer-rounds-than-there-are": {"rounds": 0},
}


@pytest.mark.usefixtures("lax_crd")
def test_a_job_edited_to_nonsense_while_the_operator_is_away_stops_only_itself(cluster, operators, namespace, folder):
    operator = operators.start(namespace)
    holding(folder, 2)
    for name in NONSENSE:
        cluster.submit(namespace, a_steered_job(name, folder, clients=1))
    before = {}
    for name in NONSENSE:
        cluster.until_committed(namespace, name, 1)
        before[name] = cluster.job(namespace, name)["spec"]
    operator.kill()
    for name, spec in NONSENSE.items():
        cluster.change(namespace, name, **spec)
    # Besides: a status of nothing that was ever written, and an object that is none.
    cluster.api.create("federatedjobs", namespace, a_job("strange") | {"spec": 7, "status": {"phase": ["x"]}})
    cluster.api.patch("federatedjobs", namespace, "strange", {"status": {"conditions": "none", "term": "x"}}, "status")

    operator.start()
    cluster.submit(namespace, a_job("sane"))

    cluster.until_phase(namespace, "sane", "Complete")
    for name in NONSENSE:
        eventually(lambda name=name: refusal(cluster, namespace, name), f"what is wrong with {name}")
    assert refusal(cluster, namespace, "strange")
    assert tracebacks(operator) == []
    assert operator.is_running
    for name, spec in before.items():
        edited = cluster.job(namespace, name) | {"spec": spec}
        cluster.api.call("PUT", f"/apis/fedjob.dev/v1alpha1/namespaces/{namespace}/federatedjobs/{name}", edited)
    release(folder, 2)
    for name in NONSENSE:
        assert cluster.until_phase(namespace, name, "Complete")["rounds"]["committed"] == 3


def refusal(cluster, namespace, name):
    """Whether the job says that it cannot be read."""
    conditions = cluster.status(namespace, name).get("conditions")
    found = [item for item in conditions if item["type"] == "Accepted"] if isinstance(conditions, list) else []
    return bool(found) and found[0]["status"] == "False" and found[0]["reason"] == "InvalidSpec"


def test_a_status_with_more_rounds_than_there_are_ends_in_checkpoint_lost(cluster, operator, namespace, folder):
    holding(folder, 2)
    cluster.submit(namespace, a_steered_job("forged", folder))
    cluster.submit(namespace, a_steered_job("j", folder))
    for name in ("forged", "j"):
        cluster.until_committed(namespace, name, 1)

    cluster.api.patch("federatedjobs", namespace, "forged", {"status": {"rounds": {"committed": 3}}}, "status")

    cluster.until_phase(namespace, "forged", "Failed", seconds=60)
    assert cluster.status(namespace, "forged")["reason"] == "CheckpointLost"
    release(folder, 2)
    cluster.until_phase(namespace, "j", "Complete")
    assert tracebacks(operator) == []
