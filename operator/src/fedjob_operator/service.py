"""The operator as a whole: puts the parts together, runs them, and ends them in order."""

import asyncio
import logging
import os
import secrets
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohttp

from fedjob_operator.adapters.http import HttpPrograms, Outside
from fedjob_operator.adapters.kube.api import ApiError
from fedjob_operator.adapters.kube.cache import PodCache
from fedjob_operator.adapters.kube.client import KubeClient
from fedjob_operator.adapters.kube.documents import Document
from fedjob_operator.adapters.kube.events import EventWriter
from fedjob_operator.adapters.kube.lease import LeaseKeeper, LeaseName
from fedjob_operator.adapters.kube.login import Login, log_in
from fedjob_operator.adapters.kube.pods import PodSource
from fedjob_operator.adapters.kube.reach import through_api_server
from fedjob_operator.adapters.kube.store import JobKey
from fedjob_operator.adapters.kube.tokens import job_token, operator_key
from fedjob_operator.adapters.metrics import OperatorMetrics
from fedjob_operator.adapters.outside import DEFAULT_PORTS, GuardedResolver
from fedjob_operator.api.v1alpha1 import Images
from fedjob_operator.core.platform import Platform
from fedjob_operator.driver import JobDriver, Surroundings
from fedjob_operator.handlers import Listener, Watches
from fedjob_operator.health import HealthServer, Heart, Verdict
from fedjob_operator.ports import Programs
from fedjob_operator.settings import OperatorSettings, Reach
from fedjob_operator.supervisor import Supervisor

log = logging.getLogger(__name__)

Result = TypeVar("Result")

KEY_RETRY_SECONDS: Final = 2.0
"""Pause after the operator's key could not be read or made."""
FLUSH_SECONDS: Final = 0.5
"""How long Events that wait are still written when the operator ends."""
CONNECTIONS: Final = 500
"""Most connections to pods."""


def utc_now() -> datetime:
    """The time in UTC."""
    return datetime.now(UTC)  # noqa: TID251 - the edge that hands the clock in


async def serve(settings: OperatorSettings, stop: asyncio.Event) -> None:
    """Run the operator until it is told to stop.

    Args:
        settings: What it is told.
        stop: Set to end it; that takes a few seconds at most.

    Raises:
        LoginError: There is no way to log in to an API server.
        OSError: A port cannot be listened on.
    """
    login = await log_in(settings.kubeconfig, settings.context)
    operator = _Operator(settings)
    async with AsyncExitStack() as stack:
        health = HealthServer(
            settings.host, settings.health_port, alive=operator.heart.verdict, ready=operator.readiness
        )
        stack.callback(health.close)
        stack.callback(operator.metrics.serve(settings.host, settings.metrics_port))
        _ = await stack.enter_async_context(_background(operator.heart.run(), "heart"))
        log.info("health on port %d of %s", health.port, settings.host)
        await operator.run(login, stop)


