"""Why a container ended or does not start, read from its status. Pure.

What a program left in its termination message is the word of a peer: it is bounded, and only reasons that a program
may give count.
"""

import signal
from types import MappingProxyType
from typing import Final

from pydantic import ValidationError

from fedjob_operator.adapters.kube.documents import Document, integer, mapping, text
from fedjob_operator.core.observed import Exit, Waiting
from fedjob_protocol.config import Termination
from fedjob_protocol.reasons import Reason

MAX_MESSAGE: Final = 1024
"""Longest message that is passed on, in characters."""
MAX_TERMINATION: Final = 8192
"""Longest termination message that is looked at, in characters; the kubelet keeps 4,096 bytes."""
OOM_KILLED: Final = "OOMKilled"
CRASH_LOOP: Final = "CrashLoopBackOff"

GIVEN_BY_PROGRAMS: Final = frozenset(
    {
        Reason.CRASHED,
        Reason.FOLDER_IN_USE,
        Reason.CHECKPOINT_LOST,
        Reason.CHECKPOINT_FAILED,
        Reason.FOREIGN_VOLUME,
        Reason.FOLDER_IN_USE,
        Reason.DATA_ERROR,
        Reason.TRAINER_ERROR,
        Reason.INIT_FAILED,
        Reason.INVALID_SPEC,
        Reason.GPU_UNAVAILABLE,
        Reason.GPU_OUT_OF_MEMORY,
        Reason.GPU_FAILED,
        Reason.PROTOCOL_MISMATCH,
    }
)
"""Reasons that a program may give for its own end."""

WAITING: Final = MappingProxyType(
    {
        **dict.fromkeys(
            (
                "ErrImagePull",
                "ImagePullBackOff",
                "InvalidImageName",
                "ErrImageNeverPull",
                "ImageInspectError",
                "RegistryUnavailable",
                "SignatureValidationFailed",
            ),
            Reason.IMAGE_PULL_FAILED,
        ),
        **dict.fromkeys(
            (
                "CreateContainerConfigError",
                "CreateContainerError",
                "RunContainerError",
                "StartError",
                "ContainerCannotRun",
                "PreCreateHookError",
                "PreStartHookError",
                "PostStartHookError",
            ),
            Reason.CONTAINER_CANNOT_RUN,
        ),
    }
)
"""What the kubelet calls it when a container cannot be started."""
_CANNOT_RUN: Final = frozenset({"StartError", "ContainerCannotRun", "RunContainerError", "CreateContainerError"})
_NO_PROGRAM: Final = MappingProxyType(
    {126: "the program cannot be executed", 127: "the program is not in the image", 128: "the program was not started"}
)
"""What shells and container runtimes mean by their exit codes."""


def printable(value: str, most: int = MAX_MESSAGE) -> str:
    """Return a peer's text in one line that is harmless on a terminal, and not longer than so many characters."""
    head = value[: most * 4]
    line = " ".join("".join(char if char.isprintable() else " " for char in head).split())
    return line if len(line) <= most else line[: most - 3] + "..."


def waiting_of(container: Document) -> Waiting | None:
    """Say what holds up a container that has not been started, if anything does.

    Args:
        container: A container's status.
    """
    state = mapping(mapping(container.get("state")).get("waiting"))
    word = text(state.get("reason"))
    reason = WAITING.get(word)
    if reason is None:
        return None
    return Waiting(reason=reason, message=printable(_joined(word, text(state.get("message")))))


def exit_of(terminated: Document, *, container: str, memory: str) -> Exit:
    """Say why a container ended.

    Args:
        terminated: The ``terminated`` part of its state.
        container: Its name, for the message; empty for the program's own.
        memory: Its memory limit, for the message; empty where there is none.
    """
    word, code = text(terminated.get("reason")), integer(terminated.get("exitCode")) or 0
    who = f"container {printable(container, 63)}: " if container else ""
    message = text(terminated.get("message"))
    if word == OOM_KILLED:
        limit = f" of {printable(memory, 32)}" if memory else ""
        return Exit(
            reason=Reason.OOM_KILLED, message=f"{who}it needed more than its memory limit{limit}, exit code {code}"
        )
    if word in _CANNOT_RUN:
        return Exit(reason=Reason.CONTAINER_CANNOT_RUN, message=printable(who + _joined(word, message)))
    if not container and (own := _own_words(message)):
        return own
    what = _meaning(code)
    reason = Reason.CONTAINER_CANNOT_RUN if code in _NO_PROGRAM else Reason.CRASHED
    # Without words of its own: the end of its log, where the last line says most.
    last = printable(message.strip().rpartition("\n")[2], 256)
    return Exit(reason=reason, message=who + _joined(what, last))


def _own_words(message: str) -> Exit | None:
    """Read what a program left as its reason; ``None`` if it left none that counts."""
    if len(message) > MAX_TERMINATION:
        return None
    try:
        termination = Termination.model_validate_json(message)
        reason = Reason(termination.reason)
    except (ValidationError, ValueError):
        return None
    if reason not in GIVEN_BY_PROGRAMS:
        return None
    return Exit(reason=reason, message=printable(termination.message))


def _meaning(code: int) -> str:
    if code in _NO_PROGRAM:
        return f"{_NO_PROGRAM[code]} (exit code {code})"
    if 128 < code < 128 + signal.NSIG:
        try:
            return f"killed by {signal.Signals(code - 128).name}"
        except ValueError:
            pass
    return f"exit code {code}"


def _joined(first: str, rest: str) -> str:
    return f"{first}: {rest}" if rest else first
