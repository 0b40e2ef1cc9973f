"""What the API server takes is told by the status, taken back, and the job goes on to the undisturbed model.

Several jobs at once, each in a namespace of its own, are looked after by one operator; another job beside them trains
all the while and notices nothing.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fedjob_protocol.reasons import Reason
from tests.faults.misoperations.catalogue import CASES, CREATED, ENDED, Case
from tests.faults.misoperations.plays import NAME, Edit, Play
from tests.support.cluster.cluster import eventually

AT_ONCE = 4
BATCHES = [CASES[first : first + AT_ONCE] for first in range(0, len(CASES), AT_ONCE)]


def play(stage, case: Case):
    """Play a case; say what it came to, and how many changes of the spec it took."""
    job = Play(stage)
    case.play(job)
    return job.finish(), len(job.transitions)


def ids(batch):
    return ", ".join(map(str, batch))


@pytest.mark.parametrize("nth", range(len(BATCHES)), ids=[ids(batch) for batch in BATCHES])
def test_it_is_told_and_taken_back(stage, bystander, calm, request, nth):
    with ThreadPoolExecutor(AT_ONCE) as pool:
        plays = [(case, pool.submit(play, stage, case)) for case in BATCHES[nth]]
    transitions = 0
    for case, done in plays:
        outcome, count = done.result()
        assert outcome == calm[case.kind], f"{case}: another model than undisturbed"
        transitions += count
    request.node.user_properties.append(("transitions", transitions))
    bystander.until_training()
    assert stage.complaints() == []


@pytest.mark.parametrize("edit", ENDED, ids=str)
def test_a_job_that_it_ends_says_why_and_the_next_one_is_sound(stage, bystander, calm, edit: Edit):
    job = Play(stage)
    job.train()
    before = job.spec()
    job.become(edit.made_in(before), str(edit))
    job.until_told(edit)
    assert job.status()["phase"] == "Failed"
    job.become(before, f"{edit} taken back")
    assert job.status()["phase"] == "Failed", "a job that failed never goes on"

    job.create_again(before)

    assert job.finish() == calm["steered"]
    bystander.until_training()
    assert stage.complaints() == []


def test_time_to_live_of_nothing_deletes_a_job_with_its_end(stage):
    job = Play(stage)
    job.train()
    job.become({**job.spec(), "ttlSecondsAfterFinished": 0}, "time to live")
    job.let_go()
    eventually(lambda: stage.cluster.api.find("federatedjobs", job.home, NAME) is None, "the end of the job")


def test_every_reason_of_the_catalogue_is_one_to_mend():
    told = {edit.says for case in CASES for edit in case.edits} - {None}
    assert told >= {Reason.INVALID_SPEC, Reason.INVALID_POD_TEMPLATE, Reason.DATA_ERROR, Reason.UNSCHEDULABLE}
    assert len(CREATED) > 20
