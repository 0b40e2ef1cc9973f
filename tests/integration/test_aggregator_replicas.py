"""Several real aggregators of one job: killed, deleted, stopped, and told in any order who leads."""

import shutil
import signal
import threading
from contextlib import suppress

import pytest

from tests.support.replicas import base_of, delta, model, replicas, wait_until

pytestmark = pytest.mark.integration

DURABLE = ("Committed", "Evaluated")
"""A record that waits for no evaluation is closed a moment after the commit."""
ACCURATE = {"metrics": {"accuracy": 0.5}, "examples": 7, "best": True}


@pytest.fixture
def three(tmp_path):
    """Three aggregators, the first of which leads and has committed two rounds after the initial model."""
    with replicas(tmp_path) as running:
        running.appoint(running[0])
        running[0].round(0, model())
        for number in (1, 2):
            assert running[0].round(number, delta(number))["state"] in DURABLE
        for standby in running[1:]:
            are_equal(running[0], standby)
        yield running


def are_equal(leader, *standbys):
    for standby in standbys:
        wait_until(lambda standby=standby: same(leader, standby), f"{standby.name} holds what {leader.name} holds")


def same(one, other):
    return one.newest() == other.newest() and one.log() == other.log()


def copied_bytes(standby):
    """Size of the copy that is under way; 0 if there is none."""
    sizes = [0]
    for path in (standby.folder / "checkpoints").glob("*.tmp"):
        with suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return max(sizes)


def evaluation(record, **changes):
    return {"jobUid": "job-uid", "term": 1, "digest": record["digest"], **ACCURATE, **changes}


def test_what_the_leader_commits_is_on_every_standby_bit_by_bit(three):
    newest = max(
        path.name for path in (three[0].folder / "checkpoints").iterdir()
    )  # one that was behind may lack others
    for standby in three[1:]:
        content = (standby.folder / "checkpoints" / newest).read_bytes()
        assert content == (three[0].folder / "checkpoints" / newest).read_bytes()


def test_a_standby_takes_no_rounds_and_no_updates_and_says_who_leads(three):
    standby = three[1]
    replaced = standby.call("DELETE", "/v1/clients/0")
    for status, answer in (standby.open(3), standby.upload(3, delta(1)), replaced):
        assert (status, answer["word"]) == (421, "not-leader")
        assert "aggregator-0" in answer["detail"]
    assert standby.get("/health")["status"] == "ok"
    assert standby.call("GET", "/ready")[0] == 200
    assert standby.state()["replica"]["role"] == "Standby"
    assert standby.state()["committed"]["round"] == 2
    assert b"standby of aggregator-0" in standby.call("GET", "/", headers={"Accept": "text/html"})[1]


def test_the_leader_killed_in_a_round_is_followed_by_a_standby_that_repeats_it_alike(three):
    leader, second, third = three
    committed = leader.state()["committed"]
    alike = delta(3)
    leader.open(3)
    leader.kill()
    shutil.rmtree(leader.folder)
    three.appoint(None, term=2, told=[second, third])
    three.appoint(second, term=2, committed=base_of(committed), told=[third, second])
    view = second.round(3, alike, term=2, attempt=2)
    leader.start()
    three.appoint(second, term=2, committed=base_of(committed), told=[leader])
    are_equal(second, leader, third)
    assert view["state"] in DURABLE
    assert [line["round"] for line in leader.log()] == [0, 1, 2, 3]


def test_nothing_counts_before_a_majority_holds_it(three):
    leader, *standbys = three
    for standby in standbys:
        standby.process.send_signal(signal.SIGSTOP)
    leader.open(3)
    uploaded = threading.Thread(target=leader.upload, args=(3, delta(3)))
    uploaded.start()
    wait_until(lambda: leader.newest()["round"] == 3, "round 3 is durable on the leader")
    state = leader.state()
    assert state["committed"]["round"] == 2
    assert state["current"]["state"] == "Committing"
    assert (state["current"]["replication"]["holders"], state["current"]["replication"]["needed"]) == (1, 2)
    assert leader.call("GET", "/v1/models/3")[0] == 404
    standbys[0].process.send_signal(signal.SIGCONT)  # the other one stays silent: a majority is enough
    assert leader.wait(3)["state"] in DURABLE
    uploaded.join()


def test_without_acknowledgement_the_leader_waits_for_nobody(tmp_path):
    with replicas(tmp_path) as running:
        leader = running[0]
        running.appoint(leader, ack="None", told=[leader])
        assert leader.round(0, model())["state"] in DURABLE
        assert leader.round(1, delta(1))["state"] in DURABLE
        running.appoint(leader, ack="None", told=running[1:])
        are_equal(leader, *running[1:])


def test_a_leader_that_comes_back_gives_up_what_only_it_has(three):
    leader, second, third = three
    committed = leader.state()["committed"]
    for standby in (second, third):
        standby.process.send_signal(signal.SIGSTOP)
    leader.open(3)
    leader.upload(3, delta(3))
    wait_until(lambda: leader.newest()["round"] == 3, "round 3 is durable on the leader")
    lost = leader.newest()["digest"]
    leader.kill()
    for standby in (second, third):
        standby.process.send_signal(signal.SIGCONT)
    three.appoint(None, term=2, told=[second, third])
    three.appoint(third, term=2, committed=base_of(committed), told=[second, third])
    for number in (3, 4):
        third.round(number, delta(-number), term=2, attempt=2)
    leader.start()
    assert leader.newest()["digest"] == lost
    three.appoint(third, term=2, committed=base_of(third.state()["committed"]), told=[leader])
    are_equal(third, leader, second)


