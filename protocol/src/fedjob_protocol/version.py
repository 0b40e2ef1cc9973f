"""The protocol's version, the distribution's version, and the check between two programs.

A program speaks version N and accepts N and N - 1, so that an operator can be upgraded while jobs with older images
go on.
"""

from importlib.metadata import version

from fedjob_protocol.errors import Refusal, Word, quote

__version__ = version("fedjob-protocol")
"""Version of all five distributions; they are released together."""

PROTOCOL_VERSION = 1
"""Version of the messages in this package; sent as header ``Fedjob-Protocol`` with every request and answer."""

OLDEST_SUPPORTED = max(1, PROTOCOL_VERSION - 1)
"""Oldest peer that this program talks to."""


def check_protocol(header: str | None) -> int:
    """Return the peer's protocol version.

    Args:
        header: The value of ``Fedjob-Protocol``; ``None`` (absent) counts as the current version, for people with curl.

    Raises:
        Refusal: ``unsupported-protocol`` when it is no integer or outside the supported range.
    """
    if header is None:
        return PROTOCOL_VERSION
    if header.isascii() and header.isdigit() and len(header) <= 6:
        peer = int(header)
        if OLDEST_SUPPORTED <= peer <= PROTOCOL_VERSION:
            return peer
    raise Refusal(
        Word.UNSUPPORTED_PROTOCOL,
        f"the peer speaks protocol {quote(header)}, this program speaks {OLDEST_SUPPORTED} to {PROTOCOL_VERSION}; "
        "use images of the same release",
    )
