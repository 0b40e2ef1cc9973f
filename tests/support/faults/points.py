"""Where our programs can be made to fail, and how; applied by the zygote to a program before it runs.

A fault is told by the environment, so that it reaches every program of a run. It happens in the n-th call of one
function of the program, once unless told otherwise: what happened is remembered in the folder of the test, since the
program that is started next is a new process. Every call of every point is noted there, too: so a test knows how many
there are, and when they were.
"""

import asyncio
import errno
import importlib
import inspect
import json
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

FAULTS_VARIABLE: Final = "FEDJOB_TEST_FAULTS"
"""Environment variable with the faults as JSON."""
FOLDER_VARIABLE: Final = "FEDJOB_TEST_FOLDER"
"""Environment variable with the folder where programs note what they do."""
FLUSH_STEPS: Final = 5
"""Turns of the event loop after which what was written is on its way."""
LOOK_SECONDS: Final = 0.005

OPERATOR: Final = "fedjob"
AGGREGATOR: Final = "aggregator"
CLIENT: Final = "client"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong in one program."""

    program: str
    """``fedjob``, ``aggregator``, ``client-0`` …"""
    point: str
    """A name in `POINTS`, or ``start``."""
    when: str = "before"
    """Of the call: ``before``, ``after``, ``half`` (of what is written); or how it is made: `AROUND`."""
    nth: int = 1
    """In which call of the point by one process."""
    action: str = "kill"
    """``kill``, ``stop``, or the name of an error of the operating system that the call raises."""
    calls: int = 1
    """In how many calls of one process, from the n-th on."""
    times: int = 1
    """How often it happens over all processes."""


@dataclass(frozen=True, slots=True)
class Point:
    """A function of a program that can fail."""

    program: str
    where: str
    """``module:function`` or ``module:Class.method``."""
    flushes: bool = False
    """Whether what was written before has to be on its way first."""


POINTS: Final[Mapping[str, Point]] = {
    # The operator, which is `fedjob run` on this machine
    "status write": Point(OPERATOR, "fedjob_operator.adapters.local.job_file:JobFile.create"),
    "status fsync": Point(OPERATOR, "os:fsync"),
    "status rename": Point(OPERATOR, "pathlib:Path.replace"),
    "call": Point(OPERATOR, "fedjob_operator.adapters.http:HttpPrograms.perform"),
    "pod create": Point(OPERATOR, "fedjob_operator.adapters.local.processes:LocalPods.create"),
    "pod delete": Point(OPERATOR, "fedjob_operator.adapters.local.processes:LocalPods.delete"),
    # The aggregator
    "open": Point(AGGREGATOR, "fedjob_aggregator.service:Service.open_round"),
    "claim": Point(AGGREGATOR, "fedjob_aggregator.checkpoints:CheckpointStore.claim"),
    "receive": Point(AGGREGATOR, "fedjob_aggregator.service:Service.upload"),
    "piece": Point(AGGREGATOR, "fedjob_aggregator.reception:Reception.advance"),
    "fold": Point(AGGREGATOR, "fedjob_aggregator.writer:Writer._add"),
    "commit": Point(AGGREGATOR, "fedjob_aggregator.checkpoints:CheckpointStore.commit"),
    "checkpoint write": Point(AGGREGATOR, "fedjob_aggregator.disk:write_all"),
    "fsync": Point(AGGREGATOR, "fedjob_aggregator.disk:Disk.sync"),
    "rename": Point(AGGREGATOR, "fedjob_aggregator.disk:Disk.rename"),
    "folder fsync": Point(AGGREGATOR, "fedjob_aggregator.disk:Disk.sync_folder"),
    "remove": Point(AGGREGATOR, "fedjob_aggregator.disk:Disk.remove"),
    "log write": Point(AGGREGATOR, "fedjob_aggregator.roundlog:write_all"),
    "log append": Point(AGGREGATOR, "fedjob_aggregator.roundlog:RoundLog.append"),
    "answer": Point(AGGREGATOR, "starlette.responses:Response.__call__", flushes=True),
    # A client
    "fetch": Point(CLIENT, "fedjob_client.transfer:Transfer.fetch"),
    "train": Point(CLIENT, "fedjob_client.tasks:train"),
    "epoch": Point(CLIENT, "fedjob_client.training:Progress.on_epoch"),
    "upload": Point(CLIENT, "fedjob_client.transfer:Transfer.upload", flushes=True),
    "upload body": Point(CLIENT, "fedjob_client.payload:UpdatePayload.write", flushes=True),
}
"""By name. ``start``, of any program, is before its first own line."""


class Notes:
    """What programs note while they run: one JSON line for each call of a point.

    Args:
        folder: Where.
        program: Who notes.
    """

    def __init__(self, folder: Path, program: str) -> None:
        self._program = program
        self._file = os.open(folder / "calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def add(self, **what: object) -> None:
        """Note something; many processes write to the same file, each line in one piece."""
        line = {"at": time.monotonic(), "pid": os.getpid(), "program": self._program, **what}
        os.write(self._file, json.dumps(line).encode() + b"\n")


def environment_of(faults: tuple[Fault, ...], folder: Path) -> dict[str, str]:
    """The environment that makes faults happen, and programs note in a folder what they do."""
    return {FAULTS_VARIABLE: json.dumps([asdict(fault) for fault in faults]), FOLDER_VARIABLE: str(folder)}


def arm(module: str, environment: Mapping[str, str]) -> None:
    """Prepare this process, which is going to be a program, for the faults that are meant for it."""
    folder = environment.get(FOLDER_VARIABLE)
    if folder is None:
        return
    kind, name = _program(module, environment)
    faults = enumerate(Fault(**fault) for fault in json.loads(environment[FAULTS_VARIABLE]))
    charges = [Charge(fault, Path(folder) / f"fuse-{number}") for number, fault in faults if fault.program == name]
    notes = Notes(Path(folder), name)
    _Calls("start", False, notes, charges).begin()
    if kind == OPERATOR:
        _prepare_operator(notes)
    for point, where in POINTS.items():
        if where.program == kind:
            _wrap(where.where, _Calls(point, where.flushes, notes, charges))


def _prepare_operator(notes: Notes) -> None:
    """Start programs by the zygote; note tokens and every version of the status."""
    from fedjob_operator.adapters.local import JobFile  # noqa: PLC0415 - of the operator only
    from tests.support.faults.spawn import create_forked  # noqa: PLC0415

    asyncio.create_subprocess_exec = create_forked  # type: ignore[assignment]
    make, create = secrets.token_urlsafe, JobFile.create

    def noted_token(*arguments: Any) -> str:
        token = make(*arguments)
        notes.add(point="token", token=token)
        return token

    def noted_status(store: Any, job: Any) -> Any:
        written = create(store, job)
        status = written.status
        size = len(status.model_dump_json(by_alias=True, exclude_none=True))
        notes.add(point="status", term=status.term, committed=status.rounds.committed, size=size)
        return written

    secrets.token_urlsafe = noted_token
    JobFile.create = noted_status


def _program(module: str, environment: Mapping[str, str]) -> tuple[str, str]:
    """Kind and name of a program."""
    if module == "fedjob_client":
        config = json.loads(environment["FEDJOB_CONFIG"])
        return CLIENT, "evaluator" if config.get("role") == "Evaluator" else f"client-{config['index']}"
    name = module.removeprefix("fedjob_")
    return name, name


class Charge:
    """A fault that waits for its call.

    Args:
        fault: What is to happen.
        fuse: File with one byte for each time that it happened.
    """

    def __init__(self, fault: Fault, fuse: Path) -> None:
        self.fault = fault
        self._fuse = fuse

    def is_due(self, point: str, nth: int) -> bool:
        """Whether it is to happen in this call."""
        burnt = self._fuse.stat().st_size if self._fuse.exists() else 0
        is_now = self.fault.nth <= nth < self.fault.nth + self.fault.calls
        return self.fault.point == point and is_now and burnt < self.fault.times

    def burn(self) -> None:
        """It happens now."""
        with self._fuse.open("ab") as file:
            file.write(b".")

    def strike(self) -> None:
        """Let it happen.

        Raises:
            OSError: That is what was asked for.
        """
        self.burn()
        if self.fault.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.fault.action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            number = getattr(errno, self.fault.action)
            raise OSError(number, os.strerror(number))


class _Calls:
    """Counts the calls of one point, and lets happen what is to happen in them."""

    def __init__(self, point: str, flushes: bool, notes: Notes, charges: list[Charge]) -> None:
        self._point = point
        self.flushes = flushes
        self.notes = notes
        self._charges = [charge for charge in charges if charge.fault.point == point]
        self._count = 0

    def begin(self) -> int:
        """A call begins; return which it is."""
        self._count += 1
        self.notes.add(point=self._point, nth=self._count)
        self._strike(self._count, "before")
        return self._count

    def end(self, nth: int) -> None:
        """A call ended."""
        self._strike(nth, "after")

    def around(self, nth: int) -> Charge | None:
        """A fault that changes how the call is made."""
        found = [charge for charge in self._charges if charge.is_due(self._point, nth)]
        return next((charge for charge in found if charge.fault.when in AROUND or charge.fault.when == "half"), None)

    def is_striking(self, nth: int) -> bool:
        """Whether something happens after the call."""
        return any(charge.is_due(self._point, nth) and charge.fault.when == "after" for charge in self._charges)

    def _strike(self, nth: int, when: str) -> None:
        for charge in self._charges:
            if charge.fault.when == when and charge.is_due(self._point, nth):
                charge.strike()


def _wrap(where: str, calls: _Calls) -> None:
    """Put a function that counts in the place of another one."""
    module, _, path = where.partition(":")
    owner: Any = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    original = getattr(owner, name)
    setattr(
        owner,
        name,
        _asynchronous(original, calls) if inspect.iscoroutinefunction(original) else _plain(original, calls),
    )


def _plain(original: Callable[..., Any], calls: _Calls) -> Callable[..., Any]:
    def call(*arguments: Any, **named: Any) -> Any:
        nth = calls.begin()
        if (charge := calls.around(nth)) is not None:
            write, block = arguments  # only what writes a block can be done by half
            original(write, memoryview(block)[: len(block) // 2])
            charge.strike()
        try:
            return original(*arguments, **named)
        finally:
            calls.end(nth)

    return call


def _asynchronous(original: Callable[..., Awaitable[Any]], calls: _Calls) -> Callable[..., Awaitable[Any]]:
    async def call(*arguments: Any, **named: Any) -> Any:
        nth = calls.begin()
        if (charge := calls.around(nth)) is not None:
            return await AROUND[charge.fault.when](charge, calls.notes, original, arguments, named)
        try:
            return await original(*arguments, **named)
        finally:
            if calls.is_striking(nth):
                await _flush(calls.flushes)
            calls.end(nth)

    return call


async def _flush(is_needed: bool) -> None:
    for _ in range(FLUSH_STEPS if is_needed else 0):
        await asyncio.sleep(0)


# Ways to make a call wrongly: of ``upload`` and of ``upload body``

Original = Callable[..., Awaitable[Any]]


async def _half(charge: Charge, _notes: Notes, _original: Original, arguments: Any, _named: Any) -> None:
    """Send half of an update, then die."""
    blocks, writer = arguments
    for block in blocks._value:
        await writer.write(block[: len(block) // 2])
    await _flush(is_needed=True)
    charge.strike()


async def _twice(charge: Charge, notes: Notes, original: Original, arguments: Any, named: Any) -> None:
    """Send an update, and once more when it was accepted."""
    charge.burn()
    await original(*arguments, **named)
    await _refused(notes, "upload again", original(*arguments, **named))


async def _older(charge: Charge, notes: Notes, original: Original, arguments: Any, named: Any) -> None:
    """Send an update for the attempt before, where there was one, then for this one."""
    transfer, target, parcel = arguments
    if target.attempt == 1:
        await original(*arguments, **named)
        return
    charge.burn()
    older = replace(target, attempt=target.attempt - 1)
    await _refused(notes, "upload for the attempt before", original(transfer, older, parcel, **named))
    await original(*arguments, **named)


async def _late(charge: Charge, notes: Notes, original: Original, arguments: Any, named: Any) -> None:
    """Send an update when its round is closed, whatever the client was told meanwhile."""
    transfer, target, parcel = arguments
    charge.burn()
    url = target.upload_url.partition("/updates/")[0]

    async def send_late() -> None:
        while True:
            async with transfer._session.get(url) as response:
                view = await response.json()
            if view["state"] != "Open" or view["attempt"] != target.attempt:
                break
            await asyncio.sleep(LOOK_SECONDS)
        await _refused(notes, "upload when the round was closed", original(transfer, target, parcel, seconds=30.0))

    sending = asyncio.create_task(send_late())
    _SENDING.add(sending)
    await asyncio.shield(sending)


_SENDING: Final[set[asyncio.Task[None]]] = set()
"""What is sent late; the event loop keeps no reference."""


async def _refused(notes: Notes, what: str, sending: Awaitable[Any]) -> None:
    from fedjob_client.transfer import TransferError  # noqa: PLC0415 - of clients only

    try:
        await sending
    except TransferError as error:
        notes.add(point=what, word=error.word or "no answer")
    else:
        notes.add(point=what, word=None)


AROUND: Final[Mapping[str, Callable[..., Awaitable[Any]]]] = {
    "half": _half,
    "twice": _twice,
    "older": _older,
    "late": _late,
}
