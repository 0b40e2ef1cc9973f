"""A standby at work: asks its leader what it holds, and makes the own folder equal to that.

The question is the acknowledgement and the heartbeat, too. Whatever fails is tried again with the next answer.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from fedjob_aggregator.peer import Peer, PeerError, is_gone
from fedjob_aggregator.replica_store import ReplicaStore
from fedjob_aggregator.writer import Writer
from fedjob_protocol.messages import CheckpointInfo, RoundRecord
from fedjob_protocol.replication import Holdings, Leadership, Progress

T = TypeVar("T")

HEARTBEAT_SECONDS: Final = 2.0
"""How long the leader waits for something new before it answers: a standby is heard of that often."""
FIRST_PAUSE_SECONDS: Final = 0.1
"""Between tries after a failure: from the first, doubled, up to the last."""
LAST_PAUSE_SECONDS: Final = 2.0

_log = logging.getLogger(__name__)


class Follower:
    """Follows one leader at a time.

    Args:
        store: The own folder.
        writer: Who alone writes to it.
        name: The own name.
        token: The job's; ``None`` sends none.
        copied: Called when the folder has changed.
    """

    def __init__(
        self, store: ReplicaStore, writer: Writer, *, name: str, token: str | None, copied: Callable[[], None]
    ) -> None:
        self._store = store
        self._writer = writer
        self._name = name
        self._token = token
        self._copied = copied
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="follow")
        self._peer: Peer | None = None
        self._session: asyncio.Task[None] | None = None

    def follow(self, leadership: Leadership) -> None:
        """Begin to follow the leader that is named; whoever was followed before has been left."""
        assert self._session is None
        assert leadership.leader_url is not None
        self._peer = Peer(leadership.leader_url, self._token)
        session = _Session(leadership=leadership, peer=self._peer)
        self._session = asyncio.create_task(self._keep_following(session), name=f"follow {leadership.leader}")

    async def leave(self) -> None:
        """Follow nobody; returns when nothing is written for the old leader any more."""
        session, self._session = self._session, None
        if session is None:
            return
        self.stop_now(session)
        await asyncio.wait([session])
        await self._in_thread(lambda: None)
        await self._writer.perform(self._store.settle_log)

    def stop_now(self, session: "asyncio.Task[None] | None" = None) -> None:
        """End what is under way, without waiting for its end."""
        session = session or self._session
        if session is not None:
            session.cancel()
        if self._peer is not None:
            self._peer.close()

    def stop(self) -> None:
        """The program ends."""
        self.stop_now()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _keep_following(self, session: "_Session") -> None:
        failures = 0
        while True:
            try:
                holdings = await self._in_thread(lambda: session.ask(self._name, self._progress(session)))
                await self._copy(session.peer, holdings)
                failures = 0
            except Exception as error:  # noqa: BLE001 - whatever it is: a standby that stops to follow protects nothing
                failures += 1
                _log.log(logging.WARNING if failures == 1 else logging.DEBUG, "cannot follow the leader: %r", error)
                pause = FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 10)
                await asyncio.sleep(min(pause, LAST_PAUSE_SECONDS))

    def _progress(self, session: "_Session") -> Progress:
        store, leadership = self._store, session.leadership
        best = store.manifest.best
        return Progress(
            job_uid=leadership.job_uid,
            term=leadership.term,
            boot_id=leadership.leader_boot_id or "-",
            newest=store.newest,
            closed=store.log.last_round,
            best=best.digest if best else None,
        )

    # Becoming equal

    async def _copy(self, peer: Peer, holdings: Holdings) -> None:
        newest, record = holdings.newest, holdings.record
        if newest is None or record is None:
            if self._store.newest is not None:
                await self._step_back(-1, None, log_ends=-1)
            return
        mine = self._store.newest
        if mine is None or (mine.round, mine.digest) != (newest.round, newest.digest):
            await self._agree(peer, record)
            info = CheckpointInfo(round=newest.round, digest=newest.digest, parent=newest.parent, bytes=holdings.bytes)
            await self._fetch(peer, info, record, stamp=newest.term)
        await self._close(holdings, record)
        await self._change(lambda: self._store.stamp(newest.term))
        await self._copy_best(peer, holdings.best)

    async def _agree(self, peer: Peer, record: RoundRecord) -> None:
        """Give up whatever the leader does not have: what remains is a beginning of what it has."""
        manifest, log = self._store.manifest, self._store.log
        own = [info for info in (manifest.committed, manifest.previous) if info is not None]
        first = min((info.round for info in own), default=0)
        theirs = {record.round: record}
        if own:
            page = await self._in_thread(lambda: peer.records(first))
            theirs |= {item.round: item for item in page.rounds}
        shared = (info.round for info in own if info.round in theirs and theirs[info.round].digest == info.digest)
        kept = next(shared, -1)
        ends = min(log.last_round, kept)
        while ends >= first and log.record(ends) != theirs.get(ends):
            ends -= 1
        if ends < kept - 1:
            kept = ends = -1
        if (manifest.committed.round if manifest.committed else -1, log.last_round) != (kept, ends):
            _log.warning("the checkpoints after round %d are not the leader's; they are given up", kept)
            await self._step_back(kept, theirs.get(kept), log_ends=ends)

    async def _fetch(self, peer: Peer, info: CheckpointInfo, record: RoundRecord, *, stamp: int) -> None:
        """Copy the newest checkpoint, and the records of all rounds before it."""
        await self._download(peer, info)
        log = self._store.log
        while log.last_round < info.round - 1:
            first = log.last_round + 1
            page = await self._in_thread(lambda first=first: peer.records(first))  # type: ignore[misc]
            records = [item for item in page.rounds if item.round < info.round]
            if [item.round for item in records] != list(range(first, first + len(records))) or not records:
                raise PeerError(f"the leader's round log has a gap at round {first}")
            await self._change(lambda records=records: self._store.extend(records))  # type: ignore[misc]
        await self._change(lambda: self._store.install(info, record, stamp=stamp))
        _log.info("round %d is copied", info.round)

    async def _close(self, holdings: Holdings, record: RoundRecord) -> None:
        """Make the record of the newest round as complete as the leader's."""
        is_closed, log = holdings.closed >= record.round, self._store.log
        if log.last_round >= record.round and not (is_closed and log.record(record.round) == record):
            await self._step_back(record.round, record, log_ends=record.round - 1)
        if is_closed and log.last_round < record.round:
            await self._change(lambda: self._store.keep(record))

    async def _copy_best(self, peer: Peer, best: CheckpointInfo | None) -> None:
        manifest = self._store.manifest
        if best is None or manifest.best == best:
            return
        try:
            if best not in (manifest.committed, manifest.previous):
                await self._download(peer, best)
        except PeerError as error:
            if is_gone(error):
                return  # a better one took its place meanwhile
            raise
        await self._change(lambda: self._store.install_best(best))

    async def _download(self, peer: Peer, info: CheckpointInfo) -> None:
        blocks = peer.checkpoint(info.round, total_bytes=info.bytes, digest=info.digest)
        await self._in_thread(lambda: self._store.copy(info.round, blocks))
        state = await self._in_thread(lambda: self._store.state_of(info))
        if state is not None:
            blocks = peer.state(info.round, total_bytes=state.bytes, digest=state.digest)
            await self._in_thread(lambda: self._store.copy_state(info.round, blocks))

    async def _step_back(self, round_number: int, record: RoundRecord | None, *, log_ends: int) -> None:
        await self._change(lambda: self._store.step_back(round_number, record, log_ends=log_ends))

    async def _change(self, action: Callable[[], None]) -> None:
        await self._writer.perform(action)
        self._copied()

    async def _in_thread(self, action: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, action)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """One leader in one term."""

    leadership: Leadership
    peer: Peer

    def ask(self, name: str, progress: Progress) -> Holdings:
        """What the leader holds.

        Raises:
            PeerError: It gave no answer that can be used, or another one answered.
        """
        holdings = self.peer.report(name, progress, HEARTBEAT_SECONDS)
        expected = (self.leadership.term, self.leadership.leader_boot_id)
        if (holdings.term, holdings.boot_id) != expected:
            raise PeerError(f"term and boot are {(holdings.term, holdings.boot_id)}, {expected} is followed")
        return holdings
