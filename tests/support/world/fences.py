"""What a fence promises: no command of a lower term has an effect once one of a higher term was accepted."""

from fedjob_aggregator.events import Claim, Evaluate, Event, Open, ReportFailure, State, Step
from tests.support.world.aggregator import Machine
from tests.support.world.invariants import BrokenInvariantError


class Fence:
    """Looks at every command that one program takes.

    Args:
        program: Its name, for messages.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._highest = 0

    def taken(self, command: str, term: int, *, has_effect: bool) -> None:
        """A command was not refused.

        Raises:
            BrokenInvariantError: It should have been.
        """
        if has_effect and term < self._highest:
            later = f"after one of term {self._highest} was accepted"
            raise BrokenInvariantError(f"{self._program}: {command} of term {term} had an effect {later}")
        self._highest = max(self._highest, term)


def fenced(machine: Machine, fence: Fence) -> Machine:
    """The aggregator's rules, looked at by a fence; the same one for all runs of the program, as terms are durable."""

    def step(state: State, event: Event) -> Step:
        following = machine(state, event)
        term = _term_of(event)
        if term is not None:
            fence.taken(type(event).__name__, term, has_effect=bool(following.commands) or following.state != state)
        return following

    return step


def _term_of(event: Event) -> int | None:
    match event:
        case Claim():
            return event.term
        case Open():
            return event.spec.term
        case Evaluate():
            return event.evaluation.term
        case ReportFailure():
            return event.report.term
        case _:
            return None
