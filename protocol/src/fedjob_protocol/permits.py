"""Permits: what lets one job read one committed model of another, and nothing else."""

import hashlib
import hmac
from typing import Final

_PURPOSE: Final = "fedjob.dev/read-model"


def model_permit(token: str, round_number: int) -> str:
    """Return what an aggregator takes in the place of its job's token for ``GET /v1/models/{round_number}``.

    An HMAC (RFC 2104) under the job's token: whoever holds the token can make one, and there is no way back from it to
    the token. It stands for one round's model, which never changes, so it needs no end.

    Args:
        token: Token of the job whose model is read.
        round_number: The round that committed the model.
    """
    return hmac.new(token.encode(), f"{_PURPOSE}/{round_number}".encode(), hashlib.sha256).hexdigest()
