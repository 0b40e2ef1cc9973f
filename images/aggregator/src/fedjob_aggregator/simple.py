"""The plain form that people use by hand, without a job: a mean of two numbers. Pure."""

import json
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final, NoReturn

from fedjob_protocol.errors import Refusal, Word

MAX_ENTRIES: Final = 10_000


def plain_mean(body: bytes) -> dict[str, float]:
    """The answer of ``POST /aggregate``: the mean of the clients' w and b, by ``num_examples`` where these are given.

    The sums are exact, so the order of the entries does not matter and nothing can overflow on the way.

    Args:
        body: ``{"clients": [{"w": …, "b": …, "num_examples": …}, …]}``; other fields of an entry are not looked at.

    Raises:
        Refusal: ``bad-request``, naming the field.
    """
    message = parse_json(body)
    clients = message.get("clients")
    if not isinstance(clients, list) or not 1 <= len(clients) <= MAX_ENTRIES:
        _bad(f"clients must be a list of 1 to {MAX_ENTRIES} entries")
    entries = [_entry(index, entry) for index, entry in enumerate(clients)]
    given = sum(weight is not None for _, _, weight in entries)
    if given not in {0, len(entries)}:
        _bad(f"num_examples must be in all entries or in none, it is in {given} of {len(entries)}")
    weights = [1 if weight is None else weight for _, _, weight in entries]
    if not sum(weights):
        _bad("num_examples must not be 0 in all entries")
    return {
        "global_w": _mean([w for w, _, _ in entries], weights),
        "global_b": _mean([b for _, b, _ in entries], weights),
    }


def parse_json(body: bytes) -> dict[str, Any]:
    """A JSON object without NaN and infinity.

    Raises:
        Refusal: ``bad-request``.
    """
    try:
        message = json.loads(body, parse_constant=_not_a_number)
    except (ValueError, RecursionError) as error:
        raise Refusal(Word.BAD_REQUEST, f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(message, dict):
        _bad("the body must be a JSON object")
    return message


def _entry(index: int, entry: Any) -> tuple[Fraction, Fraction, int | None]:
    if not isinstance(entry, dict):
        _bad(f"clients[{index}] must be an object with w and b")
    count = entry.get("num_examples")
    if count is not None and (type(count) is not int or not 0 <= count <= 2**53):
        _bad(f"clients[{index}].num_examples must be a whole number from 0 to 2^53")
    return _number(index, entry, "w"), _number(index, entry, "b"), count


def _number(index: int, entry: dict[str, Any], name: str) -> Fraction:
    value = entry.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        _bad(f"clients[{index}].{name} must be a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        _bad(f"clients[{index}].{name} must be a finite number")
    return Fraction(number)


def _mean(values: Sequence[Fraction], weights: Sequence[int]) -> float:
    total = sum((value * weight for value, weight in zip(values, weights, strict=True)), start=Fraction(0))
    return float(total / sum(weights))


def _not_a_number(text: str) -> NoReturn:
    _bad(f"the body has {text}, only finite numbers are allowed")


def _bad(detail: str) -> NoReturn:
    raise Refusal(Word.BAD_REQUEST, detail)
