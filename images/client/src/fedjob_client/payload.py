"""How an update goes out: block by block from where it is, asking first, without waiting for ever for an answer."""

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload
from typing_extensions import override

from fedjob_client.updates import Body
from fedjob_protocol import routes

EXPECT_SECONDS: Final = 1.0
"""A server that has not answered ``Expect`` by then may not know it, or be busy: the update is sent all the same."""


class PatientRequest(aiohttp.ClientRequest):
    """A request that does not wait for ever to be told to go on (RFC 9110, section 10.1.1)."""

    @override
    def update_expect_continue(self, expect: bool = False) -> None:
        super().update_expect_continue(expect)
        if self._continue is not None:
            self.loop.call_later(EXPECT_SECONDS, _go_on, self._continue)


def _go_on(permission: asyncio.Future[bool]) -> None:
    if not permission.done():
        permission.set_result(True)


class UpdatePayload(Payload):
    """A body that is sent block by block from where it is, and can be sent again.

    Args:
        body: What to send.
        on_sent: Called once all of it was handed to the operating system.
    """

    _autoclose = True

    def __init__(self, body: Body, on_sent: Callable[[], None]) -> None:
        super().__init__(body.blocks, content_type=routes.SAFETENSORS_MEDIA_TYPE)
        self._size = body.size
        self._on_sent = on_sent

    @override
    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        raise TypeError("an update is no text")

    @override
    async def write(self, writer: AbstractStreamWriter) -> None:
        for block in self._value:
            await writer.write(block)
        self._on_sent()
