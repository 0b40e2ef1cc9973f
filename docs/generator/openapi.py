"""The OpenAPI documents of both programs, as the programs themselves serve them at ``/openapi.json``."""

import json
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from fastapi import FastAPI

from fedjob_aggregator.app import create_app as create_aggregator
from fedjob_aggregator.app import create_registrations, create_service
from fedjob_aggregator.settings import Settings as AggregatorSettings
from fedjob_client.app import create_app as create_client
from fedjob_client.settings import Settings as ClientSettings


def aggregator_api() -> str:
    """The aggregator's document."""
    with tempfile.TemporaryDirectory() as folder:
        settings = AggregatorSettings(folder=Path(folder), sessions=True)
        service = create_service(settings, boot_id="documentation", wall_clock=_wall_clock)
        registrations = create_registrations(settings, wall_clock=_wall_clock)
        try:
            return _document(create_aggregator(settings, service, registrations))
        finally:
            service.stop()
            service.store.close()


def client_api() -> str:
    """The client's document."""
    return _document(create_client(ClientSettings(), None))


def _document(app: FastAPI) -> str:
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False) + "\n"


def _wall_clock() -> datetime:
    return datetime.min.replace(tzinfo=UTC)
