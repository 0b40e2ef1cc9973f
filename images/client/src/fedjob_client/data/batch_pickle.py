"""Reads a batch of the Python version of CIFAR-10, which is a pickle, without unpickling it: no code of it is run.

A pickle is a program. This interprets the few instructions that the published files consist of (Python 2's, protocol
2), and its values are plain: texts, numbers, lists, and stand-ins for the three NumPy names that an array is made with.
Any other name or instruction is refused, and names are never looked up.
"""

import pickletools
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from fedjob_client.data.dataset import Array

NAMES: Final = frozenset({"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"})
"""All that such a file may name."""
PUSHED: Final = frozenset({"BININT", "BININT1", "BININT2", "SHORT_BINSTRING", "BINSTRING"})
"""Instructions that put their argument on the stack."""
PLAIN: Final[Mapping[str, Callable[[], Any]]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "NONE": lambda: None,
    "NEWFALSE": lambda: False,
    "NEWTRUE": lambda: True,
}
TUPLES: Final = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class BatchError(ValueError):
    """The bytes are no batch; says what was seen."""


@dataclass(slots=True)
class _Named:
    """A name, or what came of calling it."""

    name: str
    arguments: tuple[Any, ...] = ()
    state: tuple[Any, ...] = ()


@dataclass(slots=True)
class _Machine:
    stack: list[Any] = field(default_factory=list)
    marks: list[int] = field(default_factory=list)
    """Where the items of a tuple, list or dict begin."""
    memo: dict[int, Any] = field(default_factory=dict)

    def step(self, name: str, argument: Any) -> None:  # noqa: C901, PLR0912 - one case for each instruction
        """One instruction."""
        stack = self.stack
        match name:
            case "PROTO" | "STOP":
                pass
            case "MARK":
                self.marks.append(len(stack))
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                if argument not in NAMES:
                    raise BatchError(f"it names {str(argument)[:80]!r}, and names are not looked up")
                stack.append(_Named(name=argument))
            case "TUPLE":
                stack.append(tuple(self._items()))
            case "APPEND":
                item = stack.pop()
                self._of(list).append(item)
            case "APPENDS":
                items = self._items()
                self._of(list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._items() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
                self._of(dict).update(zip(items[::2], items[1::2], strict=True))
            case "REDUCE":
                arguments = self._pop(tuple)
                stack.append(_Named(name=self._pop(_Named).name, arguments=arguments))
            case "BUILD":
                state = self._pop(tuple)
                self._of(_Named).state = state
            case _ if name in PUSHED:
                stack.append(argument)
            case _ if name in PLAIN:
                stack.append(PLAIN[name]())
            case _ if name in TUPLES:
                self.marks.append(len(stack) - TUPLES[name])
                stack.append(tuple(self._items()))
            case _:
                raise BatchError(f"it has the instruction {name}, which no batch has")

    def _items(self) -> list[Any]:
        begin = self.marks.pop()
        if not 0 <= begin <= len(self.stack):
            raise BatchError("items of nothing")
        items = self.stack[begin:]
        del self.stack[begin:]
        return items

    def _of(self, kind: type[Any]) -> Any:
        value = self.stack[-1]
        if not isinstance(value, kind):
            raise BatchError(f"{kind.__name__.strip('_')} expected, {type(value).__name__} seen")
        return value

    def _pop(self, kind: type[Any]) -> Any:
        value = self._of(kind)
        self.stack.pop()
        return value


def read_batch(data: bytes, *, records: int, pixels: int) -> tuple[Array, Array]:
    """Pixels ``(records, pixels)`` in uint8 and labels ``(records,)`` in int64 of one file.

    Raises:
        BatchError: It is no such file.
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of texts that `pickletools` decodes before we see that they are not ours
            for opcode, argument, _ in pickletools.genops(data):
                machine.step(opcode.name, argument)
        (batch,) = machine.stack
        return _pixels(batch["data"], (records, pixels)), _labels(batch["labels"], records)
    except BatchError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise BatchError(f"it is no batch: {error}") from error


def _pixels(value: Any, shape: tuple[int, int]) -> Array:
    """The array whose making was described: its version, shape, type, order and bytes."""
    version, found, kind, is_fortran, content = value.state
    if value.name != "numpy.core.multiarray _reconstruct" or version != 1 or kind.arguments[0] != "u1" or is_fortran:
        raise BatchError("its data are no array of bytes")
    raw = content.encode("latin-1")  # as `pickletools` decoded it, byte by byte
    if found != shape or len(raw) != shape[0] * shape[1]:
        raise BatchError(f"its data have the shape {found} in {len(raw)} bytes, {shape} is expected")
    return np.frombuffer(raw, dtype=np.uint8).reshape(shape)


def _labels(value: Any, records: int) -> Array:
    if not isinstance(value, list) or len(value) != records or not all(type(label) is int for label in value):
        raise BatchError(f"its labels are not {records} whole numbers")
    return np.array(value, dtype=np.int64)
