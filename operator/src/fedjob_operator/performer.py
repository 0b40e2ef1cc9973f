"""Performs actions in the background: each at most once at a time, held back after failures.

The loop never waits for a call, so that one dead client cannot stop the others.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_operator.build.config import client_config
from fedjob_operator.core.acceptance import as_accepted
from fedjob_operator.core.actions import (
    Action,
    Appoint,
    Call,
    CheckPods,
    ConfigureClient,
    CreatePod,
    DeleteJob,
    DeletePod,
    FetchInfo,
    FindOrigin,
    ListReplaced,
    ServeModel,
    StartTask,
)
from fedjob_operator.core.observed import PodCheck, PodRole
from fedjob_operator.core.platform import LOCAL, Platform
from fedjob_operator.observations import Answer, Observations
from fedjob_operator.ports import CallError, JobStore, Pods, Programs

log = logging.getLogger(__name__)

FIRST_DELAY_SECONDS = 0.1
"""Back-off after the first failure of a call; doubled with each further one."""
MAX_DELAY_SECONDS = 5.0
MAX_POD_DELAY_SECONDS = 30.0
"""Longest back-off of what concerns pods: the API server has others to answer, and a quota is not mended in seconds."""
RECHECK_SECONDS = 30.0
"""How long after pods were found wanting they are not checked again."""
ASK_SECONDS = 5.0
"""Least time between two questions whom somebody wants replaced."""
ORIGIN_SECONDS = 2.0
"""Least time between two looks at the job that another one begins with."""
SEEN_SECONDS = 1.0
"""How long after a pod was created or deleted the same is not done again."""


class Performer:
    """Owns the calls that are under way.

    Args:
        store: Where the resource is kept.
        pods: Where programs run.
        programs: How they are called.
        observations: Where answers go.
        wake: Called after each answer or failure, and when a held-back action may be tried again.
        clock: The time, in UTC.
        changed: Called when the resource was deleted.
        platform: Where the job's programs run.
    """

    def __init__(
        self,
        *,
        store: JobStore,
        pods: Pods,
        programs: Programs,
        observations: Observations,
        wake: Callable[[], None],
        clock: Callable[[], datetime],
        changed: Callable[[], None] | None = None,
        platform: Platform = LOCAL,
    ) -> None:
        self._store = store
        self._pods = pods
        self._programs = programs
        self._observations = observations
        self._wake = wake
        self._clock = clock
        self._changed = changed or wake
        self._platform = platform
        self._running: dict[str, asyncio.Task[None]] = {}
        self._failures: dict[str, int] = {}
        self._held: dict[str, asyncio.TimerHandle] = {}

    def start(self, job: FederatedJob, action: Action) -> None:
        """Begin an action, unless it is under way or held back."""
        key = action.key
        if key in self._running or key in self._held:
            return
        self._running[key] = asyncio.get_running_loop().create_task(self._run(job, action), name=key)

    async def close(self) -> None:
        """Cancel everything under way and wait until it has ended."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for handle in self._held.values():
            handle.cancel()

    async def _run(self, job: FederatedJob, action: Action) -> None:
        key = action.key
        matters = True
        try:
            answer = await self._perform(job, action)
        except CallError as error:
            self._fail(action, error.word, str(error))
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # A bug of ours or a broken environment; the job must not stop silently, so it is tried again and shown.
            log.exception("performing %s failed", key)
            self._fail(action, None, f"{type(error).__name__}: {error}")
        else:
            self._failures.pop(key, None)
            self._observations.learn(action, answer)
            # That a client took its task only means not to give it again: the end of the round is what is waited for.
            matters = not isinstance(action, StartTask)
            self._hold_after(action, answer)
        finally:
            self._running.pop(key, None)
            if matters:
                self._wake()

    async def _perform(self, job: FederatedJob, action: Action) -> Answer:
        match action:
            case CreatePod():
                await self._pods.create(job, action)
                return None
            case DeletePod():
                await self._pods.delete(action)
                return None
            case CheckPods():
                return await self._pods.check(as_accepted(job, self._platform))
            case ServeModel():
                return await self._pods.serve(job, action)
            case DeleteJob():
                await self._store.delete(job)
                self._changed()
                return None
            case ConfigureClient():
                config = client_config(job, role=PodRole.CLIENT, index=action.index)
                return await self._programs.perform(replace(action, config=config))
            case Call() | FindOrigin():
                return await self._programs.perform(action)
            case _:
                assert_never(action)

    def _hold_after(self, action: Action, answer: Answer) -> None:
        """Hold back what the decision asks for again although it was done."""
        match action:
            case CheckPods() if isinstance(answer, PodCheck) and answer.problem is not None:
                self._hold(action.key, RECHECK_SECONDS)
            case FindOrigin():
                self._hold(action.key, ORIGIN_SECONDS)
            case ListReplaced():
                self._hold(action.key, ASK_SECONDS)
            case FetchInfo() if action.boot_id is not None:
                self._hold(action.key, ASK_SECONDS)  # asked again where somebody else answers
            case CreatePod() | DeletePod() | DeleteJob() | Appoint():
                # Until the pod is seen, or seen to be gone; a standby that is silent is told again, not all the time.
                self._hold(action.key, SEEN_SECONDS)
            case _:
                pass

    def _fail(self, action: Action, word: str | None, message: str) -> None:
        key = action.key
        count = self._failures.get(key, 0) + 1
        self._failures[key] = count
        log.debug("%s failed for the %d. time: %s", key, count, message)
        self._observations.fail(action, word=word, message=message, now=self._clock())
        most = MAX_DELAY_SECONDS if isinstance(action, Call) else MAX_POD_DELAY_SECONDS
        delay = min(FIRST_DELAY_SECONDS * 2 ** min(count - 1, 16), most)
        delay *= random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, decides nothing
        self._hold(key, delay)

    def _hold(self, key: str, seconds: float) -> None:
        self._held[key] = asyncio.get_running_loop().call_later(seconds, self._release, key)

    def _release(self, key: str) -> None:
        self._held.pop(key, None)
        self._wake()
