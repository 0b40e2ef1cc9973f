"""The tables of ``docs/reliability.md``, from the results of fault runs that are committed beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from generator.markdown import table

PAGE: Final = Path(__file__).resolve().parents[1] / "reliability.md"
RESULTS: Final = PAGE.with_name("results")
PLACES: Final[Mapping[str, str]] = MappingProxyType(
    {"local": "processes of one machine", "api": "a real API server", "e2e": "a kind cluster"}
)
"""Where fault runs take place, as the results name it."""
COUNTS: Final = ("runs", "lost", "repeated", "violations")
BEGIN, END = "<!-- {}: made by `make generate` from docs/results -->", "<!-- end of {} -->"


def reliability() -> str:
    """The page, with its tables up to date; the rest of it is written by hand."""
    text = PAGE.read_text(encoding="utf-8")
    for name, make in (("counts", _counts), ("recovery", _recovery)):
        begin, end = BEGIN.format(name), END.format(name)
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def _counts() -> str:
    results = _read(RESULTS / "faults.json")
    rows = []
    for name, place in PLACES.items():
        classes = results.get(name, {}).get("classes", {})
        rows += [[place, kind, *(str(found[count]) for count in COUNTS)] for kind, found in classes.items()]
        if classes:
            sums = [sum(found[count] for found in classes.values()) for count in COUNTS]
            rows.append([place, "**all**", *(f"**{total}**" for total in sums)])
    return table(("where", "what goes wrong", *COUNTS), rows)


def _recovery() -> str:
    rows = [
        [
            name,
            f"{row['p50Seconds']:.2f} s",
            f"{row['p95Seconds']:.2f} s",
            "" if row["goalSeconds"] is None else f"{row['goalSeconds']:g} s",
            str(row["times"]),
        ]
        for name, row in _read(RESULTS / "recovery.json").items()
    ]
    return table(("what was killed, and what is timed", "p50", "p95", "goal", "times"), rows)


def _read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
