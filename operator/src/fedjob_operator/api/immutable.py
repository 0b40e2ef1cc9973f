"""What of a spec may be changed, and when: everything else is fixed once the job is there.

`fedjob run --resume` asks this before it goes on with a manifest that was edited; the CRD states the same in CEL.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

from fedjob_operator.api.base import dump
from fedjob_operator.api.problems import Problem, path_of, show
from fedjob_operator.api.resolve import group_capacity
from fedjob_operator.api.spec import FederatedJobSpec
from fedjob_operator.api.status import LayoutEntry

ALWAYS: Final = re.compile(
    r"spec\.(?:suspend|rounds|stop|serve|activeDeadlineSeconds|startupDeadlineSeconds|ttlSecondsAfterFinished"
    r"|roundPolicy\.deadlineSeconds|evaluation\.deadlineSeconds|clientGroups\[\d+\]\.replicas)"
)
"""Fields that may be changed at any time, within limits."""
WHILE_SUSPENDED: Final = re.compile(
    r"spec\.(?:clientGroups\[\d+\]\.(?:gpus|image|template)|evaluation\.(?:gpus|template)|aggregator\.template)"
)
"""Fields that may be changed while the job is suspended: they describe pods, and there are none then."""
_ABSENT: Final = object()


def immutable_changes(
    old: FederatedJobSpec,
    new: FederatedJobSpec,
    *,
    committed: int = -1,
    complete: bool = False,
    layout: Sequence[LayoutEntry] = (),
) -> list[Problem]:
    """Return the changes that are not allowed, in the order of a manifest; empty if the new spec may be used.

    Args:
        old: The spec as it was; if it is suspended, what describes pods may be changed.
        new: The spec as it shall be.
        committed: Number of the last committed round; -1 where there is none.
        complete: Whether the job is complete.
        layout: The job's layout once it is fixed; it limits replicas where maxReplicas is not given.
    """
    problems = list(_changes(["spec"], dump(old), dump(new), suspended=old.suspend))
    problems += _rounds(old, new, committed=committed, complete=complete)
    problems += _replicas(old, new, layout)
    return problems


def _changes(location: list[int | str], old: Any, new: Any, *, suspended: bool) -> Iterator[Problem]:
    path = path_of(location)
    if old == new or ALWAYS.fullmatch(path) or (suspended and WHILE_SUSPENDED.fullmatch(path)):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            yield from _changes([*location, name], old.get(name, _ABSENT), new.get(name, _ABSENT), suspended=suspended)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (before, after) in enumerate(zip(old, new, strict=True)):
            yield from _changes([*location, index], before, after, suspended=suspended)
    else:
        hint = " unless the job is suspended" if WHILE_SUSPENDED.match(path) else ""
        yield Problem(path, f"cannot be changed{hint} ({_words(old)} before, {_words(new)} now)")


def _words(value: object) -> str:
    if isinstance(value, list):
        return f"{len(value)} entries"
    return "not given" if value is _ABSENT else show(value)


def _rounds(old: FederatedJobSpec, new: FederatedJobSpec, *, committed: int, complete: bool) -> Iterator[Problem]:
    if new.rounds < committed:
        yield Problem("spec.rounds", f"{new.rounds} is less than the rounds that are committed ({committed})")
    if complete and new.rounds > old.rounds:
        yield Problem("spec.rounds", f"cannot be raised to {new.rounds}: the job is complete")


def _replicas(old: FederatedJobSpec, new: FederatedJobSpec, layout: Sequence[LayoutEntry]) -> Iterator[Problem]:
    """Data are divided for as many clients as the layout has: more would have none."""
    limits = {group.name: group_capacity(group) for group in old.client_groups}
    limits |= {entry.group: entry.count for entry in layout}
    for index, group in enumerate(new.client_groups):
        limit = limits.get(group.name)
        if limit is not None and (group.replicas or 0) > limit:
            yield Problem(
                f"spec.clientGroups[{index}].replicas", f"{group.replicas} is more than maxReplicas ({limit})"
            )
