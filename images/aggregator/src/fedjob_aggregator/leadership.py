"""Who leads, and who holds what, of several aggregators of one job. Pure: no I/O, clock or logging.

The operator alone says who leads. A term has at most one leader; whoever has seen a higher term leads no more. What the
leader commits counts once enough aggregators hold it under a stamp of the leader's own term, so that of two that hold
different checkpoints of one round the one with the higher stamp is the one that may have been acknowledged.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from fedjob_protocol.errors import Refusal, Word, quote
from fedjob_protocol.replicas import Acknowledgement, Commit, ReplicaRole, StandbyView
from fedjob_protocol.replication import Leadership, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What a standby said last."""

    progress: Progress
    at: float
    """Monotonic seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What one of several aggregators knows of the others."""

    name: str
    """Its own."""
    boot_id: str
    """Identity of this run of the program."""
    leadership: Leadership | None = None
    """What the operator said last; ``None`` since the start of the program."""
    since: float = 0.0
    """When it began to lead, or to follow; monotonic seconds."""
    heard: Mapping[str, Heard] = field(default_factory=dict)
    """By name of a standby; of the leader only."""

    @property
    def is_leader(self) -> bool:
        """Whether it was the leader in the last term that it was told of."""
        return self.leadership is not None and self.leadership.leader == self.name

    def leads(self, term: int) -> bool:
        """Whether it leads, ``term`` being the highest that it has seen."""
        return self.is_leader and self.leadership is not None and self.leadership.term == term

    def follows(self, term: int) -> Leadership | None:
        """Whom to copy from; ``None``: nobody."""
        leadership = self.leadership
        is_told = leadership is not None and leadership.leader is not None and leadership.term == term
        return leadership if is_told and not self.is_leader else None

    def role(self, term: int) -> ReplicaRole:
        """The role that it says it has."""
        return ReplicaRole.LEADER if self.leads(term) else ReplicaRole.STANDBY


def appointed(standing: Standing, leadership: Leadership, term: int, now: float) -> Standing:
    """Take in who leads.

    Args:
        standing: What was known.
        leadership: What the operator says.
        term: The highest seen, that of the message included.
        now: Monotonic seconds.

    Raises:
        Refusal: ``stale-term``; ``forbidden``: of other aggregators; ``wrong-boot``: another run was chosen;
            ``round-conflict``: the term has another leader.
    """
    if leadership.term < term:
        raise Refusal(Word.STALE_TERM, f"term {leadership.term} is over: term {term} was seen")
    if standing.name not in leadership.replicas:
        raise Refusal(Word.FORBIDDEN, f"this is {standing.name}, none of {', '.join(leadership.replicas)[:200]}")
    if leadership.leader == standing.name and leadership.leader_boot_id != standing.boot_id:
        raise Refusal(
            Word.WRONG_BOOT, f"boot {quote(leadership.leader_boot_id)} was chosen to lead, this is {standing.boot_id}"
        )
    known = standing.leadership
    if known is not None and known.term == leadership.term and known.leader is not None:
        if leadership.leader is None:
            return standing  # a late copy of the beginning of the election
        if (leadership.leader, leadership.leader_boot_id) != (known.leader, known.leader_boot_id):
            raise Refusal(Word.ROUND_CONFLICT, f"{known.leader} leads in term {known.term}, not {leadership.leader}")
        if known.leader_url == leadership.leader_url:
            return standing  # told again, perhaps when more was committed
    if standing.is_leader and leadership.leader == standing.name:
        return replace(standing, leadership=leadership)
    return replace(standing, leadership=leadership, heard={}, since=now)


def check_leads(standing: Standing, term: int) -> None:
    """Refuse what only the leader takes.

    Raises:
        Refusal: ``not-leader``; ``unavailable``: a term began, and it is not decided who leads in it.
    """
    if standing.leads(term):
        return
    leadership = standing.leadership
    if leadership is None:
        raise Refusal(Word.NOT_LEADER, f"{standing.name} was not told yet who leads")
    if standing.is_leader or leadership.leader is None:
        raise Refusal(Word.UNAVAILABLE, f"who leads in term {term} is being decided")
    raise Refusal(Word.NOT_LEADER, f"{standing.name} is a standby of {leadership.leader}")


def heard_from(standing: Standing, name: str, progress: Progress, now: float, term: int) -> Standing:
    """Take in what a standby holds.

    Raises:
        Refusal: ``not-leader``, ``stale-term``; ``wrong-boot``: it follows an earlier run; ``forbidden``: it is no
            standby of this job.
    """
    if progress.term < term:
        raise Refusal(Word.STALE_TERM, f"term {progress.term} is over: term {term} was seen")
    if progress.term > term:
        raise Refusal(Word.NOT_LEADER, f"{standing.name} was not told of term {progress.term}")
    check_leads(standing, term)
    if progress.boot_id != standing.boot_id:
        raise Refusal(Word.WRONG_BOOT, f"this is boot {standing.boot_id}, not {quote(progress.boot_id)}")
    leadership = standing.leadership
    if leadership is None or name == standing.name or name not in leadership.replicas:
        raise Refusal(Word.FORBIDDEN, f"{quote(name)} is no standby of {standing.name}")
    return replace(standing, heard={**standing.heard, name: Heard(progress=progress, at=now)})


def needed(standing: Standing) -> int:
    """How many aggregators must hold what is committed, the leader counted."""
    leadership = standing.leadership
    if leadership is None or leadership.acknowledgement is Acknowledgement.NONE:
        return 1
    return len(leadership.replicas) // 2 + 1


def holders(standing: Standing, commit: Commit, *, closed: bool = False) -> int:
    """How many aggregators hold a commit under its stamp, the leader counted.

    Args:
        standing: The leader's.
        commit: What the leader holds.
        closed: Whether they must have its complete record in their log.
    """
    return 1 + sum(
        said.progress.newest == commit and (not closed or said.progress.closed >= commit.round)
        for said in standing.heard.values()
    )


def is_acknowledged(standing: Standing, commit: Commit, term: int, *, closed: bool = False) -> bool:
    """Whether enough aggregators hold what the leader holds; arguments as of `holders`."""
    is_stamped = commit.term == term or needed(standing) == 1
    return standing.leads(term) and is_stamped and holders(standing, commit, closed=closed) >= needed(standing)


def standbys(standing: Standing, now: float) -> list[StandbyView]:
    """The others, as the leader sees them, in the order of their names."""
    if standing.leadership is None or not standing.is_leader:
        return []
    return [_standby(standing, name, now) for name in standing.leadership.replicas if name != standing.name]


def _standby(standing: Standing, name: str, now: float) -> StandbyView:
    said = standing.heard.get(name)
    newest = None if said is None else said.progress.newest
    silent = max(now - (standing.since if said is None else said.at), 0.0)
    return StandbyView(name=name, committed=-1 if newest is None else newest.round, silent_seconds=round(silent, 1))
