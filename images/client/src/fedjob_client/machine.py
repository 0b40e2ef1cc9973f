"""The client's task machine: which work is done, for whom, and what follows from what happened. Pure.

Events in, commands out; no I/O, clock or randomness. `fedjob_client.tasks` carries the commands out and reports what
became of them; `fedjob_client.app` posts tasks. Time comes with the events.

The invariants (``tests/unit/client/test_machine.py`` checks them on random histories):

1. One piece of work (`WorkId`) is trained at most once: a new destination makes the client upload again, not train
   again. Only a training that was cancelled before it ended may be started again.
2. Nothing is sent to a destination once a newer one was accepted.
3. At most one command is under way, apart from cancelled ones, whose results are ignored.
4. Every accepted task ends as Reported, Failed or Cancelled, if the transfers end.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeAlias, assert_never

from fedjob_client.work import (
    CancelRequested,
    CancelWork,
    Command,
    Delivered,
    Event,
    Fetched,
    FetchModel,
    ModelSource,
    Posted,
    ReportFailure,
    Target,
    Train,
    Trained,
    TrainingFailed,
    TransferFailed,
    Upload,
    WorkId,
)
from fedjob_protocol.errors import WRONG_IN_ITSELF, Refusal, Word
from fedjob_protocol.reasons import Reason
from fedjob_protocol.tasks import TaskState

FIRST_BACKOFF_SECONDS: Final = 0.05
MAX_BACKOFF_SECONDS: Final = 5.0

MAX_MESSAGE: Final = 1024
"""Longest message that a failure report carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The one task that a client has."""

    work: WorkId
    model: ModelSource | None
    target: Target
    state: TaskState
    op: int | None = None
    """The command that is under way."""
    failures: int = 0
    """Transfers that failed in a row."""
    has_update: bool = False
    trainings: int = 0
    transfers_repeated: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    reason: Reason | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """State of the machine."""

    client: int
    """The client's index: its retries come at other moments than other clients'."""
    task: Task | None = None
    next_op: int = 1


Step: TypeAlias = tuple[Machine, tuple[Command, ...]]


def step(machine: Machine, event: Event) -> Step:
    """Return the state after an event, and what to do.

    Raises:
        Refusal: A posted or cancelled task is refused (``stale-term``, ``stale-attempt``, ``wrong-round``,
            ``round-conflict``, ``not-found``); the state does not change.
    """
    match event:
        case Posted():
            return _posted(machine, event)
        case CancelRequested():
            return _cancelled(machine, event)
        case Fetched() | Trained() | TrainingFailed() | Delivered() | TransferFailed():
            task = machine.task
            if task is None or task.op != event.op:
                return machine, ()  # of a cancelled command
            return _ended(machine, replace(task, op=None), event)
        case _:
            assert_never(event)


def task_of(machine: Machine, round_number: int) -> Task:
    """The task of a round.

    Raises:
        Refusal: ``not-found``: this client has no task for it.
    """
    if machine.task is None or machine.task.work.round != round_number:
        raise Refusal(Word.NOT_FOUND, f"client {machine.client} has no task for round {round_number}")
    return machine.task


def backoff_seconds(failures: int, key: str) -> float:
    """Pause before a transfer is repeated: doubling up to a ceiling, shortened by up to half by a hash of the key.

    Exponential back-off with jitter, so that clients that failed together do not come back together.
    """
    ceiling = min(MAX_BACKOFF_SECONDS, FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 30))
    digest = hashlib.sha256(f"{key}/{failures}".encode()).digest()
    return ceiling * (0.5 + int.from_bytes(digest[:4], "big") / 2**33)


# A task is posted or cancelled


def _posted(machine: Machine, event: Posted) -> Step:
    task = machine.task
    if task is None:
        return _start(machine, event)
    _check_admission(task, event)
    if event.work == task.work:
        return _redirected(machine, task, event)
    stop = () if task.op is None else (CancelWork(op=task.op),)
    machine, commands = _start(machine, event)
    return machine, (*stop, *commands)


def _check_admission(task: Task, event: Posted) -> None:
    """Refuse what is older than what was accepted before."""
    current, new = task.target, event.target
    if new.term < current.term:
        raise Refusal(Word.STALE_TERM, f"term {new.term} is over: this client follows term {current.term}")
    is_same_term = new.term == current.term
    if is_same_term and event.work.round < task.work.round:
        raise Refusal(Word.WRONG_ROUND, f"round {event.work.round} is over: this client works on {task.work.round}")
    if not is_same_term or event.work.round > task.work.round:
        return
    if new.attempt < current.attempt:
        raise Refusal(
            Word.STALE_ATTEMPT,
            f"round {task.work.round}: attempt {new.attempt} is over, this client follows attempt {current.attempt}",
        )
    if new.attempt == current.attempt and event.work != task.work:
        raise Refusal(
            Word.ROUND_CONFLICT,
            f"round {task.work.round}, attempt {new.attempt} was given to this client with another base or config",
        )


def _start(machine: Machine, event: Posted) -> Step:
    task = Task(work=event.work, model=event.model, target=event.target, state=TaskState.FETCHING)
    return _fetch_or_train(machine, task)


def _redirected(machine: Machine, task: Task, event: Posted) -> Step:
    """The same work with another destination, or the same task again."""
    if event.target.is_same_as(task.target):
        return machine, ()
    task = replace(task, model=event.model, target=event.target)
    match task.state:
        case TaskState.TRAINING:
            return replace(machine, task=task), ()
        case TaskState.FETCHING:
            return _again(machine, task, _fetch_or_train)
        case TaskState.UPLOADING | TaskState.REPORTED:
            return _again(machine, task, _upload)
        case TaskState.FAILED | TaskState.CANCELLED:
            if task.has_update:
                return _again(machine, task, _upload)
            if task.trainings:  # It failed, and would fail again: the same data, seed and model.
                return _again(machine, task, _report)
            return _again(machine, task, _fetch_or_train)
        case _:
            assert_never(task.state)


def _again(machine: Machine, task: Task, then: Callable[[Machine, Task], Step]) -> Step:
    """Stop what is under way, and go on for the new destination."""
    stop = () if task.op is None else (CancelWork(op=task.op),)
    machine, commands = then(machine, replace(task, op=None, failures=0))
    return machine, (*stop, *commands)


def _cancelled(machine: Machine, event: CancelRequested) -> Step:
    task = task_of(machine, event.round)
    if event.order is not None and event.order < task.target.order:
        is_old_term = event.order[0] < task.target.term
        word = Word.STALE_TERM if is_old_term else Word.STALE_ATTEMPT
        raise Refusal(word, f"term {event.order[0]}, attempt {event.order[1]} of round {event.round} is over")
    if task.state in {TaskState.REPORTED, TaskState.FAILED, TaskState.CANCELLED}:
        return machine, ()
    stop = () if task.op is None else (CancelWork(op=task.op),)
    return replace(machine, task=replace(task, state=TaskState.CANCELLED, op=None)), stop


# A command ended


def _ended(
    machine: Machine, task: Task, event: Fetched | Trained | TrainingFailed | Delivered | TransferFailed
) -> Step:
    match event:
        case Fetched():
            return _train(machine, replace(task, failures=0))
        case Trained():
            trained = replace(task, has_update=True, trainings=1, metrics=dict(event.metrics))
            return _upload(machine, trained)
        case TrainingFailed():
            failed = replace(
                task, trainings=1, state=TaskState.FAILED, reason=event.reason, message=event.message[:MAX_MESSAGE]
            )
            return _report(machine, failed)
        case Delivered():
            done = task if task.state is TaskState.FAILED else replace(task, state=TaskState.REPORTED)
            return replace(machine, task=replace(done, failures=0)), ()
        case TransferFailed():
            return _transfer_failed(machine, task, event)
        case _:
            assert_never(event)


def _transfer_failed(machine: Machine, task: Task, event: TransferFailed) -> Step:
    if event.word == Word.ALREADY_REPORTED and task.state is TaskState.UPLOADING:
        return replace(machine, task=replace(task, state=TaskState.REPORTED, failures=0)), ()
    if not event.retryable:
        return _refused(machine, task, event)
    task = replace(task, failures=task.failures + 1)
    delay = backoff_seconds(task.failures, f"{task.work.job_uid}/{task.work.round}/{machine.client}")
    if event.now + delay >= task.target.deadline:
        return replace(machine, task=_gave_up(task, event)), ()
    task = replace(task, transfers_repeated=task.transfers_repeated + 1)
    if task.state is TaskState.FETCHING:
        return _fetch_or_train(machine, task, delay)
    if task.state is TaskState.UPLOADING:
        return _upload(machine, task, delay)
    return _report(machine, task, delay)


def _gave_up(task: Task, event: TransferFailed) -> Task:
    """The deadline is here. The aggregator closes the round by itself: there is nobody to tell."""
    if task.state is TaskState.FAILED:
        return task  # a failure report: its reason stays
    what = "the model could not be fetched" if task.state is TaskState.FETCHING else "the update could not be delivered"
    message = f"{what} before the deadline, {task.failures} tries; the last: {event.message}"
    return replace(task, state=TaskState.FAILED, reason=Reason.TRANSFER_FAILED, message=message[:MAX_MESSAGE])


def _refused(machine: Machine, task: Task, event: TransferFailed) -> Step:
    """Refused for good."""
    if task.state is TaskState.FAILED:
        return replace(machine, task=task), ()
    message = f"{event.word}: {event.message}" if event.word else event.message
    if task.state is TaskState.FETCHING:
        failed = replace(task, state=TaskState.FAILED, reason=Reason.TRANSFER_FAILED, message=message[:MAX_MESSAGE])
        return _report(machine, failed)
    reason = Reason.NON_FINITE_UPDATE if event.word == Word.NON_FINITE else Reason.UPDATE_REFUSED
    failed = replace(task, state=TaskState.FAILED, reason=reason, message=message[:MAX_MESSAGE])
    if event.word in WRONG_IN_ITSELF:
        return _report(machine, failed)
    return replace(machine, task=failed), ()  # The round goes on without this client, or under another attempt.


# What to do next


def _fetch_or_train(machine: Machine, task: Task, delay: float = 0.0) -> Step:
    model, op = task.model, machine.next_op
    if model is None:
        return _train(machine, task)
    task = replace(task, state=TaskState.FETCHING, op=op, reason=None, message=None)
    command = FetchModel(op=op, model=model, deadline=task.target.deadline, delay_seconds=delay)
    return replace(machine, task=task, next_op=op + 1), (command,)


def _train(machine: Machine, task: Task) -> Step:
    op = machine.next_op
    task = replace(task, state=TaskState.TRAINING, op=op, reason=None, message=None)
    return replace(machine, task=task, next_op=op + 1), (Train(op=op, work=task.work),)


def _upload(machine: Machine, task: Task, delay: float = 0.0) -> Step:
    op = machine.next_op
    task = replace(task, state=TaskState.UPLOADING, op=op, reason=None, message=None)
    command = Upload(op=op, target=task.target, delay_seconds=delay)
    return replace(machine, task=task, next_op=op + 1), (command,)


def _report(machine: Machine, task: Task, delay: float = 0.0) -> Step:
    assert task.reason is not None  # only failed tasks are reported
    op = machine.next_op
    command = ReportFailure(
        op=op, target=task.target, reason=task.reason, message=task.message or "", delay_seconds=delay
    )
    return replace(machine, task=replace(task, op=op), next_op=op + 1), (command,)
