"""What measurements of recovery have in common: the command line, percentiles, goals, and the file of results."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypedDict

Goals = Mapping[str, float | None]
"""Seconds by measurement; `None` where there is no goal."""
Measure = Callable[[int, int], dict[str, list[float]]]
"""Seconds by measurement; its arguments are how many kills of each kind, and the seed of the moments."""


class Row(TypedDict):
    """One measurement, as it is kept."""

    times: int
    p50Seconds: float
    p95Seconds: float
    goalSeconds: float | None


def percentile(values: list[float], share: float) -> float:
    """The smallest value that so large a share is not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -int(-share * len(ordered) // 1) - 1))]


def rows(found: dict[str, list[float]], goals: Goals) -> dict[str, Row]:
    """p50 and p95 by measurement."""
    return {
        name: Row(
            times=len(values),
            p50Seconds=round(percentile(values, 0.5), 3),
            p95Seconds=round(percentile(values, 0.95), 3),
            goalSeconds=goals[name],
        )
        for name, values in found.items()
    }


def measure_and_report(description: str, measure: Measure, goals: Goals) -> int:
    """Measure as the command line says, print, and add to a file of JSON where asked to.

    Returns:
        1 if a goal is missed, otherwise 0.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--times", type=int, default=20, help="kills of each kind [default: 20]")
    parser.add_argument("--seed", type=int, default=1, help="of the moments [default: 1]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the figures to those in FILE")
    options = parser.parse_args()
    found = rows(measure(options.times, options.seed), goals)
    for name, row in found.items():
        spread = f"p50 {row['p50Seconds']:.2f} s  p95 {row['p95Seconds']:.2f} s"
        print(f"{name:<84} n={row['times']} {spread}  goal {row['goalSeconds']}")
    if options.json:
        others = json.loads(options.json.read_bytes()) if options.json.exists() else {}
        options.json.write_text(json.dumps(others | found, indent=1) + "\n", encoding="utf-8")
    return int(any(row["goalSeconds"] is not None and row["p95Seconds"] > row["goalSeconds"] for row in found.values()))
