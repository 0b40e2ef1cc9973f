"""Which operator drives the jobs: whoever holds the Lease.

Two that both believe so do no harm, since terms and resource versions fence one of them off; they would only be in each
other's way.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from fedjob_operator.adapters.kube.api import LEASES, ApiError, ApiRefusedError, KubeApi
from fedjob_operator.adapters.kube.documents import Document, integer, mapping, text, version_of

log = logging.getLogger(__name__)

DURATION_SECONDS: Final = 15
"""How long a Lease holds after it was renewed last."""
RENEW_SECONDS: Final = 5.0
"""How often it is renewed, and looked at by those who wait for it."""
LOOK_SECONDS: Final = 3.0
"""Longest time that one look, or renewal, may take."""
RETRY_SECONDS: Final = 1.0
"""Pause after one that failed."""
GIVE_UP_SECONDS: Final = 10.0
"""Without a renewal for so long the holder stands down: what it drives has ended before somebody else begins."""


class Standing(StrEnum):
    """What the Lease says about us."""

    HOLDING = "holding"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseName:
    """Which Lease, and who we are."""

    namespace: str
    name: str
    identity: str
    """The same only for a process that follows this one in the same pod."""


class LeaseKeeper:
    """Acquires a Lease and keeps it.

    Args:
        api: The API server, with request slots of its own: a busy operator must not lose its Lease.
        which: Which Lease, and who we are.
        on_change: Awaited when we begin to hold it, and when we no longer do.
        clock: The time, in UTC.
        monotonic: Seconds on a clock that never jumps.
    """

    def __init__(
        self,
        api: KubeApi,
        which: LeaseName,
        *,
        on_change: Callable[[bool], Awaitable[None]],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
    ) -> None:
        self._api = api
        self._which = which
        self._on_change = on_change
        self._clock = clock
        self._monotonic = monotonic
        self._is_held = False
        self._renewed_at = 0.0
        self._seen: tuple[str, float] = ("", 0.0)
        self._has_looked = False

    @property
    def standing(self) -> Standing | None:
        """Whether we hold the Lease; ``None`` until it was looked at."""
        if not self._has_looked:
            return None
        return Standing.HOLDING if self._is_held else Standing.WAITING

    async def run(self) -> None:
        """Acquire the Lease, keep it, and try again when it is lost; until cancelled."""
        while True:
            asked_at = self._monotonic()
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    holds = await self._look()
            except (ApiError, TimeoutError) as error:
                log.warning("the Lease %s cannot be looked at: %s", self._which.name, error or "no answer in time")
                if self._monotonic() - self._renewed_at >= GIVE_UP_SECONDS:
                    await self._become(holds=False)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._has_looked = True
                if holds:
                    self._renewed_at = asked_at
                await self._become(holds=holds)
                await asyncio.sleep(RENEW_SECONDS * random.uniform(0.8, 1.0))  # noqa: S311 - only spreads requests

    async def release(self) -> None:
        """Give the Lease back, so that the next one need not wait; best effort."""
        if not self._is_held:
            return
        self._is_held = False
        try:
            async with asyncio.timeout(2):
                lease = await self._api.get(LEASES, self._which.namespace, self._which.name)
                spec = mapping(lease.get("spec"))
                if spec.get("holderIdentity") == self._which.identity:
                    await self._put(lease, {**spec, "holderIdentity": "", "leaseDurationSeconds": 1})
        except (ApiError, TimeoutError) as error:
            log.warning("the Lease %s was not given back: %s", self._which.name, error or "no answer in time")

    async def _become(self, *, holds: bool) -> None:
        if holds != self._is_held:
            self._is_held = holds
            log.info("%s the Lease %s", "holding" if holds else "no longer holding", self._which.name)
            await self._on_change(holds)

    async def _look(self) -> bool:
        """Renew or take the Lease if that is our right; return whether we hold it now."""
        try:
            lease = await self._api.get(LEASES, self._which.namespace, self._which.name)
        except ApiRefusedError as error:
            if not error.is_absent:
                raise
            return await self._create()
        spec = mapping(lease.get("spec"))
        holder = text(spec.get("holderIdentity"))
        if holder == self._which.identity:
            return await self._renew(lease, spec)
        if holder and not self._has_expired(lease, spec):
            return False
        return await self._take(lease, spec)

    def _has_expired(self, lease: Document, spec: Document) -> bool:
        """Whether the holder has been silent for too long, by our own clock: theirs may be wrong."""
        version, since = self._seen
        now = self._monotonic()
        if version_of(lease) != version:
            self._seen = (version_of(lease), now)
            return False
        return now - since > (integer(spec.get("leaseDurationSeconds")) or DURATION_SECONDS)

    async def _create(self) -> bool:
        now = self._now()
        document: Document = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._which.name, "namespace": self._which.namespace},
            "spec": self._spec({"acquireTime": now, "leaseTransitions": 0}, now),
        }
        return await self._won(self._api.create(LEASES, self._which.namespace, document))

    async def _renew(self, lease: Document, spec: Document) -> bool:
        return await self._won(self._put(lease, self._spec(spec, self._now())))

    async def _take(self, lease: Document, spec: Document) -> bool:
        now = self._now()
        changes = (integer(spec.get("leaseTransitions")) or 0) + 1
        return await self._won(
            self._put(lease, self._spec({**spec, "acquireTime": now, "leaseTransitions": changes}, now))
        )

    async def _won(self, request: Awaitable[Document]) -> bool:
        try:
            await request
        except ApiRefusedError as error:
            if not error.is_conflict:  # somebody else was faster
                raise
            return False
        return True

    async def _put(self, lease: Document, spec: Document) -> Document:
        return await self._api.replace(LEASES, self._which.namespace, {**lease, "spec": spec})

    def _spec(self, spec: Document, now: str) -> Document:
        ours = {"holderIdentity": self._which.identity, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": now}
        return {**spec, **ours}

    def _now(self) -> str:
        return self._clock().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
