"""A client that registers itself: started by hand, it tells an aggregator where it is."""

import asyncio
import logging
from typing import Final

from fedjob_client.machine import backoff_seconds
from fedjob_client.transfer import Transfer, TransferError

TRY_SECONDS: Final = 10.0

_log = logging.getLogger(__name__)


async def register(transfer: Transfer, server_url: str, client_url: str) -> None:
    """Register once, trying until the aggregator accepts or refuses for good."""
    failures = 0
    while True:
        try:
            await transfer.register(server_url, client_url, seconds=TRY_SECONDS)
        except TransferError as error:
            failures += 1
            if not error.retryable:
                _log.error("the aggregator at %s refuses this client: %s", server_url, error.message)
                return
            delay = backoff_seconds(failures, client_url)
            if failures == 1:
                _log.warning("cannot register with %s yet, trying on: %s", server_url, error.message)
            await asyncio.sleep(delay)
        else:
            _log.info("registered with the aggregator at %s as %s", server_url, client_url)
            return
