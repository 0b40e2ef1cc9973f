"""Where people ask for training sessions, and who drives them hears of it. Nothing is trained here."""

import asyncio
import time
from contextlib import suppress
from typing import Final

from fedjob_aggregator.registrations import Registrations
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.sessions import SessionOrder, SessionRecord, SessionReport, SessionState, TrainingRequest

DRIVER_SECONDS: Final = 60.0
"""A driver that did not report for so long is gone."""
FIRST_SECONDS: Final = 5.0
"""How long after the start the driver's first report is waited for."""
TAKE_SECONDS: Final = 10.0
"""Within this the driver has to take an order."""
LONGEST_WAIT_SECONDS: Final = 25.0


class TrainingDesk:
    """One session at a time.

    Args:
        registrations: Who could take part.
        least_clients: A session needs so many registered clients, unless it has places for those who come.
    """

    def __init__(self, registrations: Registrations, *, least_clients: int = 1) -> None:
        self._registrations = registrations
        self._least = least_clients
        self._report: SessionReport | None = None
        self._reported = 0.0
        self._order: SessionOrder | None = None
        self._changed = asyncio.Event()

    @property
    def state(self) -> SessionState:
        """Whether a session is asked for or runs."""
        is_running = self._report is not None and self._report.state is SessionState.CLIENTS_TRAINING
        return SessionState.CLIENTS_TRAINING if is_running or self._order is not None else SessionState.IDLE

    @property
    def message(self) -> str:
        """What the driver said last."""
        return self._report.message if self._report else ""

    @property
    def history(self) -> tuple[SessionRecord, ...]:
        """Sessions, newest last."""
        return self._report.history if self._report else ()

    async def ask(self, request: TrainingRequest) -> SessionOrder:
        """Have a session started; return once the driver has taken it durably.

        Raises:
            Refusal: ``training-in-progress``; ``unavailable`` where nobody is registered, nobody drives, or the driver
                cannot begin the session.
        """
        await self._heard_of_driver()
        if self.state is SessionState.CLIENTS_TRAINING:
            now = self.message or "it is beginning"
            raise Refusal(Word.TRAINING_IN_PROGRESS, f"{self.state}: a session is under way: {now}")
        if self._report is None or time.monotonic() - self._reported > DRIVER_SECONDS:
            raise Refusal(
                Word.UNAVAILABLE, "nobody drives training sessions here; start the server with `fedjob serve`"
            )
        if (there := self._registrations.connected()) < self._least:
            detail = f"{there} clients are registered, a session needs {self._least}; start them with SERVER_URL"
            raise Refusal(Word.UNAVAILABLE, f"{detail} and CLIENT_URL")
        number = self._report.session + 1
        self._report = self._report.model_copy(update={"refused": None})
        self._order = SessionOrder(session=number, request=request)
        try:
            order = SessionOrder(session=number, request=request, clients=await self._registrations.compact())
            self._order = order
            self._wake()
            async with asyncio.timeout(TAKE_SECONDS):
                while self._report.session < number:
                    if self._report.refused is not None:
                        raise Refusal(Word.UNAVAILABLE, f"the session cannot begin: {self._report.refused}")
                    await self._changed.wait()
        except TimeoutError:
            raise Refusal(Word.UNAVAILABLE, "the session was not taken in time; look at the server's log") from None
        finally:
            self._order = None
        return order

    async def _heard_of_driver(self) -> None:
        """Wait a moment for the first report after the start: a session may be under way."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_SECONDS):
                while self._report is None:
                    await self._changed.wait()

    async def exchange(self, report: SessionReport, wait_seconds: float) -> SessionOrder:
        """Take in what the driver does, and answer an order as soon as there is one."""
        self._report, self._reported = report, time.monotonic()
        declined = self._order if report.refused is not None else None
        self._wake()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(wait_seconds, LONGEST_WAIT_SECONDS)):
                while (order := self._new_order(report)) is None or order is declined:
                    await self._changed.wait()
                return order
        return SessionOrder()

    def _new_order(self, report: SessionReport) -> SessionOrder | None:
        order = self._order
        return order if order is not None and (order.session or 0) > report.session else None

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
