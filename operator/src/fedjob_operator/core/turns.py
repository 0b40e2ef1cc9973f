"""``clientPods: PerRound``: a client's pod, and its GPUs, are there while the client is selected, and no longer.

Who is needed follows from the intent in the status and from what the aggregator says of the round: a participant is
needed until its update is verified, or it has failed for good. Its pod is released then, and a participant that waits
for room on a node gets what it held: a round larger than the cluster runs in waves.

The participants of the next round are known, since they are a function of seed and round. Their pods are made ahead,
and so is the evaluator's, but only as many as the round has given back, and none while somebody of the round waits for
room: a job never asks for more at once than one round needs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from fedjob_operator.api.resolve import clients_per_round, over_select
from fedjob_operator.api.v1alpha1 import ClientPods, CurrentRound, FederatedJob, FederatedJobSpec, RoundState
from fedjob_operator.core.observed import Observed, PodPhase, PodRole, PodView
from fedjob_operator.core.selection import select
from fedjob_operator.core.stopping import is_due
from fedjob_protocol.messages import AggregatorState, RoundView
from fedjob_protocol.reasons import Reason
from fedjob_protocol.round import DURABLE
from fedjob_protocol.round import RoundState as AggregatorRound

ROOM: Final = frozenset({Reason.GPU_UNAVAILABLE, Reason.UNSCHEDULABLE, Reason.QUOTA_EXCEEDED})
"""Reasons of a pod that waits until others give back what they hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Whose pods are wanted now, besides the aggregators'."""

    needed: frozenset[int]
    """Clients that the round, or the start, waits for."""
    ahead: frozenset[int] = frozenset()
    """Clients of the next round, as far as there is room for them."""
    evaluator: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """What is there for whoever may have a turn."""

    clients: Mapping[int, PodView]
    """The newest pod of each client that has one."""
    evaluator: PodView | None
    candidates: tuple[int, ...]
    """Clients that are wanted and not lost, in order."""
    ready: frozenset[int]
    is_queued: Callable[[PodRole, int], bool]
    """Whether the pod of a role and index waits for room."""


def takes_turns(spec: FederatedJobSpec) -> bool:
    """Whether clients have pods only while they are selected."""
    return spec.client_pods is ClientPods.PER_ROUND


def take_turn(job: FederatedJob, seen: Observed, places: Places) -> Turn:
    """Say whose turn it is.

    Args:
        job: A job that is not finished.
        seen: Everything seen.
        places: What is there.
    """
    current = job.status.current_round
    if current is None:
        is_new = job.status.start_time is None
        return Turn(needed=frozenset(places.candidates[:1] if is_new else ()))
    state, view = _heard(job, seen)
    if state is None:
        return _as_it_is(current, places)
    if view is not None and not _is_of(view, current):
        view = None
    needed = _unsettled(current, state, view) & frozenset(places.candidates)
    is_evaluated_now = _is_over(current, state, view) and _is_due(job, current, view)
    waits = any(places.is_queued(PodRole.CLIENT, index) for index in needed)
    if waits or (is_evaluated_now and places.is_queued(PodRole.EVALUATOR, 0)):
        return Turn(needed=needed, evaluator=is_evaluated_now)
    may_make = needed <= places.ready and (view is None or view.state is not AggregatorRound.ABANDONED)
    return _with_next(job, current, view, places, needed, makes=may_make, evaluated=is_evaluated_now)


def _as_it_is(current: CurrentRound, places: Places) -> Turn:
    """Nothing is made, and nothing released, before the aggregator has said how far the round is."""
    there = frozenset(index for index, pod in places.clients.items() if _is_there(pod))
    needed = there & frozenset(current.selected)
    return Turn(needed=needed, ahead=there - needed, evaluator=_is_there(places.evaluator))


def _heard(job: FederatedJob, seen: Observed) -> tuple[AggregatorState | None, RoundView | None]:
    """What the aggregator, or of several the one that leads, said of itself and of its round in this run."""
    state, view = seen.state, seen.round
    if job.spec.aggregator.replicas > 1:
        known = job.status.aggregator
        said = seen.replicas.get(known.uid or "") if known else None
        state, view = (said.state, said.round) if said else (None, None)
    if state is None or view is None or view.boot_id != state.boot_id:
        return state, None
    return state, view


def _is_of(view: RoundView, current: CurrentRound) -> bool:
    """Whether a view is about this attempt; a round that is committed is so whichever attempt it was."""
    return view.round == current.number and (view.attempt == current.attempt or view.state in DURABLE)


def _unsettled(current: CurrentRound, state: AggregatorState, view: RoundView | None) -> frozenset[int]:
    """The participants whose report is still to come."""
    if _is_over(current, state, view):
        return frozenset()
    if view is None or view.state is AggregatorRound.CANCELLED:
        return frozenset(current.selected)
    if view.state is not AggregatorRound.OPEN:
        return frozenset()
    return frozenset(current.selected) - {*view.reported, *(failure.client for failure in view.failed)}


def _is_over(current: CurrentRound, state: AggregatorState, view: RoundView | None) -> bool:
    """Whether the round is committed, so that nobody trains for it any more."""
    if view is not None and view.state in DURABLE:
        return True
    committed = state.committed.round if state.committed else -1
    return committed >= current.number or current.state is RoundState.EVALUATING


def _is_due(job: FederatedJob, current: CurrentRound, view: RoundView | None) -> bool:
    """Whether the round is, or will be, evaluated and is not yet."""
    if view is not None and view.record is not None:
        return view.record.expects_evaluation and view.state is not AggregatorRound.EVALUATED
    return is_due(job.spec, current.number)


def _with_next(
    job: FederatedJob,
    current: CurrentRound,
    view: RoundView | None,
    places: Places,
    needed: frozenset[int],
    *,
    makes: bool,
    evaluated: bool,
) -> Turn:
    """The turn with what is made, or kept, ahead of its time; the evaluator comes first."""
    spec = job.spec
    size = clients_per_round(spec) + over_select(spec)
    room = max(size - len(needed), 0)
    costs = 1 if spec.evaluation.gpus else 0
    soon = not evaluated and _is_due(job, current, view) and room >= costs
    evaluator = evaluated or (soon and (makes or _is_there(places.evaluator)))
    room = max(room - (costs if evaluator else 0), 0)
    following = _following(job, current, view, places.candidates, size)
    there = [index for index in following if index not in needed and _is_there(places.clients.get(index))]
    others = [index for index in following if index not in needed and index not in there]
    return Turn(needed=needed, ahead=frozenset([*there, *(others if makes else [])][:room]), evaluator=evaluator)


def _following(
    job: FederatedJob, current: CurrentRound, view: RoundView | None, candidates: tuple[int, ...], size: int
) -> tuple[int, ...]:
    """Who takes part next: in the next round, or in another choice for the one that found no quorum."""
    number, redraw = current.number + 1, 0
    if view is not None and view.state is AggregatorRound.ABANDONED:
        number, redraw = current.number, current.redraw + 1
    if number == 0 or number > job.spec.rounds:
        return ()
    return select(seed=job.spec.seed, round_number=number, redraw=redraw, candidates=candidates, count=size)


def _is_there(pod: PodView | None) -> bool:
    return pod is not None and pod.phase in (PodPhase.STARTING, PodPhase.READY)
