"""Tokens of jobs: derived from one key of the operator's, so that none has to be read back."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from fedjob_operator.adapters.kube.api import SECRETS, ApiRefusedError, KubeApi
from fedjob_operator.adapters.kube.documents import Document, mapping, text
from fedjob_operator.build.names import MANAGED_BY_LABEL, MANAGER
from fedjob_protocol.errors import FedJobError

KEY_BYTES: Final = 32
_ENTRY: Final = "key"


class KeyUnusableError(FedJobError):
    """The Secret with the operator's key holds none."""


def job_token(key: bytes, job_uid: str) -> str:
    """Return the token of a job: the same for the same key and job, and no way back to the key."""
    return hmac.new(key, job_uid.encode(), hashlib.sha256).hexdigest()


async def operator_key(api: KubeApi, namespace: str, name: str, *, random: Callable[[int], bytes]) -> bytes:
    """Return the operator's key from its Secret; made at the first start.

    Args:
        api: The API server.
        namespace: The operator's own namespace.
        name: Name of the Secret, the only one that the operator reads.
        random: Returns so many bytes that nobody can guess.

    Raises:
        KeyUnusableError: The Secret is there and holds no key.
        ApiError: It can be neither read nor made now.
    """
    while True:
        try:
            return _key(await api.get(SECRETS, namespace, name), f"{namespace}/{name}")
        except ApiRefusedError as error:
            if not error.is_absent:
                raise
        try:
            return _key(await api.create(SECRETS, namespace, _secret(name, random(KEY_BYTES))), f"{namespace}/{name}")
        except ApiRefusedError as error:
            if not error.is_conflict:  # somebody else was faster: theirs counts
                raise


def _secret(name: str, key: bytes) -> Document:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": {MANAGED_BY_LABEL: MANAGER}},
        "type": "Opaque",
        "immutable": True,
        "data": {_ENTRY: base64.b64encode(key).decode()},
    }


def _key(secret: Document, where: str) -> bytes:
    try:
        key = base64.b64decode(text(mapping(secret.get("data")).get(_ENTRY)), validate=True)
    except binascii.Error:
        key = b""
    if len(key) < KEY_BYTES:
        raise KeyUnusableError(
            f"Secret {where} has no {_ENTRY!r} of at least {KEY_BYTES} bytes; delete it and restart the operator, "
            "running jobs then need to be applied anew"
        )
    return key
