"""All fault runs of a session, several at once: each test asks for the outcome of its own."""

from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

from tests.faults.api.cases import Case
from tests.faults.api.gather import gather
from tests.faults.api.jobs import ALL, SOME
from tests.faults.api.run import Moment, Run
from tests.faults.api.stage import Stage
from tests.faults.evidence import Evidence

AT_ONCE: Final = 6
"""Runs that keep processors busy."""
WAITING_AT_ONCE: Final = 12
"""Runs that wait most of the time."""


def _nothing(_: Run) -> None:
    """Undisturbed."""


UNDISTURBED: Final = {
    job: Case(fault_class="undisturbed", job=job, arm=_nothing, reach="api-proxy") for job in (ALL, SOME)
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    evidence: Evidence
    happened: list[str]
    problems: list[str]
    missed: list[Moment]
    """Moments that this run did not have; what was meant for them happened at its end."""
    writes: int
    calls: int


class Campaign:
    """Runs cases, as many at once as is good for the machine.

    Args:
        stage: Where.
        cases: All that will be asked for, in that order.
    """

    def __init__(self, stage: Stage, cases: Iterable[Case]) -> None:
        self._stage = stage
        self._busy = ThreadPoolExecutor(AT_ONCE)
        self._waiting = ThreadPoolExecutor(WAITING_AT_ONCE)
        self._outcomes: dict[str, Future[Outcome]] = {}
        for case in UNDISTURBED.values():
            # Alone: on a busy machine clients become ready one by one, and each is told.
            self._outcomes[case.key] = self._busy.submit(self._run, case)
            wait([self._outcomes[case.key]])
        for case in cases:
            pool = self._waiting if case.waits else self._busy
            self._outcomes[case.key] = pool.submit(self._run, case)

    def close(self) -> None:
        """Drop what has not begun."""
        for pool in (self._busy, self._waiting):
            pool.shutdown(cancel_futures=True)

    def outcome(self, case: Case) -> Outcome:
        """Wait for the end of a case."""
        return self._outcomes[case.key].result()

    def _run(self, case: Case) -> Outcome:
        with ExitStack() as stack:
            run = Run(self._stage, case.job, case.reach, stack)
            run.start_operator()
            case.arm(run)
            if not run.is_submitted:
                run.submit()
            job = run.settle()
            missed = run.missed()
            if missed:
                run.catch_up()
                job = run.settle()
            calls = max((call.nth for call in run.proxy.plain.calls if call.verb == "call"), default=0)
            writes = max((call.nth for call in run.writes()), default=0)
            return Outcome(
                evidence=gather(run, job),
                happened=run.happened,
                problems=run.problems(),
                missed=missed,
                writes=writes,
                calls=calls,
            )
