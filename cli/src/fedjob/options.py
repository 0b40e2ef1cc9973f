"""Arguments and options that several commands have, and how their values are read."""

import re
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from fedjob.kubectl import Kubectl

PLUGIN = "kubectl fedjob"
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
OVERRIDES = click.option(
    "--set", "overrides", multiple=True, metavar="PATH=VALUE", help="Replace a field: spec.rounds=3."
)
TENSORBOARD = click.option(
    "--tensorboard",
    "events",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="LOGDIR",
    help="Write the rounds as event files for TensorBoard, too; needs fedjob[tensorboard].",
)
TARGET = click.argument("target", metavar="TARGET")
JOB = click.argument("name", metavar="NAME")
CHECKPOINT = click.option(
    "--checkpoint",
    "which",
    default="final",
    show_default=True,
    metavar="best|final|N",
    help="Which model of a run, or of a job: the best, the newest, or that of a round that is kept.",
)
Command = TypeVar("Command", bound=Callable[..., None])


def _located(*, is_needed: bool) -> Callable[[Command], Command]:
    """Add the options that say which cluster; the command is given a `Kubectl`, or ``None`` where none is meant."""

    def decorate(command: Command) -> Command:
        @click.option("-n", "--namespace", help="Namespace of the job on a cluster.  [default: the context's]")
        @click.option("--context", help="Context of the kubeconfig.  [default: the current one]")
        @wraps(command)
        def located(*, namespace: str | None, context: str | None, **given: Any) -> None:
            is_plugin = click.get_current_context().find_root().info_name == PLUGIN
            is_meant = is_needed or is_plugin or namespace is not None or context is not None
            command(**given, kubectl=Kubectl(namespace=namespace, context=context) if is_meant else None)

        return cast("Command", located)

    return decorate


CLUSTER = _located(is_needed=True)
ON_CLUSTER = _located(is_needed=False)


def count(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | str | None:
    """A number of clients, or a percentage of them."""
    if value is None:
        return None
    if re.fullmatch(r"[1-9][0-9]{0,4}|([1-9][0-9]?|100)%", value) is None:
        raise click.BadParameter(f"{value!r} is neither a number of clients nor a percentage such as 50%")
    return value if value.endswith("%") else int(value)


def address(_context: click.Context, _parameter: click.Parameter, value: str | None) -> tuple[str, int] | None:
    """HOST:PORT, as it is given on the command line."""
    if value is None:
        return None
    host, _, port = value.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise click.BadParameter(f"{value!r} is not HOST:PORT, such as 127.0.0.1:9000")
    return host.strip("[]"), int(port)
