"""The data of the next checkpoint, block by block: base plus mean, or the initial model as it was uploaded.

Runs in the writer's thread; memory is a few blocks whatever the size of the model.
"""

from collections.abc import Iterator
from typing import IO

import numpy as np

from fedjob_aggregator.aggregation.accumulator import BLOCK_ELEMENTS, Accumulator
from fedjob_aggregator.staging import Staged, read_blocks
from fedjob_protocol.weights import Header


def mean_data(
    accumulator: Accumulator, base: IO[bytes], header: Header, *, total_weight: int, scale_bits: int
) -> Iterator[memoryview]:
    """Data of base + mean of the updates, in the order of `Manifest.placements`.

    Args:
        accumulator: The sums.
        base: The checkpoint that the round started from, written by us, so in the same order.
        header: Its header.
        total_weight: Sum of the weights.
        scale_bits: Fixed-point scale.

    Raises:
        NonFiniteMeanError: A mean is not finite.
        OSError: The base cannot be read.
    """
    for place in header.manifest.placements:
        begin, end = header.data_begin + place.begin, header.data_begin + place.end
        element = 0
        for block in read_blocks(base, begin, end, BLOCK_ELEMENTS * place.spec.dtype.bytes):
            values = np.frombuffer(block, dtype=place.spec.dtype.numpy)
            mean = accumulator.mean(place.spec, element, values, total_weight=total_weight, scale_bits=scale_bits)
            element += values.size
            yield mean.view(np.uint8).data


def initial_data(staged: Staged, header: Header) -> Iterator[memoryview]:
    """Data of an uploaded model, put into the order of `Manifest.placements`.

    Args:
        staged: The upload.
        header: Its header, checked.

    Raises:
        OSError: The upload cannot be read again.
    """
    places = {place.spec.name: place for place in header.placements}
    for target in header.manifest.placements:
        place = places[target.spec.name]
        if place.begin < place.end:
            yield from staged.blocks(header.data_begin + place.begin, header.data_begin + place.end)
