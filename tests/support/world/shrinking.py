"""Which of the faults of a failing schedule it takes to fail."""

from collections.abc import Callable, Sequence

from tests.support.world.simulation import Fault


def shrunk(faults: Sequence[Fault], fails: Callable[[Sequence[Fault]], bool]) -> tuple[Fault, ...]:
    """Return some of the faults that fail, of which none can be left out.

    The algorithm is ddmin of Zeller and Hildebrandt, Simplifying and Isolating Failure-Inducing Input (2002), with
    complements alone: a part of a schedule seldom fails where more of it does not.

    Args:
        faults: They fail together.
        fails: Whether a schedule with these faults and no others fails.
    """
    kept = tuple(faults)
    size = len(kept)
    while size > 0:
        for start in range(0, len(kept), size):
            fewer = kept[:start] + kept[start + size :]
            if fails(fewer):
                kept = fewer
                break
        else:
            size //= 2
        size = min(size, len(kept))
    return kept
