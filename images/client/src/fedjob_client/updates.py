"""What a trainer returned, checked, and made into the bytes that are uploaded. Pure: no I/O, nothing is kept.

Every error names the trainer's mistake, because it becomes the status of a job whose author has only that line.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from fedjob_client.errors import NonFiniteError, TrainerError
from fedjob_client.trainer import Array, Metrics, Params, Update
from fedjob_protocol.digests import Xxh3
from fedjob_protocol.weights import encode_chunks

MAX_METRICS: Final = 64
MAX_METRIC_NAME: Final = 64
FLOAT_TYPES: Final = (np.dtype(np.float32), np.dtype(np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A safetensors file as blocks of memory: arrays are not copied into it."""

    blocks: tuple[memoryview, ...]
    size: int
    """Length in bytes."""
    digest: str
    """``xxh3-128:<hex>`` of all of it."""


def body_of(arrays: Params) -> Body:
    """The canonical file of some arrays, which must stay unchanged as long as it is used.

    Raises:
        Refusal: ``wrong-dtype`` or ``malformed-weights``: `checked_params` accepts no such arrays.
    """
    blocks = tuple(encode_chunks(arrays))
    hasher = Xxh3()
    for block in blocks:
        hasher.update(block)
    return Body(blocks=blocks, size=sum(len(block) for block in blocks), digest=hasher.digest())


def checked_params(value: Any, *, what: str = "init") -> Params:
    """A model as a trainer returned it.

    Args:
        value: What the trainer returned.
        what: The method, for messages.

    Returns:
        The same arrays, contiguous; not copies.

    Raises:
        TrainerError: It is no dict of finite float32 and float64 arrays.
    """
    params = _arrays(value, what)
    for name, array in params.items():
        if not all_finite(array):
            raise _not_finite(array, name, what)
    return params


def all_finite(array: Array) -> bool:
    """Whether no value is NaN or infinite, without a mask as large as the array: NaN wins both minimum and maximum."""
    return array.size == 0 or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def delta_of(update: Any, base: Params, *, announced: int | None = None) -> Params:
    """What an update adds to the model that the training started from, in float32.

    The difference of float32 arrays is taken in float32; where either is float64 it is taken in float64 and then
    rounded to float32.

    Args:
        update: What `Trainer.train` returned.
        base: The model that the training started from.
        announced: Number of training examples that the client announced.

    Raises:
        TrainerError: It is no `Update`, names or shapes are not those of ``base``, or it claims a number of examples
            that is no positive integer or more than announced.
        NonFiniteError: A value is NaN or infinite, or its difference is not a float32.
    """
    if not isinstance(update, Update):
        raise TrainerError(f"train returned {_kind(update)}; it has to return an Update")
    check_examples(update.num_examples, announced)
    arrays = _arrays(update.params if update.params is not None else update.delta, "train")
    _check_names(arrays, base)
    delta: Params = {}
    for name, array in arrays.items():
        if array.shape != base[name].shape:
            raise TrainerError(f"train returned {name!r} with shape {array.shape}; the model has {base[name].shape}")
        delta[name] = _delta(array, base[name] if update.params is not None else None, name)
    return delta


def check_examples(count: Any, announced: int | None) -> None:
    """Check the weight of an update.

    Raises:
        TrainerError: As `delta_of`.
    """
    if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
        raise TrainerError(f"train returned num_examples = {count!r}; a whole number from 1 is needed")
    if announced is not None and count > announced:
        raise TrainerError(f"train returned num_examples = {count}, but the client announced only {announced}")


def finite_metrics(metrics: Any, *, what: str = "train") -> tuple[Metrics, list[str]]:
    """Metrics that can be reported, and the names of those that are left out because they are not finite.

    Raises:
        TrainerError: They are no mapping of short names to numbers, or too many.
    """
    if not isinstance(metrics, Mapping) or len(metrics) > MAX_METRICS:
        raise TrainerError(
            f"{what} returned {_kind(metrics)} as metrics; at most {MAX_METRICS} name -> number are needed"
        )
    finite: Metrics = {}
    left_out: list[str] = []
    for name, value in metrics.items():
        if not isinstance(name, str) or not 1 <= len(name) <= MAX_METRIC_NAME:
            raise TrainerError(f"{what} returned a metric named {name!r}; 1 to {MAX_METRIC_NAME} characters are needed")
        try:
            number = float(value)
        except (TypeError, ValueError):
            raise TrainerError(f"{what} returned the metric {name} = {_kind(value)}; a number is needed") from None
        if math.isfinite(number):
            finite[name] = number
        else:
            left_out.append(name)
    return finite, left_out


def _arrays(value: Any, what: str) -> Params:
    """Names and types checked, values not."""
    if not isinstance(value, Mapping) or not value:
        raise TrainerError(f"{what} returned {_kind(value)}; a dict of name -> numpy array with at least one is needed")
    params: Params = {}
    for name, array in value.items():
        if not isinstance(name, str) or not name:
            raise TrainerError(f"{what} returned a dict with the key {name!r}; names of arrays are texts")
        params[name] = _checked_type(array, name, what)
    return params


def _checked_type(array: Any, name: str, what: str) -> Array:
    if not isinstance(array, np.ndarray | np.generic):
        hint = "; convert it with .detach().cpu().numpy()" if hasattr(array, "detach") else ""
        raise TrainerError(f"{what} returned {name!r} as {_kind(array)}; a numpy array is needed{hint}")
    if array.dtype not in FLOAT_TYPES:
        raise TrainerError(
            f"{what} returned {name!r} of type {array.dtype}; float32 or float64 is needed: keep counters in the "
            "trainer, or convert them"
        )
    return np.asarray(array, order="C")


def _not_finite(array: Array, name: str, what: str) -> NonFiniteError:
    bad = int(array.size - np.isfinite(array).sum())
    return NonFiniteError(
        f"{what} returned {name!r} with {bad} of {array.size} values that are not finite; "
        "a lower learningRate often helps"
    )


def _check_names(arrays: Params, base: Params) -> None:
    missing, unknown = base.keys() - arrays.keys(), arrays.keys() - base.keys()
    if missing or unknown:
        raise TrainerError(
            f"train returned other arrays than the model has: "
            f"missing {sorted(missing)}, not in the model {sorted(unknown)}"
        )


def _delta(array: Array, base: Array | None, name: str) -> Array:
    """The difference in float32; never the trainer's own array, because it may use that again."""
    with np.errstate(over="ignore", invalid="ignore"):  # checked below
        delta = array.astype(np.float32) if base is None else np.asarray(array - base, dtype=np.float32)
    if all_finite(delta):
        return delta
    if not all_finite(array):
        raise _not_finite(array, name, "train")
    raise NonFiniteError(f"train moved {name!r} by more than a float32 can hold; a lower learningRate often helps")


def _kind(value: Any) -> str:
    kind = type(value)
    return "None" if value is None else f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
