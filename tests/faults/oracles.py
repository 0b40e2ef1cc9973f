"""The six questions that every fault run has to pass; each answer is the list of what is wrong, in sentences.

Pure: a run without the fault, a run with it, and what the fault may cost. Who runs the job, and where, does not matter.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from types import MappingProxyType
from typing import Final

from fedjob_operator.api.v1alpha1 import ConditionType, FederatedJobStatus, Phase
from fedjob_protocol.messages import Contribution
from tests.faults.allowances import WRITES_SHARE, Allowance
from tests.faults.evidence import Evidence

Oracle = Callable[[Evidence, Evidence, Allowance], list[str]]


def converges(undisturbed: Evidence, faulted: Evidence, allowance: Allowance) -> list[str]:
    """O1: the job ends in the same state."""
    if allowance.end is not None:
        seen = (str(faulted.status.phase), str(faulted.status.reason))
        return [] if seen == allowance.end else [f"the job ended as {_words(seen)}, not as {_words(allowance.end)}"]
    before, after = _end(undisturbed.status), _end(faulted.status)
    if allowance.same_reporters:
        before |= _learned(undisturbed.status)
        after |= _learned(faulted.status)
    return [
        f"{name} is {after[name]}, without the fault it is {before[name]}"
        for name in before
        if before[name] != after[name]
    ]


def rounds_once(undisturbed: Evidence, faulted: Evidence, allowance: Allowance) -> list[str]:
    """O2: every round is committed once, in order, by those who are recorded, and trained once by those who live."""
    return [
        *_order(undisturbed, faulted, allowance),
        *_chain(faulted),
        *_digests(undisturbed, faulted, allowance),
        *_recorded(faulted),
        *_trainings(faulted),
    ]


def nothing_left(_undisturbed: Evidence, faulted: Evidence, _allowance: Allowance) -> list[str]:
    """O3: after the job was deleted nothing of it is there."""
    return [f"{name} is still there after the job was deleted" for name in faulted.leftovers]


def never_back(_undisturbed: Evidence, faulted: Evidence, allowance: Allowance) -> list[str]:
    """O4: what the status says was committed, and its term, never go back; and it stays small."""
    problems = [] if faulted.history else ["no version of the status was seen"]
    for before, after in pairwise(faulted.history):
        if after.term < before.term:
            problems.append(f"the term went back from {before.term} to {after.term}")
        if after.committed < before.committed:
            problems.append(f"the committed rounds went back from {before.committed} to {after.committed}")
    largest = max((seen.size for seen in faulted.history), default=0)
    if largest > allowance.status_bytes:
        problems.append(f"the status had {largest} bytes, at most {allowance.status_bytes} are expected")
    return problems


def few_writes(undisturbed: Evidence, faulted: Evidence, allowance: Allowance) -> list[str]:
    """O5: the fault costs no more writes than its class may."""
    if undisturbed.writes <= 0 or faulted.writes <= 0:
        return [f"{undisturbed.writes} and {faulted.writes} writes were counted: nobody counted them"]
    margin = WRITES_SHARE * undisturbed.writes + allowance.writes
    if abs(faulted.writes - undisturbed.writes) <= margin:
        return []
    return [f"{faulted.writes} writes, {undisturbed.writes} ± {margin:g} are expected"]


def nothing_told(_undisturbed: Evidence, faulted: Evidence, _allowance: Allowance) -> list[str]:
    """O6: neither tokens nor weights are in logs and Events."""
    if not faulted.texts or not faulted.secrets:
        return [f"{len(faulted.texts)} texts were searched for {len(faulted.secrets)} secrets: nobody looked"]
    return [
        f"{secret} is in {text}"
        for text, content in faulted.texts.items()
        for secret, value in faulted.secrets.items()
        if value in content
    ]


ORACLES: Final[Mapping[str, Oracle]] = MappingProxyType(
    {
        "O1 converges": converges,
        "O2 rounds once": rounds_once,
        "O3 nothing left": nothing_left,
        "O4 never back": never_back,
        "O5 few writes": few_writes,
        "O6 nothing told": nothing_told,
    }
)
"""All of them, by the names that reports use."""


def violations(undisturbed: Evidence, faulted: Evidence, allowance: Allowance) -> list[str]:
    """Ask all oracles; each sentence begins with the name of the oracle that says it."""
    return [f"{name}: {told}" for name, ask in ORACLES.items() for told in ask(undisturbed, faulted, allowance)]


def lost_rounds(evidence: Evidence) -> int:
    """How many rounds the status once called committed that the round log does not have."""
    last = max((seen.committed for seen in evidence.history), default=-1)
    return len(set(range(last + 1)) - {record.round for record in evidence.rounds})


def repeated_work(evidence: Evidence) -> int:
    """How often a round was committed again, and how often a client that lived trained again."""
    rounds = len(evidence.rounds) - len({record.round for record in evidence.rounds})
    return rounds + sum(_excess(evidence).values())


_MOMENTARY: Final = frozenset({ConditionType.CLIENTS_READY})
"""Conditions that say who happened to be there at the end: a job whose last round was committed waits for nobody."""


def _end(status: FederatedJobStatus) -> dict[str, object]:
    return {
        "the phase": str(status.phase),
        "the reason": str(status.reason),
        "the number of committed rounds": status.rounds.committed,
        "the layout": status.layout,
        "the list of conditions": sorted(
            (item.type, str(item.status), item.reason) for item in status.conditions if item.type not in _MOMENTARY
        ),
    }


def _learned(status: FederatedJobStatus) -> dict[str, object]:
    """What training alone decides."""
    return {
        "the model": status.model and (status.model.round, status.model.digest),
        "the best model": status.best and (status.best.round, status.best.value, status.best.digest),
        "the list of metrics": status.metrics,
    }


def _order(undisturbed: Evidence, faulted: Evidence, allowance: Allowance) -> list[str]:
    numbers = [record.round for record in faulted.rounds]
    expected = list(range(len(undisturbed.rounds)))
    if allowance.end is not None and allowance.end[0] == Phase.FAILED:
        expected = list(range(len(numbers)))  # it need not have come to its end, but not out of order either
    return [] if numbers == expected else [f"rounds {numbers} were committed, not {expected}"]


def _chain(faulted: Evidence) -> list[str]:
    parents = [None, *(record.digest for record in faulted.rounds)]
    return [
        f"round {record.round} was committed on {record.parent}, not on {parent}"
        for record, parent in zip(faulted.rounds, parents, strict=False)
        if record.parent != parent
    ]


def _digests(undisturbed: Evidence, faulted: Evidence, allowance: Allowance) -> list[str]:
    """As long as the same clients have reported in all rounds so far, the models are the same bytes."""
    problems = []
    alike = True
    for before, after in zip(undisturbed.rounds, faulted.rounds, strict=False):
        reporters, those = _clients(before.contributors), _clients(after.contributors)
        if reporters != those and allowance.same_reporters:
            problems.append(f"clients {those} reported in round {after.round}, not {reporters}")
        alike = alike and reporters == those
        if alike and before.digest != after.digest:
            problems.append(f"round {after.round} has digest {after.digest}, not {before.digest}, by the same clients")
        if alike and before.metrics != after.metrics:
            problems.append(f"round {after.round} has metrics {after.metrics}, not {before.metrics}")
    return problems


def _recorded(faulted: Evidence) -> list[str]:
    """The status says of a round what the round log says."""
    log = {record.round: record for record in faulted.rounds}
    problems = []
    for row in faulted.status.recent_rounds:
        record = log.get(row.number)
        if record is None:
            problems.append(f"the status has round {row.number}, the round log has not")
            continue
        told = (row.digest, row.attempt, row.redraw, list(row.contributors))
        truth = (record.digest, record.attempt, record.redraw, _clients(record.contributors))
        if told != truth:
            problems.append(f"the status says {told} of round {row.number}, the round log {truth}")
    return problems


def _trainings(faulted: Evidence) -> list[str]:
    problems = [
        f"client {client} trained {faulted.trainings[client, number]} times in round {number}, "
        f"and died {faulted.died[client, number]} times"
        for client, number in _excess(faulted)
    ]
    for record in faulted.rounds:
        absent = [client for client in _clients(record.contributors) if not faulted.trainings[client, record.round]]
        if record.round > 0 and absent:
            problems.append(f"clients {absent} are in round {record.round}, and did not train")
    return problems


def _excess(faulted: Evidence) -> Counter[tuple[int, int]]:
    """Trainings beyond one for each life of a client."""
    return Counter(
        {
            where: count - 1 - faulted.died[where]
            for where, count in faulted.trainings.items()
            if count > 1 + faulted.died[where]
        }
    )


def _clients(contributions: Iterable[Contribution]) -> list[int]:
    return sorted(item.client for item in contributions)


def _words(end: tuple[str, str]) -> str:
    return f"{end[0]} ({end[1]})"
