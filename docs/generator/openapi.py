"""The OpenAPI documents of both programs, as the programs themselves serve them at ``/openapi.json``."""

import json

from fastapi import FastAPI

from fedjob_client.app import create_app as create_client
from fedjob_client.settings import Settings as ClientSettings


def client_api() -> str:
    """The client's document."""
    return _document(create_client(ClientSettings(), None))


def _document(app: FastAPI) -> str:
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"
