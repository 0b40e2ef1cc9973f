"""What fault runs share: a zygote, undisturbed runs, the judge, the count, and the choice of a subset."""

import hashlib
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.allowances import ALLOWANCES
from tests.faults.evidence import Evidence
from tests.faults.oracles import violations
from tests.faults.report import as_property, judged
from tests.support.faults.local import Job, Outcome, run
from tests.support.faults.spawn import Zygote, zygote

SUBSET_SHARE = 6
"""With ``--subset`` one of so many calls is struck, in each class of faults at least one."""

Judge = Callable[..., None]
Undisturbed = Callable[[Job], Outcome]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep of the tests that strike the n-th call of something a part, always the same one, and all others."""
    if not config.getoption("--subset"):
        return
    groups: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        arguments = getattr(getattr(item, "callspec", None), "params", {})
        others = {name: str(value) for name, value in arguments.items() if name != "nth"}
        groups[f"{item.location[0]} {item.location[2].partition('[')[0]} {others}"].append(item)
    kept = {item for name, group in groups.items() for item in _sample(name, group)}
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]


def _sample(name: str, group: list[pytest.Item]) -> list[pytest.Item]:
    """Every so manieth; where it begins depends on the name alone."""
    first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % min(SUBSET_SHARE, len(group))
    return group[first::SUBSET_SHARE]


@pytest.fixture(scope="session")
def programs() -> Iterator[Zygote]:
    """Who starts programs."""
    folder = Path(tempfile.mkdtemp(prefix="fedjob-"))  # short: the path of a socket has a limit
    with zygote(folder / "zygote") as running:
        yield running
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def undisturbed(programs: Zygote, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """A job's run without faults; each job is run once."""
    outcomes: dict[str, Outcome] = {}

    def outcome_of(job: Job) -> Outcome:
        name = repr(job)
        if name not in outcomes:
            outcomes[name] = run(programs, tmp_path_factory.mktemp("undisturbed") / "calm", job)
            assert outcomes[name].exit == 0, outcomes[name].output
        return outcomes[name]

    return outcome_of


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Judge:
    """Ask all oracles about a run with a fault, and count it."""

    def ask(fault_class: str, before: Evidence, after: Evidence, *, happened: bool = True, output: str = "") -> None:
        told = violations(before, after, ALLOWANCES[fault_class])
        counted = judged(fault_class, before, after, told, happened=happened)
        request.node.user_properties.append(as_property(counted))
        assert not told, "\n".join([*told, output])

    return ask
