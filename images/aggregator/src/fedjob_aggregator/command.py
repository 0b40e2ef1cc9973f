"""The command ``fedjob-aggregator``: settings, folder, port, then serve until asked to stop."""

import logging
import os
import secrets
import sys
from datetime import UTC, datetime
from pathlib import Path

import click
from pydantic import SecretStr, ValidationError

from fedjob_aggregator.answers import describe
from fedjob_aggregator.app import create_app, create_registrations, create_service
from fedjob_aggregator.folder_manifest import FolderError
from fedjob_aggregator.recorder import SILENT, Recorder
from fedjob_aggregator.registrations import RegistrationSettings, networks
from fedjob_aggregator.registry import DEFAULT_MOST, DEFAULT_MOST_PER_HOST, Group, Limits
from fedjob_aggregator.server import AggregatorServer, server_config
from fedjob_aggregator.settings import DEFAULT_IDLE_SECONDS, DEFAULT_MOST_UPLOADS, Settings, open_registration
from fedjob_protocol.config import TOKEN_VARIABLE
from fedjob_protocol.process import (
    EXIT_FATAL,
    EXIT_USAGE,
    CannotListenError,
    announce,
    base_url,
    exit_now,
    leave_termination,
    listen,
    log_to_stderr,
    stop_on_signals,
)
from fedjob_protocol.registration import (
    EXTERNAL_GROUPS_VARIABLE,
    REGISTRATION_TOKEN_VARIABLE,
    ExternalGroups,
    registration_variable,
)
from fedjob_protocol.routes import AGGREGATOR_PORT
from fedjob_protocol.version import __version__

PROGRAM = "fedjob-aggregator"

_log = logging.getLogger(__name__)


@click.command(
    context_settings={"auto_envvar_prefix": "FEDJOB", "show_default": True, "help_option_names": ["-h", "--help"]},
    epilog=f"The job's token is read from {TOKEN_VARIABLE} only; without it none is asked for.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=AGGREGATOR_PORT,
    show_envvar=True,
    help="TCP port; 0 picks a free one.",
)
@click.option("--host", default="127.0.0.1", show_envvar=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("aggregator-data"),
    show_envvar=True,
    envvar="FEDJOB_DIR",
    help="Folder of checkpoints, manifest and round log; made if absent.",
)
@click.option(
    "--job-uid",
    default=None,
    show_envvar=True,
    help="Job whose folder it has to be.  [default: the first that opens a round]",
)
@click.option(
    "--replica",
    default=None,
    show_envvar=True,
    help="Its name, where the job has several aggregators: it waits to be told who leads.  [default: no others]",
)
@click.option(
    "--staging-bytes",
    type=click.IntRange(0),
    default=None,
    show_envvar=True,
    help="Memory for uploads on their way, in bytes; others go to disk.  [default: one update, at least 64 MiB]",
)
@click.option(
    "--most-uploads",
    type=click.IntRange(1),
    default=DEFAULT_MOST_UPLOADS,
    show_envvar=True,
    help="Uploads received at the same time; further ones wait.",
)
@click.option(
    "--idle-seconds",
    type=click.FloatRange(0, min_open=True),
    default=DEFAULT_IDLE_SECONDS,
    show_envvar=True,
    help="Seconds without a byte after which an upload is given up.",
)
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    default=None,
    show_envvar=True,
    help="TCP port for Prometheus, without a token; 0 picks a free one.  [default: none]",
)
@click.option(
    "--most-clients",
    type=click.IntRange(1, 10_000),
    default=DEFAULT_MOST,
    show_envvar=True,
    help="Clients that may register themselves.",
)
@click.option(
    "--most-clients-per-host",
    type=click.IntRange(1, 10_000),
    default=DEFAULT_MOST_PER_HOST,
    show_envvar=True,
    help="Of these, at the same host, and by the same host.",
)
@click.option(
    "--client-hosts",
    default="",
    show_envvar=True,
    help="Hosts, addresses and networks that such clients may be at, with commas.  [default: all]",
)
@click.option(
    "--sessions",
    is_flag=True,
    show_envvar=True,
    help="Take orders for training sessions at /training, for who drives them.",
)
@click.option(
    "--session-clients",
    type=click.IntRange(0, 10_000),
    default=0,
    show_envvar=True,
    help="Places that a session has at least, for clients that come later.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_envvar=True,
    help="What is written to standard error.",
)
@click.version_option(__version__, prog_name=PROGRAM)
def main(  # noqa: PLR0913 - one for each flag
    *,
    port: int,
    host: str,
    folder: Path,
    job_uid: str | None,
    replica: str | None,
    staging_bytes: int | None,
    most_uploads: int,
    idle_seconds: float,
    metrics_port: int | None,
    most_clients: int,
    most_clients_per_host: int,
    client_hosts: str,
    sessions: bool,
    session_clients: int,
    log_level: str,
) -> None:
    """Receive, verify and fold the updates of federated rounds; commit and serve the models.

    Prints one line of JSON with its address once it serves; logs go to standard error. SIGTERM ends it cleanly. Serves
    one job; without one, POST /aggregate and the page at / work all the same.
    """
    log_to_stderr(log_level)
    token = os.environ.get(TOKEN_VARIABLE)
    settings = Settings(
        folder=folder,
        job_uid=job_uid,
        replica=replica,
        token=SecretStr(token) if token else None,
        staging_bytes=staging_bytes,
        most_uploads=most_uploads,
        idle_seconds=idle_seconds,
        registration=_registration(Limits(most=most_clients, most_per_host=most_clients_per_host), client_hosts),
        sessions=sessions,
        session_clients=session_clients,
    )
    serve(settings, host, port, metrics_port)


