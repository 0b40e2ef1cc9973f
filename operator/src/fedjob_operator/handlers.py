"""The watches, by kopf: what it hears of jobs and pods is handed on. No decision is made here.

kopf runs in a thread and an event loop of its own: it takes every task of its loop for its own when it ends, and it
ends as a whole when a watch cannot go on. Then it is begun again, while jobs are driven as before.

Nothing but low-level event handlers is used: so kopf writes nothing, neither finalizers nor annotations nor Events.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final

import kopf
from typing_extensions import override

from fedjob_operator.adapters.kube.api import JOBS, ApiRefusedError
from fedjob_operator.adapters.kube.client import KubeClient
from fedjob_operator.adapters.kube.documents import Document
from fedjob_operator.adapters.kube.login import Login
from fedjob_operator.adapters.kube.pods import WATCHED
from fedjob_operator.api.v1alpha1 import GROUP, PLURAL, VERSION
from fedjob_protocol.errors import FedJobError

log = logging.getLogger(__name__)

RESTART_SECONDS: Final = 2.0
"""Pause before watches that ended by an error begin again."""
END_SECONDS: Final = 0.5
"""How long watches that are ending are waited for before they are left behind."""
STOP_SECONDS: Final = 2.5
"""How long the watches may take to end."""


class WatchesEndedError(FedJobError):
    """The watches ended by an error."""


LogIn = Callable[[], Awaitable[Login]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """What is told of events; called in the event loop that it belongs to."""

    loop: asyncio.AbstractEventLoop
    job: Callable[[Document, bool], None]
    """A job, and whether it is gone."""
    pod: Callable[[Document, bool], None]
    """A pod, and whether it is gone."""
    pods_listed: Callable[[], None]
    """Pods were listed: at the start, or since a watch had to begin anew and may have lost deletions."""


class Watches:
    """Watches jobs and pods until stopped.

    Args:
        log_in: Logs in to the API server; awaited in the watches' own event loop, and again when that is asked for.
        listener: Told of what is heard.
        namespaces: Namespaces to watch; none is all.
    """

    def __init__(self, log_in: LogIn, listener: Listener, *, namespaces: Collection[str]) -> None:
        self._log_in = log_in
        self._listener = listener
        self._namespaces = namespaces
        self._thread = threading.Thread(target=self._run, name="watches", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_stopped = threading.Event()
        self._is_ready = threading.Event()

    @property
    def is_ready(self) -> bool:
        """Whether the watches have begun."""
        return self._is_ready.is_set()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; blocks until that is done, or for `STOP_SECONDS`."""
        self._is_stopped.set()
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # it has just ended by itself
                loop.call_soon_threadsafe(stop.set)
        self._thread.join(STOP_SECONDS)

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            try:
                _run_apart(self._watch)
            except Exception as error:  # noqa: BLE001 - whatever ended the watches, jobs go on and they begin again
                log.warning("the watches ended and begin again: %s: %s", type(error).__name__, error)
            self._is_ready.clear()
            self._is_stopped.wait(RESTART_SECONDS)

    async def _watch(self) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._is_stopped.is_set():
            return
        await self._wait_until_served()
        ending = asyncio.Event()
        watching = self._loop.create_task(
            kopf.operator(
                registry=registry_of(self._listener, self._log_in, ending),
                settings=settings_of(),
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=list(self._namespaces),
                stop_flag=self._stop,
                ready_flag=self._is_ready,
            )
        )
        told = self._loop.create_task(ending.wait())
        await asyncio.wait({watching, told}, return_when=asyncio.FIRST_COMPLETED)
        # Where one watch has failed, kopf 1.45 may wait for the others for ever; they are begun anew anyway.
        await asyncio.wait({watching}, timeout=END_SECONDS)
        if not watching.done():
            raise WatchesEndedError("a watch failed, and the others did not end; see kopf's own lines above")
        watching.result()

    async def _wait_until_served(self) -> None:
        """Wait until the API server knows the resource: kopf looks for it only once.

        Raises:
            ApiError: It cannot be asked, or we may not ask.
        """
        client = KubeClient(await self._log_in())
        try:
            while not self._is_stopped.is_set():
                try:
                    await client.list(JOBS, next(iter(self._namespaces), None), most=1)
                except ApiRefusedError as error:
                    if not error.is_absent:
                        raise
                    log.warning("the API server does not know %s.%s yet; apply its CRD", PLURAL, GROUP)
                    await asyncio.sleep(RESTART_SECONDS)
                else:
                    return
        finally:
            await client.close()


def _run_apart(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something in an event loop of its own, and leave nothing of it, however little it likes to end."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda _loop, context: log.debug("the watches' event loop: %s", context))
    try:
        loop.run_until_complete(work())
    finally:
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left, timeout=END_SECONDS))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def registry_of(listener: Listener, log_in: LogIn, ending: asyncio.Event) -> kopf.OperatorRegistry:
    """Return the handlers: two for events, one to log in, one that is told of the end."""
    registry = kopf.OperatorRegistry()
    tell = listener.loop.call_soon_threadsafe

    @kopf.on.login(id="login", registry=registry)
    async def begin(**_: Any) -> kopf.AiohttpSession:
        login = await log_in()
        return kopf.AiohttpSession(server=login.server, aiohttp_session=login.open_session())

    @kopf.on.cleanup(id="end", registry=registry)
    async def end(**_: Any) -> None:
        ending.set()

    @kopf.on.event(GROUP, VERSION, PLURAL, id="job", registry=registry)
    async def on_job(event: kopf.RawEvent, **_: Any) -> None:
        tell(listener.job, _document(event), event["type"] == "DELETED")

    @kopf.on.event("v1", "pods", id="pod", registry=registry)
    async def on_pod(event: kopf.RawEvent, **_: Any) -> None:
        if event["type"] is None:
            tell(listener.pods_listed)
        tell(listener.pod, _document(event), event["type"] == "DELETED")

    return registry


def settings_of() -> kopf.OperatorSettings:
    """Return kopf's settings; those not named keep their defaults."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # no watch of CRDs and namespaces: fewer rights; the CRD is there before us
    settings.watching.label_selectors["v1", "pods"] = WATCHED
    settings.watching.chunk_size = 500
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.connect_timeout = 10
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 10
    settings.networking.error_backoffs = _Patience()
    settings.queueing.idle_timeout = 0.5
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.persistence.diffbase_storage = _NoDiffBase()
    settings.execution.max_workers = 1
    return settings


class _Patience:
    """Pauses between tries of a request: without end, since a watch that gives up ends all of them."""

    def __iter__(self) -> Iterator[float]:
        yield from (0.5, 1.0, 2.0, 4.0)
        while True:
            yield 5.0


class _NoDiffBase(kopf.DiffBaseStorage):
    """Computes no differences, which kopf otherwise does for every event, a copy of each object included."""

    @override
    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    @override
    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    @override
    def store(self, **_: Any) -> None:
        return None


def _document(event: kopf.RawEvent) -> Document:
    return dict(event["object"])
