"""Jobs from apply to delete, on real containers."""

import re

from tests.e2e.jobs import JOB_SECONDS, client_selector, digits, is_complete, job_selector
from tests.support.kubectl import RESOURCE, committed, condition, wait_until


def test_five_clients_learn_to_read_digits(kubectl):
    kubectl.apply(digits("digits", rounds=10, clients=5))
    kubectl("wait", "--for=condition=Complete", f"{RESOURCE}/digits", f"--timeout={int(JOB_SECONDS)}s", seconds=200)
    header, line = kubectl("get", RESOURCE, "digits").splitlines()
    assert header.split() == ["NAME", "STATE", "ROUNDS", "CLIENTS", "METRIC", "AGE"]
    found = re.fullmatch(r"digits +Complete +10/10 +\S+ +accuracy (0\.\d{4}) +\S+", line.strip())
    assert found, line
    assert float(found[1]) > 0.85
    wide = kubectl("get", RESOURCE, "digits", "-o", "wide").splitlines()[0].split()
    assert set(wide) == {*header.split(), "GPUS", "ATTEMPT", "REASON"}
    status = kubectl.status("digits")
    assert committed(status) == 10
    assert condition(status, "Complete")["reason"] == "RoundsCompleted"


def test_a_finished_job_gives_back_its_pods_and_still_serves_its_model(kubectl):
    kubectl.apply(digits("served", rounds=2))
    status = kubectl.wait_for_job("served", is_complete, "Complete", JOB_SECONDS)
    wait_until(lambda: not kubectl.names("pods", client_selector("served")), "the end of the client pods", 10)
    (pod,) = kubectl.list("pods", f"{job_selector('served')},fedjob.dev/role=aggregator")
    state = kubectl(
        "exec",
        pod["metadata"]["name"],
        "--",
        "python",
        "-c",
        "import hashlib, os, urllib.request as u;"
        "r = u.Request('http://localhost:9000/v1/models/latest', headers={'Fedjob-Token': os.environ['FEDJOB_TOKEN']});"
        "print('sha256:' + hashlib.sha256(u.urlopen(r).read()).hexdigest())",
    )
    assert state.strip() == status["model"]["digest"]


def test_deleting_a_running_job_leaves_nothing_behind(kubectl):
    kubectl.apply(digits("gone", rounds=10_000))
    kubectl.wait_for_job("gone", lambda status: committed(status) >= 1, "a first round", JOB_SECONDS)
    kubectl("delete", RESOURCE, "gone", seconds=30)
    for kind in ("pods", "services", "secrets", "networkpolicies", "persistentvolumeclaims"):
        wait_until(lambda kind=kind: not kubectl.names(kind, job_selector("gone")), f"the end of its {kind}", 60)


def test_a_volume_is_kept_by_default_and_a_new_job_of_the_name_begins_anew(kubectl):
    manifest = digits("kept", rounds=2, aggregator={"storage": {"size": "64Mi"}})
    kubectl.apply(manifest)
    first = kubectl.wait_for_job("kept", is_complete, "Complete", JOB_SECONDS)
    kubectl("delete", RESOURCE, "kept", seconds=30)
    (volume,) = kubectl.names("persistentvolumeclaims", job_selector("kept"))
    kubectl.apply(manifest)  # at once: the old job's pods are still on their way out
    again = kubectl.wait_for_job("kept", is_complete, "Complete", JOB_SECONDS)
    assert again["model"]["digest"] == first["model"]["digest"]
    assert len(kubectl.names("persistentvolumeclaims", job_selector("kept")) - {volume}) == 1


def test_suspending_frees_all_pods_and_resuming_goes_on_with_the_next_round(kubectl):
    kubectl.apply(digits("paused", rounds=60))
    kubectl.wait_for_job("paused", lambda status: committed(status) >= 2, "a second round", JOB_SECONDS)
    kubectl.patch(RESOURCE, "paused", {"spec": {"suspend": True}})
    suspended = kubectl.wait_for_job("paused", lambda status: status["phase"] == "Suspended", "Suspended", 60)
    assert not kubectl.names("pods", job_selector("paused"))
    assert condition(suspended, "Suspended")["status"] == "True"
    reached = committed(suspended)
    kubectl.patch(RESOURCE, "paused", {"spec": {"suspend": False, "rounds": reached + 3}})
    status = kubectl.wait_for_job("paused", is_complete, "Complete", JOB_SECONDS)
    assert committed(status) == reached + 3
    undisturbed = digits("straight", rounds=reached + 3)
    kubectl.apply(undisturbed)
    straight = kubectl.wait_for_job("straight", is_complete, "Complete", JOB_SECONDS)
    assert straight["model"]["digest"] == status["model"]["digest"]


def test_two_jobs_run_side_by_side(kubectl):
    for name, seed in (("one", 1), ("two", 2)):
        kubectl.apply(digits(name, rounds=5, seed=seed))
    one, two = (kubectl.wait_for_job(name, is_complete, "Complete", JOB_SECONDS) for name in ("one", "two"))
    assert one["model"]["digest"] != two["model"]["digest"]


def test_an_operator_that_is_killed_changes_nothing_of_the_model(kubectl, installation):
    kubectl.apply(digits("undisturbed", rounds=30))
    undisturbed = kubectl.wait_for_job("undisturbed", is_complete, "Complete", JOB_SECONDS)
    kubectl.apply(digits("disturbed", rounds=30))
    kubectl.wait_for_job("disturbed", lambda status: committed(status) >= 5, "a fifth round", JOB_SECONDS)
    before = installation.operator_pods()
    for pod in before:
        installation.kubectl("delete", "pod", pod, "--grace-period=0", "--force")
    disturbed = kubectl.wait_for_job("disturbed", is_complete, "Complete", JOB_SECONDS)
    assert installation.operator_pods() - before
    assert disturbed["model"]["digest"] == undisturbed["model"]["digest"]
    assert disturbed["term"] > 1
