#!/usr/bin/env python3
"""Writes the pages of this folder that are made from the code; `make generate` calls it.

The output depends on the code and on the pinned packages only, so `make verify` can compare it with what is committed.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from generator.commands import command_line
from generator.machines import state_machine
from generator.openapi import aggregator_api, client_api
from generator.resource import federated_job
from generator.words import errors, reasons

DOCS: Final = Path(__file__).resolve().parent

PAGES: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {
        "state-machine.md": state_machine,
        "reference/aggregator.openapi.json": aggregator_api,
        "reference/client.openapi.json": client_api,
        "reference/cli.md": command_line,
        "reference/errors.md": errors,
        "reference/federatedjob.md": federated_job,
        "reference/reasons.md": reasons,
    }
)
"""What makes each generated file, by its path in this folder."""


def main() -> int:
    """Write every page that is not up to date, and name it."""
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        sys.stdout.write(f"wrote docs/{name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
