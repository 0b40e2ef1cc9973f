"""What `fedjob run` makes of a job: what it cannot do and refuses, and what it leaves aside."""

from collections.abc import Collection, Iterator

from fedjob_operator.api.enums import ClientPods, Device, EvaluationMode, LateJoiners, PartitionScheme
from fedjob_operator.api.learning import Partition
from fedjob_operator.api.problems import Problem, suggestion
from fedjob_operator.api.spec import ClientGroup, FederatedJobSpec
from fedjob_operator.api.v1alpha1 import FederatedJob

_SCHEMES = frozenset({PartitionScheme.IID, PartitionScheme.DIRICHLET, PartitionScheme.SHARDS})
_STRATEGIES = frozenset({"FedAvg"})
_OPTIMIZERS = frozenset({"SGD"})


def local_problems(
    job: FederatedJob, *, known_models: Collection[str] | None = None, known_data: Collection[str] | None = None
) -> list[Problem]:
    """Return what `fedjob run` cannot do, in the order of a manifest; empty if it can run the job.

    Args:
        job: A job whose spec is sound.
        known_models: Names of the built-in models; None checks no names. Groups with a trainer may use any name.
        known_data: Names of the built-in data sets, likewise.
    """
    spec = job.spec
    return [
        *_names(spec, known_models, known_data),
        *_learning(spec),
        *_running(spec),
        *(problem for index, group in enumerate(spec.client_groups) for problem in _group(index, group)),
    ]


def local_notes(job: FederatedJob) -> list[Problem]:
    """Return what `fedjob run` leaves aside because it is about pods and volumes; the job runs all the same."""
    spec = job.spec
    ignored: dict[str, object] = {
        f"spec.clientGroups[{index}].{name}": given
        for index, group in enumerate(spec.client_groups)
        for name, given in (
            ("image", group.image),
            ("gpus", group.gpus and group.device is not Device.GPU),
            ("volumeClaimTemplates", group.volume_claim_templates),
            ("template", group.template),
        )
    }
    ignored |= {
        "spec.aggregator.storage": "storage" in spec.aggregator.model_fields_set,
        "spec.aggregator.template": spec.aggregator.template,
        "spec.evaluation.gpus": spec.evaluation.gpus,
        "spec.evaluation.template": spec.evaluation.template,
        "spec.ttlSecondsAfterFinished": spec.ttl_seconds_after_finished is not None,
    }
    return [Problem(path, "is ignored on this machine") for path, given in ignored.items() if given]


def _names(spec: FederatedJobSpec, models: Collection[str] | None, data: Collection[str] | None) -> Iterator[Problem]:
    built_in = [(index, group) for index, group in enumerate(spec.client_groups) if group.trainer is None]
    if built_in and models is not None and spec.model.name not in models:
        yield _unknown("spec.model.name", spec.model.name, models)
    if data is None:
        return
    inherits = any(group.data is None or group.data.name is None for _, group in built_in)
    if spec.data is not None and inherits and spec.data.name not in data:
        yield _unknown("spec.data.name", spec.data.name, data)
    for index, group in built_in:
        if group.data is not None and group.data.name is not None and group.data.name not in data:
            yield _unknown(f"spec.clientGroups[{index}].data.name", group.data.name, data)
    held_out = spec.evaluation.data  # the evaluator runs the trainer of the first group
    if held_out is not None and spec.client_groups[0].trainer is None and held_out.name not in {None, *data}:
        yield _unknown("spec.evaluation.data.name", str(held_out.name), data)


def _unknown(path: str, name: str, known: Collection[str]) -> Problem:
    near = suggestion(name, known)
    return Problem(path, f'"{name}" is not built in{near}; built in are {", ".join(sorted(known))}')


def _learning(spec: FederatedJobSpec) -> Iterator[Problem]:
    origin = spec.model.init_from
    if origin is not None and origin.file is None:
        yield Problem("spec.model.initFrom", "only file can be used on this machine")
    if spec.data is not None:
        yield from _partition("spec.data.partition", spec.data.partition)
    custom = all(group.trainer is not None for group in spec.client_groups)
    if not custom and spec.training.optimizer.name not in _OPTIMIZERS:
        yield _unknown("spec.training.optimizer.name", spec.training.optimizer.name, _OPTIMIZERS)
    for name, value in spec.training.optimizer.parameters.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield Problem(f"spec.training.optimizer.parameters.{name}", "is not a number")
    if spec.training.learning_rate_schedule is not None:
        yield Problem("spec.training.learningRateSchedule", "is not supported yet; leave it out")
    if spec.strategy.name not in _STRATEGIES:
        yield _unknown("spec.strategy.name", spec.strategy.name, _STRATEGIES)


def _partition(path: str, partition: Partition | None) -> Iterator[Problem]:
    if partition is not None and partition.scheme not in _SCHEMES:
        yield Problem(f"{path}.scheme", f"{partition.scheme} is not supported yet; use {', '.join(sorted(_SCHEMES))}")


def _running(spec: FederatedJobSpec) -> Iterator[Problem]:
    if spec.client_pods is ClientPods.PER_ROUND:
        yield Problem("spec.clientPods", "PerRound is for Kubernetes; leave it out on this machine")
    if spec.late_joiners is LateJoiners.REFUSE:
        yield Problem("spec.lateJoiners", "Refuse is not supported yet; leave it out")
    if spec.aggregator.replicas > 1:
        yield Problem("spec.aggregator.replicas", f"{spec.aggregator.replicas}, but this machine runs one aggregator")
    if EvaluationMode.CLIENTS in spec.evaluation.modes:
        yield Problem("spec.evaluation.modes", "Clients is not supported yet; use Evaluator, or [] for no evaluation")
    if spec.suspend:
        yield Problem("spec.suspend", "is true; on this machine, interrupt the run and go on with --resume")
    if spec.serve.replicas:
        yield Problem("spec.serve.replicas", f"{spec.serve.replicas}, but this machine serves with `fedjob predict`")


def _group(index: int, group: ClientGroup) -> Iterator[Problem]:
    path = f"spec.clientGroups[{index}]"
    if group.device is Device.GPU and group.gpus:
        yield Problem(f"{path}.gpus", f"{group.gpus} with device GPU: GPUs cannot be divided among clients here")
    if group.data is not None:
        yield from _partition(f"{path}.data.partition", group.data.partition)
    if group.external is not None:
        yield Problem(f"{path}.external", "clients that register themselves are for Kubernetes; use replicas")
