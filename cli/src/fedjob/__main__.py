"""The command line: every command and option is declared here, what it does is in the modules beside this one."""

import re
import sys
from pathlib import Path

import click

from fedjob.failure import Failure
from fedjob.fetch import PUBLISHED, fetch
from fedjob.lab import run_lab
from fedjob.partition import show_partition
from fedjob.predict import predict
from fedjob.run import Options as RunOptions
from fedjob.run import run, validate
from fedjob.serving import Options, run_server
from fedjob.show import show_model, show_rounds
from fedjob.start import init
from fedjob_protocol import __version__

OUTPUT = click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="Text for people, or JSON.",
)
RUN_FOLDER = click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
MANIFEST = click.argument("file", metavar="FILE", type=click.Path(path_type=Path))


def _count(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | str | None:
    """A number of clients, or a percentage of them."""
    if value is None:
        return None
    if re.fullmatch(r"[1-9][0-9]{0,4}|([1-9][0-9]?|100)%", value) is None:
        raise click.BadParameter(f"{value!r} is neither a number of clients nor a percentage such as 50%")
    return value if value.endswith("%") else int(value)


def _address(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """HOST:PORT, as it is given on the command line."""
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 127.0.0.1:9000")
    return host.strip("[]"), int(port)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fedjob")
def cli() -> None:
    """Federated learning from one manifest."""


@cli.command("run")
@MANIFEST
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Replace a field: spec.rounds=3.")
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the run.  [default: runs/NAME, runs/NAME-2, …]",
)
@click.option(
    "--resume", is_flag=True, help="Go on with the run in the folder (without --dir: the newest of this job)."
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    callback=_address,
    help="Where the aggregator listens, for clients that register themselves.  [default: a free port of this machine]",
)
@OUTPUT
def run_command(
    file: Path,
    overrides: tuple[str, ...],
    folder: Path | None,
    resume: bool,
    listen: tuple[str, int] | None,
    output: str,
) -> None:
    """Run the job in FILE on this machine.

    Exit code 0: Complete. 1: Failed. 2: wrong manifest or usage, nothing was started. 130: interrupted, can be resumed.
    """
    as_json = output == "json"
    options = RunOptions(file=file, overrides=overrides, folder=folder, resume=resume, as_json=as_json, listen=listen)
    sys.exit(run(options))


@cli.command("validate")
@MANIFEST
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Replace a field: spec.rounds=3.")
def validate_command(file: Path, overrides: tuple[str, ...]) -> None:
    """Check the manifest in FILE. Exit code 0: valid. 2: not, one line per problem."""
    sys.exit(validate(file, overrides))


@cli.command("partition")
@MANIFEST
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Replace a field: spec.seed=3.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.png",
    help="Draw it, too; needs the extra fedjob[plot].",
)
@OUTPUT
def partition_command(file: Path, overrides: tuple[str, ...], plot: Path | None, output: str) -> None:
    """Show how many examples of which class each client of the job in FILE has. Nothing is trained."""
    show_partition(file, overrides, plot=plot, as_json=output == "json")


@cli.group("data")
def data_group() -> None:
    """Get data sets."""


@data_group.command("fetch")
@click.argument("name", type=click.Choice(sorted(PUBLISHED)))
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the files.  [default: data/NAME]",
)
@click.option(
    "--from", "base", metavar="URL", help="Folder of a mirror; the files must be the published ones all the same."
)
def data_fetch_command(name: str, folder: Path | None, base: str | None) -> None:
    """Download a published data set and check it against its digests."""
    fetch(name, folder or Path("data") / name, base=base)


@cli.command("init")
@click.argument("file", metavar="[FILE]", type=click.Path(dir_okay=False, path_type=Path), default=Path("job.yaml"))
def init_command(file: Path) -> None:
    """Write a commented manifest to FILE (job.yaml)."""
    init(file)


@cli.command("rounds")
@RUN_FOLDER
@OUTPUT
def rounds_command(folder: Path, output: str) -> None:
    """Show the committed rounds of the run in DIR."""
    show_rounds(folder, as_json=output == "json")


@cli.group("model")
def model_group() -> None:
    """Look at a run's model."""


