"""A child that dies with its parent. Imports next to nothing: it has to be held before anything that takes time.

Where many programs start at once, their imports take seconds: so long would a child outlive a parent that dies then.
"""

import os
import threading
from collections.abc import Mapping
from typing import Final, NoReturn

LIFELINE_VARIABLE: Final = "FEDJOB_LIFELINE"
"""Set to ``stdin`` when the program has to exit as soon as its standard input ends: its parent is gone."""
LIFELINE_ON_STDIN: Final = "stdin"
EXIT_LIFELINE: Final = 3
"""Exit code: the parent is gone."""


def hold_lifeline(environment: Mapping[str, str], *, descriptor: int = 0) -> threading.Thread | None:
    """Exit with `EXIT_LIFELINE` as soon as standard input ends, where the environment asks for it.

    The parent holds the other end of the pipe; the kernel closes it however the parent dies. Nothing is flushed or
    said: a write could block for ever on a pipe that nobody reads, and whatever is durable is so already.

    Args:
        environment: ``FEDJOB_LIFELINE=stdin`` switches it on.
        descriptor: The file descriptor to watch.

    Returns:
        The watching thread, or ``None`` where no lifeline is asked for.
    """
    if environment.get(LIFELINE_VARIABLE) != LIFELINE_ON_STDIN:
        return None
    thread = threading.Thread(target=_watch, args=(descriptor,), name="lifeline", daemon=True)
    thread.start()
    return thread


def _watch(descriptor: int) -> NoReturn:
    try:
        while os.read(descriptor, 4096):
            pass
    finally:  # an error of the descriptor is an end, too
        os._exit(EXIT_LIFELINE)
