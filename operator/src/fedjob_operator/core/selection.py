"""Who takes part in a round, and with which random seed: functions of the job's seed alone.

Nothing here depends on timing, process or attempt, so that the same manifest gives the same model whatever crashed in
between.
"""

from collections.abc import Iterable
from hashlib import sha256

SEED_BITS = 63
"""Seeds fit a signed 64-bit integer, which every language can hold."""


def select(*, seed: int, round_number: int, redraw: int, candidates: Iterable[int], count: int) -> tuple[int, ...]:
    """Choose participants: rank by SHA-256 of (seed, round, redraw, index) and take the first.

    Leaving a candidate out never changes the order of the others, so a lost client is replaced by the next in rank and
    everybody else keeps their place.

    Args:
        seed: ``spec.seed``.
        round_number: The round.
        redraw: How often the participants of this round were chosen anew.
        candidates: Client indices that are not lost.
        count: How many to choose; all candidates if there are fewer.

    Returns:
        The chosen indices in ascending order.
    """
    ranked = sorted(candidates, key=lambda index: _digest("select", seed, round_number, redraw, index))
    return tuple(sorted(ranked[:count]))


def training_seed(*, seed: int, round_number: int, index: int) -> int:
    """Seed of one client's training in one round; attempts and redraws do not change it."""
    return _seed("train", seed, round_number, index)


def init_seed(*, seed: int) -> int:
    """Seed of the initial model; the same whichever client makes it."""
    return _seed("init", seed)


def _digest(*parts: str | int) -> bytes:
    return sha256("/".join(str(part) for part in parts).encode()).digest()


def _seed(*parts: str | int) -> int:
    return int.from_bytes(_digest(*parts)[:8], "big") >> (64 - SEED_BITS)
