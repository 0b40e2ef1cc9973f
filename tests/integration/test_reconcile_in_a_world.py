"""The real reconcile loop and performer in a simulated world, in virtual time.

The unit suite's model check mirrors the loop step by step, because an event loop for each of its schedules would take
too long. Here the loop itself meets the same faults, in fewer schedules, and must pass the same checks.
"""

import asyncio
import os
from collections.abc import Callable
from typing import Final

import pytest

from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus
from fedjob_operator.core.actions import Action, CreatePod, DeletePod
from fedjob_operator.core.observed import PodCheck, PodView
from fedjob_operator.observations import Answer
from fedjob_operator.ports import CallError, StoreUnavailableError
from fedjob_operator.reconcile import Reconciler
from tests.support.virtual_time import run
from tests.support.world.calls import send
from tests.support.world.simulation import Simulation
from tests.support.world.world import AnyDriver, Setting, World, check_outcome, undisturbed
from tests.unit.controller.test_model_check import SETTINGS

SCHEDULES: Final = int(os.environ.get("FEDJOB_RECONCILE_SCHEDULES", "240"))
LIMIT_SECONDS: Final = 36_000.0
"""Virtual time after which a job that is not finished never will be."""


class LoopSimulation(Simulation):
    """The time of the running event loop."""

    @property
    def seconds(self) -> float:
        return asyncio.get_running_loop().time()

    def later(self, delay: float, effect: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(delay, effect)


class ReconcilerWorld(World):
    """A world whose operators are the real loop."""

    def make_driver(self) -> AnyDriver:
        return ReconcilerDriver(self)


class ReconcilerDriver:
    """One run of the loop; it is also all of its edges."""

    def __init__(self, world: World) -> None:
        self.alive = True
        self.finished = False
        self._world = world
        self._reconciler = Reconciler(
            store=self,
            pods=self,
            programs=self,
            clock=lambda: world.simulation.now,
            on_change=lambda *_: None,
            platform=world.setting.platform,
        )
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        await self._reconciler.run()
        self.finished = True

    def wake(self) -> None:
        self._reconciler.wake()

    def changed(self) -> None:
        self._reconciler.changed(self._world.store.read().metadata.resource_version)

    def kill(self) -> None:
        if self.alive:
            self.alive = False
            self._task.cancel()
            self._world.operator_died(self)

    async def ended(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _may_die(self) -> None:
        if self._world.faults.strikes("operator killed"):
            self.kill()
        await asyncio.sleep(0)

    # Edges

    async def read(self) -> FederatedJob:
        await self._may_die()
        return self._world.store.read()

    async def write_status(self, job: FederatedJob, status: FederatedJobStatus) -> FederatedJob:
        await self._may_die()
        if self._world.faults.strikes("storage full"):
            raise StoreUnavailableError("No space left on device")
        written = self._world.store.write(job, status)
        await self._may_die()
        return written

    def pods(self) -> tuple[PodView, ...]:
        return self._world.pods.visible()

    async def create(self, job: FederatedJob, action: CreatePod) -> None:
        await self._may_die()
        self._world.pods.create(action)
        await self._may_die()

    async def delete(self, action: DeletePod) -> None:
        await self._may_die()
        self._world.pods.delete(action)

    async def check(self, job: FederatedJob) -> PodCheck:
        await self._may_die()
        return PodCheck(generation=job.metadata.generation)

    async def perform(self, action: Action) -> Answer:
        await self._may_die()
        self._world.invariants.started(action, self._world.store.read())
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answered(value: Answer) -> None:
            if not answer.done():
                answer.set_result(value)

        def failed(word: str | None, message: str) -> None:
            if not answer.done():
                answer.set_exception(CallError(message, word=word))

        send(self._world.network, action, answered=answered, failed=failed)
        return await answer


async def play(setting: Setting, seed: int) -> World:
    world = ReconcilerWorld(setting, seed, simulation=LoopSimulation(seed))
    problems = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    world.begin()
    while not world.is_over() and world.simulation.seconds < LIMIT_SECONDS and not problems:  # noqa: ASYNC110 - virtual
        await asyncio.sleep(1.0)
    for driver in world.drivers:
        await driver.ended()
    assert not problems, f"{setting.name}, seed {seed}: {problems[0].get('exception')}"
    return world


@pytest.mark.integration
@pytest.mark.parametrize("which", SETTINGS, ids=lambda which: which.name)
def test_the_loop_itself_commits_every_round_once(which):
    calm = undisturbed(which)
    for seed in range(-(-SCHEDULES // len(SETTINGS))):
        world = run(play(which, seed))
        check_outcome(which, world.outcome(finished=world.is_over()), calm, title=f"{which.name}, seed {seed}")
