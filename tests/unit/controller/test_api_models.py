"""The resource as typed data: what is read, what is refused, what comes out again."""

import json
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from fedjob_operator.api.base import MAX_CLIENTS
from fedjob_operator.api.v1alpha1 import (
    ClientPods,
    Condition,
    ConditionStatus,
    ConditionType,
    CurrentRound,
    Device,
    EvaluationMode,
    FederatedJob,
    FederatedJobSpec,
    FederatedJobStatus,
    LateJoiners,
    Metric,
    OnQuorumLoss,
    Phase,
    RecentRound,
    RoundState,
    Weighting,
    WhenDeleted,
    dump,
)
from fedjob_protocol.reasons import Reason
from tests.unit.controller.api_samples import SMALLEST, document, job, spec

NOON = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def refused(**fields):
    """Return the location of the first error that a spec with these fields has."""
    with pytest.raises(ValidationError) as caught:
        job(**fields)
    return caught.value.errors()[0]["loc"][1:]


def all_models(model, seen=None):
    """Every model that a document of this one may hold."""
    seen = {} if seen is None else seen
    seen[model.__name__] = model
    for field in model.model_fields.values():
        for kind in kinds_in(field.annotation):
            if issubclass(kind, BaseModel) and kind.__name__ not in seen:
                all_models(kind, seen)
    return seen


def kinds_in(annotation):
    if isinstance(annotation, type) and not hasattr(annotation, "__args__"):
        return [annotation]
    return [kind for item in getattr(annotation, "__args__", ()) for kind in kinds_in(item)]


MODELS = all_models(FederatedJob)


def test_the_defaults_that_matter():
    smallest = spec()
    assert smallest.seed == 0
    assert smallest.data.partition is None
    assert (smallest.training.epochs, smallest.training.batch_size, smallest.training.learning_rate) == (1, 32, 0.1)
    assert smallest.training.optimizer.name == "SGD"
    assert (smallest.strategy.name, smallest.strategy.weighting) == ("FedAvg", Weighting.EXAMPLES)
    policy = smallest.round_policy
    assert (policy.clients_per_round, policy.over_select, policy.min_reports) == (None, 0, None)
    assert (policy.deadline_seconds, policy.max_attempts, policy.on_quorum_loss) == (3600, 3, OnQuorumLoss.WAIT)
    assert (smallest.join_wait_seconds, smallest.startup_deadline_seconds) == (60, 900)
    assert (smallest.late_joiners, smallest.client_pods) == (LateJoiners.ACCEPT, ClientPods.PER_JOB)
    group = smallest.client_groups[0]
    assert (group.device, group.gpus, group.backoff_limit) == (Device.AUTO, 0, 3)
    storage = smallest.aggregator.storage
    assert (smallest.aggregator.replicas, storage.size) == (1, "1Gi")
    assert storage.retention_policy.when_deleted is WhenDeleted.RETAIN
    assert (smallest.evaluation.period_rounds, smallest.evaluation.modes) == (1, (EvaluationMode.EVALUATOR,))
    assert (smallest.suspend, smallest.serve.replicas, smallest.stop) == (False, 0, None)


@pytest.mark.parametrize("value", [True, "5", 2.5, None, [5], {"a": 5}, float("inf"), float("nan")])
def test_only_an_integer_is_an_integer(value):
    with pytest.raises(ValidationError):
        FederatedJob.from_document(document() | {"spec": {**SMALLEST, "rounds": value}})


def test_a_number_without_a_fraction_is_an_integer():
    rounds = spec(rounds=10.0).rounds
    assert rounds == 10
    assert type(rounds) is int


@pytest.mark.parametrize("value", [True, "0.1", [0.1], float("inf"), float("nan")])
def test_only_a_finite_number_is_a_number(value):
    assert refused(training={"learningRate": value}) == ("training", "learningRate")


def test_an_integer_is_a_number():
    assert spec(training={"learningRate": 1}).training.learning_rate == 1.0


@pytest.mark.parametrize("value", [1, "true", "yes", 0.0])
def test_only_true_and_false_are_booleans(value):
    assert refused(suspend=value) == ("suspend",)


@pytest.mark.parametrize("value", [5, True, b"mlp", ["mlp"]])
def test_only_a_string_is_a_string(value):
    assert refused(model={"name": value}) == ("model", "name")


@pytest.mark.parametrize("value", [1, MAX_CLIENTS, 5.0, "1%", "20%", "99%", "100%"])
def test_clients_per_round_is_a_count_or_a_percentage(value):
    assert spec(roundPolicy={"clientsPerRound": value}).round_policy.clients_per_round == value


