"""The command line: every command is declared here, what it does is in the modules beside this one."""

import sys
from pathlib import Path
from typing import Any

import click

from fedjob.cluster import set_suspended, show_jobs, show_logs, submit, watch
from fedjob.export import Format
from fedjob.failure import Failure
from fedjob.fetch import PUBLISHED, fetch
from fedjob.kubectl import Kubectl
from fedjob.lab import run_lab
from fedjob.models import pull_from_cluster, pull_from_folder, rounds_on_cluster
from fedjob.options import (
    CHECKPOINT,
    CLUSTER,
    JOB,
    MANIFEST,
    ON_CLUSTER,
    OUTPUT,
    OVERRIDES,
    PLUGIN,
    RUN_FOLDER,
    TARGET,
    TENSORBOARD,
    address,
    count,
)
from fedjob.partition import show_partition
from fedjob.predict import Asked, predict, predict_on_cluster
from fedjob.run import Options as RunOptions
from fedjob.run import run, validate
from fedjob.serving import Options, run_server
from fedjob.show import rounds_in_folder, show_model, show_rounds
from fedjob.start import init
from fedjob.tensorboard import write_events
from fedjob_protocol import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fedjob")
def cli() -> None:
    """Federated learning from one manifest."""


@cli.command("run")
@MANIFEST
@OVERRIDES
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
    callback=address,
    help="Where the aggregator listens, for clients that register themselves.  [default: a free port of this machine]",
)
@TENSORBOARD
@OUTPUT
def run_command(
    file: Path,
    overrides: tuple[str, ...],
    folder: Path | None,
    resume: bool,
    events: Path | None,
    listen: tuple[str, int] | None,
    output: str,
) -> None:
    """Run the job in FILE on this machine.

    Exit code 0: Complete. 1: Failed. 2: wrong manifest or usage, nothing was started. 130: interrupted, can be resumed.
    """
    as_json = output == "json"
    options = RunOptions(
        file=file, overrides=overrides, folder=folder, resume=resume, events=events, as_json=as_json, listen=listen
    )
    sys.exit(run(options))


@cli.command("validate")
@MANIFEST
@OVERRIDES
def validate_command(file: Path, overrides: tuple[str, ...]) -> None:
    """Check the manifest in FILE. Exit code 0: valid. 2: not, one line per problem."""
    sys.exit(validate(file, overrides))


@cli.command("partition")
@MANIFEST
@OVERRIDES
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
@TARGET
@TENSORBOARD
@ON_CLUSTER
@OUTPUT
def rounds_command(target: str, events: Path | None, kubectl: Kubectl | None, output: str) -> None:
    """Show the committed rounds of the run in folder TARGET, or of the job TARGET on a cluster."""
    records = rounds_in_folder(Path(target)) if kubectl is None else rounds_on_cluster(kubectl, target)
    if events is not None:
        write_events(records, events)
    show_rounds(records, as_json=output == "json")


@cli.group("model")
def model_group() -> None:
    """Look at models, and take them away."""


@model_group.command("show")
@RUN_FOLDER
@OUTPUT
def model_show_command(folder: Path, output: str) -> None:
    """Show the newest model of the run in DIR: round, tensors, and its digest, computed anew."""
    show_model(folder, as_json=output == "json")


@model_group.command("pull")
@TARGET
@CHECKPOINT
@click.option("--format", "kind", type=click.Choice([kind.value for kind in Format]),
              default=Format.SAFETENSORS.value, show_default=True,
              help="safetensors is the checkpoint as it is; pt needs PyTorch.")  # fmt: skip
