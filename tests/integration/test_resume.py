"""Whatever is killed, at any moment: the job goes on from the last committed round, and ends in the same model."""

import os
import random
import signal
import subprocess
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support.runs import (
    RUN_SECONDS,
    Folder,
    LiveRun,
    assert_gone,
    environment,
    fedjob,
    live_run,
    manifest,
    write_manifest,
)

KILL_POINTS = int(os.environ.get("FEDJOB_KILL_POINTS", "20"))
"""Over both jobs that average; a further chain of kills is begun for each five."""
KILLS_PER_CHAIN = 5
ROUNDS = 10
SECONDS_PER_ROUND = 0.1
"""About; a kill comes up to this long after its trigger."""
PATIENT = {"backoffLimit": 1000}
"""Clients are replaced as often as the tests kill them."""
TRAINING = {"epochs": 40, "batchSize": 8, "learningRate": 0.05}
DATA = {"name": "digits", "partition": {"scheme": "Dirichlet", "alpha": 0.5}}
JOBS = {
    "three-of-six": manifest(
        "three-of-six",
        rounds=ROUNDS,
        seed=11,
        model={"name": "softmax"},
        data=DATA,
        training=TRAINING,
        roundPolicy={"clientsPerRound": 3},
        clientGroups=[{"name": "clients", "replicas": 6, **PATIENT}],
        evaluation={"modes": []},
    ),
    "all-of-four": manifest(
        "all-of-four",
        rounds=ROUNDS,
        seed=12,
        model={"name": "softmax"},
        data=DATA,
        training=TRAINING,
        roundPolicy={"overSelect": 0},
        clientGroups=[{"name": "clients", "replicas": 4, **PATIENT}],
    ),
    "server-adam": manifest(
        "server-adam",
        rounds=ROUNDS,
        seed=13,
        model={"name": "softmax"},
        data=DATA,
        training=TRAINING,
        strategy={"name": "FedAdam"},
        clientGroups=[{"name": "clients", "replicas": 3, **PATIENT}],
        evaluation={"modes": []},
    ),
}
"""One that selects among its clients and does not evaluate, one that needs all of them and evaluates, one whose
aggregator remembers something."""

ENDLESS = manifest(
    "endless",
    rounds=1_000_000,
    model={"name": "linear"},
    data={"name": "synthetic-linear"},
    clientGroups=[{"name": "clients", "replicas": 1}],
    evaluation={"modes": []},
)


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill: when, and whom."""

    event: str
    """What `count` counts: ``write`` (of the status since this process started it) or ``commit`` (of a round)."""
    count: int
    delay: float
    """Seconds after the trigger."""
    target: str
    """``parent``, ``aggregator``, ``client`` or ``several``."""
    draw: int
    """Seed of the choice among several processes."""


def kills_of_chain(chain: int, job: str) -> deque[Kill]:
    """Draw five kills, two of them of the parent: spread over the rounds, and some while the programs start."""
    source = random.Random(f"{job}/{chain}")
    targets = ["parent", "parent", "aggregator", "client", "several"]
    source.shuffle(targets)
    commits = sorted(source.randrange(ROUNDS - 1) for _ in targets)
    kills: deque[Kill] = deque()
    for target, commit in zip(targets, commits, strict=True):
        starts = not kills or kills[-1].target == "parent"
        early = starts and source.random() < 0.5
        event, count = ("write", source.randrange(1, 9)) if early else ("commit", commit)
        kills.append(Kill(event, count, source.uniform(0, SECONDS_PER_ROUND), target, source.randrange(2**32)))
    return kills


AVERAGING = [job for job in JOBS if job != "server-adam"]
CHAINS = [(job, chain) for chain in range(-(-KILL_POINTS // (KILLS_PER_CHAIN * len(AVERAGING)))) for job in AVERAGING]
CHAINS.append(("server-adam", 0))


class Undisturbed(dict[str, list[str]]):
    """Digest of each round of a job when nothing is killed; each job is run when it is first asked for."""

    def __init__(self, make_folder: Callable[[str], Path]) -> None:
        super().__init__()
        self._make_folder = make_folder

    def __missing__(self, name: str) -> list[str]:
        """Run the job."""
        folder = self._make_folder(name)
        done = fedjob("run", write_manifest(folder, JOBS[name]), "--dir", folder / "run", cwd=folder)
        assert done.returncode == 0, done.stdout + done.stderr
        self[name] = Folder(folder / "run").digests()
        assert len(self[name]) == ROUNDS + 1
        return self[name]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Runs without kills."""
    return Undisturbed(tmp_path_factory.mktemp)


