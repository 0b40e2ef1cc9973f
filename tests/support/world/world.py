"""A whole job in a simulated world."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any, Protocol

from fedjob_aggregator.machine import step as real_step
from fedjob_client.work import WorkId
from fedjob_operator.api.v1alpha1 import ConditionType, FederatedJob, FederatedJobStatus, Phase
from fedjob_operator.core.decide import decide
from fedjob_operator.core.layout import needs_evaluator
from fedjob_operator.core.leadership import replica_name
from fedjob_operator.core.observed import PodRole
from fedjob_operator.core.platform import LOCAL, Platform
from fedjob_operator.core.pods import leading_index
from fedjob_operator.core.turns import takes_turns
from fedjob_protocol.messages import RoundRecord
from tests.support.world.aggregator import Machine, SimulatedAggregator
from tests.support.world.clients import Habits, SimulatedClient, SimulatedEvaluator
from tests.support.world.driver import Decide, Driver
from tests.support.world.fences import Fence, fenced
from tests.support.world.invariants import Invariants
from tests.support.world.network import Network
from tests.support.world.pods import Killable, SimulatedPods
from tests.support.world.replica import ReplicaDisk, Rules, SimulatedReplica
from tests.support.world.shrinking import shrunk
from tests.support.world.simulation import Fault, Faults, Simulation, draw_faults, exactly, no_faults
from tests.support.world.store import Store

MAX_STEPS = 20_000
"""Effects after which a job that is not finished never will be."""


class AnyDriver(Protocol):
    """One run of an operator."""

    alive: bool
    finished: bool

    def wake(self) -> None:
        """Something happened."""
        ...

    def changed(self) -> None:
        """Somebody edited the job."""
        ...

    def kill(self) -> None:
        """SIGKILL."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One kind of job that schedules are drawn for."""

    name: str
    job: FederatedJob
    num_clients: int
    habits: Habits = field(default_factory=Habits)
    spare: int = 0
    """Clients that may be lost for good."""
    reaches: frozenset[str] = frozenset()
    """What schedules of this kind are for: what some of them have to see."""
    is_fixed: bool = True
    """Whether everybody who is selected reports in the end, so that every schedule ends with the same model."""
    platform: Platform = LOCAL
    """Where the job runs."""
    raised_to: int | None = None
    """Rounds that somebody raises the job to while it trains."""
    gpus: int | None = None
    """How many clients there is room for at a time; ``None`` for all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a schedule ended."""

    status: FederatedJobStatus
    records: tuple[RoundRecord, ...]
    faults: tuple[Fault, ...]
    finished: bool

    @property
    def chain(self) -> tuple[str, ...]:
        """The digests of all models."""
        return tuple(record.digest for record in self.records)

    @property
    def contributors(self) -> tuple[tuple[int, ...], ...]:
        """Who is in each model."""
        return tuple(tuple(item.client for item in record.contributors) for record in self.records)


