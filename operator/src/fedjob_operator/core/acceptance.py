"""Whether a job can be run at all: its spec, the pods that the spec yields, and a status that somebody else wrote.

What is accepted fixes the layout and the images for the life of the job. What can be mended waits until it is; what
cannot is the end.
"""

from datetime import datetime
from typing import Final

from pydantic import ValidationError

from fedjob_operator.api.problems import Problem
from fedjob_operator.api.resolve import layout, num_clients
from fedjob_operator.api.rules import spec_problems
from fedjob_operator.api.supported import unsupported_on_cluster
from fedjob_operator.api.v1alpha1 import (
    ConditionType,
    FederatedJob,
    FederatedJobStatus,
)
from fedjob_operator.core.actions import CheckPods
from fedjob_operator.core.conditions import finish, set_condition
from fedjob_operator.core.layout import client_indices
from fedjob_operator.core.observed import Observed
from fedjob_operator.core.obstacles import reason_of
from fedjob_operator.core.platform import Platform
from fedjob_operator.core.readiness import without_pods
from fedjob_operator.core.scene import Step
from fedjob_operator.core.startup import begin_startup
from fedjob_operator.core.suspension import suspending
from fedjob_operator.core.tasks import training_config
from fedjob_protocol.reasons import Reason
from fedjob_protocol.tasks import OptimizerConfig, TrainingConfig

MAX_COUNT: Final = 10**12
"""Attempts, redraws and terms beyond this were not counted by any operator."""
MAX_ORDINAL: Final = 900_000
"""No client has had more pods than that; the label that counts them has few digits."""
_MAX_PROBLEMS: Final = 5
"""Problems of a spec that a message names."""
_TRAINING_SECTIONS: Final = {
    OptimizerConfig.__name__: "spec.training.optimizer",
    TrainingConfig.__name__: "spec.training",
}
_SCHEDULE_PARAMETERS: Final = "spec.training.learningRateSchedule.parameters"


def accept(job: FederatedJob, seen: Observed, now: datetime, platform: Platform) -> Step:
    """Fix the layout, or say why there is none: for good where nothing can be done about it, else until it is mended.

    A job that is created suspended is accepted without a look at its pods: they are checked when it is resumed.
    """
    status = job.status
    if problem := training_problem(job):
        return Step(status=finish(status, failed=True, reason=Reason.INVALID_SPEC, message=problem, now=now))
    if problems := _spec_problems(job, platform):
        return Step(status=refused(job, status, Reason.INVALID_SPEC, _words(problems), now))
    if platform.checks_pods and not job.spec.suspend and (waiting := pods_checked(job, seen, now)):
        return waiting
    planned = as_accepted(job, platform)
    status = accepted(planned, planned.status, now)
    message = "no pod is made yet"
    status = without_pods(planned, status, seen, platform, reason=Reason.STARTING, message=message, now=now)
    if job.spec.suspend:
        return Step(status=suspending(status, seen, now))
    return Step(status=begin_startup(status, attempt=1, now=now))


def as_accepted(job: FederatedJob, platform: Platform) -> FederatedJob:
    """Return the job with its layout and images as they are, or will be, once it is accepted."""
    status = job.status
    if status.layout and (status.images or not platform.images):
        return job
    update = {"layout": status.layout or layout(job.spec), "images": status.images or platform.images}
    return job.model_copy(update={"status": status.model_copy(update=update)})


def pods_checked(job: FederatedJob, seen: Observed, now: datetime) -> Step | None:
    """Have the cluster look at the pods of this generation of the spec; ``None`` once it would take them.

    A refusal is asked about again from time to time: what is mended may be the namespace, not the spec.
    """
    action, check, status = CheckPods(generation=job.metadata.generation), seen.pod_check, job.status
    if check is None or check.generation != job.metadata.generation:
        if failure := seen.failures.get(action.key):
            message = f"the pods cannot be checked: {failure.message}"
            status = refused(job, status, reason_of(failure), message, now)
        return Step(status=status, actions=(action,))
    if check.problem is None:
        return None
    status = refused(job, status, Reason.INVALID_POD_TEMPLATE, check.problem, now)
    return Step(status=status, actions=(action,))


