"""What has to be true of every schedule, whatever goes wrong."""

from fedjob_operator.api.resolve import clients_per_round, over_select
from fedjob_operator.api.v1alpha1 import CurrentRound, FederatedJob, FederatedJobStatus
from fedjob_operator.core.actions import Action, OpenRound, StartTask
from fedjob_operator.core.phases import TERMINAL, TRANSITIONS
from fedjob_operator.core.selection import select
from fedjob_protocol.messages import RoundRecord
from tests.support.builders import model_digest

SUSPENDED_SECONDS = 10.0
"""After so long no pod is left of a suspended job, not even one that was being made meanwhile."""

Intent = tuple[int, int, int]
"""Term, round, attempt."""


class BrokenInvariantError(AssertionError):
    """Something happened that may never happen."""


class Invariants:
    """Looks at every step of a world.

    Args:
        job: The job.
        num_clients: How many clients it declares.
    """

    def __init__(self, job: FederatedJob, *, num_clients: int) -> None:
        self._job = job
        self._num_clients = num_clients
        self._late: tuple[int, ...] = ()
        self._intents: dict[Intent, tuple[int, ...]] = {}
        self._drawn: dict[tuple[int, int], tuple[int, ...]] = {}
        self._trained: set[tuple[str, int, int]] = set()
        self.records: list[RoundRecord] = []

    # What the aggregator made durable

    def committed(self, record: RoundRecord) -> None:
        """A round is durable: the next one, on top of the one before, made of nothing but its contributors."""
        if self._job.spec.aggregator.replicas > 1 and self.records and record.digest == self.records[-1].digest:
            return  # another leader stands for what its predecessor committed
        number, parent = len(self.records), self.records[-1].digest if self.records else None
        self._check(record.round == number, f"round {record.round} was committed after round {number - 1}")
        self._check(record.parent == parent, f"round {number} was built on {record.parent}, not on {parent}")
        if record.base is not None:
            start = record.base.round
            known = start < number and self.records[start].digest == record.base.digest
            self._check(known, f"round {number} started from round {start} with {record.base.digest}")
        clients = [contribution.client for contribution in record.contributors]
        made = model_digest(parent, clients if number else ())
        self._check(record.digest == made, f"round {number} of {clients} has digest {record.digest}")
        self._check(len(set(clients)) == len(clients), f"round {number} counts a client twice: {clients}")
        self._check(set(clients) <= set(record.participants), f"round {number} counts strangers: {clients}")
        self.records.append(record)

    # What the operator does

    def started(self, action: Action, job: FederatedJob) -> None:
        """An effect begins: its intent was written before, by this term or one before."""
        if isinstance(action, OpenRound):
            clients = tuple(participant.client for participant in action.spec.participants)
            self._check_intent((action.spec.term, action.round, action.spec.attempt), clients)
        elif isinstance(action, StartTask):
            goal = action.task.destination
            self._check_intent((goal.term, action.round, goal.attempt), None)
        if job.status.current_round is not None:
            self._check(job.status.term >= 1, "an effect before any claim")

    def _check_intent(self, intent: Intent, clients: tuple[int, ...] | None) -> None:
        written = self._intents.get(intent)
        self._check(written is not None, f"an effect of {intent} before its intent was written")
        self._check(clients in (None, written), f"round {intent[1]} was opened for {clients}, not for {written}")

    def written(self, before: FederatedJobStatus, after: FederatedJobStatus) -> None:
        """A status was written."""
        self._check(after.term >= before.term, f"the term went back from {before.term} to {after.term}")
        committed = after.rounds.committed
        self._check(committed >= before.rounds.committed, f"the status went back to round {committed}")
        self._check(committed < len(self.records), f"the status says that round {committed} is committed")
        if committed >= 0:
            digest = self.records[committed].digest
            self._check(after.model is not None and after.model.digest == digest, f"round {committed} is {digest}")
        if after.phase is not before.phase:
            known = after.phase in TRANSITIONS[before.phase]
            self._check(known, f"the phase went from {before.phase} to {after.phase}")
        self._check(before.phase not in TERMINAL or after == before, "a finished job was changed")
        if after.current_round is not None:
            self._intended(before.current_round, after.current_round, after)

    def _intended(self, before: CurrentRound | None, current: CurrentRound, status: FederatedJobStatus) -> None:
        number, redraw = current.number, current.redraw
        self._check(number == status.rounds.committed + 1, f"round {number} is not the next one")
        if before is not None:
            older = (before.number, before.attempt, before.redraw)
            newer = (number, current.attempt, redraw)
            self._check(newer >= older, f"the intent went back from {older} to {newer}")
        self._intents[status.term, number, current.attempt] = current.selected
        if number == 0:
            return
        drawn = self._drawn.get((number, redraw))
        if drawn is None:
            self._late = status.clients.late_indices
            drawn = self._drawn[number, redraw] = self._select(number, redraw, status.clients.lost_indices)
        self._check(current.selected == drawn, f"round {number}.{redraw} is for {current.selected}, not for {drawn}")

    def _select(self, number: int, redraw: int, lost: tuple[int, ...]) -> tuple[int, ...]:
        spec = self._job.spec
        return select(
            seed=spec.seed,
            round_number=number,
            redraw=redraw,
            candidates=[index for index in range(self._num_clients) if index not in lost and index not in self._late],
            count=clients_per_round(spec) + over_select(spec),
        )

    def suspended(self, seconds: float, *, has_pods: bool) -> None:
        """The job has been suspended for so long."""
        self._check(not has_pods or seconds < SUSPENDED_SECONDS, f"pods are there {seconds:.0f} s after a suspension")

    # What clients do

    def trained(self, incarnation: str, index: int, round_number: int) -> None:
        """A training ended: the first of this client for this round, unless the client died."""
        key = (incarnation, index, round_number)
        self._check(key not in self._trained, f"client {index} trained twice for round {round_number}")
        self._trained.add(key)

    @staticmethod
    def _check(holds: bool, message: str) -> None:
        if not holds:
            raise BrokenInvariantError(message)
