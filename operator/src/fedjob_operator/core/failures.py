"""Reasons for which clients fail, and what follows from them."""

from typing import Final

from fedjob_protocol.reasons import Reason

DEFINITIVE: Final = frozenset(
    {
        Reason.TRAINER_ERROR,
        Reason.DATA_ERROR,
        Reason.NON_FINITE_UPDATE,
        Reason.UPDATE_REFUSED,
        Reason.STRATEGY_FAILED,
        Reason.INIT_FAILED,
        Reason.ARCHITECTURE_MISMATCH,
        Reason.INVALID_SPEC,
        Reason.PROTOCOL_MISMATCH,
    }
)
"""Failures that waiting does not mend."""
