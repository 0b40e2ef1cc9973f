"""The service of an aggregator that is one of several: it leads or follows as the operator says.

What the leader commits counts, and is seen by anybody but its standbys, once enough aggregators hold it.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any, Final, NamedTuple

from typing_extensions import override

from fedjob_aggregator.events import Claim, Committed, RecordClosed, State
from fedjob_aggregator.follower import Follower
from fedjob_aggregator.leadership import (
    Standing,
    appointed,
    check_leads,
    heard_from,
    holders,
    is_acknowledged,
    needed,
    standbys,
)
from fedjob_aggregator.machine import step
from fedjob_aggregator.reading import LONGEST_WAIT_SECONDS
from fedjob_aggregator.replica_store import ReplicaStore
from fedjob_aggregator.service import Service
from fedjob_aggregator.uploads import UploadDesk
from fedjob_aggregator.views import restored
from fedjob_aggregator.writer import Writer
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.messages import AggregatorState, Base, CheckpointInfo, Evaluation, RoundRecord, RoundView
from fedjob_protocol.replicas import Commit, ReplicationView, ReplicaView
from fedjob_protocol.replication import Holdings, Leadership, Progress
from fedjob_protocol.round import RoundState

ACKNOWLEDGE_SECONDS: Final = 5.0
"""How long the answer to an evaluation waits for standbys; asked again, it waits again."""


class Member(NamedTuple):
    """How one of several aggregators is known to the others."""

    name: str
    token: str | None
    """The job's; ``None`` sends none."""