def _registration(limits: Limits, client_hosts: str) -> RegistrationSettings:
    """Who may register: as the environment says of a job's groups, else who shows the token, if there is one."""
    api_server = os.environ.get("KUBERNETES_SERVICE_HOST")
    allowed, refused = networks(client_hosts), (api_server,) if api_server else ()
    text = os.environ.get(EXTERNAL_GROUPS_VARIABLE)
    if not text:
        token = os.environ.get(REGISTRATION_TOKEN_VARIABLE) or None
        return open_registration(limits, token=token, allowed=allowed, refused=refused)
    try:
        groups = ExternalGroups.model_validate_json(text).groups
    except ValidationError as error:
        sys.stderr.write(f"{PROGRAM}: {EXTERNAL_GROUPS_VARIABLE}: {describe(error)}\n")
        exit_now(EXIT_USAGE)
    shown = [os.environ.get(registration_variable(position)) or None for position in range(len(groups))]
    taken = tuple(Group(external=group, token=token) for group, token in zip(groups, shown, strict=True))
    return RegistrationSettings(groups=taken, limits=limits, allowed_hosts=allowed, refused_hosts=refused)


def serve(settings: Settings, host: str, port: int, metrics_port: int | None) -> None:
    """Serve until a signal; ends the process."""
    try:
        listening = listen(host, port)
        recorder = SILENT if metrics_port is None else _metrics(host, metrics_port)
    except CannotListenError as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        exit_now(EXIT_USAGE)
    boot_id = secrets.token_hex(8)
    try:
        with stop_on_signals(lambda: exit_now(0)):  # large checkpoints take a while to be verified
            service = create_service(settings, boot_id=boot_id, wall_clock=_wall_clock, recorder=recorder)
            registrations = create_registrations(settings, wall_clock=_wall_clock)
    except FolderError as error:
        sys.stderr.write(f"{PROGRAM}: {error}\n")
        leave_termination(os.environ, error.reason, str(error))
        exit_now(EXIT_FATAL)
    url = base_url(listening)
    server = AggregatorServer(
        server_config(create_app(settings, service, registrations)),
        started=lambda: _announced(url, boot_id),
        stopping=service.stop,
    )
    server.run([listening])
    exit_now(0)  # a commit that is still being written is cut off: the one before it counts, as after any crash


def _metrics(host: str, port: int) -> Recorder:
    """Serve metrics.

    Raises:
        CannotListenError: The port cannot be had.
    """
    # Imported here: it takes a tenth of a second, and most aggregators on one machine are asked for no metrics.
    from fedjob_aggregator.metrics import MetricsRecorder  # noqa: PLC0415
    from fedjob_protocol.metrics import serve_metrics  # noqa: PLC0415

    listening = listen(host, port, option="--metrics-port")
    recorder = MetricsRecorder()
    serve_metrics(recorder.registry, listening)
    _log.info("metrics at %s/metrics", base_url(listening))
    return recorder


def _announced(url: str, boot_id: str) -> None:
    announce(PROGRAM, url, boot_id)


def _wall_clock() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - the edge
