from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from fedjob_client.machine import Machine, backoff_seconds, step, task_of
from fedjob_client.work import (
    CancelRequested,
    CancelWork,
    Delivered,
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
from fedjob_protocol.errors import KINDS, Refusal, Word
from fedjob_protocol.reasons import Reason
from fedjob_protocol.tasks import TaskState


def a_work(number=5, *, base="sha256:aa", config="c1"):
    return WorkId(job_uid="job", round=number, base_digest=base if number else None, config_digest=config)


def a_target(term=1, attempt=1, boot="boot-1", *, deadline=100.0):
    url = f"http://aggregator/{term}/{attempt}/{boot}"
    return Target(
        term=term, attempt=attempt, boot_id=boot, upload_url=f"{url}/up", failure_url=f"{url}/fail", deadline=deadline
    )


def a_post(work=None, target=None):
    work = work or a_work()
    source = ModelSource(url="http://aggregator/model", digest="sha256:aa", max_bytes=100) if work.round else None
    return Posted(work=work, model=source, target=target or a_target())


class Run:
    """A machine and the last commands that it gave."""

    def __init__(self):
        self.machine = Machine(client=3)
        self.commands = ()

    def __call__(self, event):
        self.machine, self.commands = step(self.machine, event)
        return self

    @property
    def task(self):
        assert self.machine.task is not None
        return self.machine.task

    @property
    def op(self):
        assert self.task.op is not None
        return self.task.op

    def kinds(self):
        return [type(command) for command in self.commands]

    def fetched(self):
        return self(Fetched(op=self.op))

    def trained(self):
        return self(Trained(op=self.op, metrics={"loss": 0.5}))

    def delivered(self):
        return self(Delivered(op=self.op))

    def lost(self, now=0.0):
        return self(TransferFailed(op=self.op, now=now, retryable=True, message="connection reset"))

    def refused(self, word, now=0.0):
        return self(
            TransferFailed(op=self.op, now=now, retryable=KINDS[word].retryable, message="it says why", word=word)
        )

    def failed(self):
        return self(TrainingFailed(op=self.op, reason=Reason.TRAINER_ERROR, message="ValueError: no"))


def reporting(work=None, target=None):
    return Run()(a_post(work, target)).fetched().trained()


def test_a_task_is_fetched_trained_uploaded_and_reported():
    run = Run()(a_post())
    assert run.kinds() == [FetchModel]
    assert run.fetched().kinds() == [Train]
    assert run.trained().kinds() == [Upload]
    assert run.delivered().kinds() == []
    assert run.task.state is TaskState.REPORTED
    assert run.task.trainings == 1
    assert run.task.metrics == {"loss": 0.5}
    assert run.task.transfers_repeated == 0


def test_the_initial_model_is_a_task_without_a_fetch():
    run = Run()(a_post(a_work(0)))
    assert run.kinds() == [Train]
    assert run.trained().delivered().task.state is TaskState.REPORTED


def test_the_same_task_again_changes_nothing():
    run = Run()(a_post())
    before = run.machine
    assert run(a_post()).machine == before
    assert run.commands == ()


NEWER = [a_target(attempt=2), a_target(term=2), a_target(boot="boot-2")]


@pytest.mark.parametrize("target", NEWER)
def test_a_new_destination_during_training_only_changes_the_destination(target):
    run = Run()(a_post()).fetched()
    assert run(a_post(target=target)).commands == ()
    (upload,) = run.trained().commands
    assert upload.target == target


@pytest.mark.parametrize("target", NEWER)
def test_a_new_destination_during_the_upload_stops_it_and_sends_to_the_new_one(target):
    run = reporting()
    old = run.op
    stop, upload = run(a_post(target=target)).commands
    assert stop == CancelWork(op=old)
    assert isinstance(upload, Upload)
    assert upload.target == target
    assert run(Delivered(op=old)).task.state is TaskState.UPLOADING, "the old upload's answer is not the new one's"
    assert run.delivered().task.trainings == 1


@pytest.mark.parametrize("target", NEWER)
def test_a_new_destination_after_the_report_uploads_again_without_training(target):
    run = reporting().delivered()
    assert run(a_post(target=target)).kinds() == [Upload]
    assert run.delivered().task.state is TaskState.REPORTED
    assert run.task.trainings == 1


@pytest.mark.parametrize("word", [Word.ROUND_CLOSED, Word.STALE_TERM, Word.WRONG_BOOT, Word.WRONG_SHAPE])
def test_a_new_destination_after_a_refusal_uploads_again_without_training(word):
    run = reporting().refused(word)
    run(a_post(target=a_target(attempt=2)))
    assert Upload in run.kinds()
    assert Train not in run.kinds()
    assert run.task.state is TaskState.UPLOADING
    assert run.task.reason is None


def test_a_new_destination_while_fetching_fetches_from_the_new_place():
    run = Run()(a_post())
    source = ModelSource(url="http://elsewhere/model", digest="sha256:aa", max_bytes=100)
    run(replace(a_post(target=a_target(attempt=2)), model=source))
    assert run.kinds() == [CancelWork, FetchModel]
    assert run.commands[1].model == source


def test_a_training_that_failed_is_reported_again_and_not_repeated():
    run = Run()(a_post()).fetched().failed()
    assert run.kinds() == [ReportFailure]
    assert run.commands[0].reason is Reason.TRAINER_ERROR
    assert run.commands[0].target == a_target()
    assert run.delivered().task.state is TaskState.FAILED
    run(a_post(target=a_target(attempt=2)))
    assert run.kinds() == [ReportFailure]
    assert run.commands[0].target == a_target(attempt=2)
    assert run.commands[0].message == "ValueError: no"
    assert run.task.trainings == 1


@pytest.mark.parametrize(
    ("work", "target", "word"),
    [
        (a_work(), a_target(term=1, attempt=9), Word.STALE_TERM),
        (a_work(6), a_target(term=1), Word.STALE_TERM),
        (a_work(), a_target(term=2, attempt=2), Word.STALE_ATTEMPT),
        (a_work(config="c2"), a_target(term=2, attempt=2), Word.STALE_ATTEMPT),
        (a_work(4), a_target(term=2, attempt=9), Word.WRONG_ROUND),
        (a_work(base="sha256:bb"), a_target(term=2, attempt=3), Word.ROUND_CONFLICT),
    ],
)
def test_what_is_older_than_what_was_accepted_is_refused_and_changes_nothing(work, target, word):
    run = Run()(a_post(target=a_target(term=2, attempt=3)))
    before = run.machine
    with pytest.raises(Refusal) as raised:
        run(a_post(work, target))
    assert raised.value.word is word
    assert run.machine == before


@pytest.mark.parametrize(
    "newer", [a_post(a_work(6)), a_post(a_work(config="c2"), a_target(attempt=2)), a_post(a_work(4), a_target(term=2))]
)
def test_newer_work_cancels_the_older(newer):
    run = Run()(a_post()).fetched()
    old = run.op
    assert run(newer).kinds() == [CancelWork, FetchModel]
    assert run.commands[0].op == old
    assert run(Trained(op=old, metrics={})).task.state is TaskState.FETCHING
    assert not run.task.has_update


def test_transfers_are_repeated_with_growing_pauses_until_the_deadline_and_counted():
    run = reporting()
    pauses, now = [], 0.0
    while run.task.state is TaskState.UPLOADING:
        run.lost(now)
        if run.commands:
            pauses.append(run.commands[0].delay_seconds)
            now += pauses[-1]
    assert pauses[0] <= 0.05
    assert max(pauses) <= 5.0
    assert now < 100
    assert run.task.transfers_repeated == len(pauses) > 15
    assert run.task.reason is Reason.TRANSFER_FAILED
    assert "could not be delivered before the deadline" in (run.task.message or "")
    assert run.commands == ()


def test_an_upload_after_the_deadline_is_tried_once():
    run = Run()(a_post(target=a_target(deadline=-1.0))).fetched().trained()
    assert run.kinds() == [Upload]
    assert run.lost().task.state is TaskState.FAILED


@pytest.mark.parametrize("word", [Word.TRUNCATED, Word.DIGEST_MISMATCH, Word.UNAVAILABLE, Word.STORAGE_FULL])
def test_a_refusal_that_may_pass_is_tried_again(word):
    run = reporting().refused(word)
    assert run.kinds() == [Upload]
    assert run.task.transfers_repeated == 1


def test_a_model_that_came_damaged_is_fetched_again():
    run = Run()(a_post()).refused(Word.DIGEST_MISMATCH)
    assert run.kinds() == [FetchModel]
    assert run.fetched().trained().delivered().task.transfers_repeated == 1


def test_a_model_that_is_not_there_is_reported():
    run = Run()(a_post()).refused(Word.NOT_FOUND)
    assert run.kinds() == [ReportFailure]
    assert run.commands[0].reason is Reason.TRANSFER_FAILED
    assert run.task.trainings == 0
    assert run.delivered()(a_post(target=a_target(attempt=2))).kinds() == [FetchModel]


def test_what_was_reported_already_is_reported():
    assert reporting().refused(Word.ALREADY_REPORTED).task.state is TaskState.REPORTED


@pytest.mark.parametrize("word", [Word.ROUND_CLOSED, Word.STALE_ATTEMPT, Word.WRONG_BOOT, Word.NOT_A_PARTICIPANT])
def test_a_round_that_does_not_want_the_update_is_left_alone(word):
    run = reporting().refused(word)
    assert run.commands == ()
    assert run.task.state is TaskState.FAILED
    assert run.task.reason is Reason.UPDATE_REFUSED
    assert run.task.message == f"{word}: it says why"


@pytest.mark.parametrize(
    ("word", "reason"),
    [(Word.WRONG_SHAPE, Reason.UPDATE_REFUSED), (Word.NON_FINITE, Reason.NON_FINITE_UPDATE)],
)
def test_an_update_that_is_wrong_in_itself_is_reported_as_a_failure(word, reason):
    run = reporting().refused(word)
    assert run.kinds() == [ReportFailure]
    assert run.commands[0].reason is reason


def test_a_failure_report_is_repeated_until_the_deadline_and_then_dropped():
    run = Run()(a_post()).fetched().failed()
    assert run.lost().kinds() == [ReportFailure]
    assert run.lost(now=99.999).commands == ()
    assert run.task.reason is Reason.TRAINER_ERROR
    run = Run()(a_post()).fetched().failed().refused(Word.ROUND_CLOSED)
    assert run.commands == ()
    assert run.task.op is None


def test_cancelling_stops_the_work_and_its_result_is_ignored():
    run = Run()(a_post()).fetched()
    old = run.op
    assert run(CancelRequested(round=5, order=(1, 1))).commands == (CancelWork(op=old),)
    assert run(Trained(op=old, metrics={})).task.state is TaskState.CANCELLED
    assert run(CancelRequested(round=5)).commands == ()
    assert run(a_post()).commands == (), "the same attempt stays cancelled"
    assert run(a_post(target=a_target(attempt=2))).kinds() == [FetchModel]


def test_cancelling_the_upload_keeps_the_update_for_another_attempt():
    run = reporting()(CancelRequested(round=5))
    assert run(a_post(target=a_target(attempt=2))).kinds() == [Upload]


@pytest.mark.parametrize(
    ("number", "order", "word"),
    [(5, (1, 9), Word.STALE_TERM), (5, (2, 1), Word.STALE_ATTEMPT), (6, None, Word.NOT_FOUND)],
)
def test_who_is_not_up_to_date_cannot_cancel(number, order, word):
    run = Run()(a_post(target=a_target(term=2, attempt=2)))
    with pytest.raises(Refusal) as raised:
        run(CancelRequested(round=number, order=order))
    assert raised.value.word is word


def test_there_is_no_task_for_another_round():
    with pytest.raises(Refusal, match="client 3 has no task for round 4"):
        task_of(Run()(a_post()).machine, 4)


def test_clients_do_not_come_back_together():
    pauses = {backoff_seconds(4, f"job/5/{client}") for client in range(50)}
    assert len(pauses) == 50
    assert all(0.2 <= pause <= 0.4 for pause in pauses)
    assert backoff_seconds(5000, "x") <= 5.0


class Histories(RuleBasedStateMachine):
    """Random operators, networks and trainers. ``under_way`` is what a shell would be doing."""

    @initialize()
    def begin(self):
        self.machine = Machine(client=0)
        self.under_way = {}
        self.stopped = set()
        self.trainings = {}
        self.newest = (0, 0)
        self.now = 0.0

    def feed(self, event):
        try:
            self.machine, commands = step(self.machine, event)
        except Refusal:
            return
        if isinstance(event, Posted):
            self.newest = (
                max(self.newest, event.target.order) if event.target.term == self.newest[0] else event.target.order
            )
        for command in commands:
            self.obey(command)

    def obey(self, command):
        match command:
            case CancelWork():
                del self.under_way[command.op]
                self.stopped.add(command.op)
            case _:
                assert not self.under_way, "one command at a time"
                self.under_way[command.op] = command
        match command:
            case Upload() | ReportFailure():
                assert self.machine.task is not None
                assert command.target == self.machine.task.target, "only the newest destination"
            case Train():
                self.trainings[command.work] = self.trainings.get(command.work, 0) + 1
            case _:
                pass

    @rule(
        number=st.integers(0, 3),
        config=st.sampled_from(["c1", "c2"]),
        term=st.integers(1, 3),
        attempt=st.integers(1, 3),
        boot=st.sampled_from(["x", "y"]),
        seconds=st.floats(0.01, 20),
    )
    def post(self, number, config, term, attempt, boot, seconds):
        before = self.machine.task
        target = a_target(term, attempt, boot, deadline=self.now + seconds)
        self.feed(a_post(a_work(number, config=config), target))
        if before is not None and self.machine.task is not None:
            assert self.machine.task.target.term >= before.target.term
            if self.machine.task.work == before.work:
                assert self.machine.task.target.order >= before.target.order
                assert self.machine.task.trainings >= before.trainings

    @rule(number=st.integers(0, 3))
    def cancel(self, number):
        # A cancelled training may be started again: it does not count.
        for command in self.under_way.values():
            if isinstance(command, Train) and command.work.round == number:
                self.trainings[command.work] -= 1
        self.feed(CancelRequested(round=number))

    @precondition(lambda self: getattr(self, "under_way", None))
    @rule(
        good=st.booleans(),
        word=st.sampled_from([None, *Word]),
        seconds=st.floats(0, 3),
    )
    def end(self, good, word, seconds):
        self.now += seconds
        op, command = self.under_way.popitem()
        match command:
            case FetchModel() if good:
                self.feed(Fetched(op=op))
            case Train() if good:
                self.feed(Trained(op=op, metrics={}))
            case Train():
                self.feed(TrainingFailed(op=op, reason=Reason.TRAINER_ERROR, message="no"))
            case _ if good:
                self.feed(Delivered(op=op))
            case _:
                retryable = word is None or KINDS[word].retryable
                self.feed(TransferFailed(op=op, now=self.now, retryable=retryable, message="no", word=word))

    @precondition(lambda self: getattr(self, "stopped", None))
    @rule()
    def a_stopped_command_ends_after_all(self):
        before = self.machine
        for op in self.stopped:
            for event in (Fetched(op=op), Trained(op=op, metrics={}), Delivered(op=op)):
                self.feed(event)
        assert self.machine == before

    @invariant()
    def the_state_agrees_with_what_is_under_way(self):
        task = getattr(self, "machine", None) and self.machine.task
        if not task:
            return
        assert set(self.under_way) == (set() if task.op is None else {task.op})
        if task.state in {TaskState.FETCHING, TaskState.TRAINING, TaskState.UPLOADING}:
            assert task.op is not None, "nothing that is unfinished is forgotten"
        if task.state is TaskState.FAILED:
            assert task.reason is not None
        assert task.trainings <= 1

    @invariant()
    def one_training_for_each_piece_of_work_in_a_row(self):
        task = getattr(self, "machine", None) and self.machine.task
        if task:
            # Other work in between makes the client forget; then it is not the same task any more.
            for work in [work for work in self.trainings if work != task.work]:
                del self.trainings[work]
            assert self.trainings.get(task.work, 0) <= 1


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
