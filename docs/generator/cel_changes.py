"""What of a job may be changed, in CEL: the twin of `fedjob_operator.api.immutable`, made from the schema itself.

A rule compares one field, so that the error names it. It stands at the object that holds the field: a rule on the field
itself is not asked when the field appears or disappears.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

from fedjob_operator.api.immutable import ALWAYS, WHILE_SUSPENDED
from generator.cel import FORBIDDEN, Validation, same

Schema: TypeAlias = Mapping[str, Any]

_GROUPS: Final = "spec.clientGroups"
_COMPLETE: Final = (
    "has(self.status) && has(self.status.conditions) && "
    "self.status.conditions.exists(c, c.type == 'Complete' && c.status == 'True')"
)
_COMMITTED: Final = "has(self.status) && has(self.status.rounds) && has(self.status.rounds.committed)"
_ENTRIES: Final = "has(self.status) && has(self.status.layout) ? self.status.layout.filter(e, e.group == g.name) : []"


def fixed_fields(schema: Schema, path: str, *, key: str | None = None) -> Iterator[Validation]:
    """Yield the rules on the fields of one object that may never be changed.

    Args:
        schema: Structural schema of the object; the objects in it get rules of their own.
        path: Where it is in a manifest, such as ``spec.clientGroups[0].data``.
        key: The field by which the object is found in its list: what is compared has the same one.
    """
    if _may_change(path):
        return
    for name, field in schema["properties"].items():
        if name == key or _may_change(f"{path}.{name}"):
            continue
        rule = _fixed(field, name, is_optional=_is_optional(schema, name))
        if rule:
            yield Validation(rule=rule, message="cannot be changed", field=f".{name}", reason=FORBIDDEN)


def _may_change(path: str) -> bool:
    """Whether a field, or an object that it is in, may be changed at any time or while the job is suspended."""
    names = path.split(".")
    above = (".".join(names[:length]) for length in range(1, len(names) + 1))
    return any(ALWAYS.fullmatch(place) or WHILE_SUSPENDED.fullmatch(place) for place in above)


def _fixed(field: Schema, name: str, *, is_optional: bool) -> str:
    """A rule that a field is as it was; empty where rules further down say it all."""
    new, old = f"self.{name}", f"oldSelf.{name}"
    if field.get("x-kubernetes-list-type") == "map":
        (key,) = field["x-kubernetes-list-map-keys"]
        return f"{new}.map(item, item.{key}) == {old}.map(item, item.{key})"
    if "properties" in field and "x-kubernetes-preserve-unknown-fields" not in field:
        return f"has({new}) == has({old})" if is_optional else ""
    return same(new, old, is_optional=is_optional)


def _is_optional(schema: Schema, name: str) -> bool:
    return name not in schema.get("required", ()) and "default" not in schema["properties"][name]


def fixed_unless_suspended(spec: Schema) -> Iterator[Validation]:
    """Yield the rules, on the spec, on what describes pods: it may be changed while there are none."""
    for section, name, is_optional in _pod_fields(spec, "spec"):
        below = section.removeprefix("spec.")
        if section.startswith(_GROUPS):
            unchanged = same(f"g.{name}", f"old.{name}", is_optional=is_optional)
            rule = f"self.clientGroups.all(g, oldSelf.clientGroups.all(old, old.name != g.name || ({unchanged})))"
            place, words = ".clientGroups", f"{name} of a group cannot be changed"
        else:
            rule = same(f"self.{below}.{name}", f"oldSelf.{below}.{name}", is_optional=is_optional)
            place, words = f".{below}.{name}", "cannot be changed"
        yield Validation(
            rule=f"oldSelf.suspend || ({rule})",
            message=f"{words} unless the job is suspended",
            field=place,
            reason=FORBIDDEN,
        )


def _pod_fields(schema: Schema, path: str) -> Iterator[tuple[str, str, bool]]:
    for name, field in schema["properties"].items():
        if WHILE_SUSPENDED.fullmatch(f"{path}.{name}"):
            yield path, name, _is_optional(schema, name)
        elif "properties" in field:
            yield from _pod_fields(field, f"{path}.{name}")
        elif "properties" in field.get("items", {}):
            yield from _pod_fields(field["items"], f"{path}.{name}[0]")


_LIMIT: Final = (
    "oldSelf.spec.clientGroups.all(old, old.name != g.name || (has(old.replicas) && g.replicas <= old.replicas) || "
    "(has(old.maxReplicas) && g.replicas <= old.maxReplicas))"
)

LIMITS: Final = (
    # A status says what is so: it must never be refused because of a spec. So unchanged values always pass.
    Validation(
        rule=f"self.spec.rounds == oldSelf.spec.rounds || !({_COMMITTED}) || "
        "self.spec.rounds >= self.status.rounds.committed",
        message="is less than the rounds that are committed",
        field=".spec.rounds",
    ),
    Validation(
        rule=f"self.spec.rounds <= oldSelf.spec.rounds || !({_COMPLETE})",
        message="cannot be raised: the job is complete",
        field=".spec.rounds",
        reason=FORBIDDEN,
    ),
    Validation(
        rule="self.spec.clientGroups.all(g, !has(g.replicas) || "
        "oldSelf.spec.clientGroups.exists(old, old.name == g.name && has(old.replicas) && old.replicas == g.replicas) "
        f"|| (({_ENTRIES}).size() > 0 ? ({_ENTRIES}).all(e, g.replicas <= e.count) : {_LIMIT}))",
        message="replicas of a group is more than its maxReplicas, or its first replicas",
        field=".spec.clientGroups",
    ),
)
"""Rules, on the whole object, on what may be changed within limits."""
