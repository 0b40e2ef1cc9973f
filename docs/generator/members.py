"""Reads the docstrings below the members of an enumeration, which Python itself does not keep."""

import ast
import inspect
import textwrap
from enum import Enum


def member_docs(enumeration: type[Enum]) -> dict[str, str]:
    """Return the docstring of each member that has one, by the member's name."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(enumeration)))
    definition = tree.body[0]
    assert isinstance(definition, ast.ClassDef)
    docs: dict[str, str] = {}
    for statement, following in zip(definition.body, definition.body[1:], strict=False):
        if (
            isinstance(statement, ast.Assign)
            and isinstance(statement.targets[0], ast.Name)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
            and isinstance(following.value.value, str)
        ):
            docs[statement.targets[0].id] = plain(following.value.value)
    return docs


def plain(docstring: str) -> str:
    """A docstring as one line of Markdown: double backquotes become single ones."""
    return " ".join(docstring.split()).replace("``", "`")
