"""Serves a program's metrics to Prometheus, on a port of their own and without a token.

Called where a metrics port was given; nothing else imports this module, as its package takes a while to import. What is
counted is up to each program.
"""

import socket
import threading
from socketserver import TCPServer
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge, MetricsHandler
from prometheus_client.process_collector import ProcessCollector
from typing_extensions import override

from fedjob_protocol.version import __version__

SILENCE_SECONDS: Final = 5.0
"""A scraper that says nothing for so long is hung up on."""


def program_registry(prefix: str) -> CollectorRegistry:
    """Return a registry with what every program shows: its version, and the usual ``process_…`` figures on Linux.

    Args:
        prefix: First words of the program's own metrics, such as ``fedjob_client``.
    """
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    build = Gauge(f"{prefix}_build_info", "Always 1; the program's version is a label.", ["version"], registry=registry)
    build.labels(version=__version__).set(1)
    return registry


def serve_metrics(registry: CollectorRegistry, listening: socket.socket) -> None:
    """Answer scrapes from a thread of its own until the process ends.

    One scrape at a time: whoever is slow keeps other scrapers waiting, and nobody else.

    Args:
        registry: What is served, whatever the path is.
        listening: From `fedjob_protocol.process.listen`.
    """
    server = _Server(listening, _Handler.factory(registry))
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()


class _Handler(MetricsHandler):
    timeout = SILENCE_SECONDS


class _Server(TCPServer):
    def __init__(self, listening: socket.socket, handler: type) -> None:
        super().__init__(listening.getsockname(), handler, bind_and_activate=False)
        self.socket.close()  # made by the class above, never bound
        self.socket = listening

    @override
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Forget a scraper that went away in the middle."""
