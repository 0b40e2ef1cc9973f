"""What the FederatedJob programs agree on; see the README of this distribution for the wire protocol in one page."""

from fedjob_protocol.version import PROTOCOL_VERSION, __version__

__all__ = ["PROTOCOL_VERSION", "__version__"]
