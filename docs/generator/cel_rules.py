"""The rules between fields, in CEL: the twin of `fedjob_operator.api.rules`.

Each rule there has its rule here; the tests run one corpus, and jobs drawn at random, against both. What matters in a
cluster alone is here only: the name of a job, and files of the machine that `fedjob run` is on.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from fedjob_operator.api.base import DNS_1035, MAX_CLIENTS
from fedjob_operator.api.quantity import PERCENT_PATTERN
from fedjob_protocol.strategies import BUILT_IN_STRATEGIES, COMPARING, MOST_COMPARED, PARAMETERS
from generator.cel import FORBIDDEN, REQUIRED, Validation, exactly_one, let

_COUNTED: Final = "self.clientGroups.all(g, has(g.external) || has(g.replicas))"
"""Each group says how many clients it has; if one does not, sums would only make up more problems."""
_CLIENTS: Final = (
    "self.clientGroups.map(g, has(g.external) ? g.external.minClients : (has(g.replicas) ? g.replicas : 0)).sum()"
)
"""Clients of all groups together."""
_CAPACITY: Final = (
    "self.clientGroups.map(g, has(g.external) ? g.external.minClients : has(g.maxReplicas) && "
    "(!has(g.replicas) || g.maxReplicas > g.replicas) ? g.maxReplicas : has(g.replicas) ? g.replicas : 0).sum()"
)
"""Client indices of all groups together."""
_WANTED: Final = "self.roundPolicy.clientsPerRound"
_EXTRA: Final = "self.roundPolicy.overSelect"


def _is_count(value: str) -> str:
    """True for a count or a percentage; anything else has an error of its own, and no arithmetic."""
    return f"(type({value}) == int || {value}.matches('{PERCENT_PATTERN}'))"


def _count_of(value: str, whole: str) -> str:
    """How many of a whole a count or percentage means: rounded up, at least 1."""
    percent = f"int({value}.substring(0, {value}.size() - 1))"
    share = f"({percent} * {whole} + 99) / 100"
    return f"(type({value}) == int ? int({value}) : ({percent} * {whole} == 0 ? 1 : {share}))"


def _on_round(body: str) -> str:
    """A rule on ``n`` clients of which ``w`` close a round; true where either number makes no sense."""
    guard = f"!({_COUNTED}) || (has({_WANTED}) && !{_is_count(_WANTED)})"
    wanted = f"has({_WANTED}) ? {_count_of(_WANTED, 'n')} : n"
    return f"{guard} || {let('n', _CLIENTS, let('w', wanted, body))}"


_FITS: Final = f"w > n || w + {_count_of(_EXTRA, 'w')} <= n"
_SKEWED: Final = "self.scheme in ['Dirichlet', 'QuantitySkew']"

_PARTITION: Final = (
    Validation(
        rule=f"!({_SKEWED}) || has(self.alpha)",
        message="schemes Dirichlet and QuantitySkew need it",
        field=".alpha",
        reason=REQUIRED,
    ),
    Validation(
        rule=f"!has(self.alpha) || {_SKEWED}",
        message="is only for Dirichlet and QuantitySkew",
        field=".alpha",
        reason=FORBIDDEN,
    ),
    Validation(
        rule="!has(self.shardsPerClient) || self.scheme == 'Shards'",
        message="is only for Shards",
        field=".shardsPerClient",
        reason=FORBIDDEN,
    ),
)

_INIT_FROM: Final = (
    Validation(
        rule=exactly_one(("federatedJob", "claim", "file")),
        message="needs exactly one of federatedJob and claim",
    ),
    Validation(
        rule="!has(self.file)",
        message="is on the machine of `fedjob run`; in a cluster use federatedJob or claim",
        field=".file",
        reason=FORBIDDEN,
    ),
)

_JOB_CHECKPOINT: Final = (
    Validation(
        rule="self.checkpoint != 'Round' || has(self.round)",
        message="checkpoint Round needs it",
        field=".round",
        reason=REQUIRED,
    ),
    Validation(
        rule="!has(self.round) || self.checkpoint == 'Round'",
        message="is only for checkpoint Round",
        field=".round",
        reason=FORBIDDEN,
    ),
)

_EXTERNAL_WITHOUT: Final = {
    "replicas": "!has(self.replicas)",
    "maxReplicas": "!has(self.maxReplicas)",
    "image": "!has(self.image)",
    "gpus": "self.gpus == 0",
    "volumeClaimTemplates": "self.volumeClaimTemplates.size() == 0",
    "template": "!has(self.template)",
}
"""What describes pods of ours, and what says that it is not given."""

_CLIENT_GROUP: Final = (
    Validation(
        rule="has(self.external) || has(self.replicas)",
        message="a group needs replicas, unless it is external",
        field=".replicas",
        reason=REQUIRED,
    ),
    *(
        Validation(
            rule=f"!has(self.external) || {absent}",
            message="is for clients that run here, and the group is external",
            field=f".{name}",
            reason=FORBIDDEN,
        )
        for name, absent in _EXTERNAL_WITHOUT.items()
    ),
    Validation(
        rule="has(self.external) || !has(self.replicas) || !has(self.maxReplicas) || self.replicas <= self.maxReplicas",
        message="is less than replicas",
        field=".maxReplicas",
    ),
    Validation(rule="self.device != 'CPU' || self.gpus == 0", message="must be 0, as device is CPU", field=".gpus"),
)

_STORAGE: Final = (
    Validation(rule="self.size.matches('^[0-9.]*[1-9]')", message="is no size", field=".size"),
    Validation(
        rule="!has(self.claimName) || !has(self.storageClassName)",
        message="is for a new volume, and claimName names one that is there",
        field=".storageClassName",
        reason=FORBIDDEN,
    ),
)

_AGGREGATOR: Final = (
    Validation(
        rule="!has(self.storage.claimName) || self.replicas == 1",
        message="is one volume for several aggregators; leave it out",
        field=".storage.claimName",
        reason=FORBIDDEN,
    ),
)

_EVALUATION: Final = (
    Validation(
        rule="!has(self.data) || !has(self.data.partition)",
        message="the evaluator's data are not divided",
        field=".data.partition",
        reason=FORBIDDEN,
    ),
    Validation(
        rule="self.modes.all(mode, self.modes.exists_one(other, other == mode))",
        message="has a mode more than once",
        field=".modes",
    ),
)


def _parameter_rules(name: str) -> Iterator[Validation]:
    """Which built-in strategies have a parameter; its range is in the schema."""
    others = sorted(strategy for strategy, terms in BUILT_IN_STRATEGIES.items() if name not in terms.names)
    needing = sorted(strategy for strategy, terms in BUILT_IN_STRATEGIES.items() if name in terms.required)
    yield Validation(
        rule=f"!has(self.parameters.{name}) || !(self.name in {others})",
        message="is no parameter of this strategy",
        field=f".parameters.{name}",
        reason=FORBIDDEN,
    )
    if needing:
        yield Validation(
            rule=f"has(self.parameters.{name}) || !(self.name in {needing})",
            message="this strategy needs it",
            field=f".parameters.{name}",
            reason=REQUIRED,
        )


_STRATEGY: Final = tuple(rule for name in PARAMETERS for rule in _parameter_rules(name))
_COMPARES: Final = f"self.strategy.name in {sorted(COMPARING)}"
_TELLS_APART: Final = f"!({_COMPARES}) || !has(self.strategy.parameters.byzantine) || "
_LEAST: Final = "2 * self.strategy.parameters.byzantine + 3"

_SPEC: Final = (
    Validation(
        rule=_TELLS_APART + _on_round(f"w >= {_LEAST}"),
        message="is too many: needs 2 * byzantine + 3 updates a round, and clientsPerRound is less",
        field=".strategy.parameters.byzantine",
    ),
    Validation(
        rule=f"{_TELLS_APART}!has(self.roundPolicy.minReports) || self.roundPolicy.minReports >= {_LEAST}",
        message="is too many: needs 2 * byzantine + 3 updates a round, and minReports is less",
        field=".strategy.parameters.byzantine",
    ),
    Validation(
        rule=f"!({_COMPARES}) || {_on_round(f'w <= {MOST_COMPARED}')}",
        message=f"is more than Krum and MultiKrum compare ({MOST_COMPARED})",
        field=".roundPolicy.clientsPerRound",
    ),
    Validation(
        rule="has(self.data) || self.clientGroups.all(g, has(g.trainer) || (has(g.data) && has(g.data.name)))",
        message="without spec.data, each group needs data.name or a trainer of its own",
        field=".clientGroups",
        reason=REQUIRED,
    ),
    Validation(rule=_on_round("w <= n"), message="is more than all clients", field=".roundPolicy.clientsPerRound"),
    Validation(
        rule=f"!{_is_count(_EXTRA)} || {_on_round(_FITS)}",
        message="clientsPerRound and overSelect together are more than all clients",
        field=".roundPolicy.overSelect",
    ),
    Validation(
        rule=f"!has(self.roundPolicy.minReports) || {_on_round('self.roundPolicy.minReports <= w')}",
        message="is more than clientsPerRound",
        field=".roundPolicy.minReports",
    ),
    Validation(
        rule=f"!has(self.minClients) || !({_COUNTED}) || self.minClients <= {_CLIENTS}",
        message="is more than all clients",
        field=".minClients",
    ),
    Validation(
        rule=f"!({_COUNTED}) || {_CLIENTS} > 0",
        message="have no client: each group has 0 replicas",
        field=".clientGroups",
    ),
    Validation(
        rule=f"!({_COUNTED}) || {_CAPACITY} <= {MAX_CLIENTS}",
        message=f"have too many clients together; a job has at most {MAX_CLIENTS}",
        field=".clientGroups",
    ),
    Validation(
        rule="!has(self.objective) || self.evaluation.modes.size() > 0",
        message="needs evaluation, and spec.evaluation.modes is empty",
        field=".objective",
    ),
    Validation(
        rule="has(self.objective) || !has(self.stop) || !has(self.stop.target)",
        message="needs spec.objective: the metric that reaches it",
        field=".stop.target",
    ),
    Validation(
        rule="has(self.objective) || !has(self.stop) || !has(self.stop.patienceRounds)",
        message="needs spec.objective: the metric that becomes better",
        field=".stop.patienceRounds",
    ),
)

RULES: Final[Mapping[str, tuple[Validation, ...]]] = MappingProxyType(
    {
        "Aggregator": _AGGREGATOR,
        "ClientGroup": _CLIENT_GROUP,
        "Evaluation": _EVALUATION,
        "FederatedJobSpec": _SPEC,
        "InitFrom": _INIT_FROM,
        "JobCheckpoint": _JOB_CHECKPOINT,
        "Partition": _PARTITION,
        "Storage": _STORAGE,
        "Strategy": _STRATEGY,
    }
)
"""The rules on each model, wherever it is in the resource."""

NAME: Final = Validation(
    rule=f"self.metadata.name.size() <= 40 && self.metadata.name.matches('{DNS_1035}')",
    message="must be at most 40 lower-case letters, digits and dashes, beginning with a letter and not ending with a "
    "dash",
    field=".metadata.name",
)
"""The name of a job: those of its pods are made from it, and are at most 63 characters."""
