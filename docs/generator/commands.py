"""The command line's own help, as a page."""

from collections.abc import Iterator

import click

from fedjob.__main__ import cli
from generator.markdown import fence, page

WIDTH = 100
"""Columns that help is wrapped at, whatever the terminal is."""


def command_line() -> str:
    """The page of all commands."""
    blocks = [block for path, command in _walk("fedjob", cli) for block in (f"## {path}", _help(path, command))]
    return page("Command line", "What each command prints with `--help`.", *blocks)


def _walk(path: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from _walk(f"{path} {name}", below)


def _help(path: str, command: click.Command) -> str:
    context = click.Context(
        command, info_name=path, terminal_width=WIDTH, max_content_width=WIDTH, **cli.context_settings
    )
    return fence("text", command.get_help(context))
