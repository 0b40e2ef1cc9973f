"""What each class of faults on the API server may cost; as `tests.faults.allowances`, for runs of this folder."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tests.faults.allowances import Allowance

BUSY: Final = 6
"""On a busy machine clients become ready one by one, and each is told."""
CLAIM: Final = 6
"""A claim, the objects that pods need asked for again, an Event of its own, a request that was on its way."""
REFUSED: Final = 8
"""So many writes are refused, which count, too."""

ALLOWANCES: Final[Mapping[str, Allowance]] = MappingProxyType(
    {
        "undisturbed": Allowance(),
        "operator killed at a write": Allowance(writes=BUSY + CLAIM),
        "operator killed at a call": Allowance(writes=BUSY + CLAIM),
        # A participant is missing for up to a minute, and what is waited for is told meanwhile.
        "watches frozen": Allowance(writes=BUSY + 10),
        "watches cut": Allowance(writes=BUSY),
        "watches answered with 410": Allowance(writes=BUSY),
        "events repeated": Allowance(writes=BUSY),
        "events lost": Allowance(writes=BUSY),
        # What gets no answer meanwhile is written again, as often as it has to be.
        "server away": Allowance(writes=BUSY + REFUSED),
        "writes refused with 409": Allowance(writes=BUSY + REFUSED),
        "answers 429": Allowance(writes=BUSY),
        "answers 500": Allowance(writes=BUSY + REFUSED),
        # Refused for their version, later and later, and a claim.
        "stale answers": Allowance(writes=BUSY + CLAIM + REFUSED),
        "operator killed beside a second one": Allowance(writes=BUSY + CLAIM),
        "two operators with one Lease": Allowance(writes=BUSY),
        # Two claims, each with what follows from it.
        "two operators with a Lease each": Allowance(writes=BUSY + 2 * CLAIM),
        "paused operator wakes up": Allowance(writes=BUSY + CLAIM),
        # A new attempt, and what is waited for is told.
        "aggregator killed": Allowance(writes=BUSY + 6),
        "aggregator pod deleted": Allowance(writes=BUSY + 8),
        "clients killed": Allowance(writes=BUSY + 6),
        # Each pod that goes and comes is made again and told.
        "client pods deleted": Allowance(writes=BUSY + 12),
    }
)
"""By class of faults."""
