"""Norm clipping: how much one update can do is bounded, whatever it holds.

Sun et al., "Can You Really Backdoor Federated Learning?", 2019, "norm thresholding of updates":
delta / max(1, ||delta||_2 / M). The norm is that of the whole update.
"""

from collections.abc import Iterator
from math import fsum, sqrt
from typing import Final

import numpy as np

from fedjob_aggregator.staging import Staged
from fedjob_protocol.weights import Header

PIECE_ELEMENTS: Final = 1 << 16
"""Elements whose squares are summed at a time."""


def update_norm(header: Header, staged: Staged) -> float:
    """L2 norm of an update.

    In float64, by pieces at multiples of `PIECE_ELEMENTS` of each tensor; the sums of the pieces are added exactly. So
    it has the same bits in whatever order the tensors are in the file, and however it was staged.

    Raises:
        OSError: It cannot be read.
    """
    return sqrt(fsum(_sums_of_squares(header, staged)))


def _sums_of_squares(header: Header, staged: Staged) -> Iterator[float]:
    for place in header.placements:
        for block in staged.blocks(header.data_begin + place.begin, header.data_begin + place.end):
            values = np.frombuffer(block, dtype="<f4")
            for begin in range(0, values.size, PIECE_ELEMENTS):
                yield float(np.square(values[begin : begin + PIECE_ELEMENTS], dtype=np.float64).sum())


def clip_factor(norm: float, limit: float) -> float:
    """What an update of this norm is multiplied by: 1 if the norm is within the limit."""
    return 1.0 if norm <= limit else limit / norm
