"""Enough clients? When may a job start, when may a round begin, and what follows when a round fails."""

from collections import Counter
from datetime import datetime, timedelta

from fedjob_operator.api.resolve import clients_per_round, min_clients, over_select
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.core.failures import DEFINITIVE
from fedjob_operator.core.layout import wanted_clients
from fedjob_operator.core.moments import after
from fedjob_operator.core.observed import PodRole
from fedjob_operator.core.obstacles import ORDINARY
from fedjob_operator.core.pods import PodPlan
from fedjob_operator.core.selection import select
from fedjob_operator.core.turns import takes_turns
from fedjob_protocol.messages import FailedClient
from fedjob_protocol.reasons import Reason

FIRST_RETRY = timedelta(seconds=5)
"""Wait after the last allowed attempt of a round failed, before a further one under ``onQuorumLoss: Wait``."""
MAX_RETRY = timedelta(minutes=5)


def may_start(job: FederatedJob, pods: PodPlan, now: datetime) -> tuple[bool, datetime | None]:
    """Whether the first round may open, and if not, when waiting for the others ends.

    A job starts when all its clients are ready, or when ``minClients`` are and ``joinWaitSeconds`` have passed since
    the first one was; one that had registered before the job began counts from then on. Where clients take turns it
    starts when the one that makes the initial model is ready.
    """
    if takes_turns(job.spec):
        return bool(pods.ready), None  # the first to have a turn makes the initial model
    wanted = len(wanted_clients(job))
    ready = [pods.clients[index].since for index in pods.ready]
    if len(ready) + len(pods.lost) >= wanted and len(ready) >= min_clients(job.spec):
        return True, None
    if len(ready) < min_clients(job.spec):
        return False, None
    began = job.status.startup.began_at if job.status.startup else now
    since = min(
        moment if pods.clients[index].boot_id is None else max(moment, began)
        for index, moment in zip(pods.ready, ready, strict=True)
    )
    over = after(since, job.spec.join_wait_seconds)
    return over <= now, over


def at_hand(job: FederatedJob, pods: PodPlan) -> int:
    """Clients that a round can count on: those that are ready; where clients take turns, those that are not lost."""
    return len(wanted_clients(job)) - len(pods.lost) if takes_turns(job.spec) else len(pods.ready)


def draw(job: FederatedJob, pods: PodPlan, *, round_number: int, redraw: int) -> tuple[int, ...]:
    """Choose the participants of a round; of round 0 the ready client with the lowest index, if there is one."""
    candidates = [index for index in wanted_clients(job) if index not in pods.lost | pods.unproven]
    if round_number == 0:
        # One that we started, if there is one: it may have been given the model to begin with.
        ready = sorted(pods.ready, key=lambda index: (pods.clients[index].boot_id is not None, index))
        return tuple((ready or candidates)[:1])
    return select(
        seed=job.spec.seed,
        round_number=round_number,
        redraw=redraw,
        candidates=candidates,
        count=clients_per_round(job.spec) + over_select(job.spec),
    )


def retry_delay(failed_attempts: int, max_attempts: int) -> timedelta:
    """Wait before a round that used up its attempts is tried again: 5 s, 10 s, 20 s … at most `MAX_RETRY`."""
    extra = max(failed_attempts - max_attempts, 0)
    return min(timedelta(seconds=FIRST_RETRY.total_seconds() * 2 ** min(extra, 10)), MAX_RETRY)


def definitive_reason(failures: list[FailedClient], *, participants: int, needed: int) -> Reason | None:
    """The commonest definitive reason, if failures of that kind alone make ``needed`` reports impossible."""
    reasons = Counter(Reason(failure.reason) for failure in failures if failure.reason in DEFINITIVE)
    if not reasons or participants - reasons.total() >= needed:
        return None
    return reasons.most_common(1)[0][0]


def missing_clients(job: FederatedJob, pods: PodPlan) -> str:
    """Say which clients are not ready and why, at most three of them: first those whose reason says what to mend."""
    absent = {index: pods.obstacles.get((PodRole.CLIENT, index)) for index in wanted_clients(job)}
    told = [(index, found) for index, found in absent.items() if found]
    told.sort(key=lambda item: (not item[1].is_specific, item[1].message in ORDINARY, item[0]))
    shown = [f"client {index}: {found.message}" for index, found in told[:3]]
    more = [f"and {len(told) - 3} more"] if len(told) > 3 else []
    return "; ".join(shown + more)
