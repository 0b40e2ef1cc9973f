"""The commands' own help, as a page."""

from collections.abc import Iterator
from itertools import chain

import click

from fedjob.__main__ import cli
from fedjob_aggregator.command import main as aggregator
from fedjob_client.command import main as client
from generator.markdown import fence, page

WIDTH = 100
"""Columns that help is wrapped at, whatever the terminal is."""


def command_line() -> str:
    """The page of all commands."""
    programs = {"fedjob": cli, "fedjob-client": client, "fedjob-aggregator": aggregator}
    contexts = chain.from_iterable(_walk(command, name, None) for name, command in programs.items())
    blocks = [block for context in contexts for block in (f"## {context.command_path}", _help(context))]
    return page("Command line", "What each command prints with `--help`.", *blocks)


def _walk(command: click.Command, name: str, parent: click.Context | None) -> Iterator[click.Context]:
    """The command, and those below it, each in a context like that of a call."""
    context = click.Context(
        command, parent, info_name=name, terminal_width=WIDTH, max_content_width=WIDTH, **command.context_settings
    )
    yield context
    if isinstance(command, click.Group):
        for below in command.commands.values():
            yield from _walk(below, below.name or "", context)


def _help(context: click.Context) -> str:
    return fence("text", context.command.get_help(context))
