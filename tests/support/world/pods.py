"""Pods of a simulated world: what there is, and what an operator that looks a moment later sees."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from fedjob_operator.core.actions import CreatePod, DeletePod
from fedjob_operator.core.observed import Exit, PodPhase, PodRole, PodView, Waiting
from fedjob_protocol.reasons import Reason
from tests.support.world.network import Network
from tests.support.world.simulation import Simulation

STOP_SECONDS = 2.0
"""Longest time that a pod takes to end."""
NO_ROOM = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."

Place = tuple[PodRole, int, int]


class Killable(Protocol):
    """A running program."""

    alive: bool

    def kill(self) -> None:
        """End it at once."""


class SimulatedPods:
    """Starts and ends programs.

    Args:
        simulation: Time.
        network: Where ready programs answer.
        begin: Makes the program of a pod.
        changed: Called when what an operator sees has changed.
        gpus: How many clients there is room for at a time; ``None`` for all.
    """

    def __init__(
        self,
        simulation: Simulation,
        network: Network,
        *,
        begin: Callable[[PodRole, int], Killable],
        changed: Callable[[], None],
        gpus: int | None = None,
    ) -> None:
        self._simulation = simulation
        self._network = network
        self._begin = begin
        self._changed = changed
        self._pods: dict[Place, PodView] = {}
        self._programs: dict[str, Killable] = {}
        self._visible: dict[Place, PodView] = {}
        self._count = 0
        self._gpus = gpus
        self.most_held = 0
        """Most clients that had room at a time."""
        self.most_clients = 0
        """Most clients that had a pod, or were to have one, at a time."""

    def visible(self) -> tuple[PodView, ...]:
        """What an operator sees: the truth of a moment ago."""
        return tuple(self._visible.values())

    def running(self, role: PodRole) -> list[PodView]:
        """Ready pods of a role, in the order of their index."""
        ready = [view for view in self._pods.values() if view.role is role and view.phase is PodPhase.READY]
        return sorted(ready, key=lambda view: view.index)

    def begin_ready(self, places: Iterable[tuple[PodRole, int]]) -> None:
        """Begin with these programs running, as a successor of an operator finds them."""
        for role, index in places:
            self.create(CreatePod(role=role, index=index, ordinal=0))
        for place, view in list(self._pods.items()):
            self._become_ready(place, view.incarnation)
        self._visible = dict(self._pods)

    def create(self, action: CreatePod) -> None:
        """Create a pod unless it is there."""
        place = (action.role, action.index, action.ordinal)
        if place in self._pods:
            return
        self._count += 1
        view = PodView(
            role=action.role,
            index=action.index,
            ordinal=action.ordinal,
            incarnation=f"{action.role}-{action.index}-{action.ordinal}-{self._count}",
            phase=PodPhase.STARTING,
            since=self._simulation.now,
        )
        if self._has_room(action.role):
            self._place(place, view)
        else:
            self._show(place, replace(view, waiting=Waiting(reason=Reason.GPU_UNAVAILABLE, message=NO_ROOM)))

    def _has_room(self, role: PodRole) -> bool:
        return role is not PodRole.CLIENT or self._gpus is None or self._held() < self._gpus

    def _held(self) -> int:
        return sum(view.gpus_held for view in self._pods.values() if view.phase is not PodPhase.EXITED)

    def _place(self, place: Place, view: PodView) -> None:
        """Give a pod its node."""
        held = 1 if view.role is PodRole.CLIENT else 0
        self._show(place, replace(view, waiting=None, gpus_held=held))
        self.most_held = max(self.most_held, self._held())
        self._simulation.soon(lambda: self._become_ready(place, view.incarnation), most=2.0)

    def _schedule(self) -> None:
        """Give what was given back to whoever has waited longest."""
        for place, view in list(self._pods.items()):
            if view.waiting is not None and view.phase is PodPhase.STARTING and self._has_room(view.role):
                self._place(place, view)

    def _become_ready(self, place: Place, incarnation: str) -> None:
        view = self._pods.get(place)
        if view is None or view.incarnation != incarnation or view.phase is not PodPhase.STARTING:
            return
        program = self._begin(view.role, view.index)
        self._programs[incarnation] = program
        self._network.attach(incarnation, program)
        ready = replace(view, phase=PodPhase.READY, since=self._simulation.now, url=f"http://{incarnation}")
        self._show(place, ready)

    def kill(self, view: PodView) -> None:
        """A program ends by itself."""
        place = (view.role, view.index, view.ordinal)
        self._end(view.incarnation)
        end = Exit(reason=Reason.CRASHED, message="killed by SIGKILL")
        self._show(place, replace(view, phase=PodPhase.EXITED, since=self._simulation.now, url=None, exit=end))
        self._schedule()

    def restart_in_place(self, view: PodView) -> None:
        """A program ends and begins again under its address, and nobody notices."""
        self._end(view.incarnation)
        program = self._begin(view.role, view.index)
        self._programs[view.incarnation] = program
        self._network.attach(view.incarnation, program)

    def freeze(self, view: PodView, seconds: float) -> None:
        """A program answers nobody for a while, and goes on then."""
        program = self._programs[view.incarnation]
        self._network.detach(view.incarnation)
        self._simulation.later(seconds, lambda: self._thaw(view.incarnation, program))

    def _thaw(self, incarnation: str, program: Killable) -> None:
        if self._programs.get(incarnation) is program:
            self._network.attach(incarnation, program)

    def delete(self, action: DeletePod) -> None:
        """Ask this very pod to end, which takes a while; its program goes on until then."""
        place = (action.role, action.index, action.ordinal)
        view = self._pods.get(place)
        if view is None or view.incarnation != action.incarnation or view.phase is PodPhase.STOPPING:
            return
        self._show(place, replace(view, phase=PodPhase.STOPPING, since=self._simulation.now))
        self._simulation.soon(lambda: self._remove(place, view.incarnation), most=STOP_SECONDS)

    def _remove(self, place: Place, incarnation: str) -> None:
        view = self._pods.get(place)
        if view is not None and view.incarnation == incarnation:
            self._end(incarnation)
            self._show(place, None)
            self._schedule()

    def there_is_any(self) -> bool:
        """Whether there is a pod in truth, whatever anybody sees."""
        return bool(self._pods)

    def end_all(self) -> None:
        """The machine that held them all is gone."""
        for incarnation in list(self._programs):
            self._end(incarnation)
        self._pods.clear()
        self._visible.clear()

    def _end(self, incarnation: str) -> None:
        program = self._programs.pop(incarnation, None)
        self._network.detach(incarnation)
        if program is not None:
            program.kill()

    def _show(self, place: Place, view: PodView | None) -> None:
        """Change a pod; operators see it a moment later."""
        if view is None:
            self._pods.pop(place, None)
        else:
            self._pods[place] = view
        there = (PodPhase.STARTING, PodPhase.READY)
        clients = [pod for pod in self._pods.values() if pod.role is PodRole.CLIENT and pod.phase in there]
        self.most_clients = max(self.most_clients, len(clients))

        def appear() -> None:
            if self._pods.get(place) is not view:
                return  # something newer is on its way, or all are gone
            if view is None:
                self._visible.pop(place, None)
            else:
                self._visible[place] = view
            self._changed()

        self._simulation.soon(appear)
