"""The little Markdown that generated pages consist of."""

from collections.abc import Iterable, Sequence
from typing import Final

NOTICE: Final = "<!-- Made from the code by `make generate`: change the code, not this file. -->"
"""First line of every generated page."""


def page(title: str, *blocks: str) -> str:
    """A whole page: notice, title, and blocks with an empty line between them."""
    return "\n\n".join([NOTICE, f"# {title}", *blocks]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; cells may have Markdown in them, and line breaks and bars are made harmless."""
    lines = [_row(header), _row(["---"] * len(header)), *(_row(row) for row in rows)]
    return "\n".join(lines)


def fence(language: str, text: str) -> str:
    """A block of code or of text that is shown as it is."""
    return f"```{language}\n{text.rstrip()}\n```"


def code(text: str) -> str:
    """Text in the font of code."""
    return f"`{text}`"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_cell(cell) for cell in cells) + " |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
