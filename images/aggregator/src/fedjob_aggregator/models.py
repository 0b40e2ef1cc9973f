"""Serving a checkpoint: in bounded blocks from the file, whole, in part, or not at all when the peer has it already."""

import asyncio
import re
from dataclasses import dataclass
from typing import IO, Final

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from fedjob_protocol.messages import CheckpointInfo
from fedjob_protocol.routes import DIGEST_HEADER, ROUND_HEADER, SAFETENSORS_MEDIA_TYPE

BLOCK_BYTES: Final = 1 << 20
"""Read and sent at a time: the memory of a download, beside what waits in its socket."""
INLINE_BYTES: Final = 256 << 10
"""Up to this a file is read on the event loop: from the cache it takes less time than the way to a thread."""
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Bytes of a file, from ``begin`` up to ``end``."""

    begin: int
    end: int


def requested_span(text: str | None, total_bytes: int) -> Span | None:
    """The part that a ``Range`` header asks for (RFC 9110, 14.2).

    Args:
        text: The header's value; ``None``, several ranges and anything else that is not understood: the whole file.
        total_bytes: Length of the file.

    Returns:
        The part; ``None`` if there is no such part.
    """
    match = None if text is None else _RANGE.fullmatch(text.strip())
    if match is None or match[0] == "bytes=-":
        return Span(begin=0, end=total_bytes)
    first, last = match[1], match[2]
    if not first:
        begin, end = max(0, total_bytes - int(last)), total_bytes
    else:
        begin, end = int(first), total_bytes if not last else min(int(last) + 1, total_bytes)
        if last and int(last) < begin:
            return Span(begin=0, end=total_bytes)  # not a range at all
    return Span(begin=begin, end=end) if begin < end else None


class ModelResponse(Response):
    """Answers ``GET /v1/models/…`` from an open file, which it closes.

    Args:
        file: The checkpoint.
        info: What it is.
        headers: Of the request.
    """

    def __init__(self, file: IO[bytes], info: CheckpointInfo, headers: Headers) -> None:
        self._file = file
        etag = f'"{info.digest}"'
        validator = headers.get("If-Range")
        range_header = headers.get("Range") if validator in {None, etag} else None
        span = requested_span(range_header, info.bytes)
        fields = {DIGEST_HEADER: info.digest, ROUND_HEADER: str(info.round), "ETag": etag, "Accept-Ranges": "bytes"}
        if etag in headers.get("If-None-Match", ""):
            status, span = 304, Span(begin=0, end=0)
        elif span is None:
            status, span = 416, Span(begin=0, end=0)
            fields["Content-Range"] = f"bytes */{info.bytes}"
        elif span.end - span.begin < info.bytes:
            status = 206
            fields["Content-Range"] = f"bytes {span.begin}-{span.end - 1}/{info.bytes}"
        else:
            status = 200
        self._span = span
        super().__init__(None, status, fields, SAFETENSORS_MEDIA_TYPE)
        if status != 304:
            self.headers["Content-Length"] = str(span.end - span.begin)

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            position, end = self._span.begin, self._span.end
            self._file.seek(position)
            while end - position > INLINE_BYTES:
                block = await asyncio.to_thread(self._file.read, min(BLOCK_BYTES, end - position))
                if not block:
                    raise OSError("the checkpoint is shorter than it was")
                position += len(block)
                await send({"type": "http.response.body", "body": block, "more_body": position < end})
            if position < end or end == self._span.begin:
                await send({"type": "http.response.body", "body": self._file.read(end - position), "more_body": False})
