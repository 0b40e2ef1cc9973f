"""Pods that a queue admits together: each start of all of them is a cohort of its own.

A queue that takes back what it admitted ends all pods of a group, and calls the group finished when the last has ended.
Pods that came later under its name would never be admitted, so they are a new group, named after the moment at which
the first of them was made. One that is replaced while others go on joins theirs.
"""

from typing import Final

from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.core.observed import PodPhase, PodRole
from fedjob_operator.core.standing import Standing
from fedjob_operator.core.turns import takes_turns

QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
"""Names the queue that a job, and each of its pods, waits in."""
_ALIVE: Final = frozenset({PodPhase.STARTING, PodPhase.READY})


def is_admitted_together(job: FederatedJob) -> bool:
    """Whether the pods of clients and evaluator wait in a queue as one group."""
    return QUEUE_LABEL in job.metadata.labels and not takes_turns(job.spec)


def cohort(job: FederatedJob, stock: Standing) -> int | None:
    """The cohort that a pod made now belongs to, in seconds since 1970; ``None`` where there are none."""
    if not is_admitted_together(job):
        return None
    pods = (pod for pod in stock.newest.values() if pod.role is not PodRole.AGGREGATOR and pod.phase in _ALIVE)
    return max((pod.cohort for pod in pods if pod.cohort is not None), default=int(stock.now.timestamp()))
