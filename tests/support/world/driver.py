"""The operator of a simulated world: the reconcile loop's steps one by one, so that it can die between any two.

Mirrors `fedjob_operator.reconcile` and `fedjob_operator.performer`, which are tested against the same world in
``tests/integration/test_reconcile_in_a_world.py``.
"""

from collections.abc import Callable
from datetime import datetime

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus
from fedjob_operator.core.actions import Action, CheckPods, CreatePod, DeletePod, ListReplaced
from fedjob_operator.core.conditions import is_finished
from fedjob_operator.core.decide import Decision, decide
from fedjob_operator.core.observed import Observed, PodCheck
from fedjob_operator.core.platform import LOCAL, Platform
from fedjob_operator.core.progress import is_progress_only
from fedjob_operator.core.startup import claimed
from fedjob_operator.observations import Answer, Observations
from fedjob_operator.performer import ASK_SECONDS, FIRST_DELAY_SECONDS, MAX_DELAY_SECONDS, SEEN_SECONDS
from fedjob_operator.ports import StatusConflictError
from fedjob_operator.reconcile import RESYNC_SECONDS, STAND_DOWN_SECONDS
from tests.support.world.calls import send
from tests.support.world.invariants import Invariants
from tests.support.world.network import Network
from tests.support.world.pods import SimulatedPods
from tests.support.world.simulation import Faults, Simulation
from tests.support.world.store import Store

Decide = Callable[[FederatedJob, Observed, datetime], Decision]


class Killed(Exception):  # noqa: N818 - it is what happens
    """The operator died here."""