class World:
    """One schedule of one job.

    Args:
        setting: The job.
        seed: Everything that is drawn comes from it.
        faults: Draws what goes wrong.
        machine: The aggregator's rules; a test may break them.
        rules: The rules of several aggregators; a test may break them.
        decide_: The operator's; a test may break them.
        store: Keeps the resource; a test may break its rules.
        simulation: Another time than one of its own.
    """

    def __init__(
        self,
        setting: Setting,
        seed: int,
        *,
        faults: Callable[[Random], Faults] = draw_faults,
        machine: Machine = real_step,
        rules: Rules | None = None,
        decide_: Decide | None = None,
        store: type[Store] = Store,
        simulation: Simulation | None = None,
    ) -> None:
        self.simulation = simulation or Simulation(seed)
        rng = self.simulation.rng
        # Drawn apart from all else, so that a schedule is the same up to the first fault that it is tried without.
        self.faults = faults(Random(f"faults of {seed}"))
        self._moments = Random(f"moments of {seed}")
        self.setting = setting
        self.disks = [ReplicaDisk() for _ in range(setting.job.spec.aggregator.replicas)]
        self.network = Network(self.simulation, self.faults)
        self.invariants = Invariants(setting.job, num_clients=setting.num_clients)
        self.store = store(setting.job, self.faults, written=self.invariants.written, edited=self._edited)
        self.pods = SimulatedPods(
            self.simulation, self.network, begin=self._begin, changed=self._pods_changed, gpus=setting.gpus
        )
        self._fences = [Fence(name) for name in self._names()]
        self._machine = machine
        self._rules = rules or Rules()
        self._lost: set[int] = set()
        """Aggregators that lost their volume and do not hold everything yet."""
        self._decide = decide_ or partial(decide, platform=setting.platform)
        self.drivers: list[AnyDriver] = []
        self._boots = 0
        self.shares_machine = rng.random() < 0.5
        """Whether all programs end with the operator, as in ``fedjob run``."""
        self._finished = False

    def run(self) -> Outcome:
        """Let it happen."""
        self.begin()
        return self.outcome(finished=self.simulation.run(until=self.is_over, steps=MAX_STEPS))

    def begin(self) -> None:
        """Start the first operator, and fate."""
        if self.simulation.rng.random() < 0.75:
            self.pods.begin_ready(self._places())
        self._start_operator()
        self._strike()

    def _places(self) -> Iterator[tuple[PodRole, int]]:
        for index in range(len(self.disks)):
            yield PodRole.AGGREGATOR, index
        if takes_turns(self.setting.job.spec):
            return
        for index in range(self.setting.num_clients):
            yield PodRole.CLIENT, index
        if needs_evaluator(self.setting.job):
            yield PodRole.EVALUATOR, 0

    def outcome(self, *, finished: bool) -> Outcome:
        """How it ended."""
        return Outcome(
            status=self.store.status,
            records=tuple(self._kept()),
            faults=tuple(self.faults.happened),
            finished=finished,
        )

    def _kept(self) -> list[RoundRecord]:
        """What the leader holds, or, where its volume was lost in the last moment, whoever holds most."""
        leader = self.disks[leading_index(self.store.read())]
        return max((leader, *self.disks), key=lambda disk: len(disk.records)).records

    def is_over(self) -> bool:
        """Whether an operator has come to the end of the job."""
        return any(driver.finished and driver.alive for driver in self.drivers)

    # Operators

    def _start_operator(self) -> None:
        self.drivers.append(self.make_driver())

    def make_driver(self) -> AnyDriver:
        """Make another operator."""
        return Driver(
            self.simulation,
            self.faults,
            store=self.store,
            pods=self.pods,
            network=self.network,
            invariants=self.invariants,
            died=self.operator_died,
            decide_=self._decide,
            platform=self.setting.platform,
        )

    def operator_died(self, driver: AnyDriver) -> None:
        """Start another one after a while."""
        self.drivers.remove(driver)
        if self.shares_machine:
            self.pods.end_all()
        if not self.drivers:
            self.simulation.soon(self._start_operator, most=30.0)

    def _pods_changed(self) -> None:
        for driver in self.drivers:
            driver.wake()

    def _edited(self) -> None:
        for driver in list(self.drivers):
            driver.changed()

    # Programs

    def _begin(self, role: PodRole, index: int) -> Killable:
        self._boots += 1
        match role:
            case PodRole.AGGREGATOR:
                return self._aggregator(index)
            case PodRole.CLIENT:
                return SimulatedClient(
                    self.simulation,
                    self.network,
                    index=index,
                    habits=self.setting.habits,
                    trained=self._trained(f"boot-{self._boots}", index),
                )
            case PodRole.EVALUATOR:
                return SimulatedEvaluator(self.simulation, self.setting.habits)

    def _names(self) -> list[str]:
        """What the aggregators are called in messages."""
        return ["the aggregator"] if len(self.disks) == 1 else [replica_name(index) for index in range(len(self.disks))]

    def _aggregator(self, index: int) -> SimulatedAggregator:
        disk, boot_id = self.disks[index], f"boot-{self._boots}"
        fence = self._fences[index]
        options: dict[str, Any] = {
            "boot_id": boot_id,
            "committed": self._committed,
            "admitted": lambda term: fence.taken("an upload", term, has_effect=True),
            "machine": fenced(self._machine, fence),
        }
        if len(self.disks) == 1:
            return SimulatedAggregator(self.simulation, self.faults, disk, **options)
        return SimulatedReplica(
            self.simulation,
            self.faults,
            disk,
            name=replica_name(index),
            network=self.network,
            rules=self._rules,
            **options,
        )

    def _committed(self, record: RoundRecord) -> None:
        self.faults.quiet_rounds -= 1
        self.invariants.committed(record)
        if record.round == 1 and self.setting.raised_to is not None:
            self.store.edit(rounds=self.setting.raised_to)

    def _trained(self, boot: str, index: int) -> Callable[[WorkId], None]:
        return lambda work: self.invariants.trained(boot, index, work.round)

    # Fate

    def _strike(self) -> None:
        """Now and then, see whether something dies."""
        if self.faults.budget > 0:
            self._kill_programs()
            self._double_operator()
            self._suspend()
            self._edit_deadline()
            self.simulation.later(self._moments.random(), self._strike)

    def _kill_programs(self) -> None:
        for view in self.pods.running(PodRole.AGGREGATOR):
            if self.faults.strikes("aggregator killed"):
                self.pods.kill(view)
            elif self.faults.strikes("aggregator restarted in place"):
                self.pods.restart_in_place(view)
            elif self._may_lose(view.index) and self.faults.strikes("volume lost"):
                self.pods.kill(view)
                self.disks[view.index] = ReplicaDisk()
                self._fences[view.index] = Fence(self._names()[view.index])  # terms are durable on the volume only
                self._lost.add(view.index)
            elif len(self.disks) > 1 and self.faults.strikes("aggregator frozen"):
                self.pods.freeze(view, self.simulation.rng.random() * 60.0)
        limit = self.setting.job.spec.client_groups[0].backoff_limit
        for view in self.pods.running(PodRole.CLIENT):
            is_last = view.ordinal >= limit
            if (not is_last or view.index < self.setting.spare) and self.faults.strikes("client killed"):
                self.pods.kill(view)
        for view in self.pods.running(PodRole.EVALUATOR):
            if view.ordinal < 3 and self.faults.strikes("evaluator killed"):
                self.pods.kill(view)

    def _may_lose(self, index: int) -> bool:
        """Whether a volume may be lost: one at a time is what is promised, until it holds everything again."""
        chain = [record.digest for record in self.invariants.records]
        self._lost = {place for place in self._lost if self._digests(place)[: len(chain)] != chain}
        return len(self.disks) > 1 and self._lost <= {index}

    def _digests(self, place: int) -> list[str]:
        return [record.digest for record in self.disks[place].records]

    def _double_operator(self) -> None:
        """A second operator takes over while the first has not noticed; it lives on for a while."""
        if self.shares_machine or len(self.drivers) != 1 or not self.faults.strikes("operator doubled"):
            return
        zombie = self.drivers[0]
        self._start_operator()
        self.simulation.later(self.simulation.rng.random() * 20.0, zombie.kill)

    def _suspend(self) -> None:
        """Somebody suspends the job, and lets it go on after a while."""
        if self.store.read().spec.suspend or not self.faults.strikes("suspended"):
            return
        self.store.edit(suspend=True)
        self.simulation.later(self.simulation.rng.random() * 30.0, self._resume)

    def _edit_deadline(self) -> None:
        """Somebody changes the deadline: an attempt that is opened again then differs from the one that is open."""
        if self.faults.strikes("deadline edited"):
            policy = self.store.read().spec.round_policy
            changed = policy.model_copy(update={"deadline_seconds": policy.deadline_seconds + 1})
            self.store.edit(round_policy=changed)

    def _resume(self) -> None:
        condition = self.store.status.condition(ConditionType.SUSPENDED)
        if self.store.status.phase is Phase.SUSPENDED and condition and self.drivers:
            seconds = (self.simulation.now - condition.last_transition_time).total_seconds()
            self.invariants.suspended(seconds, has_pods=self.pods.there_is_any())
        self.store.edit(suspend=False)


