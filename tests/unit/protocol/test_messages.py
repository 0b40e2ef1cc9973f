"""Messages: camelCase on the wire, strict where we are asked, lenient where we ask."""

import json
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fedjob_protocol import config, messages
from fedjob_protocol.config import ClientConfig, Termination
from fedjob_protocol.messages import (
    AggregatorState,
    Base,
    Evaluation,
    FailureReport,
    Participant,
    RoundRecord,
    RoundSpec,
    RoundView,
)
from fedjob_protocol.round import RoundState
from fedjob_protocol.tasks import ClientInfo, Destination, TaskView, TrainingConfig, TrainTask
from fedjob_protocol.wire import Answer, Message
from tests.support.builders import chain_digest, contribution, failure, info, record, seen

BASE = {"round": 2, "digest": chain_digest(2)}
SPEC = {
    "jobUid": "uid",
    "term": 1,
    "attempt": 1,
    "base": BASE,
    "participants": [{"client": 0, "name": "a"}, {"client": 1, "name": "b"}],
    "clientsPerRound": 2,
    "minReports": 1,
    "deadlineSeconds": 60,
}
GOAL = {
    "term": 1,
    "attempt": 1,
    "bootId": "b",
    "uploadUrl": "http://a/v1/rounds/3/updates/0",
    "failureUrl": "http://a/v1/rounds/3/failures/0",
    "deadlineSeconds": 60,
}


def models():
    found = {**vars(messages), **vars(config)}
    return [item for item in found.values() if isinstance(item, type) and issubclass(item, Message)]


@pytest.mark.parametrize("model", models(), ids=lambda model: model.__name__)
def test_names_are_camel_case_and_every_field_of_a_request_is_checked(model):
    for name, field in model.model_fields.items():
        alias = field.alias or name
        assert "_" not in alias
        assert alias[0].islower()
    assert model.model_config["extra"] == ("ignore" if issubclass(model, Answer) else "forbid")
    assert model.model_config["frozen"]


@pytest.mark.parametrize(
    "message",
    [
        RoundSpec.model_validate(SPEC),
        record(3, 0, 1, failed=[failure(2)], metrics={"accuracy": 0.1 + 0.2}, best=True),
        seen().round(3, RoundState.EVALUATED, reported=[0, 1]).observed.round,
        seen().aggregator(committed=2).observed.state,
        info(3),
        contribution(1),
        TrainTask(
            job_uid="uid",
            base=Base(**BASE),
            config=TrainingConfig(seed=2**63 - 1, learning_rate=0.1),
            model_url="http://a/v1/models/2",
            destination=Destination.model_validate(GOAL),
        ),
        Evaluation(job_uid="uid", term=1, digest=chain_digest(3), metrics={"loss": 1e-300}),
        Termination(reason="Crashed", message="exit code 1"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_is_sent_is_what_arrives(message):
    assert type(message).model_validate_json(message.model_dump_json(by_alias=True)) == message


def spoiled(**changes):
    document = {**SPEC, **changes}
    return {name: value for name, value in document.items() if value is not ...}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"deadline": 60}, "deadline"),
        ({"jobUid": ...}, "jobUid"),
        ({"jobUid": ""}, "jobUid"),
        ({"term": 0}, "term"),
        ({"attempt": 0}, "attempt"),
        ({"redraw": -1}, "redraw"),
        ({"base": {"round": 2, "digest": "sha256:short"}}, "base.digest"),
        ({"base": {"round": -1, "digest": chain_digest(1)}}, "base.round"),
        ({"participants": []}, "participants"),
        ({"participants": [{"client": -1, "name": "a"}]}, "participants.0.client"),
        ({"participants": [{"client": 0, "name": "a", "maxExamples": 0}]}, "participants.0.maxExamples"),
        ({"participants": [{"client": 0, "name": "a", "maxExamples": 2**53 + 1}]}, "participants.0.maxExamples"),
        ({"deadlineSeconds": 0}, "deadlineSeconds"),
        ({"encoding": "f16"}, "encoding"),
        ({"scaleBits": 53}, "scaleBits"),
        ({"weighting": "Fair"}, "weighting"),
        ({"minReports": 3}, ""),
        ({"clientsPerRound": 3}, ""),
        ({"participants": [{"client": 0, "name": "a"}, {"client": 0, "name": "b"}]}, ""),
    ],
)
def test_a_request_that_contradicts_itself_is_refused_where_it_does(changes, where):
    with pytest.raises(ValidationError) as refused:
        RoundSpec.model_validate(spoiled(**changes))
    assert ".".join(str(part) for part in refused.value.errors()[0]["loc"]) == where


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none_do_not_get_in(value):
    document = json.dumps({"jobUid": "uid", "term": 1, "digest": chain_digest(1), "metrics": {"loss": 0}})
    with pytest.raises(ValidationError):
        Evaluation.model_validate_json(document.replace('"loss": 0', f'"loss": {value}'))
    with pytest.raises(ValidationError):
        TaskView.model_validate_json(
            f'{{"round": 1, "state": "Training", "term": 1, "attempt": 1, "metrics": {{"a": {value}}}}}'
        )


@pytest.mark.parametrize("url", ["ftp://a/x", "//a/x", "javascript:alert(1)", "http:/a", "", "http://" + "x" * 3000])
def test_only_web_addresses_are_called(url):
    with pytest.raises(ValidationError):
        Destination.model_validate({**GOAL, "uploadUrl": url})


@pytest.mark.parametrize(
    ("model", "document"),
    [
        (RoundView, {"round": 1, "state": "Open", "term": 1, "attempt": 1, "bootId": "b"}),
        (
            AggregatorState,
            {"protocol": 1, "version": "9", "jobUid": None, "term": 0, "bootId": "b", "committed": None},
        ),
    ],
)
def test_answers_of_a_newer_release_can_be_read(model, document):
    assert model.model_validate({**document, "weather": "fine"}) == model.model_validate(document)


def test_a_request_says_how_long_texts_may_be():
    with pytest.raises(ValidationError):
        FailureReport(job_uid="u", term=1, attempt=1, boot_id="b", reason="x", message="m" * 1025)
    with pytest.raises(ValidationError):
        Evaluation(job_uid="u", term=1, digest=chain_digest(1), metrics={f"m{index}": 0.0 for index in range(65)})


def test_messages_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        Participant(client=0, name="a").client = 1


def test_times_are_kept_in_utc():
    done = record(1, 0)
    again = RoundRecord.model_validate_json(done.model_dump_json(by_alias=True))
    assert again.committed_at == done.committed_at
    assert isinstance(again.committed_at, datetime)
    assert again.committed_at.utcoffset() == datetime.now(UTC).utcoffset()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*SPEC, "x"]), inner, max_size=4),
        max_leaves=8,
    )
)
def test_any_document_is_read_or_refused(document):
    """Whatever a peer sends: a message or a ValidationError, nothing else."""
    for model in (RoundSpec, ClientInfo, TaskView, ClientConfig):
        with suppress(ValidationError):
            assert isinstance(model.model_validate(document), model)
