"""What is printed of a job that waits."""

import pytest

from fedjob.progress import notices
from fedjob_operator.api.v1alpha1 import FederatedJobStatus, Phase
from fedjob_operator.core.obstacles import ORDINARY
from fedjob_protocol.reasons import Reason
from tests.support.builders import a_job

WAITING = "0 of 2 are ready; client 0: starting; client 1: was just registered"


def a_status(message, *, reason=Reason.WAITING_FOR_CLIENTS):
    return FederatedJobStatus(phase=Phase.STARTING, reason=reason, message=message)


def said(status, before):
    return notices(a_job().build().model_copy(update={"status": status}), before)


def test_a_reason_is_told_once():
    assert said(a_status(WAITING), a_status("", reason=Reason.STARTING)) == [f"Starting: WaitingForClients: {WAITING}"]
    assert said(a_status(WAITING), a_status(WAITING)) == []


@pytest.mark.parametrize("ordinary", sorted(ORDINARY))
def test_what_passes_by_itself_is_not_told_again(ordinary):
    assert said(a_status(f"1 of 2 are ready; client 1: {ordinary}"), a_status(WAITING)) == []


def test_what_does_not_pass_by_itself_is_told_though_the_reason_stays():
    unreachable = "1 of 2 are ready; client 1: at http://127.0.0.1:9: nobody answers"
    assert said(a_status(unreachable), a_status(WAITING)) == [f"Starting: WaitingForClients: {unreachable}"]
    more = unreachable.replace("1 of 2", "0 of 2").replace("client 1", "client 0: starting; client 1")
    assert said(a_status(more), a_status(unreachable)) == []
