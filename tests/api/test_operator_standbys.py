"""Several aggregators on a real API server: the leader's pod is deleted, also with its volume."""

from tests.support.cluster.cluster import eventually
from tests.support.cluster.jobs import a_steered_job
from tests.support.cluster.steered import hold_file

STANDBYS = {"aggregator": {"replicas": 3}}


def leader_of(cluster, namespace, name):
    known = cluster.status(namespace, name).get("aggregator", {})
    return known.get("leader") if known.get("bootId") else None


def test_the_leader_is_deleted_with_its_volume_and_the_job_goes_on(cluster, home, folder):
    hold_file(folder, 2).touch()
    cluster.submit(home, a_steered_job("j", folder, rounds=3, **STANDBYS))
    cluster.until_committed(home, "j", 1)
    led = eventually(lambda: leader_of(cluster, home, "j"), "a leader")
    index = led.split("-")[-2]
    uid = cluster.job(home, "j")["metadata"]["uid"][:8]
    claim = f"j-{uid}-aggregator-{index}"
    volume = cluster.api.get("persistentvolumeclaims", home, claim)["metadata"]["uid"]

    cluster.api.delete("persistentvolumeclaims", home, claim)
    cluster.api.delete("pods", home, led)

    another = eventually(
        lambda: leader_of(cluster, home, "j") not in (None, led) and leader_of(cluster, home, "j"), "another"
    )
    assert another.split("-")[-2] != index

    def remade():
        found = cluster.api.find("persistentvolumeclaims", home, claim)
        return found is not None and found["metadata"]["uid"] != volume

    eventually(remade, "a volume in the place of the one that is gone")
    hold_file(folder, 2).unlink()
    cluster.until_phase(home, "j", "Complete")
    rounds = cluster.status(home, "j")["recentRounds"]
    assert [row["number"] for row in rounds] == [0, 1, 2, 3]


def test_each_aggregator_has_a_pod_and_a_volume_and_a_finished_job_keeps_the_leader(cluster, home, folder):
    hold_file(folder, 1).touch()
    cluster.submit(home, a_steered_job("j", folder, rounds=1, **STANDBYS))
    led = eventually(lambda: leader_of(cluster, home, "j"), "a leader")
    names = cluster.pod_names(home, "j", "aggregator")
    assert sorted(names) == [f"j-aggregator-{index}-0" for index in range(3)]
    claims = {
        item["metadata"]["name"].rpartition("-aggregator-")[2]
        for item in cluster.api.list("persistentvolumeclaims", home)
    }
    assert claims == {"0", "1", "2"}

    hold_file(folder, 1).unlink()
    cluster.until_phase(home, "j", "Complete")

    eventually(lambda: cluster.pod_names(home, "j", "aggregator") == [led], "the leader alone")
    assert cluster.status(home, "j")["aggregator"]["leader"] == led
