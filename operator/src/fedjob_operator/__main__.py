"""``fedjob-operator``: reads flags and environment, runs the operator until it is told to stop."""

import asyncio
import os
import secrets
import signal
import socket
from pathlib import Path
from typing import Final

import click

from fedjob_operator.adapters.kube.login import LoginError
from fedjob_operator.adapters.kube.tokens import KeyUnusableError
from fedjob_operator.build.settings import PodSettings, PolicySettings
from fedjob_operator.logs import configure_logs
from fedjob_operator.service import serve
from fedjob_operator.settings import (
    ENVIRONMENT_PREFIX,
    HEALTH_PORT,
    KEY_SECRET,
    LEASE,
    METRICS_PORT,
    OperatorSettings,
    Reach,
)
from fedjob_protocol.version import __version__

NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
"""Where a pod learns its own namespace."""
PORT: Final = click.IntRange(0, 65535)


def names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    """Return names that have commas between them, without blanks around them."""
    parts = value.split(",") if isinstance(value, str) else value
    return tuple(name for part in parts if (name := part.strip()))


def labels(value: str | dict[str, str]) -> dict[str, str]:
    """Return labels that are written ``KEY=VALUE`` with commas between them.

    Raises:
        click.BadParameter: One of them is no label.
    """
    if isinstance(value, dict):
        return value
    pairs = [part.partition("=") for part in names(value)]
    wrong = [key for key, sign, _ in pairs if not key or not sign]
    if wrong:
        raise click.BadParameter(f'"{wrong[0]}" is not KEY=VALUE')
    return {key: text for key, _, text in pairs}


@click.command(
    context_settings={
        "help_option_names": ["-h", "--help"],
        "auto_envvar_prefix": ENVIRONMENT_PREFIX,
        "show_default": True,
    }
)
@click.option("--client-image", default=f"fedjob/client:{__version__}",
              help="Image of clients and evaluators where a job names none.")  # fmt: skip
@click.option("--aggregator-image", default=f"fedjob/aggregator:{__version__}", help="Image of aggregators.")
@click.option("--image-pull-policy", type=click.Choice(["Always", "IfNotPresent", "Never"]), default="IfNotPresent",
              help="When nodes pull the images of a job's pods.")  # fmt: skip
@click.option("--image-pull-secrets", type=names, default="",
              help="Pull secrets of a job's pods, in the job's namespace, with commas between them.")  # fmt: skip
@click.option("--service-accounts", type=names, default=None,
              help="ServiceAccounts that pod templates may name, with commas between them; absent allows all, as a "
                   "batch Job does.")  # fmt: skip
@click.option("--operator-pod-labels", type=labels, default="",
              help="Labels of the operator's own pods, KEY=VALUE with commas between them: each job gets a "
                   "NetworkPolicy that lets in its own pods, these, and the monitoring; empty makes none.")  # fmt: skip
@click.option("--monitoring-namespace-labels", type=labels, default="kubernetes.io/metadata.name=monitoring",
              help="Labels of the namespace whose pods may read the metrics of jobs.")  # fmt: skip
@click.option("--namespaces", type=names, default="",
              help="Namespaces whose jobs are driven, with commas between them; empty is all.")  # fmt: skip
@click.option("--namespace", default=None,
              help="The operator's own namespace, for its Lease and its key; default that of its pod, else "
                   "'default'.")  # fmt: skip
@click.option("--identity", default=None,
              help="Who holds the Lease: the name of the operator's pod; default the host's name and a random "
                   "part.")  # fmt: skip
@click.option("--key-secret", default=KEY_SECRET, help="Secret that the jobs' tokens are derived from; made if absent.")
@click.option("--lease", default=LEASE, help="Lease that says which operator drives the jobs.")
@click.option("--host", default="0.0.0.0", help="Address that health and metrics listen on.")  # noqa: S104 - a pod
@click.option("--health-port", type=PORT, default=HEALTH_PORT, help="Port of /healthz and /readyz; 0 picks one.")
@click.option("--metrics-port", type=PORT, default=METRICS_PORT, help="Port of /metrics; 0 picks one.")
@click.option("--reach", type=click.Choice([reach.value for reach in Reach]), default=Reach.DIRECT.value,
              help="How pods are reached: by their addresses, or through the API server from outside.")  # fmt: skip
@click.option("--kubeconfig", type=click.Path(dir_okay=False), default=None,
              help="Kubeconfig to log in with; default the pod's ServiceAccount, else the usual one.")  # fmt: skip
@click.option("--context", default=None, help="Context in the kubeconfig; default its current one.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"], case_sensitive=False),
              default="info", help="How much to say on standard error.")  # fmt: skip
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Lines for people, or of JSON.")
@click.version_option(__version__, prog_name="fedjob-operator")
def main(  # noqa: PLR0913 - one argument per flag
    *,
    client_image: str,
    aggregator_image: str,
    image_pull_policy: str,
    image_pull_secrets: tuple[str, ...],
    service_accounts: tuple[str, ...] | None,
    operator_pod_labels: dict[str, str],
    monitoring_namespace_labels: dict[str, str],
    namespaces: tuple[str, ...],
    namespace: str | None,
    identity: str | None,
    key_secret: str,
    lease: str,
    host: str,
    health_port: int,
    metrics_port: int,
    reach: str,
    kubeconfig: str | None,
    context: str | None,
    log_level: str,
    log_format: str,
) -> None:
    """Drive the FederatedJobs of a cluster.

    Every flag is also an environment variable: --client-image is FEDJOB_OPERATOR_CLIENT_IMAGE. SIGTERM ends it; jobs go
    on without it, and are taken over by the next operator where they stand.
    """
    configure_logs(log_level.upper(), as_json=log_format == "json")
    namespace = namespace or own_namespace(NAMESPACE_FILE)
    policy = PolicySettings(
        operator_namespace=namespace,
        operator_labels=operator_pod_labels,
        monitoring_namespace_labels=monitoring_namespace_labels,
    )
    settings = OperatorSettings(
        pods=PodSettings(
            client_image=client_image,
            aggregator_image=aggregator_image,
            image_pull_policy=image_pull_policy,
            image_pull_secrets=image_pull_secrets,
            service_accounts=frozenset(service_accounts) if service_accounts is not None else None,
            policy=policy if operator_pod_labels else None,
        ),
        namespace=namespace,
        identity=identity or f"{socket.gethostname()}_{os.getpid()}_{secrets.token_hex(4)}",
        namespaces=namespaces,
        key_secret=key_secret,
        lease=lease,
        host=host,
        health_port=health_port,
        metrics_port=metrics_port,
        reach=Reach(reach),
        kubeconfig=kubeconfig,
        context=context,
    )
    try:
        asyncio.run(run(settings))
    except (LoginError, KeyUnusableError, OSError) as error:
        raise click.ClickException(str(error)) from error


async def run(settings: OperatorSettings) -> None:
    """Run the operator until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(settings, stop)


def own_namespace(file: Path) -> str:
    """Return the namespace of the pod that this runs in, or ``default`` outside one."""
    try:
        return file.read_text(encoding="utf-8").strip() or "default"
    except OSError:
        return "default"


if __name__ == "__main__":
    main()