def accepted(job: FederatedJob, status: FederatedJobStatus, now: datetime) -> FederatedJobStatus:
    """Return the status with its Accepted condition true."""
    return set_condition(
        status,
        ConditionType.ACCEPTED,
        holds=True,
        reason=Reason.ACCEPTED,
        message=f"{num_clients(job.spec)} clients, {job.spec.rounds} rounds",
        now=now,
        generation=job.metadata.generation,
    )


def refused(
    job: FederatedJob, status: FederatedJobStatus, reason: Reason, message: str, now: datetime
) -> FederatedJobStatus:
    """Return the status with its Accepted condition false."""
    return set_condition(
        status,
        ConditionType.ACCEPTED,
        holds=False,
        reason=reason,
        message=message,
        now=now,
        generation=job.metadata.generation,
    )


def misfit(job: FederatedJob, platform: Platform) -> str | None:
    """Why an accepted job cannot go on with its spec as it is now; ``None`` if it can.

    The API server refuses such an edit; it gets through where its rules were off. Nothing is given up: what runs stays
    as it is until the spec is mended.
    """
    condition = job.status.condition(ConditionType.ACCEPTED)
    generation = condition.observed_generation if condition and job.status.holds(ConditionType.ACCEPTED) else None
    if generation != job.metadata.generation:
        if problem := training_problem(job):
            return problem
        if problems := _spec_problems(job, platform):
            return _words(problems)
    problems = _layout_problems(job)
    return _words(problems) if problems else None


def forged(status: FederatedJobStatus) -> str | None:
    """Why no operator can have written this status; ``None`` if one can."""
    first = 0
    for entry in status.layout:
        if entry.first != first:
            return f"status.layout: group {entry.group} begins with client {entry.first}, not with {first}"
        first += entry.count
    if any(entry.first_ordinal > MAX_ORDINAL for entry in status.clients.replaced):
        return f"status.clients.replaced counts more than {MAX_ORDINAL} pods of one client"
    current = status.current_round
    counts = [status.term, status.failed_attempts, *((current.attempt, current.redraw) if current else ())]
    if any(count > MAX_COUNT for count in counts):
        return f"status counts {max(counts)} terms or attempts"
    if current is None or not status.layout:
        return None
    known = client_indices(status.layout)
    strangers = [index for index in current.selected if index not in known]
    if strangers:
        return f"status.currentRound.selected: client {strangers[0]} does not exist; there are {len(known)}"
    if len(set(current.selected)) != len(current.selected):
        return "status.currentRound.selected names a client twice"
    return None


def training_problem(job: FederatedJob) -> str | None:
    """What of ``spec.training``, or of FedProx's mu, no client could be told."""
    try:
        training_config(job, round_number=1, index=0)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if where == "proximal_mu":
            return f"spec.strategy.parameters.mu: {first['msg']}"
        return f"{_TRAINING_SECTIONS.get(error.title, _SCHEDULE_PARAMETERS)}.{where}: {first['msg']}"
    except ValueError as error:  # a schedule that does not exist
        return f"spec.{error}"
    return None


def _spec_problems(job: FederatedJob, platform: Platform) -> list[Problem]:
    problems = spec_problems(job.spec)
    if problems or not platform.has_containers:
        return problems
    return unsupported_on_cluster(job.spec)


def _layout_problems(job: FederatedJob) -> list[Problem]:
    """Data are divided by the layout: a group that came, went or outgrew it cannot be taken in."""
    groups = {group.name: (place, group) for place, group in enumerate(job.spec.client_groups)}
    counts = {entry.group: entry.count for entry in job.status.layout}
    problems = [
        Problem("spec.clientGroups", f'group "{name}" of the accepted job is gone; put it back')
        for name in counts
        if name not in groups
    ]
    for name, (place, group) in groups.items():
        path = f"spec.clientGroups[{place}]"
        if name not in counts:
            problems.append(Problem(path, f'group "{name}" was added after the job was accepted; take it out'))
        elif group.external is None and (group.replicas or 0) > counts[name]:
            message = f"{group.replicas} is more than maxReplicas ({counts[name]})"
            problems.append(Problem(f"{path}.replicas", message))
    return problems


def _words(problems: list[Problem]) -> str:
    more = [f"and {len(problems) - _MAX_PROBLEMS} more"] if len(problems) > _MAX_PROBLEMS else []
    return "; ".join([*map(str, problems[:_MAX_PROBLEMS]), *more])