class Driver:
    """One run of the operator.

    Args:
        simulation: Time.
        faults: What goes wrong.
        store: The resource.
        pods: Where programs run.
        network: How they are called.
        invariants: Sees every step.
        died: Told when it died.
        decide_: The decision; a test may break it.
        platform: Where the job runs.
    """

    def __init__(
        self,
        simulation: Simulation,
        faults: Faults,
        *,
        store: Store,
        pods: SimulatedPods,
        network: Network,
        invariants: Invariants,
        died: Callable[["Driver"], None],
        decide_: Decide = decide,
        platform: Platform = LOCAL,
    ) -> None:
        self.alive = True
        self.finished = False
        self._simulation = simulation
        self._faults = faults
        self._store = store
        self._pods = pods
        self._network = network
        self._invariants = invariants
        self._died = died
        self._decide = decide_
        self._platform = platform
        self._last_write = float("-inf")
        self._is_outdated = False
        self._job: FederatedJob | None = None
        self._is_scheduled = False
        self._looks = 0
        self._reaction = simulation.rng.choice((0.05, 0.5, 1.5))
        """Longest time between a wake-up and the look that it causes, in seconds."""
        self._begin()
        simulation.soon(self._guarded(self._claim))

    def _begin(self) -> None:
        """Begin with nothing seen and nothing under way; answers to what was asked before go nowhere."""
        self._observations = Observations()
        self._running: set[str] = set()
        self._held: set[str] = set()
        self._failures: dict[str, int] = {}

    # The loop

    def wake(self) -> None:
        """Something happened: look again."""
        if self.alive and self._job is not None and not self._is_scheduled:
            self._is_scheduled = True
            self._simulation.soon(self._guarded(self._pass), most=self._reaction)

    def changed(self) -> None:
        """Somebody edited the job."""
        self._is_outdated = True
        self.wake()

    def kill(self) -> None:
        """SIGKILL."""
        if self.alive:
            self.alive = False
            self._died(self)

    def _guarded(self, effect: Callable[[], None]) -> Callable[[], None]:
        def perform() -> None:
            if not self.alive:
                return
            try:
                effect()
            except Killed:
                self.kill()

        return perform

    def _may_die(self) -> None:
        if self._faults.strikes("operator killed"):
            raise Killed

    def _claim(self) -> None:
        self._job = None
        job = self._store.read()
        if not is_finished(job.status):
            try:
                job = self._write(job, claimed(job.status, self._simulation.now))
            except StatusConflictError:
                self._simulation.soon(self._guarded(self._claim))
                return
        self._job = job
        self.wake()

    def _pass(self) -> None:
        self._is_scheduled = False
        self._looks += 1
        job = self._job
        if job is None:
            return
        if self._is_outdated:
            self._is_outdated = False
            self._read_again(job)
            self.wake()
            return
        now = self._simulation.now
        decision = self._decide(job, self._observations.look(self._pods.visible()), now)
        for action in decision.actions:
            self._start(job, action)
        held_back = self._held_back(job.status, decision.status)
        if decision.status != job.status and held_back <= 0.0:
            self._write_or_read(job, decision.status)
            self.wake()
        elif decision.finished and not decision.actions:
            self.finished = True
        else:
            seconds = RESYNC_SECONDS
            if decision.wake_at is not None:
                seconds = min(max((decision.wake_at - now).total_seconds(), 0.0), seconds)
            if held_back > 0.0:
                seconds = min(seconds, held_back)
            look = self._looks
            self._simulation.later(seconds, lambda: self.wake() if self._looks == look else None)

    def _write_or_read(self, job: FederatedJob, status: FederatedJobStatus) -> None:
        try:
            self._job = self._write(job, status)
        except StatusConflictError:
            self._read_again(job)

    def _held_back(self, before: FederatedJobStatus, after: FederatedJobStatus) -> float:
        if before == after or not is_progress_only(before, after):
            return 0.0
        return self._last_write + self._platform.progress_seconds - self._simulation.seconds

    def _read_again(self, job: FederatedJob) -> None:
        fresh = self._store.read()
        if fresh.status.term > job.status.term:
            self._begin()
            self._job = None
            self._simulation.later(STAND_DOWN_SECONDS, self._guarded(self._claim))
        else:
            self._job = fresh

    def _write(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob:
        self._may_die()
        written = self._store.write(job, status)
        self._last_write = self._simulation.seconds
        self._may_die()
        return written

    # The performer

    def _start(self, job: FederatedJob, action: Action) -> None:
        key = action.key
        if key in self._running or key in self._held:
            return
        self._may_die()
        self._invariants.started(action, job)
        match action:
            case CreatePod():
                self._pods.create(action)
                self._hold(key, SEEN_SECONDS)
            case DeletePod():
                self._pods.delete(action)
                self._hold(key, SEEN_SECONDS)
            case CheckPods():
                self._running.add(key)
                check, before = PodCheck(generation=job.metadata.generation), self._observations
                self._simulation.soon(lambda: self._learn(before, action, check), most=0.5)
            case _:
                self._running.add(key)
                asked = self._observations
                send(
                    self._network,
                    action,
                    answered=lambda answer: self._learn(asked, action, answer),
                    failed=lambda word, message: self._fail(asked, action, word, message),
                )
        self._may_die()

    def _learn(self, asked: Observations, action: Action, answer: Answer) -> None:
        if self.alive and asked is self._observations:
            self._running.discard(action.key)
            self._failures.pop(action.key, None)
            self._observations.learn(action, answer)
            if isinstance(action, ListReplaced):
                self._hold(action.key, ASK_SECONDS)
            self.wake()

    def _fail(self, asked: Observations, action: Action, word: str | None, message: str) -> None:
        if not self.alive or asked is not self._observations:
            return
        key = action.key
        self._running.discard(key)
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._observations.fail(action, word=word, message=message, now=self._simulation.now)
        self._hold(key, min(FIRST_DELAY_SECONDS * 2 ** min(count, 16), MAX_DELAY_SECONDS))
        self.wake()

    def _hold(self, key: str, seconds: float) -> None:
        self._held.add(key)
        self._simulation.later(seconds, lambda: self._release(key))

    def _release(self, key: str) -> None:
        self._held.discard(key)
        self.wake()
