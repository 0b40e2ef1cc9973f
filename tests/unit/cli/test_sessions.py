"""Sessions of `fedjob serve` as jobs: what they take from the request, and from the model before."""

import pytest

from fedjob.sessions import (
    History,
    SessionsError,
    Template,
    begun_record,
    read_history,
    session_job,
    with_progress,
    write_history,
)
from fedjob_operator.api.rules import spec_problems
from fedjob_operator.api.v1alpha1 import Metric, Phase
from fedjob_protocol.sessions import TrainingRequest
from tests.support.builders import a_job, at, chain_digest, seen

SERVED = a_job().having(
    clientGroups=[{"name": "clients", "external": {}}], training={"epochs": 1, "batchSize": 32, "learningRate": 0.1}
)
NOTHING = TrainingRequest()


def session(request=NOTHING, *, job=SERVED, clients=3, places=0, committed=-1, term=1):
    template = Template(job=job.build(), rounds=3, places=places)
    state = seen().aggregator(committed=committed, term=7).observed.state
    made = session_job(template, request, clients=clients, begun=state, term=term, now=at(0))
    assert spec_problems(made.spec) == []
    return made


def test_the_first_session_begins_with_nothing():
    job = session()
    assert (job.spec.rounds, job.status.rounds.committed, job.status.model) == (3, -1, None)
    assert job.spec.client_groups[0].external.min_clients == 3
    assert job.status.term == 7


def test_a_further_one_begins_with_the_last_model_whatever_the_job_before_said():
    job = session(TrainingRequest(rounds=2), committed=8, term=30)
    assert (job.spec.rounds, job.status.rounds.committed) == (10, 8)
    assert (job.status.model.round, job.status.model.digest) == (8, chain_digest(8))
    assert job.status.term == 30
    assert job.metadata.uid == SERVED.build().metadata.uid


def test_what_is_asked_for_goes_into_the_spec_and_the_rest_stays():
    request = TrainingRequest(learning_rate=0.01, epochs=5, num_train_samples=100, num_validation_samples=20)
    spec = session(request).spec
    assert (spec.training.learning_rate, spec.training.epochs, spec.training.batch_size) == (0.01, 5, 32)
    assert (spec.data.name, spec.data.max_train_samples, spec.data.max_test_samples) == ("digits", 100, 20)


@pytest.mark.parametrize(
    ("policy", "clients", "places", "chosen"),
    [
        ({}, 3, 0, (None, 0)),
        ({"clientsPerRound": 10, "overSelect": 2}, 3, 0, (3, 0)),
        ({"clientsPerRound": 10, "overSelect": 2}, 11, 0, (10, 1)),
        ({"clientsPerRound": "50%", "overSelect": 2}, 4, 0, ("50%", 2)),
        ({"clientsPerRound": 2, "overSelect": "50%"}, 0, 5, (2, 1)),
        ({"overSelect": 4}, 5, 0, (None, 0)),
        ({"clientsPerRound": 2, "minReports": 3}, 5, 0, (2, 0)),
    ],
)
def test_a_session_asks_for_no_more_than_it_has_places(policy, clients, places, chosen):
    made = session(job=SERVED.policy(**policy), clients=clients, places=places).spec.round_policy
    assert (made.clients_per_round, made.over_select) == chosen


def test_the_record_says_what_a_session_changed():
    job = session(committed=8, job=SERVED.evaluated().objective())
    record = begun_record(job, number=2, clients=3, before=0.5, now=at(1))
    assert (record.first_round, record.last_round, record.state, record.metric) == (9, 8, "Running", "accuracy")
    update = {
        "phase": Phase.COMPLETE,
        "rounds": job.status.rounds.model_copy(update={"committed": 11}),
        "metrics": (Metric(name="accuracy", value=0.75),),
    }
    done = with_progress(record, job.model_copy(update={"status": job.status.model_copy(update=update)}), now=at(9))
    assert (done.last_round, done.before, done.after, done.state, done.ended) == (11, 0.5, 0.75, "Complete", at(9))


def test_history_is_kept_whole_and_told_in_part(tmp_path):
    file = tmp_path / "sessions.json"
    history = read_history(file, uid="uid")
    job = session()
    for number in range(1, 61):
        history = history.with_last(begun_record(job, number=number, clients=1, before=None, now=at(number)))
    history = history.with_last(history.sessions[-1].model_copy(update={"state": "Complete"}))
    write_history(file, history)
    again = read_history(file, uid="another")
    assert again == history
    assert (again.uid, len(again.sessions), len(again.newest())) == ("uid", 60, 50)
    assert again.last.state == "Complete"
    assert isinstance(again, History)


def test_a_file_that_is_no_history_is_named(tmp_path):
    file = tmp_path / "sessions.json"
    file.write_text("{")
    with pytest.raises(SessionsError, match=r"sessions.json cannot be read"):
        read_history(file, uid="uid")
