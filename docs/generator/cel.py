"""The validation rules that the API server runs: how one is written down, and the few idioms they are made of.

A rule is a CEL expression on an object of the schema (``self``, and ``oldSelf`` for what it was before a change).
"""

from dataclasses import dataclass
from typing import Any, Final

INVALID: Final = "FieldValueInvalid"
REQUIRED: Final = "FieldValueRequired"
FORBIDDEN: Final = "FieldValueForbidden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """One entry of ``x-kubernetes-validations``."""

    rule: str
    """CEL expression that is true where all is well."""
    message: str
    """What is wrong otherwise: the rest of a line that begins with the field's path."""
    field: str = ""
    """The field that the error names, relative to the object of the rule: ``.roundPolicy.minReports``."""
    reason: str = INVALID
    """Kind of the error: one of the constants above."""

    def entry(self) -> dict[str, Any]:
        """The entry as it is in a CRD."""
        place = {"fieldPath": self.field} if self.field else {}
        return {"rule": self.rule, "message": self.message, "reason": self.reason, **place}


def let(name: str, value: str, body: str) -> str:
    """Give a value a name in an expression: CEL has no variables, but a list of one value has one element."""
    return f"[{value}].all({name}, {body})"


def exactly_one(names: tuple[str, ...]) -> str:
    """True where one of the optional fields is there and the others are not."""
    return f"[{', '.join(f'has(self.{name})' for name in names)}].exists_one(given, given)"


def same(new: str, old: str, *, is_optional: bool) -> str:
    """True where a field is as it was.

    Args:
        new: The field now, such as ``self.data``.
        old: The field before.
        is_optional: Whether it may be absent. Then a comparison alone would let its removal slip through.
    """
    if not is_optional:
        return f"{new} == {old}"
    return f"has({new}) == has({old}) && (!has({new}) || {new} == {old})"