def await_trigger(run: LiveRun, kill: Kill, writes_before: int) -> None:
    """Wait for the moment of a kill, and until there is somebody to kill."""
    folder = run.folder
    if kill.event == "write":
        run.wait_until(lambda: folder.writes() >= writes_before + kill.count, f"status write {kill.count}")
    else:
        run.wait_until(lambda: folder.committed() >= kill.count, f"the commit of round {kill.count}")
    if kill.target != "parent":
        run.wait_until(lambda: any(map(is_target(kill), run.programs())), f"a process to kill: {kill.target}")
    with pytest.raises(subprocess.TimeoutExpired):  # else the job was over before the kill
        run.process.wait(kill.delay)


def is_target(kill: Kill):
    """Whether a program may be killed, by its name."""
    if kill.target == "several":
        return lambda name: True
    return lambda name: name.startswith(kill.target)


def strike(run: LiveRun, kill: Kill) -> list[psutil.Process]:
    """Kill, and return all children that the run had."""
    children, programs = run.children(), run.programs()
    if kill.target == "parent":
        run.signal(signal.SIGKILL)
        run.process.wait()
        return children
    victims = sorted(filter(is_target(kill), programs))
    for name in random.Random(kill.draw).sample(victims, k=min(len(victims), 3 if kill.target == "several" else 1)):
        programs[name].kill()
    return children


def disturb(run: LiveRun, kills: deque[Kill], writes_before: int) -> list[psutil.Process] | None:
    """Kill until the parent is among the killed; return its orphans, or nothing when no kill is left."""
    while kills:
        kill = kills.popleft()
        await_trigger(run, kill, writes_before)
        children = strike(run, kill)
        if kill.target == "parent":
            return children
    return None


@pytest.mark.parametrize(("job", "chain"), CHAINS)
def test_a_killed_job_ends_in_the_model_of_an_undisturbed_one(
    job: str, chain: int, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    file, folder = write_manifest(tmp_path, JOBS[job]), tmp_path / "run"
    kills = kills_of_chain(chain, job)
    orphans: list[psutil.Process] | None = []
    arguments: tuple[str, ...] = ()
    while orphans is not None:
        writes_before = Folder(folder).writes()
        with live_run(file, folder, *arguments) as run:  # at once, while the orphans may still be there
            assert_gone(orphans)
            orphans = disturb(run, kills, writes_before)
            if orphans is None:
                assert run.finish() == 0, run.output
        arguments = ("--resume",)
    assert [record.round for record in Folder(folder).rounds()] == list(range(ROUNDS + 1))
    assert Folder(folder).digests() == undisturbed[job]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_job_leaves_no_process_and_goes_on_as_it_says(
    number: signal.Signals, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    file, folder = write_manifest(tmp_path, JOBS["all-of-four"]), tmp_path / "run"
    with live_run(file, folder) as run:
        run.wait_until(lambda: run.folder.committed() >= 2, "two committed rounds")
        children = run.children()
        run.signal(number)
        assert run.finish() == 130
        assert_gone(children)
        (advice,) = [line for line in run.output.splitlines() if "go on with: " in line]
    again = subprocess.run(
        advice.partition("go on with: ")[2],
        shell=True,
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert again.returncode == 0, again.stdout + again.stderr
    assert "note:" not in again.stdout, "of fields that the manifest does not have"
    assert Folder(folder).digests() == undisturbed["all-of-four"]


def test_a_second_run_in_the_same_folder_is_refused_and_the_first_is_not_disturbed(tmp_path: Path) -> None:
    file, folder = write_manifest(tmp_path, ENDLESS), tmp_path / "run"
    with live_run(file, folder) as run:
        run.wait_until(lambda: run.folder.committed() >= 1, "a committed round")
        with live_run(file, folder) as anew, live_run(file, folder, "--resume") as resumed:
            assert (anew.finish(), resumed.finish()) == (2, 2)
        assert str(folder) in anew.output
        assert "--resume" in anew.output
        assert "in use by another" in resumed.output
        before = run.folder.committed()
        run.wait_until(lambda: run.folder.committed() > before, "another committed round")