class _Operator:
    """The parts, and how they are connected."""

    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._surroundings: Surroundings | None = None
        self._watches: Watches | None = None
        self._keeper: LeaseKeeper | None = None
        self._events: EventWriter | None = None
        self.cache = PodCache(self._pod_changed)
        self.supervisor = Supervisor(
            drive=self._drive, forget=self._forget, monotonic=time.monotonic, on_restart=self._restarted
        )
        self.metrics = OperatorMetrics(
            pods=self.cache.all_pods, phases=self.supervisor.phases, is_leading=lambda: self.supervisor.is_leading
        )
        self.heart = Heart(hung=self.supervisor.hung, monotonic=time.monotonic)

    def readiness(self) -> Verdict:
        """Say whether the operator is of use; called from another thread."""
        if self._watches is None or not self._watches.is_ready:
            return Verdict(ok=False, message="the watches have not begun")
        standing = self._keeper.standing if self._keeper else None
        if standing is None:
            return Verdict(ok=False, message="the Lease was not looked at yet")
        return Verdict(ok=True, message=f"{standing} the Lease")

    async def run(self, login: Login, stop: asyncio.Event) -> None:
        """Run until told to stop."""
        settings = self._settings
        async with AsyncExitStack() as stack:
            api = KubeClient(login, on_request=self.metrics.request)
            stack.push_async_callback(api.close)
            own_api = KubeClient(login, at_once=2, on_request=self.metrics.request)
            stack.push_async_callback(own_api.close)
            # Of its own: whatever else is stuck, the Lease is renewed.
            lease_api = KubeClient(login, at_once=2, on_request=self.metrics.request)
            stack.push_async_callback(lease_api.close)
            fetching = await stack.enter_async_context(_background(self._key(own_api), "key"))
            await _until(stop, fetching)
            if stop.is_set():
                return
            key = fetching.result()
            session = await stack.enter_async_context(_pod_session(login, settings.reach))
            outside = await stack.enter_async_context(_outside(login, os.environ))
            self._events = EventWriter(own_api, instance=settings.identity, clock=utc_now, on_event=self.metrics.event)
            self._surroundings = self._surround(api, (session, outside), login, key)
            writing = await stack.enter_async_context(_background(self._events.run(), "events"))
            stack.push_async_callback(self._events.flush, FLUSH_SECONDS)
            self._keeper = LeaseKeeper(
                lease_api,
                LeaseName(namespace=settings.namespace, name=settings.lease, identity=settings.identity),
                on_change=self.supervisor.lead,
                clock=utc_now,
                monotonic=time.monotonic,
            )
            stack.push_async_callback(self._stand_down)
            self._watches = Watches(
                lambda: log_in(settings.kubeconfig, settings.context), self._listener(), namespaces=settings.namespaces
            )
            self._watches.start()
            stack.push_async_callback(asyncio.to_thread, self._watches.stop)
            keeping = await stack.enter_async_context(_background(self._keeper.run(), "lease"))
            await _until(stop, writing, keeping)
            log.info("stopping")

    async def _stand_down(self) -> None:
        await self.supervisor.lead(False)
        if self._keeper is not None:
            await self._keeper.release()

    async def _key(self, api: KubeClient) -> bytes:
        settings = self._settings
        while True:
            try:
                return await operator_key(api, settings.namespace, settings.key_secret, random=secrets.token_bytes)
            except ApiError as error:
                log.warning("the Secret %s cannot be read or made: %s", settings.key_secret, error)
                await asyncio.sleep(KEY_RETRY_SECONDS)

    def _surround(
        self, api: KubeClient, ways: tuple[aiohttp.ClientSession, Outside], login: Login, key: bytes
    ) -> Surroundings:
        assert self._events is not None
        session, outside = ways
        via = through_api_server(login.server, self.cache) if self._settings.reach is Reach.API_PROXY else None

        def programs(token: str) -> Programs:
            return HttpPrograms(session, token=token, via=via, outside=outside)

        pods = self._settings.pods
        return Surroundings(
            source=PodSource(api=api, cache=self.cache, settings=pods),
            programs=programs,
            token=lambda uid: job_token(key, uid),
            platform=Platform(
                images=Images(client=pods.client_image, aggregator=pods.aggregator_image),
                checks_pods=True,
                looks_after_finished=True,
            ),
            clock=utc_now,
            monotonic=time.monotonic,
            on_change=self._events.tell,
            metrics=self.metrics,
        )

    def _listener(self) -> Listener:
        return Listener(
            loop=asyncio.get_running_loop(),
            job=lambda document, is_deleted: self.supervisor.heard(document, is_deleted=is_deleted),
            pod=self._heard_of_pod,
            pods_listed=self.supervisor.listed_again,
        )

    def _heard_of_pod(self, document: Document, is_deleted: bool) -> None:  # noqa: FBT001 - as the listener calls it
        if is_deleted:
            self.cache.remove(document)
        else:
            self.cache.put(document)

    def _drive(self, key: JobKey) -> JobDriver:
        assert self._surroundings is not None, "no job is heard of before the parts are together"
        return JobDriver(key, self._surroundings)

    def _pod_changed(self, job_uid: str) -> None:
        self.supervisor.pods_changed(job_uid)

    def _forget(self, job_uid: str) -> None:
        self.cache.forget(job_uid)
        if self._events is not None:
            self._events.forget(job_uid)

    def _restarted(self) -> None:
        self.metrics.restarts.inc()


@asynccontextmanager
async def _pod_session(login: Login, reach: Reach) -> AsyncIterator[aiohttp.ClientSession]:
    """Open the session that pods are called by."""
    if reach is Reach.API_PROXY:
        session = login.open_session()
    else:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS, keepalive_timeout=60))
    async with session:
        yield session


@asynccontextmanager
async def _outside(login: Login, environment: Mapping[str, str]) -> AsyncIterator[Outside]:
    """Open the session that clients which registered themselves are called by: never this pod, nor the API server."""
    own = environment.get("KUBERNETES_SERVICE_HOST")
    server = urlsplit(login.server)
    port = server.port or DEFAULT_PORTS.get(server.scheme)
    refused = frozenset([f"{server.hostname}:{port}", *([own] if own else [])])
    resolver = GuardedResolver(refused=refused, allows_loopback=own is None)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS, resolver=resolver)) as session:
        yield Outside(session=session, refused=refused, allows_loopback=own is None)


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, Result], name: str) -> AsyncIterator[asyncio.Task[Result]]:
    """Run something beside the body, and end it after the body."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait({task})


async def _until(stop: asyncio.Event, *tasks: asyncio.Task[Any]) -> None:
    """Wait until told to stop, or until one of the tasks ends.

    Raises:
        Exception: Whatever a task ended by: without it the operator is of no use.
    """
    stopping = asyncio.get_running_loop().create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    for task in tasks:
        if task.done():
            task.result()
