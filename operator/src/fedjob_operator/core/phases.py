"""The job's phases as a table; `status.derive_phase` may only produce listed edges."""

from types import MappingProxyType
from typing import Final

from fedjob_operator.api.v1alpha1 import Phase

TERMINAL: Final = frozenset({Phase.COMPLETE, Phase.FAILED})
"""Never taken back."""

TRANSITIONS: Final = MappingProxyType(
    {
        # Accepted, created suspended, or found to contradict itself.
        Phase.PENDING: frozenset({Phase.STARTING, Phase.SUSPENDING, Phase.SUSPENDED, Phase.FAILED}),
        # The first round was opened, or another one after a suspension; a client's data or trainer cannot be used; a
        # deadline passed; or it was suspended before any pod was there.
        Phase.STARTING: frozenset(
            {
                Phase.RUNNING,
                Phase.WAITING_FOR_CLIENTS,
                Phase.COMPLETE,
                Phase.FAILED,
                Phase.SUSPENDING,
                Phase.SUSPENDED,
            }
        ),
        # Fewer clients than minClients between rounds, or a round without quorum; done; not to be mended.
        Phase.RUNNING: frozenset(
            {Phase.WAITING_FOR_CLIENTS, Phase.COMPLETE, Phase.FAILED, Phase.SUSPENDING, Phase.SUSPENDED}
        ),
        # Clients are back; a deadline passed; the job was suspended.
        Phase.WAITING_FOR_CLIENTS: frozenset(
            {Phase.RUNNING, Phase.COMPLETE, Phase.FAILED, Phase.SUSPENDING, Phase.SUSPENDED}
        ),
        # Pods are gone; or the suspension was taken back before they were.
        Phase.SUSPENDING: frozenset({Phase.SUSPENDED, Phase.STARTING, Phase.FAILED}),
        # Resumed; or the spec was edited to what no client can be given.
        Phase.SUSPENDED: frozenset({Phase.STARTING, Phase.FAILED}),
        Phase.COMPLETE: frozenset[Phase](),
        Phase.FAILED: frozenset[Phase](),
    }
)
"""Which phase may follow which; staying is always allowed."""
