"""Arithmetic of times that may come from anywhere: a status can be forged."""

from datetime import UTC, datetime, timedelta
from typing import Final

END_OF_TIME: Final = datetime.max.replace(tzinfo=UTC)


def after(moment: datetime, delay: timedelta | float) -> datetime:
    """Return the moment so much later, or the end of time where no calendar reaches that far.

    Args:
        moment: A time in UTC.
        delay: A duration, or seconds; not negative.
    """
    try:
        return moment + (delay if isinstance(delay, timedelta) else timedelta(seconds=delay))
    except OverflowError:
        return END_OF_TIME


def earliest(*moments: datetime | None) -> datetime | None:
    """Return the first of some times; those that are not there do not count."""
    return min((moment for moment in moments if moment is not None), default=None)
