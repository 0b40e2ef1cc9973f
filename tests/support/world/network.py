"""Calls between programs that can be lost, doubled, delayed, or left without an answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from fedjob_protocol.errors import Refusal
from tests.support.world.simulation import Faults, Simulation

Reply = Callable[[Any], None]
"""Takes an answer, or a `Refusal`."""

TIMEOUT_SECONDS = 10.0
MAX_DELAY_SECONDS = 40.0
"""Longest time that a request is on its way: longer than its caller waits."""


class Program(Protocol):
    """Whatever answers under an address."""

    alive: bool


@dataclass(slots=True)
class Exchange:
    """One call; its caller hears of it once."""

    answered: Callable[[Any], None]
    failed: Callable[[str | None, str], None]
    over: bool = False

    def answer(self, value: Any) -> None:
        """The answer arrived."""
        if self.over:
            return
        self.over = True
        if isinstance(value, Refusal):
            self.failed(value.word, value.detail)
        else:
            self.answered(value)

    def fail(self, message: str) -> None:
        """There will be no answer."""
        if not self.over:
            self.over = True
            self.failed(None, message)


class Network:
    """Delivers calls to whichever program has the address when they arrive."""

    def __init__(self, simulation: Simulation, faults: Faults) -> None:
        self._simulation = simulation
        self._faults = faults
        self._hosts: dict[str, Program] = {}

    def attach(self, host: str, program: Program) -> None:
        """A program answers under this address from now on."""
        self._hosts[host] = program

    def detach(self, host: str) -> None:
        """Nobody answers under this address any more."""
        self._hosts.pop(host, None)

    def call(
        self,
        url: str,
        serve: Callable[[Any, Reply], None],
        *,
        answered: Callable[[Any], None],
        failed: Callable[[str | None, str], None],
    ) -> None:
        """Send a request; ``serve`` is what the program at the other end does with it."""
        exchange = Exchange(answered, failed)
        host = url.removeprefix("http://").partition("/")[0]
        soon, later = self._simulation.soon, self._simulation.later
        if self._faults.strikes("request lost"):
            later(TIMEOUT_SECONDS, lambda: exchange.fail("no answer"))
            return
        if self._faults.strikes("request duplicated"):
            later(self._delay(), lambda: self._deliver(host, serve, None))
        if self._faults.strikes("request delayed"):
            later(TIMEOUT_SECONDS, lambda: exchange.fail("no answer in time"))
            later(self._delay(), lambda: self._deliver(host, serve, exchange))
            return
        soon(lambda: self._deliver(host, serve, exchange))

    def _delay(self) -> float:
        rng = self._simulation.rng
        return rng.random() * rng.choice((0.1, 2.0, MAX_DELAY_SECONDS))

    def _deliver(self, host: str, serve: Callable[[Any, Reply], None], exchange: Exchange | None) -> None:
        program = self._hosts.get(host)
        if exchange is None:
            if program is not None:
                serve(program, lambda _: None)
            return
        if program is None:
            self._simulation.soon(lambda: exchange.fail("connection refused"))
            return
        if self._faults.strikes("answer lost"):
            self._simulation.later(TIMEOUT_SECONDS, lambda: exchange.fail("the answer was lost"))
            serve(program, lambda _: None)
            return

        def reply(value: Any) -> None:
            if program.alive:
                self._simulation.soon(lambda: exchange.answer(value))
            else:
                self._simulation.soon(lambda: exchange.fail("connection reset"))

        serve(program, reply)