@pytest.mark.parametrize(
    "value", [0, -1, MAX_CLIENTS + 1, 0.5, True, "5", "0%", "101%", "020%", "20 %", "20%\n", "2.5%"]
)
def test_nothing_else_is(value):
    assert refused(roundPolicy={"clientsPerRound": value}) == ("roundPolicy", "clientsPerRound")


@pytest.mark.parametrize("name", ["a", "a-1", "a" * 40])
def test_names_are_dns_labels(name):
    assert spec(clientGroups=[{"name": name, "replicas": 1}]).client_groups[0].name == name


@pytest.mark.parametrize("name", ["", "A", "1a", "-a", "a-", "a.b", "a_b", "a" * 41, "a\n", "ä"])
def test_other_names_are_refused(name):
    assert refused(clientGroups=[{"name": name, "replicas": 1}])[:3] == ("clientGroups", 0, "name")


def test_a_document_has_camel_case_names_only():
    assert refused(round_policy={}) == ("round_policy",)


def test_in_python_names_are_snake_case():
    group = spec().client_groups[0].model_copy(update={"max_replicas": 9})
    built = FederatedJobSpec(rounds=1, model=spec().model, client_groups=(group,), min_clients=2)
    assert dump(built)["clientGroups"][0]["maxReplicas"] == 9
    assert dump(built)["minClients"] == 2


def test_unknown_metadata_is_ignored():
    sample = document()
    sample["metadata"] |= {"managedFields": [{}], "selfLink": "x", "uid": "u", "resourceVersion": "7", "generation": 2}
    metadata = FederatedJob.from_document(sample).metadata
    assert (metadata.uid, metadata.resource_version, metadata.generation) == ("u", "7", 2)


def test_a_newer_status_can_be_read():
    sample = document()
    sample["status"] = {"term": 3, "invented": {"later": 1}, "rounds": {"committed": 2, "total": 3, "skipped": 1}}
    status = FederatedJob.from_document(sample).status
    assert (status.term, status.rounds.committed) == (3, 2)


def test_a_job_cannot_be_changed_in_place():
    sample = job()
    with pytest.raises(ValidationError):
        sample.spec.rounds = 5
    with pytest.raises(TypeError):
        sample.spec.client_groups[0] = None


def test_free_form_maps_keep_what_is_in_them():
    template = {"spec": {"containers": [{"name": "client", "env": None, "x": 1.5}]}, "y": [True, []]}
    sample = spec(clientGroups=[{"name": "a", "replicas": 1, "template": template}])
    assert sample.client_groups[0].template == template
    assert dump(sample)["clientGroups"][0]["template"] == template


def full_status():
    return FederatedJobStatus(
        observed_generation=1,
        phase=Phase.RUNNING,
        reason=Reason.ROUND_IN_PROGRESS,
        term=2,
        current_round=CurrentRound(number=5, selected=(3, 1), boot_id="b", started_at=NOON, deadline=NOON, reported=1),
        recent_rounds=(
            RecentRound(
                number=4,
                digest="sha256:00",
                reported=2,
                contributors=(0, 2),
                examples=900,
                committed_at=NOON,
                duration_seconds=1.5,
                metrics=(Metric(name="loss/test", value=0.5),),
            ),
        ),
        conditions=(
            Condition(
                type=ConditionType.ACCEPTED,
                status=ConditionStatus.TRUE,
                reason=Reason.ACCEPTED,
                last_transition_time=NOON,
            ),
        ),
    )


def test_a_status_comes_back_as_it_was_written():
    status = full_status()
    written = json.loads(json.dumps(dump(status)))
    assert FederatedJobStatus.model_validate(written, by_alias=True, by_name=False) == status


def test_what_is_absent_is_not_written():
    assert dump(FederatedJobStatus()) == {
        "phase": "Pending",
        "term": 0,
        "rounds": {"committed": -1, "total": 0},
        "failedAttempts": 0,
        "clients": {"desired": 0, "ready": 0, "lost": 0, "lostIndices": [], "lateIndices": [], "replaced": []},
        "layout": [],
        "metrics": [],
        "recentRounds": [],
        "conditions": [],
        "suspendedSeconds": 0,
    }


def test_a_changed_copy_shares_the_rest():
    status = full_status()
    changed = status.model_copy(update={"term": 3, "phase": Phase.SUSPENDED})
    assert (changed.term, changed.phase, status.term) == (3, Phase.SUSPENDED, 2)
    assert changed.recent_rounds is status.recent_rounds


def test_a_copy_with_enumerations_is_written_as_text():
    changed = FederatedJobStatus().model_copy(update={"reason": Reason.QUORUM_LOST, "phase": Phase.FAILED})
    assert json.dumps(dump(changed)).count('"QuorumLost"') == 1


