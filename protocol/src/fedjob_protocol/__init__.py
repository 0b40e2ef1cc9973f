"""What the FederatedJob programs agree on; see the README of this distribution for the wire protocol in one page."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fedjob_protocol.version import PROTOCOL_VERSION, __version__
else:

    def __getattr__(name: str) -> object:
        # Imported when asked for, so that `fedjob_protocol.lifeline` can be imported in no time.
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from fedjob_protocol import version  # noqa: PLC0415

        return getattr(version, name)


__all__ = ["PROTOCOL_VERSION", "__version__"]
