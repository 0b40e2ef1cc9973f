"""Liveness and readiness, answered by a thread of its own: it answers also when the event loop does not."""

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from typing_extensions import override

LOOP_SECONDS: Final = 30.0
"""How long the event loop may not turn before the operator counts as dead."""
PASS_SECONDS: Final = 60.0
"""How long one pass of the reconcile loop may take before the operator counts as dead."""
BEAT_SECONDS: Final = 1.0
_PATHS: Final = ("/healthz", "/readyz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a probe is told."""

    ok: bool
    message: str


class Heart:
    """Says whether the operator lives. An API server that does not answer is no reason to die: that helps nobody.

    Args:
        hung: Returns the jobs whose pass has taken more than so many seconds.
        monotonic: Seconds on a clock that never jumps.
    """

    def __init__(self, *, hung: Callable[[float], list[str]], monotonic: Callable[[], float]) -> None:
        self._hung = hung
        self._monotonic = monotonic
        self._beat = monotonic()

    async def run(self) -> None:
        """Beat as long as the event loop turns; until cancelled."""
        while True:
            self._beat = self._monotonic()
            await asyncio.sleep(BEAT_SECONDS)

    def verdict(self) -> Verdict:
        """Say whether the operator lives; called from another thread."""
        silent = self._monotonic() - self._beat
        if silent > LOOP_SECONDS:
            return Verdict(ok=False, message=f"the event loop has not turned for {silent:.0f} s")
        if hung := self._hung(PASS_SECONDS):
            return Verdict(ok=False, message=f"a pass takes more than {PASS_SECONDS:.0f} s: {', '.join(hung[:10])}")
        return Verdict(ok=True, message="alive")


class HealthServer:
    """Serves ``/healthz`` and ``/readyz``: 200 or 500, with one line of JSON.

    Args:
        host: Address to listen on.
        port: TCP port; 0 picks a free one.
        alive: Answers ``/healthz``.
        ready: Answers ``/readyz``.

    Raises:
        OSError: The port cannot be listened on.
    """

    def __init__(self, host: str, port: int, *, alive: Callable[[], Verdict], ready: Callable[[], Verdict]) -> None:
        answers = dict(zip(_PATHS, (alive, ready), strict=True))

        class Handler(BaseHTTPRequestHandler):
            timeout = 5  # seconds that a slow peer may take to ask

            def do_GET(self) -> None:
                answer = answers.get(self.path.partition("?")[0])
                if answer is None:
                    self._send(HTTPStatus.NOT_FOUND, {"paths": list(_PATHS)})
                    return
                verdict = answer()
                status = HTTPStatus.OK if verdict.ok else HTTPStatus.INTERNAL_SERVER_ERROR
                self._send(status, {"ok": verdict.ok, "message": verdict.message})

            def _send(self, status: HTTPStatus, document: dict[str, Any]) -> None:
                body = json.dumps(document).encode() + b"\n"
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @override
            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: probes come every few seconds."""

        self._server = _Server((host, port), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=1)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """Forget a prober that went away before it had its answer: it has counted that already."""
