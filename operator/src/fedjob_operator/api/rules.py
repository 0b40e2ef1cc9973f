"""The rules between fields that no type can say: what a manifest may not contradict itself in.

Pure functions from a typed spec to problems. The CRD states the same rules in CEL; the tests run one corpus of
manifests against both.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from fedjob_operator.api.base import MAX_CLIENTS
from fedjob_operator.api.enums import Checkpoint, Device, PartitionScheme
from fedjob_operator.api.learning import DataOverride, InitFrom, Partition
from fedjob_operator.api.problems import Problem
from fedjob_operator.api.quantity import quantity_bytes
from fedjob_operator.api.resolve import clients_per_round, group_capacity, min_reports, num_clients, over_select
from fedjob_operator.api.spec import ClientGroup, FederatedJobSpec
from fedjob_protocol.strategies import (
    BUILT_IN_STRATEGIES,
    COMPARING,
    MOST_COMPARED,
    least_compared,
    name_problems,
    range_problems,
)

Rule = Callable[[FederatedJobSpec], Iterator[Problem]]
"""Yields what a spec does against one rule."""

_POLICY: Final = "spec.roundPolicy"


def spec_problems(spec: FederatedJobSpec) -> list[Problem]:
    """Return everything in which a spec contradicts itself, in the order of a manifest; empty if it is sound."""
    return [problem for rule in RULES for problem in rule(spec)]


def _model(spec: FederatedJobSpec) -> Iterator[Problem]:
    origin = spec.model.init_from
    if origin is None:
        return
    path = "spec.model.initFrom"
    given = [name for name in ("federatedJob", "claim", "file") if _given(origin, name)]
    if len(given) != 1:
        yield Problem(path, f"needs exactly one of federatedJob, claim and file; has {' and '.join(given) or 'none'}")
    job = origin.federated_job
    if job is not None and job.checkpoint is Checkpoint.ROUND and job.round is None:
        yield Problem(f"{path}.federatedJob.round", "missing; checkpoint Round needs it")
    if job is not None and job.checkpoint is not Checkpoint.ROUND and job.round is not None:
        yield Problem(f"{path}.federatedJob.round", f"is only for checkpoint Round, not {job.checkpoint}")


def _given(origin: InitFrom, name: str) -> bool:
    return {"federatedJob": origin.federated_job, "claim": origin.claim, "file": origin.file}[name] is not None


def _data(spec: FederatedJobSpec) -> Iterator[Problem]:
    if spec.data is not None:
        yield from _partition("spec.data.partition", spec.data.partition)
    for index, group in enumerate(spec.client_groups):
        path = f"spec.clientGroups[{index}]"
        if group.data is not None:
            yield from _partition(f"{path}.data.partition", group.data.partition)
        if spec.data is None and group.trainer is None and _names_no_data(group.data):
            yield Problem(f"{path}.data.name", "missing; without spec.data, a group needs data or a trainer of its own")
    if spec.evaluation.data is not None and spec.evaluation.data.partition is not None:
        yield Problem("spec.evaluation.data.partition", "the evaluator's data are not divided")


def _names_no_data(data: DataOverride | None) -> bool:
    return data is None or data.name is None


def _partition(path: str, partition: Partition | None) -> Iterator[Problem]:
    if partition is None:
        return
    skewed = partition.scheme in {PartitionScheme.DIRICHLET, PartitionScheme.QUANTITY_SKEW}
    if skewed and partition.alpha is None:
        yield Problem(f"{path}.alpha", f"missing; scheme {partition.scheme} needs it")
    if not skewed and partition.alpha is not None:
        yield Problem(f"{path}.alpha", f"is only for Dirichlet and QuantitySkew, not {partition.scheme}")
    if partition.scheme is not PartitionScheme.SHARDS and partition.shards_per_client is not None:
        yield Problem(f"{path}.shardsPerClient", f"is only for Shards, not {partition.scheme}")


def _is_counted(spec: FederatedJobSpec) -> bool:
    """Whether each group says how many clients it has; if one does not, sums would only make up more problems."""
    return all(group.replicas is not None or group.external is not None for group in spec.client_groups)


def _round_policy(spec: FederatedJobSpec) -> Iterator[Problem]:
    if not _is_counted(spec):
        return
    clients, wanted, extra = num_clients(spec), clients_per_round(spec), over_select(spec)
    if wanted > clients:
        yield Problem(f"{_POLICY}.clientsPerRound", f"{wanted} is more than all clients ({clients})")
    elif wanted + extra > clients:
        yield Problem(
            f"{_POLICY}.overSelect", f"clientsPerRound ({wanted}) + {extra} is more than all clients ({clients})"
        )
    reports = spec.round_policy.min_reports
    if reports is not None and reports > wanted:
        yield Problem(f"{_POLICY}.minReports", f"{reports} is more than clientsPerRound ({wanted})")


def _strategy(spec: FederatedJobSpec) -> Iterator[Problem]:
    name, parameters = spec.strategy.name, spec.strategy.parameters
    problems = dict(range_problems(parameters))
    if name in BUILT_IN_STRATEGIES:
        problems = dict(name_problems(name, parameters)) | problems
    for parameter, message in problems.items():
        yield Problem(f"spec.strategy.parameters.{parameter}", message)
    if name in COMPARING and _is_counted(spec):
        yield from _comparing(spec, has_byzantine="byzantine" in parameters and "byzantine" not in problems)


def _comparing(spec: FederatedJobSpec, *, has_byzantine: bool) -> Iterator[Problem]:
    """Krum can tell wrong updates only where there are enough right ones, and compares each with each."""
    name, parameters = spec.strategy.name, spec.strategy.parameters
    wanted, reports = clients_per_round(spec), min_reports(spec)
    if wanted > MOST_COMPARED:
        yield Problem(f"{_POLICY}.clientsPerRound", f"{wanted} is more than {name} compares ({MOST_COMPARED})")
    least = least_compared(parameters) if has_byzantine else 0
    if min(wanted, reports) < least:
        where, count = ("clientsPerRound", wanted) if wanted < least else ("minReports", reports)
        yield Problem(
            "spec.strategy.parameters.byzantine",
            f"{parameters['byzantine']} needs at least {least} updates a round (2 * byzantine + 3), and {where} is "
            f"{count}",
        )


def _clients(spec: FederatedJobSpec) -> Iterator[Problem]:
    if not _is_counted(spec):
        return
    clients = num_clients(spec)
    if spec.min_clients is not None and spec.min_clients > clients:
        yield Problem("spec.minClients", f"{spec.min_clients} is more than all clients ({clients})")
    if clients == 0:
        yield Problem("spec.clientGroups", "have no client: each group has 0 replicas")
    capacity = sum(group_capacity(group) for group in spec.client_groups)
    if capacity > MAX_CLIENTS:
        yield Problem("spec.clientGroups", f"have {capacity} clients together; a job has at most {MAX_CLIENTS}")


def _groups(spec: FederatedJobSpec) -> Iterator[Problem]:
    names = [group.name for group in spec.client_groups]
    for index, group in enumerate(spec.client_groups):
        path = f"spec.clientGroups[{index}]"
        first = names.index(group.name)
        if first != index:
            yield Problem(f"{path}.name", f'"{group.name}" is also the name of clientGroups[{first}]')
        if group.external is not None:
            yield from _external(path, group)
        elif group.replicas is None:
            yield Problem(f"{path}.replicas", "missing; a group needs replicas, unless it is external")
        elif group.max_replicas is not None and group.replicas > group.max_replicas:
            yield Problem(f"{path}.maxReplicas", f"{group.max_replicas} is less than replicas ({group.replicas})")
        if group.device is Device.CPU and group.gpus:
            yield Problem(f"{path}.gpus", f"{group.gpus}, but device is CPU")


def _external(path: str, group: ClientGroup) -> Iterator[Problem]:
    """External clients have no pods of ours: what describes pods contradicts them."""
    described = {
        "replicas": group.replicas is not None,
        "maxReplicas": group.max_replicas is not None,
        "image": group.image is not None,
        "gpus": group.gpus > 0,
        "volumeClaimTemplates": bool(group.volume_claim_templates),
        "template": group.template is not None,
    }
    for name, is_given in described.items():
        if is_given:
            yield Problem(f"{path}.{name}", "is for clients that run here, and the group is external")


def _storage(spec: FederatedJobSpec) -> Iterator[Problem]:
    storage, path = spec.aggregator.storage, "spec.aggregator.storage"
    if quantity_bytes(storage.size) == 0:
        yield Problem(f"{path}.size", f'"{storage.size}" is no size')
    if storage.claim_name is not None and storage.storage_class_name is not None:
        yield Problem(f"{path}.storageClassName", "is for a new volume, and claimName names one that is there")
    if storage.claim_name is not None and spec.aggregator.replicas > 1:
        yield Problem(f"{path}.claimName", f"is one volume for {spec.aggregator.replicas} aggregators; leave it out")


def _evaluation(spec: FederatedJobSpec) -> Iterator[Problem]:
    for mode, times in Counter(spec.evaluation.modes).items():
        if times > 1:
            yield Problem("spec.evaluation.modes", f"{mode} is there {times} times")
    if spec.objective is not None and not spec.evaluation.modes:
        yield Problem("spec.objective", "needs evaluation, and spec.evaluation.modes is empty")


def _stop(spec: FederatedJobSpec) -> Iterator[Problem]:
    if spec.stop is None or spec.objective is not None:
        return
    if spec.stop.target is not None:
        yield Problem("spec.stop.target", "needs spec.objective: the metric that reaches it")
    if spec.stop.patience_rounds is not None:
        yield Problem("spec.stop.patienceRounds", "needs spec.objective: the metric that becomes better")


RULES: Final[tuple[Rule, ...]] = (
    _model,
    _data,
    _strategy,
    _round_policy,
    _clients,
    _groups,
    _storage,
    _evaluation,
    _stop,
)
"""All rules, in the order of a manifest."""
