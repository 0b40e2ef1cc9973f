"""The state machines as diagrams and tables: rounds of the aggregator, phases of the job."""

from fedjob_operator.api.v1alpha1 import Phase
from fedjob_operator.core import phases
from fedjob_protocol import round as rounds
from fedjob_protocol.round import RoundEvent, RoundState
from generator.markdown import code, fence, page, table
from generator.members import member_docs


def state_machine() -> str:
    """The page of both machines."""
    return page(
        "State machines",
        "Both tables are data in the code: "
        "[`fedjob_protocol/round.py`](../protocol/src/fedjob_protocol/round.py) and "
        "[`core/phases.py`](../operator/src/fedjob_operator/core/phases.py). "
        "A transition that is not listed is refused.",
        "## A round",
        fence("mermaid", _round_diagram()),
        table(("state", "meaning"), _meanings(RoundState)),
        table(("event", "meaning"), _meanings(RoundEvent)),
        table(
            ("state", "event", "next state"),
            [(code(state), code(event), code(after)) for (state, event), after in rounds.TRANSITIONS.items()],
        ),
        f"The model survives any crash in the states {_listing(rounds.DURABLE)}.",
        "## A job",
        "The phase is derived from the conditions, for people. A job may stay in any phase; "
        f"{_listing(phases.TERMINAL)} are terminal and never taken back.",
        fence("mermaid", _phase_diagram()),
        table(
            ("phase", "may be followed by"),
            [(code(phase), _listing(phases.TRANSITIONS[phase]) or "nothing") for phase in Phase],
        ),
    )


def _meanings(enumeration: type[RoundState | RoundEvent]) -> list[tuple[str, str]]:
    docs = member_docs(enumeration)
    return [(code(member.value), docs.get(member.name, "")) for member in enumeration]


def _round_diagram() -> str:
    lines = ["stateDiagram-v2", f"    [*] --> {RoundState.OPEN}"]
    lines += [f"    {state} --> {after}: {event}" for (state, event), after in rounds.TRANSITIONS.items()]
    lines.append(f"    {RoundState.EVALUATED} --> [*]")
    return "\n".join(lines)


def _phase_diagram() -> str:
    lines = ["stateDiagram-v2", f"    [*] --> {Phase.PENDING}"]
    lines += [f"    {phase} --> {after}" for phase in Phase for after in _ordered(phases.TRANSITIONS[phase])]
    lines += [f"    {phase} --> [*]" for phase in _ordered(phases.TERMINAL)]
    return "\n".join(lines)


def _ordered(members: frozenset[Phase]) -> list[Phase]:
    """In the order of declaration: a set's own order differs from run to run."""
    return [phase for phase in Phase if phase in members]


def _listing(members: frozenset[Phase] | frozenset[RoundState]) -> str:
    declared: list[Phase | RoundState] = [*Phase, *RoundState]
    return ", ".join(code(member) for member in declared if member in members)
