"""A few threads that compute together. Which thread does what is fixed, and results never depend on how many there are.

NumPy's products and our kernels let the other threads run; the Python in between is short.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np

Task: TypeAlias = Callable[[int], None]
"""Given the number of the thread that it runs in, so that it can have a workspace of that thread."""


class Team:
    """Threads; the caller's own is the first of them.

    Args:
        size: How many threads, from 1; the others are started when they are first needed.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._pool = ThreadPoolExecutor(size - 1, thread_name_prefix="team") if size > 1 else None

    def run(self, tasks: Sequence[Task]) -> None:
        """Do all tasks, thread k those at k, k + size, …; raises what a task raises, after all have ended."""
        others = [] if self._pool is None else [self._pool.submit(self._share, k, tasks) for k in range(1, self.size)]
        try:
            self._share(0, tasks)
        finally:
            for other in others:
                other.exception()  # waits
        for other in others:
            other.result()

    def _share(self, number: int, tasks: Sequence[Task]) -> None:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # what is not finite is found afterwards
            for task in tasks[number :: self.size]:
                task(number)
