"""Percentages and Kubernetes quantities: text in the resource, numbers for those who decide."""

import re
from fractions import Fraction
from typing import Final

PERCENT_PATTERN: Final = r"^([1-9][0-9]?|100)%$"
"""1% to 100%, in whole percents."""
QUANTITY_PATTERN: Final = r"^([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[kMGTPE]|[eE][-+]?[0-9]{1,2})?$"
"""A positive Kubernetes quantity of bytes: a decimal number with a binary (Ki, Mi, Gi, …) or decimal suffix."""

_BINARY = {f"{letter}i": 1024**power for power, letter in enumerate("KMGTPE", start=1)}
_DECIMAL = {letter: 1000**power for power, letter in enumerate("kMGTPE", start=1)}


def parse_percent(text: str) -> int:
    """Return the number before the sign: 20 for "20%".

    Raises:
        ValueError: If the text is not a whole percentage from 1% to 100%.
    """
    if re.fullmatch(PERCENT_PATTERN, text) is None:
        raise ValueError(f'should be a count, or a percentage from "1%" to "100%", and is "{text}"')
    return int(text[:-1])


def count_of(value: int | str, whole: int) -> int:
    """Return how many of `whole` a count or percentage means; a percentage is rounded up, and is at least 1.

    Args:
        value: A count, taken as it stands, or a percentage such as "20%".
        whole: What the percentage is of.

    Raises:
        ValueError: If the text is not a percentage.
    """
    if isinstance(value, int):
        return value
    return max(1, -(-parse_percent(value) * whole // 100))


def quantity_bytes(text: str) -> int:
    """Return the bytes that a Kubernetes quantity names, rounded up: 1073741824 for "1Gi".

    Raises:
        ValueError: If the text is not a positive quantity.
    """
    match = re.fullmatch(QUANTITY_PATTERN, text)
    if match is None:
        raise ValueError(f'"{text}" is not a quantity such as 500Mi or 1Gi')
    number, _, suffix = match.groups()
    value = Fraction(number if number[-1] != "." else number[:-1])
    if suffix and suffix[0] in "eE" and len(suffix) > 1 and suffix[1] != "i":
        value *= Fraction(10) ** int(suffix[1:])
    elif suffix:
        value *= _BINARY.get(suffix) or _DECIMAL[suffix]
    return -(-value.numerator // value.denominator)