@click.option("--output", "file", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Where it goes.  [default: JOB-round-N.FORMAT]")  # fmt: skip
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@ON_CLUSTER
def model_pull_command(
    target: str, which: str, kind: str, file: Path | None, force: bool, kubectl: Kubectl | None
) -> None:
    """Write a model of the run in folder TARGET, or of the job TARGET on a cluster, and a card beside it.

    The card, FILE.json, says job, seed, rounds, metrics, tensors, and the chain of digests that leads to the model.
    """
    wanted = Format(kind)
    if kubectl is not None:
        pull_from_cluster(kubectl, target, which=which, kind=wanted, output=file, force=force)
    else:
        pull_from_folder(Path(target), which=which, kind=wanted, output=file, force=force)


@cli.command("predict")
@TARGET
@click.option(
    "--inputs",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Inputs: JSON with a list (- for standard input), npz with the array x, or csv.",
)
@click.option("--image", "images", multiple=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="PNG or JPEG, brought to the size that the model takes; may be given several times.")  # fmt: skip
@click.option("--image-size", metavar="HxW[xC]",
              help="Size of --image, such as 28x28 or 32x32x3.  [default: that of the job's data set]")  # fmt: skip
@click.option(
    "--invert", "is_inverted", is_flag=True, help="Swap black and white of --image: for dark writing on light paper."
)
@click.option(
    "--samples",
    default=8,
    show_default=True,
    type=click.IntRange(1, 1000),
    help="With neither, for a run: held-out examples of the job's own data to predict.",
)
@CHECKPOINT
@ON_CLUSTER
@OUTPUT
def predict_command(target: str, which: str, kubectl: Kubectl | None, output: str, **asked: Any) -> None:
    """Predict with a model of the run in folder TARGET, or with the one that the job TARGET on a cluster serves."""
    wanted = Asked(**asked)
    if kubectl is not None:
        predict_on_cluster(kubectl, target, wanted, as_json=output == "json")
    else:
        predict(Path(target), wanted, which=which, as_json=output == "json")


@cli.command("submit")
@MANIFEST
@OVERRIDES
@click.option("--watch", "watch_it", is_flag=True, help="Then show it until it is finished.")
@CLUSTER
def submit_command(file: Path, overrides: tuple[str, ...], watch_it: bool, kubectl: Kubectl) -> None:
    """Create the job in FILE on a cluster. Exit code 2: wrong manifest, nothing was created."""
    sys.exit(submit(kubectl, file, overrides, watch_it=watch_it))


@cli.command("list")
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@CLUSTER
@OUTPUT
def list_command(everywhere: bool, kubectl: Kubectl, output: str) -> None:
    """List the jobs on a cluster."""
    sys.exit(show_jobs(kubectl, everywhere=everywhere, as_json=output == "json"))


@cli.command("watch")
@JOB
@CLUSTER
def watch_command(name: str, kubectl: Kubectl) -> None:
    """Show a job on a cluster until it is finished. Exit code 0: Complete. 1: Failed. 130: interrupted; it goes on."""
    sys.exit(watch(kubectl, name))


@cli.command("logs")
@JOB
@click.option("--role", type=click.Choice(["client", "aggregator", "evaluator", "server"]), help="Only of these.")
@click.option("--index", type=click.IntRange(0), help="Only of the client, or the aggregator, with this index.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is said from now on.")
@click.option("--tail", default=100, show_default=True, type=click.IntRange(-1), help="Lines of each; -1 is all.")
@CLUSTER
def logs_command(name: str, role: str | None, index: int | None, follow: bool, tail: int, kubectl: Kubectl) -> None:
    """Print what the programs of a job on a cluster say."""
    sys.exit(show_logs(kubectl, name, role=role, index=index, follow=follow, tail=tail))


@cli.command("suspend")
@JOB
@CLUSTER
def suspend_command(name: str, kubectl: Kubectl) -> None:
    """Give back the pods and GPUs of a job on a cluster until it is resumed."""
    set_suspended(kubectl, name, is_suspended=True)


@cli.command("resume")
@JOB
@CLUSTER
def resume_command(name: str, kubectl: Kubectl) -> None:
    """Let a suspended job on a cluster go on."""
    set_suspended(kubectl, name, is_suspended=False)


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
@OVERRIDES
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
    "--clients-per-round", callback=count, metavar="N|N%", help="Clients chosen in each round.  [default: all]"
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


def main(program: str = "fedjob") -> None:
    """Entry point: an error that is ours to explain is one line on standard error, never a traceback."""
    try:
        cli(prog_name=program)
    except Failure as failure:
        click.echo(f"fedjob: {failure}", err=True)
        sys.exit(failure.exit_code)


def plugin() -> None:
    """Entry point of ``kubectl fedjob``: what names a run or a job names a job on the cluster."""
    main(PLUGIN)


if __name__ == "__main__":
    main()
