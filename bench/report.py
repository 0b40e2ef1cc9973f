"""Measured values as rows and checks, printed as a table and written as JSON."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One measured quantity: a value for each repeat."""

    name: str
    unit: str
    values: tuple[float, ...]
    note: str = ""

    @property
    def median(self) -> float:
        """Median over the repeats."""
        return median(self.values)

    def line(self) -> str:
        """Name, median, range and number of values in one line."""
        spread = f"[{_number(min(self.values))} - {_number(max(self.values))}]"
        text = f"  {self.name:<46} {_number(self.median):>9} {self.unit:<5} {spread:<22} n={len(self.values):<4}"
        return f"{text} {self.note}".rstrip()

    def document(self) -> dict[str, Any]:
        """The row for JSON."""
        return {**asdict(self), "median": self.median, "min": min(self.values), "max": max(self.values)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A goal beside what was reached."""

    name: str
    value: float
    unit: str
    goal: float
    at_most: bool = True
    """Whether the goal is the largest value allowed, else the smallest."""

    @property
    def is_met(self) -> bool:
        """Whether the goal is reached."""
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def line(self) -> str:
        """The goal and what was reached, in one line."""
        sign, verdict = ("<=" if self.at_most else ">="), ("met" if self.is_met else "NOT MET")
        return f"  {self.name:<46} {_number(self.value):>9} {self.unit:<5} {sign} {_number(self.goal)}: {verdict}"

    def document(self) -> dict[str, Any]:
        """The check for JSON."""
        return {**asdict(self), "is_met": self.is_met}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What one measurement found."""

    name: str
    title: str
    rows: tuple[Row, ...]
    checks: tuple[Check, ...] = ()
    seconds: float = 0.0
    """How long the measurement took."""
    others: float = 0.0
    """Cores that others used meanwhile, on average: with more than about 0.2 the figures are not to be quoted."""

    def text(self) -> str:
        """The section as people read it."""
        head = f"{self.title}  ({self.seconds:.0f} s, others used {self.others:.2f} cores)"
        return "\n".join([head, *(row.line() for row in self.rows), *(check.line() for check in self.checks)])

    def document(self) -> dict[str, Any]:
        """The section for JSON."""
        return {
            "name": self.name,
            "title": self.title,
            "seconds": self.seconds,
            "othersCores": self.others,
            "rows": [row.document() for row in self.rows],
            "checks": [check.document() for check in self.checks],
        }


def write_json(path: Path, machine: dict[str, str], sections: list[Section]) -> None:
    """Write everything that was measured."""
    document = {"machine": machine, "sections": [section.document() for section in sections]}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
