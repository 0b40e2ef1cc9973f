#!/usr/bin/env python3
"""Writes the files that are made from the code: pages of this folder and the CRD; `make generate` calls it.

The output depends on the code and on the pinned packages only, so `make verify` can compare it with what is committed.
"""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

from generator.commands import command_line
from generator.crd import CRD_NAME, custom_resource_definition
from generator.machines import state_machine
from generator.metrics import metrics
from generator.openapi import aggregator_api, client_api
from generator.reliability import reliability
from generator.resource import federated_job
from generator.strategies import strategies
from generator.words import errors, reasons

ROOT: Final = Path(__file__).resolve().parents[1]

FILES: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {
        f"crds/{CRD_NAME}.yaml": custom_resource_definition,
        f"charts/fedjob/files/{CRD_NAME}.yaml": custom_resource_definition,
        "docs/reliability.md": reliability,
        "docs/state-machine.md": state_machine,
        "docs/reference/aggregator.openapi.json": aggregator_api,
        "docs/reference/client.openapi.json": client_api,
        "docs/reference/cli.md": command_line,
        "docs/reference/errors.md": errors,
        "docs/reference/federatedjob.md": federated_job,
        "docs/reference/metrics.md": metrics,
        "docs/reference/reasons.md": reasons,
        "docs/reference/strategies.md": strategies,
    }
)
"""What makes each generated file, by its path in the repository."""


def main() -> int:
    """Write every file that is not up to date, and name it."""
    for name, make in FILES.items():
        path, text = ROOT / name, make()
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        sys.stdout.write(f"wrote {name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