def test_conditions_are_found_by_type():
    status = full_status()
    assert status.holds(ConditionType.ACCEPTED)
    assert not status.holds(ConditionType.FAILED)
    assert status.condition("Failed") is None


def test_a_condition_of_somebody_else_is_kept():
    known = {"type": "QuotaReserved", "status": "True", "reason": "x", "lastTransitionTime": "2026-01-31T12:00:00Z"}
    status = FederatedJobStatus.model_validate({"conditions": [known]})
    assert status.condition("QuotaReserved").last_transition_time == NOON


@pytest.mark.parametrize(
    "value", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00+01:00", NOON.astimezone(timezone(timedelta(hours=5)))]
)
def test_times_are_in_utc(value):
    time = CurrentRound.model_validate({"number": 1, "deadline": value}).deadline
    assert time == NOON
    assert time.tzinfo is UTC
    assert dump(CurrentRound(number=1, deadline=time))["deadline"] == "2026-01-31T12:00:00Z"


@pytest.mark.parametrize("value", ["2026-01-31T12:00:00", "noon", 1769860800, "1769860800", True])
def test_what_is_no_time_is_refused(value):
    with pytest.raises(ValidationError):
        CurrentRound.model_validate({"number": 1, "deadline": value})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "0.5"])
def test_a_metric_is_a_finite_number(value):
    with pytest.raises(ValidationError):
        Metric(name="loss", value=value)


def test_lists_of_a_status_are_bounded():
    with pytest.raises(ValidationError):
        FederatedJobStatus(recent_rounds=tuple(RecentRound(number=n, digest="d") for n in range(11)))


def test_a_fresh_round_is_being_provisioned():
    assert CurrentRound(number=1).state is RoundState.PROVISIONING


specs = st.fixed_dictionaries(
    {"rounds": st.integers(1, 1_000_000), "seed": st.integers(0, 2**53 - 1)},
    optional={
        "training": st.fixed_dictionaries(
            {},
            optional={
                "epochs": st.integers(1, 1000),
                "learningRate": st.floats(1e-9, 1e6),
                "parameters": st.dictionaries(st.text(max_size=3), st.none() | st.integers() | st.text(max_size=3)),
            },
        ),
        "roundPolicy": st.fixed_dictionaries(
            {"overSelect": st.integers(0, 9) | st.integers(1, 100).map("{}%".format)},
            optional={"minReports": st.integers(1, 9), "onQuorumLoss": st.sampled_from(["Wait", "Fail"])},
        ),
        "suspend": st.booleans(),
        "stop": st.fixed_dictionaries({"target": st.floats(-1e9, 1e9)}),
    },
)


@given(specs)
def test_a_spec_comes_back_as_it_was_written(fields):
    sample = job(**fields)
    assert FederatedJob.from_document(json.loads(json.dumps(dump(sample)))) == sample


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_field_is_described_and_bounded_for_a_crd(model):
    """A structural schema has no references to types, and the API server refuses rules on unbounded lists."""
    schema = model.model_json_schema()
    for name, field in schema["properties"].items():
        where = f"{model.__name__}.{name}"
        assert field.get("description") or "$ref" in field, where  # what is referred to has one
        choices = [choice for choice in field.get("anyOf", [field]) if choice.get("type") != "null"]
        if "x-kubernetes-int-or-string" in json.dumps(field):
            assert '"pattern"' in json.dumps(field), where
            continue
        assert len(choices) == 1, f"{where} is a union"
        assert_bounded(choices[0], where)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_every_default_reaches_the_schema(model):
    """The API server fills defaults in from the schema: without one there, a job would mean two things."""
    schema = model.model_json_schema()["properties"]
    for name, field in model.model_fields.items():
        if not field.is_required() and field.get_default(call_default_factory=True, validated_data={}) is not None:
            assert "default" in schema[field.alias or name], f"{model.__name__}.{name}"


def assert_bounded(choice, where):
    match choice.get("type"):
        case "array":
            assert "maxItems" in choice, where
            assert_bounded(choice["items"], where)
        case "string":
            assert {"maxLength", "enum", "const", "format"} & set(choice), where
        case "integer":
            assert {"minimum", "maximum"} <= set(choice), where


def test_optional_fields_say_their_default():
    """Whoever reads the reference learns what happens without a field."""
    unsaid = [
        f"{model.__name__}.{name}"
        for model in MODELS.values()
        if model.model_config.get("extra") == "forbid" and model is not FederatedJob
        for name, field in model.model_fields.items()
        if not field.is_required() and not any(word in field.description for word in ("Default", "default", "eeded"))
    ]
    assert unsaid == ["InitFrom.federated_job", "InitFrom.claim", "InitFrom.file"]  # one of them