class ReplicaService(Service):
    """`Service` of one of several aggregators.

    Args:
        store: The folder, open.
        writer: Folds and commits.
        desk: Receives uploads.
        member: How it is known to the others.
        options: What else a `Service` takes.
    """

    def __init__(
        self,
        store: ReplicaStore,
        writer: Writer,
        desk: UploadDesk,
        *,
        member: Member,
        **options: Any,
    ) -> None:
        super().__init__(store, writer, desk, **options)
        self._replica = store
        self._standing = Standing(name=member.name, boot_id=self._state.boot_id)
        self._has_led = False
        """Whether the machine is in the state of a leader, which another term may find it in."""
        self._durable_since = 0.0
        self._follower = Follower(store, writer, name=member.name, token=member.token, copied=self._copied)

    @property
    def standing(self) -> Standing:
        """What it knows of the others; frozen."""
        return self._standing

    # Requests of the operator

    async def appoint(self, leadership: Leadership) -> AggregatorState:
        """Take in who leads in a term.

        Raises:
            Refusal: As `leadership.appointed`; ``wrong-job``; ``wrong-base``: it is to lead from what it does not hold;
                ``storage-full``: it could not be made durable.
        """
        async with self._operator:
            step(self._state, Claim(job_uid=leadership.job_uid, term=leadership.term))
            standing = appointed(self._standing, leadership, leadership.term, time.monotonic())
            if standing != self._standing or self._state.term < leadership.term:
                await self._follower.leave()
                await self._claim(leadership.job_uid, leadership.term)
                await self._change_role(standing, leadership)
                self._standing = standing
                self._wake()
            return self.overview()

    async def _change_role(self, standing: Standing, leadership: Leadership) -> None:
        if standing.is_leader:
            if not self._has_led:
                self._check_base(leadership.committed)
            await self._settle([self._writer.perform(lambda: self._replica.stamp(leadership.term))])
            if not self._has_led:
                self._take_over(leadership.committed)
        elif leadership.leader is not None:
            if self._has_led:
                await self._step_down()
            self._follower.follow(leadership)

    def _check_base(self, base: Base | None) -> None:
        """A leader holds what is committed, and at most one round more on top of it."""
        newest = self._replica.newest
        if newest is None:
            fits = base is None
        elif base is not None and base.round == newest.round:
            fits = base.digest == newest.digest
        else:
            number, digest = (-1, None) if base is None else (base.round, base.digest)
            fits = (newest.round, newest.parent) == (number + 1, digest)
        if not fits:
            held = "nothing" if newest is None else f"round {newest.round} with {newest.digest}"
            wanted = "nothing" if base is None else f"round {base.round} with {base.digest}"
            raise Refusal(Word.WRONG_BASE, f"{self._standing.name} holds {held}, but {wanted} is committed")

    def _take_over(self, base: Base | None) -> None:
        """Begin to lead from what is held; the round on top of what is committed counts once enough hold it."""
        record, newest = self.store.record, self._replica.newest
        is_ahead = newest is not None and (base is None or newest.round > base.round)
        before = self.store.log.record(newest.round - 1) if is_ahead and newest is not None else record
        self._has_led = True
        self._state = self._restored(before)
        if self.store.tensors is not None:
            self._desk.expect(self.store.tensors)
        if is_ahead and record is not None:
            self._durable_since = time.monotonic()
            self._commit = asyncio.create_task(self._adopt(record))

    async def _adopt(self, record: RoundRecord) -> None:
        """Let a round count that an earlier leader committed."""
        await self._acknowledged(record)
        self._recorder.committed(record)
        self._apply(Committed(record=record))
        if self.store.log.last_round >= record.round:
            self._apply(RecordClosed(record=record))

    async def _step_down(self) -> None:
        """Another one leads: what is open here is over."""
        self._desk.stop_all(Refusal(Word.NOT_LEADER, "another aggregator leads now"))
        for timer in (self._deadline, self._commit):
            if timer is not None:
                timer.cancel()
        await self._settle([self._writer.perform(self._replica.settle_log)])  # after whatever was being written
        self._writer.drop_initial()
        self._writer.release()
        self._has_led = False
        self._state = self._restored(self.store.record)

    def _restored(self, record: RoundRecord | None) -> State:
        return restored(
            boot_id=self._state.boot_id,
            job_uid=self._state.job_uid,
            term=self._state.term,
            record=record,
            is_closed=record is not None and record.round <= self.store.log.last_round,
            best=self.store.manifest.best,
        )

    def _copied(self) -> None:
        """The folder of a standby has changed."""
        if not self._has_led:
            self._state = self._restored(self.store.record)
            self._wake()

    @override
    async def evaluate(self, round_number: int, evaluation: Evaluation) -> RoundView:
        if not self._is_closed_everywhere():
            self._durable_since = time.monotonic()
        await super().evaluate(round_number, evaluation)
        with suppress(TimeoutError):
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                while self.view(round_number).replication is not None and not self._stopping:
                    await self._changed.wait()
        return self.view(round_number)

    # Requests of standbys

    async def hear(self, name: str, progress: Progress, wait_seconds: float) -> Holdings:
        """Take in what a standby holds; answered once there is something that it does not hold.

        Raises:
            Refusal: As `leadership.heard_from`; ``wrong-job``.
        """
        if progress.job_uid != self._state.job_uid:
            raise Refusal(Word.WRONG_JOB, f"this aggregator serves job {self._state.job_uid}")
        self._standing = heard_from(self._standing, name, progress, time.monotonic(), self._state.term)
        self._wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(wait_seconds, LONGEST_WAIT_SECONDS)):
                while self._is_equal(progress) and self._standing.leads(progress.term) and not self._stopping:
                    await self._changed.wait()
        check_leads(self._standing, self._state.term)
        return self._holdings()

    def _is_equal(self, progress: Progress) -> bool:
        best = self.store.manifest.best
        held = (self._replica.newest, self.store.log.last_round, best.digest if best else None)
        return (progress.newest, progress.closed, progress.best) == held

    def _holdings(self) -> Holdings:
        committed = self.store.manifest.committed
        return Holdings(
            term=self._state.term,
            boot_id=self._state.boot_id,
            newest=self._replica.newest,
            bytes=committed.bytes if committed else 0,
            record=self.store.record,
            closed=self.store.log.last_round,
            best=self.store.manifest.best,
        )

    # What counts

    @override
    def check_leads(self) -> None:
        check_leads(self._standing, self._state.term)

    @override
    def _leads_in(self) -> int | None:
        leadership = self._standing.leadership
        return 0 if leadership is None or not self._standing.is_leader else leadership.term

    @override
    async def _acknowledged(self, record: RoundRecord) -> None:
        self._durable_since = time.monotonic()
        self._wake()
        while not self._counts():
            await self._changed.wait()

    def _counts(self, *, closed: bool = False) -> bool:
        newest = self._replica.newest
        return newest is not None and is_acknowledged(self._standing, newest, self._state.term, closed=closed)

    @override
    def _is_held(self, round_number: int) -> bool:
        newest = self._hidden()
        return newest is not None and newest.round == round_number

    def _hidden(self) -> Commit | None:
        """What is durable here and does not count yet; of a leader."""
        newest = self._replica.newest
        is_hidden = self._has_led and newest is not None and newest.round > self._state.committed
        return newest if is_hidden else None

    def _is_closed_everywhere(self) -> bool:
        """Whether enough aggregators have the complete record of the newest round."""
        last, newest = self._state.last, self._replica.newest
        if last is None or newest is None or newest.round != last.record.round or not last.record.expects_evaluation:
            return True
        return self._counts(closed=True)

    # What is seen

    @override
    def view(self, round_number: int) -> RoundView:
        newest, last = self._hidden(), self._state.last
        if newest is not None and newest.round == round_number:
            return self._hidden_view(newest)
        view = super().view(round_number)
        update: dict[str, object] = {"standbys": standbys(self._standing, time.monotonic())}
        is_last = last is not None and last.record.round == round_number and self._has_led
        if is_last and view.state is RoundState.EVALUATED and not self._is_closed_everywhere():
            update |= {"state": RoundState.COMMITTED, "replication": self._waiting(closed=True)}
        return view.model_copy(update=update)

    def _hidden_view(self, newest: Commit) -> RoundView:
        current = self._state.current
        if current is not None and current.round == newest.round:
            view = super().view(newest.round)
        else:
            record = self.store.record
            attempt = record.attempt if record else 1
            view = RoundView(
                round=newest.round,
                state=RoundState.COMMITTING,
                term=self._state.term,
                attempt=attempt,
                boot_id=self._state.boot_id,
            )
        others = standbys(self._standing, time.monotonic())
        return view.model_copy(update={"replication": self._waiting(), "standbys": others})

    def _waiting(self, *, closed: bool = False) -> ReplicationView:
        newest = self._replica.newest
        count = 0 if newest is None else holders(self._standing, newest, closed=closed)
        seconds = round(time.monotonic() - self._durable_since, 1)
        return ReplicationView(holders=count, needed=needed(self._standing), seconds=seconds)

    @override
    def _is_changing(self, round_number: int, settled: int | None) -> bool:
        last = self._state.last
        is_last = self._has_led and last is not None and last.record.round == round_number
        if is_last and last is not None and last.state is RoundState.EVALUATED and not self._is_closed_everywhere():
            return True
        return self._is_held(round_number) or super()._is_changing(round_number, settled)

    @override
    def find(self, which: str) -> CheckpointInfo | None:
        hidden, previous = self._hidden(), self.store.manifest.previous
        if hidden is None or which not in {"latest", str(hidden.round)}:
            return super().find(which)
        return previous if which == "latest" else None

    @override
    def overview(self) -> AggregatorState:
        hidden, term = self._hidden(), self._state.term
        update: dict[str, object] = {"replica": self._self_view(term)}
        if hidden is not None:
            update |= {"committed": self.store.manifest.previous, "previous": None}
            update |= {"current": self._hidden_view(hidden)}
        return super().overview().model_copy(update=update)

    def _self_view(self, term: int) -> ReplicaView:
        leadership = self._standing.leadership
        return ReplicaView(
            name=self._standing.name,
            role=self._standing.role(term),
            leader=None if leadership is None else leadership.leader,
            term=0 if leadership is None else leadership.term,
            newest=self._replica.newest,
            closed=self.store.log.last_round,
            standbys=standbys(self._standing, time.monotonic()),
        )

    @override
    def stop(self) -> None:
        self._follower.stop()
        super().stop()
