"""What of a job's labels its pods carry, so that Kueue can queue them.

Where clients stay for the whole job, they and the evaluator are one group, admitted together or not at all. Where they
take turns there is never a moment at which all are there, so each pod is admitted by itself. The aggregator is in no
queue: it goes on serving the model when everything else was given back, and would keep the group's quota until then.
"""

from signal import SIGTERM
from typing import Final

from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.build.names import COHORT_LABEL, UID_CHARACTERS
from fedjob_operator.core.actions import CreatePod
from fedjob_operator.core.cohorts import QUEUE_LABEL, is_admitted_together
from fedjob_operator.core.layout import declared_clients, needs_evaluator
from fedjob_operator.core.observed import PodRole
from fedjob_protocol.config import STOPPED_EXIT_CODE_VARIABLE

PRIORITY_LABEL: Final = "kueue.x-k8s.io/priority-class"
GROUP_NAME_LABEL: Final = "kueue.x-k8s.io/pod-group-name"
TOTAL_ANNOTATION: Final = "kueue.x-k8s.io/pod-group-total-count"
RETRIABLE_ANNOTATION: Final = "kueue.x-k8s.io/retriable-in-group"
"""``false``: the group is over, and its quota free, once none of its pods runs. Otherwise those of a suspended job
would be kept until others took their places."""


def queue_labels(job: FederatedJob, action: CreatePod) -> dict[str, str]:
    """Labels of a pod whose job is in a queue; none where it is in none."""
    labels = job.metadata.labels
    if action.role is PodRole.AGGREGATOR or QUEUE_LABEL not in labels:
        return {}
    passed = {name: labels[name] for name in (QUEUE_LABEL, PRIORITY_LABEL) if name in labels}
    if not is_admitted_together(job):
        return passed
    cohort = str(action.cohort or 0)
    group = f"{job.metadata.name}-{job.metadata.uid[:UID_CHARACTERS]}-{cohort}"
    return {**passed, GROUP_NAME_LABEL: group, COHORT_LABEL: cohort}


def queue_annotations(job: FederatedJob, action: CreatePod) -> dict[str, str]:
    """Annotations of a pod whose group is admitted together."""
    if GROUP_NAME_LABEL not in queue_labels(job, action):
        return {}
    total = len(declared_clients(job)) + (1 if needs_evaluator(job) else 0)
    return {TOTAL_ANNOTATION: str(total), RETRIABLE_ANNOTATION: "false"}


def queue_environment(job: FederatedJob, action: CreatePod) -> dict[str, str]:
    """Environment of a program whose group is admitted together.

    Kueue takes a replacement for a pod that failed only: one that ended well, as a drained one of ours does, has had
    its place in the group.
    """
    return {STOPPED_EXIT_CODE_VARIABLE: str(128 + SIGTERM)} if queue_annotations(job, action) else {}