def test_an_old_leader_that_was_only_slow_is_fenced_off(three):
    leader, second, third = three
    committed = leader.state()["committed"]
    leader.open(3)
    three.appoint(None, term=2, told=[second, third])
    three.appoint(second, term=2, committed=base_of(committed), told=[second, third])
    leader.upload(3, delta(3))
    wait_until(lambda: leader.newest()["round"] == 3, "round 3 is durable on the old leader")
    second.round(3, delta(-3), term=2, attempt=2)
    assert leader.state()["committed"]["round"] == 2, "it counted although a higher term had begun"
    three.appoint(second, term=2, committed=base_of(second.state()["committed"]), told=[leader])
    are_equal(second, leader, third)
    status, answer = leader.open(4, attempt=3)
    assert (status, answer["word"]) == (421, "not-leader")


def test_a_new_leader_stands_for_what_its_predecessor_had_acknowledged(three):
    leader, second, third = three
    committed = leader.state()["committed"]
    digest = leader.round(3, delta(3))["record"]["digest"]
    wait_until(lambda: second.newest()["round"] == 3, "a standby holds round 3")
    leader.kill()
    three.appoint(None, term=2, told=[second, third])
    three.appoint(second, term=2, committed=base_of(committed), told=[third, second])
    view = second.wait(3)
    assert view["state"] in DURABLE
    assert view["record"]["digest"] == digest
    assert second.newest()["term"] == 2


def test_an_evaluation_counts_once_a_majority_has_it_in_its_log(three):
    leader, *standbys = three
    record = leader.round(3, delta(3), expectsEvaluation=True)["record"]
    for standby in standbys:
        wait_until(lambda standby=standby: standby.newest()["round"] == 3, "the standbys hold round 3")
        standby.process.send_signal(signal.SIGSTOP)
    status, view = leader.call("PUT", "/v1/rounds/3/evaluation", evaluation(record))
    assert (status, view["state"]) == (200, "Committed")
    assert view["replication"]["holders"] == 1
    standbys[1].process.send_signal(signal.SIGCONT)
    wait_until(lambda: leader.get("/v1/rounds/3")["state"] == "Evaluated", "the evaluation counts")
    assert standbys[1].log()[3]["metrics"] == {"accuracy": 0.5}
    assert standbys[1].state()["best"]["round"] == 3


def test_a_standby_with_an_empty_folder_gets_the_newest_and_the_best_model_and_the_whole_log(three):
    leader, second, third = three
    record = leader.round(3, delta(3), expectsEvaluation=True)["record"]
    leader.call("PUT", "/v1/rounds/3/evaluation", evaluation(record))
    for number in (4, 5, 6):
        leader.round(number, delta(number))
    third.kill()
    shutil.rmtree(third.folder)
    third.start()
    three.appoint(leader, committed=base_of(leader.state()["committed"]), told=[third])
    are_equal(leader, second, third)
    wait_until(lambda: third.state()["best"] == leader.state()["best"], "the best model is copied")
    assert third.call("GET", "/v1/models/best")[1] == leader.call("GET", "/v1/models/best")[1]


def test_a_standby_with_a_damaged_checkpoint_sets_it_aside_and_copies_it_again(three):
    leader, _, third = three
    third.kill()
    for path in (third.folder / "checkpoints").iterdir():
        path.write_bytes(b"nonsense")
    third.start()
    assert third.newest() is None
    three.appoint(leader, committed=base_of(leader.state()["committed"]), told=[third])
    are_equal(leader, third)
    assert (third.folder / "damaged" / "manifest.json").exists()


def test_an_aggregator_that_lacks_what_is_committed_refuses_to_lead(three):
    leader, second, _ = three
    committed = base_of(leader.state()["committed"])
    second.kill()
    shutil.rmtree(second.folder)
    second.start()
    status, answer = second.appoint(three.leadership(second, term=2, committed=committed))
    assert (status, answer["word"]) == (409, "wrong-base")


def test_a_standby_killed_again_and_again_while_it_copies_is_equal_in_the_end(tmp_path):
    size = 5_000_000
    with replicas(tmp_path) as running:
        leader, second, third = running
        running.appoint(leader, told=[leader, second])
        leader.round(0, model(size))
        for number in range(1, 4):
            leader.round(number, delta(number, size))
        committed = base_of(leader.state()["committed"])
        for share in (0.0, 0.3, 0.6, 0.9):
            running.appoint(leader, committed=committed, told=[third])
            wait_until(
                lambda share=share: copied_bytes(third) >= share * 4 * size or same(leader, third),
                f"{share} of the checkpoint is copied",
            )
            third.kill()
            third.start()
        running.appoint(leader, committed=committed, told=[third])
        are_equal(leader, third)
