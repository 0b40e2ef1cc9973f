"""The small jobs that fault runs disturb."""

from typing import Final

from tests.support.faults.local import Job, job

ALL_OF_THREE: Final = job(
    "all-of-three",
    clients=3,
    rounds=3,
    evaluation={"modes": ["Evaluator"]},
    objective={"metric": "loss", "mode": "Min"},
)
"""All clients take part; every model is evaluated, and the best is kept."""
THREE_OF_SIX: Final = job(
    "three-of-six", clients=6, rounds=3, roundPolicy={"clientsPerRound": 3, "deadlineSeconds": 60}
)
"""Half of the clients take part in each round."""
ALL_OF_TEN: Final = job("all-of-ten", clients=10, rounds=3)
"""Many clients, to lose some of."""
LARGE_UPDATES: Final = job("large-updates", clients=2, rounds=2, bulk=150_000)
"""Updates of 600 kB, which arrive in pieces."""
SERVER_ADAM: Final = job("server-adam", clients=3, rounds=3, strategy={"name": "FedAdam"})
"""The aggregator keeps an optimizer's state beside each checkpoint."""
SPOOLED: Final = job("spooled", clients=5, rounds=2, strategy={"name": "MultiKrum", "parameters": {"byzantine": 1}})
"""All updates wait on disk until their round closes."""

JOBS: Final[dict[str, Job]] = {
    each.name: each for each in (ALL_OF_THREE, THREE_OF_SIX, ALL_OF_TEN, LARGE_UPDATES, SERVER_ADAM, SPOOLED)
}
