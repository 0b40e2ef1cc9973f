"""What the HTTP adapter does, in a simulated world: an action becomes a call of a program."""

from collections.abc import Callable
from typing import Any

from fedjob_operator.core.actions import (
    Action,
    Appoint,
    Call,
    Evaluate,
    FetchInfo,
    ListReplaced,
    OpenRound,
    ReadState,
    RecordEvaluation,
    ReportFailure,
    StartTask,
    WatchRound,
)
from fedjob_operator.observations import Answer
from fedjob_protocol.clients import ReplacedClients
from tests.support.world.network import Network, Reply


def send(
    network: Network,
    action: Action,
    *,
    answered: Callable[[Answer], None],
    failed: Callable[[str | None, str], None],
) -> None:
    """Make the call of an action."""
    assert isinstance(action, Call), action

    def serve(program: Any, reply: Reply) -> None:
        match action:
            case ReadState():
                program.read_state(reply)
            case ListReplaced():
                reply(ReplacedClients(clients=[]))
            case FetchInfo():
                program.read_info(reply)
            case Appoint():
                program.appoint(action.leadership, reply)
            case OpenRound():
                program.open_round(action.round, action.spec, reply)
            case WatchRound():
                program.watch_round(action.round, reply)
            case ReportFailure():
                program.report_failure(action.round, action.client, action.report, reply)
            case RecordEvaluation():
                program.record_evaluation(action.round, action.evaluation, reply)
            case StartTask():
                program.post(action.round, action.task, reply)
            case Evaluate():
                program.evaluate(action.task, reply)

    network.call(action.url, serve, answered=answered, failed=failed)
