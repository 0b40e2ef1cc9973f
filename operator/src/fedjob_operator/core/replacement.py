"""Clients that somebody had replaced by `DELETE /v1/clients/{client}`: the next pod takes their index and data.

What counts is in the status before anything is done: from which ordinal on pods of an index count. Those below it are
gone for good and never made again, so that a wish which is heard of twice replaces nobody twice.
"""

from collections.abc import Mapping

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus, ReplacedClient
from fedjob_operator.core.actions import ListReplaced, OpenRound, WatchRound
from fedjob_operator.core.external import has_outside
from fedjob_operator.core.layout import wanted_clients
from fedjob_operator.core.observed import Observed, PodRole
from fedjob_operator.core.scene import Scene, Step


def with_replacements(job: FederatedJob, seen: Observed) -> FederatedJobStatus:
    """Return the status in which every replacement that was asked for is written down."""
    known = {entry.index: entry for entry in job.status.clients.replaced}
    wanted = frozenset(wanted_clients(job))
    asked = {index: count for index, count in seen.replaced.items() if index in wanted}
    done = {index: entry.generation for index, entry in known.items()}
    new = {index: count for index, count in asked.items() if count > done.get(index, 0)}
    if not new:
        return job.status
    for index, generation in new.items():
        first = _next_ordinal(index, known, seen)
        known[index] = ReplacedClient(index=index, generation=generation, first_ordinal=first)
    replaced = tuple(known[index] for index in sorted(known))
    return job.status.model_copy(update={"clients": job.status.clients.model_copy(update={"replaced": replaced})})


def _next_ordinal(index: int, known: Mapping[int, ReplacedClient], seen: Observed) -> int:
    """The first ordinal that no pod of an index has had, nor one that is being made."""
    before = known[index].first_ordinal if index in known else 0
    ordinals = [pod.ordinal for pod in seen.pods if (pod.role, pod.index) == (PodRole.CLIENT, index)]
    return max([before, *ordinals]) + 1


def listening(scene: Scene, step: Step) -> Step:
    """Ask who registered, and for replacements while clients are missing; the view of a round tells of the latter."""
    aggregator = scene.aggregator
    if aggregator is None or scene.state is None or aggregator.url is None:
        return step
    listen = ListReplaced(url=aggregator.url, incarnation=aggregator.incarnation)
    if has_outside(scene.job):
        return step.acting(listen)  # who registered, or left, is told in no other way
    is_told = any(isinstance(action, OpenRound | WatchRound) for action in step.actions)
    if is_told or scene.pods.ready.issuperset(wanted_clients(scene.job)):
        return step
    return step.acting(listen)
