"""The rules between fields: for jobs drawn at random, the API server finds fault with the same fields as pydantic."""

import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedjob_operator.api.rules import spec_problems
from fedjob_protocol.strategies import BUILT_IN_STRATEGIES
from tests.unit.controller.api_samples import document, job

DRY_RUN = "/apis/fedjob.dev/v1alpha1/namespaces/default/federatedjobs?dryRun=All&fieldValidation=Strict"
COUNTS = st.integers(1, 6)
MANY = COUNTS | st.sampled_from([7, 99, 100, 3_333, 10_000])
SHARES = st.integers(1, 100).map("{}%".format)


def optional(**fields):
    """Each field is there or not."""
    return st.fixed_dictionaries({}, optional=fields)


partitions = st.fixed_dictionaries(
    {"scheme": st.sampled_from(["IID", "Dirichlet", "Shards", "ByLabel", "QuantitySkew"])},
    optional={"alpha": st.just(0.5), "shardsPerClient": st.just(2)},
)
overrides = optional(name=st.just("digits"), path=st.just("/a"), partition=partitions)
groups = st.lists(
    optional(
        replicas=st.integers(0, 6),
        maxReplicas=st.sampled_from([1, 3, 6, 9_999]),
        image=st.just("x"),
        trainer=st.just("a:B"),
        device=st.sampled_from(["Auto", "CPU", "GPU"]),
        gpus=st.integers(0, 1),
        data=overrides,
        volumeClaimTemplates=st.sampled_from([[], [{}]]),
        template=st.just({}),
        external=optional(minClients=COUNTS),
    ),
    min_size=1,
    max_size=3,
).map(lambda items: [{"name": f"group-{index}", **item} for index, item in enumerate(items)])
counted_groups = st.lists(st.just(0) | MANY, min_size=1, max_size=3).map(
    lambda counts: [{"name": f"group-{index}", "replicas": count} for index, count in enumerate(counts)]
)
policies = optional(
    clientsPerRound=MANY | SHARES,
    overSelect=st.integers(0, 4) | SHARES,
    minReports=MANY,
)
origins = optional(
    federatedJob=st.fixed_dictionaries(
        {"name": st.just("earlier")},
        optional={"checkpoint": st.sampled_from(["Best", "Final", "Round"]), "round": st.integers(0, 3)},
    ),
    claim=st.just({"name": "models", "path": "a"}),
)
storages = optional(
    size=st.sampled_from(["1Gi", "0", "0Gi", "0.0e5", "0.", ".5", "10", "1e-2", "0.01Ki", "00", "001"]),
    storageClassName=st.just("fast"),
    claimName=st.just("mine"),
)
evaluations = optional(
    modes=st.lists(st.sampled_from(["Evaluator", "Clients"]), max_size=2),
    data=overrides,
)
strategies = optional(
    name=st.sampled_from([*BUILT_IN_STRATEGIES, "GeometricMedian"]),
    parameters=optional(
        mu=st.sampled_from([0, 0.5, -1]),
        serverLearningRate=st.sampled_from([0, 0.5]),
        momentum=st.sampled_from([0.5, 1]),
        tau=st.just(1e-9),
        clipNorm=st.just(3),
        trimFraction=st.sampled_from([0, 0.25, 0.5, 0.6, 1]),
        byzantine=st.integers(-1, 4),
        select=st.integers(0, 2),
    ),
)
several = optional(
    model=st.fixed_dictionaries({"name": st.just("mlp")}, optional={"initFrom": origins}),
    data=st.none() | st.fixed_dictionaries({"name": st.just("digits")}, optional={"partition": partitions}),
    clientGroups=groups | counted_groups,
    roundPolicy=policies,
    minClients=COUNTS,
    aggregator=optional(replicas=st.sampled_from([1, 3]), storage=storages),
    evaluation=evaluations,
    objective=st.just({"metric": "accuracy", "mode": "Max"}),
    strategy=strategies,
    stop=optional(target=st.just(0.9), patienceRounds=st.just(3), minDelta=st.just(0.1)),
)
counting = st.fixed_dictionaries(
    {"clientGroups": counted_groups, "roundPolicy": policies},
    optional={
        "minClients": COUNTS,
        "strategy": st.fixed_dictionaries(
            {"name": st.sampled_from(["Krum", "MultiKrum"])},
            optional={"parameters": st.integers(0, 50).map(lambda count: {"byzantine": count})},
        ),
    },
)


def refused_fields(api_server, spec):
    answer = api_server.request("POST", DRY_RUN, document(**spec))
    if answer.status == 201:
        return set()
    assert answer.status == 422, answer.message
    fields = {cause["field"] for cause in answer.body["details"]["causes"]}
    # what may not be there at all is also judged by itself
    return {field for field in fields if not field.startswith("spec.evaluation.data.partition.")}


def contradicting_fields(spec):
    """The fields that pydantic's rules name; a rule of the CRD that asks all groups names their list."""
    paths = {problem.path for problem in spec_problems(job(**spec).spec)}
    return {re.sub(r"^(spec\.clientGroups)\[\d+\]\.data\.name$", r"\1", path) for path in paths}


ONE_SERVER = settings(
    max_examples=int(__import__("os").environ.get("N", "150")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@ONE_SERVER
@given(spec=several)
def test_both_find_fault_with_the_same_fields(api_server, spec):
    assert refused_fields(api_server, spec) == contradicting_fields(spec)


@ONE_SERVER
@given(spec=counting)
def test_both_count_clients_and_percentages_alike(api_server, spec):
    assert refused_fields(api_server, spec) == contradicting_fields(spec)
