"""Measures the first table of docs/performance.md side by side in one run: ``make bench`` or ``python bench/bench.py``.

Every figure of ours stands beside a floor that was measured in the same run by the same clock. Only loopback is used,
and only processes that were started here are ended.
"""

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from machine import Others, describe, require_linux, wait_until_idle
from regression import regression
from replication import failover, replication
from report import Section, write_json
from rounds import large_rounds, trivial_rounds
from uploads import memory, upload_rate

MEASUREMENTS: Final[dict[str, Callable[..., Section]]] = {
    "rounds": trivial_rounds,
    "upload": upload_rate,
    "memory": memory,
    "large": large_rounds,
    "replication": replication,
    "failover": failover,
    "regression": regression,
}


def main() -> None:
    """Measure what was asked for, print it, and write it as JSON where asked to."""
    require_linux()
    options = _options()
    machine = describe()
    print(", ".join(f"{name} {value}" for name, value in machine.items()), flush=True)
    sections = []
    for name in options.only or MEASUREMENTS:
        wait_until_idle()
        began, others = time.perf_counter(), Others()
        with tempfile.TemporaryDirectory(prefix="fedjob-bench-", dir=options.folder) as folder:
            section = MEASUREMENTS[name](Path(folder), quick=options.quick)
        section = dataclasses.replace(section, seconds=time.perf_counter() - began, others=others.cores())
        print(f"\n{section.text()}", flush=True)
        sections.append(section)
    if options.json:
        write_json(options.json, machine, sections)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure FederatedJob on this machine; leave it idle meanwhile.")
    parser.add_argument(
        "--only", action="append", choices=list(MEASUREMENTS), help="measure this alone; may be given several times"
    )
    parser.add_argument("--quick", action="store_true", help="fewer repeats and sizes: to try the script, not to quote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all values to FILE")
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="disk to measure on [default: the folder for temporary files]"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
