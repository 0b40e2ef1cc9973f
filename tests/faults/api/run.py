"""One run of one job on the API server, with what goes wrong meanwhile."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal

from tests.faults.api.jobs import CLIENTS, NAME, PODS, manifest
from tests.faults.api.stage import Stage
from tests.support.cluster.access import Document
from tests.support.cluster.calls import CALL, Call
from tests.support.cluster.cluster import ProxyHandle, eventually
from tests.support.cluster.operator_process import OperatorProcess, Settings

END_SECONDS: Final = 120.0
"""Deadline of a job, generous: the machine may be busy, and some faults make everybody wait."""
QUIET_SECONDS: Final = 0.5
"""A job is settled when nothing was written for so long after its pods were gone."""
Act = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Moment:
    """A request of the operator that is started first."""

    of: Literal["write", "call"]
    """A write to the API server, or a call to a pod."""
    nth: int
    """Its number, from 1."""
    side: Literal["before", "after"] = "before"
    """Of what is asked for being done."""

    def __str__(self) -> str:
        return f"{self.side}-{self.of}-{self.nth}"

    def is_now(self, call: Call, side: str) -> bool:
        """Whether this is it."""
        return self.side == side and self.nth == call.nth and (self.of == CALL) == (call.verb == CALL)


@dataclass(slots=True)
class _Trigger:
    moment: Moment
    act: Act
    cuts: bool
    is_armed: bool = True


class Run:
    """A run that is going on.

    Args:
        stage: Its surroundings.
        which: Which job.
        reach: How operators reach pods: ``direct``, or ``api-proxy`` and so through the run's own proxy.
        stack: Closes what the run opens.
    """

    def __init__(self, stage: Stage, which: str, reach: str, stack: ExitStack) -> None:
        self.stage = stage
        self.cluster = stage.cluster
        self.which = which
        self.namespace = stage.namespace()
        self.folder = stage.folder / "runs" / self.namespace
        self.folder.mkdir(parents=True)
        self.happened: list[str] = []
        """What went wrong, in words."""
        self.harmed: dict[int, float] = {}
        """When processes of pods were made to end, by their id, in seconds of the wall clock."""
        self.restarts: list[tuple[float, Counter[str]]] = []
        """When the first operator was started again, on the monotonic clock, and how much had been asked for before."""
        self.is_submitted = False
        self.proxies: list[ProxyHandle] = []
        self.operators: list[OperatorProcess] = []
        self._reach = reach
        self._stack = stack
        self._triggers: list[_Trigger] = []
        self._looks: list[Callable[[], list[str]]] = []
        self._failed: list[str] = []
        self._kills: Counter[str] = Counter()

    # Operators

    @property
    def proxy(self) -> ProxyHandle:
        """What the first operator reaches the API server through."""
        return self.proxies[0]

    @property
    def operator(self) -> OperatorProcess:
        """The one that is started first."""
        return self.operators[0]

    def start_operator(self, *, beside: OperatorProcess | None = None, is_copy: bool = True) -> OperatorProcess:
        """Start an operator of this namespace, with a proxy of its own.

        Args:
            beside: Another one whose Lease and key it shares; else it has its own, as another release has.
            is_copy: Whether it is a copy of a process that has imported it, or started as usual.
        """
        proxy = self._stack.enter_context(self.cluster.proxy())
        own = beside.settings.own_namespace if beside else self.stage.namespace()
        settings = Settings(
            access=self.cluster.access.at(proxy.url),
            own_namespace=own,
            namespaces=(self.namespace,),
            variables=(("FEDJOB_OPERATOR_REACH", self._reach),),
        )
        name = f"{self.namespace}-operator-{len(self.operators)}"
        operator = OperatorProcess(settings, self.folder / name, forks=self.stage.forks if is_copy else None)
        self.operators.append(operator)
        self.proxies.append(proxy)
        proxy.plain.before = lambda call: self._meet(call, "before")
        proxy.plain.after = lambda call: self._meet(call, "after")
        operator.start()
        self._stack.callback(operator.kill)
        return operator

    def restart_operator(self) -> None:
        """Kill the first operator and start it again at once, as a container that is restarted in its pod."""
        self.operator.kill()
        self.happened.append("the operator was killed")
        before = Counter(self.proxy.plain.numbered)
        self.restarts.append((time.monotonic(), before))
        self.operator.start(wait=False)

    def seconds_to_act(self) -> float | None:
        """Seconds from the last restart of the first operator to its first request that is more than a look."""
        began, before = self.restarts[-1]
        kinds = ((call, CALL if call.verb == CALL else "write") for call in self.proxy.plain.calls if call.nth)
        # What the dead one asked for may be answered later.
        later = [call.at for call, kind in kinds if call.nth > before[kind]]
        return min(later) - began if later else None

    # Moments

    def at(self, moment: Moment, act: Act, *, cuts: bool = False) -> None:
        """Do something at a moment, once; the request waits until that is done.

        Args:
            moment: When.
            act: What.
            cuts: Whether the request, or its answer, goes no further: whoever asked is no more.
        """
        self._triggers.append(_Trigger(moment, act, cuts))

    async def _meet(self, call: Call, side: str) -> bool:
        due = [trigger for trigger in self._triggers if trigger.is_armed and trigger.moment.is_now(call, side)]
        for trigger in due:
            trigger.is_armed = False
            try:
                await asyncio.get_running_loop().run_in_executor(self.stage.hands, trigger.act)
            except Exception as error:  # noqa: BLE001 - the operator must not be the one that hears of it
                self._failed.append(f"the fault at {trigger.moment} failed: {type(error).__name__}: {error}")
        return not any(trigger.cuts for trigger in due)

    def missed(self) -> list[Moment]:
        """Moments that did not come: this run had fewer requests."""
        return [trigger.moment for trigger in self._triggers if trigger.is_armed]

    def catch_up(self) -> None:
        """Let happen now what its moment did not come for."""
        for trigger in self._triggers:
            if trigger.is_armed:
                trigger.is_armed = False
                trigger.act()

    def at_end(self, look: Callable[[], list[str]]) -> None:
        """Look for problems when the run is over."""
        self._looks.append(look)

    def problems(self) -> list[str]:
        """What was found wrong besides what the oracles ask for."""
        return self._failed + [problem for look in self._looks for problem in look()]

    # The job

    def submit(self, **spec: Any) -> None:
        """Create the job, with further fields of its spec."""
        self.is_submitted = True
        self.cluster.submit(self.namespace, manifest(self.which, self.folder, **spec))

    def hold(self, *rounds: int) -> None:
        """Keep all clients from finishing rounds."""
        for client in range(CLIENTS[self.which]):
            for number in rounds:
                (self.folder / f"hold-{client}-{number}").touch()

    def release(self, *rounds: int) -> None:
        """Let all clients finish these rounds."""
        for number in rounds:
            for file in self.folder.glob(f"hold-*-{number}"):
                file.unlink()

    def until_training(self, round_number: int) -> None:
        """Wait until somebody trains in a round."""
        trained = f'"round": {round_number},'
        file = self.folder / "trainings"
        eventually(lambda: file.exists() and trained in file.read_text(), f"training in round {round_number}")

    def until_struck(self) -> None:
        """Wait until all moments have come, and what was to happen at them is done."""
        eventually(lambda: len(self.happened) >= len(self._triggers), "the moments of the run", END_SECONDS)

    def until_ready(self) -> None:
        """Wait until all pods that the job had are there again and ready."""
        eventually(self._is_ready, f"readiness of all pods of {self.namespace}", END_SECONDS)

    def _is_ready(self) -> bool:
        pods = self.cluster.pods(self.namespace, NAME)
        # Of a program that was just killed the node still says that it is ready.
        ready = [pod for pod in pods if is_ready(pod) and restarts(pod) >= self._kills[pod["metadata"]["name"]]]
        return len(ready) == len(pods) == PODS[self.which]

    def until_committed(self, round_number: int) -> None:
        """Wait until the status says that a round is committed."""
        self.cluster.until_committed(self.namespace, NAME, round_number, END_SECONDS)

    def settle(self) -> Document:
        """Wait until the job is over, its clients are gone, and nothing more is written; return the resource."""
        self.cluster.until_phase(self.namespace, NAME, "Complete", "Failed", seconds=END_SECONDS)
        eventually(lambda: len(self.pod_names()) <= 1, "the release of the clients", END_SECONDS)
        eventually(self._is_quiet, "the end of all writes", END_SECONDS)
        return self.cluster.job(self.namespace, NAME)

    def _is_quiet(self) -> bool:
        return time.monotonic() - max(call.at for call in self.writes()) > QUIET_SECONDS

    def writes(self) -> list[Call]:
        """All writes of all operators that have to do with the job."""
        return [
            call
            for proxy in self.proxies
            for call in proxy.plain.calls
            if call.is_write and call.namespace == self.namespace
        ]

    # Pods

    def pod_names(self, role: str | None = None) -> list[str]:
        """Names of the job's pods."""
        return self.cluster.pod_names(self.namespace, NAME, role)

    def kill_pod(self, name: str) -> None:
        """Kill a pod's program; the node starts it again in its place."""
        self._harm(name)
        self._kills[name] += 1
        self.happened.append(f"the program of {name} was killed")
        self.cluster.crash((self.namespace, name))

    def delete_pod(self, name: str) -> None:
        """Delete a pod."""
        self._harm(name)
        self.happened.append(f"{name} was deleted")
        self.cluster.api.delete("pods", self.namespace, name)

    def _harm(self, name: str) -> None:
        with suppress(LookupError):  # it is not on the node yet
            pid = self.cluster.pid((self.namespace, name))
            if pid is not None:
                self.harmed[pid] = time.time()


def is_ready(pod: Document) -> bool:
    """Whether a pod is of use."""
    conditions = pod["status"].get("conditions", [])
    holds = any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
    return holds and not pod["metadata"].get("deletionTimestamp")


def restarts(pod: Document) -> int:
    """How often a pod's program was started again."""
    return sum(container["restartCount"] for container in pod["status"].get("containerStatuses", []))
