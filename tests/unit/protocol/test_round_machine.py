"""The table of round states."""

import pytest

from fedjob_protocol.errors import LocalProtocolError
from fedjob_protocol.round import DURABLE, TRANSITIONS, RoundEvent, RoundState, advance

HAPPY = [
    (RoundEvent.REPORT, RoundState.OPEN),
    (RoundEvent.CLOSE, RoundState.COMMITTING),
    (RoundEvent.COMMIT_FAILED, RoundState.COMMITTING),
    (RoundEvent.COMMITTED, RoundState.COMMITTED),
    (RoundEvent.EVALUATED, RoundState.EVALUATED),
    (RoundEvent.EVALUATED, RoundState.EVALUATED),
]


def test_a_round_goes_from_open_to_evaluated():
    state = RoundState.OPEN
    for event, expected in HAPPY:
        state = advance(state, event)
        assert state is expected


@pytest.mark.parametrize(
    ("event", "ended"),
    [(RoundEvent.GIVE_UP, RoundState.ABANDONED), (RoundEvent.CANCEL, RoundState.CANCELLED)],
)
def test_an_attempt_that_ended_without_a_commit_can_be_followed_by_another(event, ended):
    assert advance(RoundState.OPEN, event) is ended
    assert advance(ended, RoundEvent.REOPEN) is RoundState.OPEN


@pytest.mark.parametrize("state", list(RoundState))
@pytest.mark.parametrize("event", list(RoundEvent))
def test_what_the_table_does_not_have_is_a_bug_of_ours(state, event):
    if (state, event) in TRANSITIONS:
        assert advance(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(LocalProtocolError, match=f"{event} is impossible in state {state}"):
            advance(state, event)


def test_what_is_durable_is_never_taken_back():
    for (before, _), after in TRANSITIONS.items():
        assert before not in DURABLE or after in DURABLE


def test_only_a_commit_makes_a_round_durable():
    entering = {
        (before, event) for (before, event), after in TRANSITIONS.items() if after in DURABLE and before not in DURABLE
    }
    assert entering == {(RoundState.COMMITTING, RoundEvent.COMMITTED)}


def test_every_state_and_event_has_a_place_in_the_table():
    assert {state for state, _ in TRANSITIONS} | set(TRANSITIONS.values()) == set(RoundState)
    assert {event for _, event in TRANSITIONS} == set(RoundEvent)


def test_a_round_that_is_being_committed_ends_without_a_commit_only_if_no_model_can_be_made():
    assert advance(RoundState.COMMITTING, RoundEvent.CANNOT_COMMIT) is RoundState.ABANDONED


def test_a_round_that_is_being_committed_cannot_be_given_up():
    """Whether it is durable is not known then."""
    for event in (RoundEvent.CANCEL, RoundEvent.GIVE_UP, RoundEvent.REOPEN):
        assert (RoundState.COMMITTING, event) not in TRANSITIONS