@model_group.command("show")
@RUN_FOLDER
@OUTPUT
def model_show_command(folder: Path, output: str) -> None:
    """Show the newest model of the run in DIR: round, tensors, and its digest, computed anew."""
    show_model(folder, as_json=output == "json")


@cli.command("predict")
@RUN_FOLDER
@click.option(
    "--inputs",
    type=click.Path(dir_okay=False, path_type=Path),
    help="JSON file with a list of inputs, - for standard input.",
)
@click.option(
    "--samples",
    default=8,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="Without --inputs: held-out examples of the job's own data to predict.",
)
@OUTPUT
def predict_command(folder: Path, inputs: Path | None, samples: int, output: str) -> None:
    """Predict with the newest model of the run in DIR."""
    predict(folder, inputs=inputs, samples=samples, as_json=output == "json")


@cli.command("lab")
@click.option("--clients", default=3, show_default=True, type=click.IntRange(1, 50), help="Number of clients.")
@click.option(
    "--client-port",
    default=8001,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="Port of the first client; the others follow.",
)
@click.option(
    "--aggregator-port", default=9000, show_default=True, type=click.IntRange(1, 65535), help="Port of the aggregator."
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the aggregator.  [default: a temporary one]",
)
def lab_command(clients: int, client_port: int, aggregator_port: int, folder: Path | None) -> None:
    """Start clients and an aggregator to talk to with curl; Ctrl-C ends them."""
    run_lab(clients=clients, client_port=client_port, aggregator_port=aggregator_port, folder=folder)


@cli.command("serve")
@click.argument("file", metavar="[FILE]", required=False, type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Replace a field of FILE.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all.")
@click.option(
    "--port", default=5000, show_default=True, type=click.IntRange(0, 65535), help="TCP port; 0 picks a free one."
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of models and sessions; what is in it is gone on with.  [default: runs/serve]",
)
@click.option("--rounds", type=click.IntRange(1, 10_000), help="Rounds of a session that does not say.  [default: 3]")
@click.option(
    "--places",
    default=0,
    show_default=True,
    type=click.IntRange(0, 10_000),
    help="Places that a session has at least, for clients that come later; all that are registered have one.",
)
@click.option(
    "--min-clients",
    default=1,
    show_default=True,
    type=click.IntRange(1, 10_000),
    help="Clients that a session waits for, and reports that a round needs.",
)
@click.option(
    "--clients-per-round", callback=_count, metavar="N|N%", help="Clients chosen in each round.  [default: all]"
)
@click.option(
    "--join-wait-seconds",
    type=click.IntRange(0, 31_536_000),
    help="With --min-clients there, how long a session waits for the other places.  [default: 60]",
)
@click.option(
    "--late-joiners",
    type=click.Choice(["accept", "refuse"], case_sensitive=False),
    help="What becomes of clients that come after the start of a session.  [default: accept]",
)
def serve_command(  # noqa: PLR0913 - one for each option
    *,
    file: Path | None,
    overrides: tuple[str, ...],
    host: str,
    port: int,
    folder: Path | None,
    rounds: int | None,
    places: int,
    min_clients: int,
    clients_per_round: int | str | None,
    join_wait_seconds: int | None,
    late_joiners: str | None,
) -> None:
    """Serve: clients register here, and POST /training, or the button on the page, starts a training session.

    FILE is a manifest that says what is trained; its one client group describes the clients that register. Without it,
    a small network on handwritten digits. FEDJOB_REGISTRATION_TOKEN is what clients have to show, if it is set.
    """
    sys.exit(
        run_server(
            Options(
                file=file,
                overrides=overrides,
                folder=folder,
                host=host,
                port=port,
                rounds=rounds,
                places=places,
                min_clients=min_clients,
                clients_per_round=clients_per_round,
                join_wait_seconds=join_wait_seconds,
                late_joiners=late_joiners,
            )
        )
    )


def main() -> None:
    """Entry point: an error that is ours to explain is one line on standard error, never a traceback."""
    try:
        cli(prog_name="fedjob")
    except Failure as failure:
        click.echo(f"fedjob: {failure}", err=True)
        sys.exit(failure.exit_code)


if __name__ == "__main__":
    main()