def undisturbed(setting: Setting) -> Outcome:
    """The schedule in which nothing goes wrong."""
    return World(setting, 0, faults=no_faults).run()


class FailedScheduleError(AssertionError):
    """A schedule in which something does not hold; its message names the schedule."""

    def __init__(self, message: str, faults: Sequence[Fault]) -> None:
        super().__init__(message)
        self.faults = tuple(faults)


def check(setting: Setting, seed: int, calm: Outcome, **rules: Any) -> Outcome:
    """Run one schedule and check everything that has to hold at its end; explain a failure by the fewest faults.

    Args:
        setting: The job.
        seed: The schedule.
        calm: What the undisturbed schedule led to.
        rules: What `World` takes besides: other faults, broken rules.

    Raises:
        FailedScheduleError: Something does not hold.
    """
    try:
        return play(setting, seed, calm, **rules)
    except FailedScheduleError as error:
        raise explained(error, setting, seed, calm, **rules) from error


def play(setting: Setting, seed: int, calm: Outcome, **rules: Any) -> Outcome:
    """As `check`, without an explanation, which takes as many further runs as there are faults and more."""
    world = World(setting, seed, **rules)
    title = f"{setting.name}, seed {seed}"
    try:
        outcome = world.run()
        check_outcome(setting, outcome, calm, title=title)
    except Exception as error:
        message = f"{title}: {type(error).__name__}: {error}; {world.faults.happened}"
        raise FailedScheduleError(message, world.faults.happened) from error
    return outcome


def explained(
    error: FailedScheduleError, setting: Setting, seed: int, calm: Outcome, **rules: Any
) -> FailedScheduleError:
    """A failed schedule without the faults that it fails without, and how to repeat it."""
    found = error

    def fails(faults: Sequence[Fault]) -> bool:
        nonlocal found
        try:
            play(setting, seed, calm, **{**rules, "faults": exactly(faults)})
        except FailedScheduleError as smaller:
            found = smaller
            return True
        return False

    faults = shrunk(error.faults, fails)
    repeat = f"World(setting, {seed}, faults=exactly({[tuple(fault) for fault in faults]}))"
    return FailedScheduleError(f"{len(faults)} of {len(error.faults)} faults do it: {repeat}: {found}", faults)


def check_outcome(setting: Setting, outcome: Outcome, calm: Outcome, *, title: str) -> None:
    """Check everything that has to hold at the end of a schedule.

    Raises:
        AssertionError: Something does not hold.
    """
    story = f"{title}: {outcome.status.phase}: {outcome.status.message}"
    assert outcome.finished, f"never finished: {story}"
    assert outcome.status.phase is Phase.COMPLETE, story
    committed = [record.round for record in outcome.records]
    assert committed == list(range(len(calm.records))), f"{committed} instead of {len(calm.records)} rounds: {story}"
    if setting.is_fixed or outcome.contributors[1:] == calm.contributors[1:]:
        assert outcome.chain == calm.chain, f"another model than undisturbed: {story}"
