"""``fedjob-client``: reads flags and environment, loads the job, serves."""

import logging
import os
from typing import NoReturn

import click

from fedjob_client.errors import ClientError, SettingsError, TrainerError
from fedjob_client.recorder import SILENT, Recorder
from fedjob_client.settings import (
    Settings,
    prepare_environment,
    read_config,
    read_registration_token,
    read_token,
    tell_identity,
)
from fedjob_protocol.config import STOPPED_EXIT_CODE_VARIABLE, Device
from fedjob_protocol.process import (
    EXIT_FATAL,
    EXIT_USAGE,
    CannotListenError,
    base_url,
    exit_now,
    leave_termination,
    listen,
    log_to_stderr,
)
from fedjob_protocol.routes import CLIENT_PORT, REGISTERED_PORT
from fedjob_protocol.version import __version__

_log = logging.getLogger(__name__)

EPILOG = """Without a job (environment variable FEDJOB_CONFIG) the client serves the simple forms: POST /train and
POST /predict on synthetic data. GET /docs shows the whole API. FEDJOB_TOKEN sets the token that /v1 asks for,
FEDJOB_REGISTRATION_TOKEN the one that is shown to the aggregator of --server-url."""


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--host", envvar="FEDJOB_HOST", default="127.0.0.1", show_default=True, show_envvar=True,
              help="Address to listen on; 0.0.0.0 is every address of this machine.")  # fmt: skip
@click.option("--port", envvar="FEDJOB_PORT", type=click.IntRange(0, 65535), show_envvar=True,
              help="TCP port to listen on; 0 picks a free one.  [default: 8000; with --server-url 5000]")  # fmt: skip
@click.option("--index", envvar=["FEDJOB_INDEX", "FEDJOB_CLIENT_INDEX"], type=click.IntRange(0, 1_000_000), default=0,
              show_default=True, show_envvar=True,
              help="Number of this client: the simple forms make other data for each.")  # fmt: skip
@click.option("--device", envvar="FEDJOB_DEVICE", type=click.Choice(["auto", "cpu", "gpu"], case_sensitive=False),
              default="auto", show_default=True, show_envvar=True,
              help="Where to train: on a GPU if there is one, on the CPU, or on a GPU or not at all.")  # fmt: skip
@click.option("--threads", envvar="FEDJOB_THREADS", type=click.IntRange(1, 256), default=1, show_default=True,
              show_envvar=True, help="Threads that the model cnn uses; any number gives the same bits.")  # fmt: skip
@click.option("--server-url", envvar="SERVER_URL", show_envvar=True,
              help="Aggregator to register with, such as http://127.0.0.1:9000; needs --client-url.")  # fmt: skip
@click.option("--client-url", envvar="CLIENT_URL", show_envvar=True,
              help="Address under which that aggregator reaches this client.")  # fmt: skip
@click.option("--group", envvar="FEDJOB_GROUP", show_envvar=True,
              help="Client group of its job to be in.  [default: any that takes this client]")  # fmt: skip
@click.option("--metrics-port", envvar="FEDJOB_METRICS_PORT", type=click.IntRange(0, 65535), show_envvar=True,
              help="TCP port for Prometheus, without a token; 0 picks a free one.  [default: none]")  # fmt: skip
@click.option("--state-dir", envvar="FEDJOB_STATE_DIR", type=click.Path(file_okay=False), show_envvar=True,
              help="Folder for layers that stay at this client (model.exclude), so that they survive it.  "
              "[default: none]")  # fmt: skip
@click.option("--stopped-exit-code", envvar=STOPPED_EXIT_CODE_VARIABLE, type=click.IntRange(0, 255), default=0,
              show_default=True, show_envvar=True,
              help="Exit code after SIGTERM; 143 where who was stopped is to count as failed.")  # fmt: skip
@click.option("--log-level", envvar="FEDJOB_LOG_LEVEL", default="info", show_default=True, show_envvar=True,
              type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
              help="How much to say on standard error.")  # fmt: skip
@click.version_option(__version__, prog_name="fedjob-client")
def main(  # noqa: PLR0913 - one for each flag
    *,
    host: str,
    port: int | None,
    index: int,
    device: str,
    threads: int,
    server_url: str | None,
    client_url: str | None,
    group: str | None,
    metrics_port: int | None,
    state_dir: str | None,
    stopped_exit_code: int,
    log_level: str,
) -> None:
    """Run one client of a federated job: a trainer behind HTTP."""
    log_to_stderr(log_level)
    if log_level != "debug":
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        settings = Settings(
            host=host,
            port=port_of(port, server_url),
            index=index,
            metrics_port=metrics_port,
            device={"auto": Device.AUTO, "cpu": Device.CPU, "gpu": Device.GPU}[device],
            threads=threads,
            server_url=server_url or None,
            client_url=client_url or None,
            registration_token=read_registration_token(os.environ),
            group=group or None,
            token=read_token(os.environ),
            config=read_config(os.environ),
            state_dir=state_dir or None,
            stopped_exit_code=stopped_exit_code,
        )
    except SettingsError as error:
        _die(error, EXIT_USAGE)
    prepare_environment(os.environ)
    _run(settings)


def port_of(given: int | None, server_url: str | None) -> int:
    """Port to listen on: where none is given, another for a client that registers itself."""
    if given is not None:
        return given
    return REGISTERED_PORT if server_url else CLIENT_PORT


def _run(settings: Settings) -> NoReturn:
    """Load, listen, serve. Imports here: they import NumPy, which reads its number of threads then."""
    from fedjob_client.cuda.choice import simple_backend  # noqa: PLC0415
    from fedjob_client.server import serve  # noqa: PLC0415
    from fedjob_client.service import load_job  # noqa: PLC0415

    try:
        listening = listen(settings.host, settings.port)
        recorder = SILENT if settings.metrics_port is None else _metrics(settings.host, settings.metrics_port)
        loaded = None
        if settings.config is None:
            simple_backend(settings.device)
        else:
            tell_identity(os.environ, settings.config)
            loaded = load_job(
                settings.config, threads=settings.threads, state_dir=settings.state_dir, token=settings.token
            )
    except CannotListenError as error:
        click.echo(f"fedjob-client: {error}", err=True)
        exit_now(EXIT_USAGE)
    except ClientError as error:
        if isinstance(error, TrainerError) and error.__cause__ is not None:
            _log.info("where it comes from:", exc_info=error.__cause__)  # the user's own code; other errors say it all
        _die(error, EXIT_FATAL)
    has_served = serve(settings, loaded, listening, recorder)
    # A training may still be running: its thread is a daemon, and nobody waits for it.
    exit_now(settings.stopped_exit_code if has_served else EXIT_FATAL)


def _metrics(host: str, port: int) -> Recorder:
    """Serve metrics.

    Raises:
        CannotListenError: The port cannot be had.
    """
    # Imported here: it takes a tenth of a second, and most clients on one machine are asked for no metrics.
    from fedjob_client.metrics import MetricsRecorder  # noqa: PLC0415
    from fedjob_protocol.metrics import serve_metrics  # noqa: PLC0415

    listening = listen(host, port, option="--metrics-port")
    recorder = MetricsRecorder()
    serve_metrics(recorder.registry, listening)
    _log.info("metrics at %s/metrics", base_url(listening))
    return recorder


def _die(error: ClientError, code: int) -> NoReturn:
    leave_termination(os.environ, error.reason, str(error))
    exit_now(code)
