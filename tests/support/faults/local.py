"""Runs of small jobs on this machine, with faults, and what they leave behind as evidence."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from safetensors.numpy import load_file

from fedjob_protocol.layout import ROUND_LOG_NAME, checkpoint_name, state_name
from fedjob_protocol.messages import RoundRecord
from tests.faults.evidence import Evidence, StatusSeen
from tests.support.faults.points import Fault, environment_of
from tests.support.faults.spawn import Process, Spawned, Zygote, environment_of_run
from tests.support.runs import Folder, manifest, wait_until, write_manifest

TRAINER: Final = "steady:Steady"
RUN_SECONDS: Final = 90.0
"""Deadline of a run, generous: the machine may be busy."""
DEATH_SECONDS: Final = 10.0
"""Programs are gone this long after `fedjob run` at the latest."""
MOST_RESUMES: Final = 20
WEIGHTS_SEARCHED: Final = 16
"""So many values of each tensor are looked for in logs."""
SHORTEST_WEIGHT: Final = 8
"""Shorter printed forms may be any number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A small job."""

    name: str
    spec: Mapping[str, Any]

    @property
    def document(self) -> dict[str, Any]:
        """Its manifest."""
        return manifest(self.name, **self.spec)

    def having(self, **fields: Any) -> "Job":
        """With other fields of the spec."""
        return Job(name=self.name, spec={**self.spec, **fields})

    def slow(self, seconds: float) -> "Job":
        """With trainings that take at least so long; the model is the same."""
        return self.having(training={**self.spec["training"], "parameters": {"seconds": seconds}})

    def group(self, **fields: Any) -> "Job":
        """With other fields of the one group of clients."""
        (group,) = self.spec["clientGroups"]
        return self.having(clientGroups=[{**group, **fields}])

    def policy(self, **fields: Any) -> "Job":
        """With other fields of the round policy."""
        return self.having(roundPolicy={**self.spec["roundPolicy"], **fields})


def job(name: str, *, clients: int, rounds: int, backoff_limit: int = 20, bulk: int = 0, **fields: Any) -> Job:
    """A job of the steady trainer; no evaluation unless ``fields`` say so."""
    spec = {
        "rounds": rounds,
        "seed": 7,
        "model": {"name": "steady", "parameters": {"bulk": bulk}},
        "training": {"learningRate": 0.05},
        "roundPolicy": {"deadlineSeconds": 60},
        "clientGroups": [
            {"name": "clients", "replicas": clients, "trainer": TRAINER, "backoffLimit": backoff_limit},
        ],
        "evaluation": {"modes": []},
    }
    return Job(name=name, spec={**spec, **fields})


def prepare(root: Path, what: Job) -> Path:
    """Make a folder with the manifest of a job and its trainer; return the manifest."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(__file__).with_name("steady.py"), root)
    return write_manifest(root, what.document)


class LiveJob:
    """A job that is being run, resumed as often as `fedjob run` is killed.

    Args:
        zygote: Who starts programs.
        root: Folder of the test.
        what: The job.
        faults: What goes wrong.
        between: What is done to its folder before it is resumed.
    """

    def __init__(
        self,
        zygote: Zygote,
        root: Path,
        what: Job,
        faults: tuple[Fault, ...] = (),
        between: Callable[["LiveJob"], None] = lambda _: None,
    ) -> None:
        self.root = root
        self.folder = Folder(root / "run")
        self.resumes = 0
        self._zygote = zygote
        self._run = f"{root}"
        self._file = prepare(root, what)
        self._environment = environment_of_run(self._run, **environment_of(faults, root))
        self._faults = faults
        self._between = between
        self._process = self._start()

    @property
    def output(self) -> str:
        """What `fedjob run` printed, over all its processes."""
        return (self.root / "output").read_text(encoding="utf-8")

    def processes(self) -> list[Process]:
        """All processes of the run, dead and alive, in the order in which they began."""
        return self._zygote.processes(self._run)

    def living(self, *names: str) -> list[Process]:
        """Those that live, of these names or of all."""
        return [process for process in self.processes() if process.is_alive and (not names or process.name in names)]

    def happened(self) -> int:
        """How many faults happened so far."""
        files = [self.root / f"fuse-{number}" for number in range(len(self._faults))]
        return sum(file.stat().st_size for file in files if file.exists())

    def calls(self) -> list[dict[str, Any]]:
        """What the programs noted."""
        return _lines(self.root / "calls")

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Wait for something that happens while it runs."""
        wait_until(lambda: condition() or self._process.poll() is not None, what)
        assert condition(), f"the run ended before: {what}; it printed:\n{self.output}"

    def hold(self, client: int, round_number: int) -> Path:
        """Keep a client from finishing a round until the returned file is removed."""
        file = self.root / f"hold-{client}-{round_number}"
        file.touch()
        return file

    def kill(self) -> None:
        """Kill `fedjob run` itself."""
        self._process.kill()

    def until_gone(self) -> None:
        """Wait until all its programs have ended."""
        wait_until(lambda: not self.living(), "the end of all programs", DEATH_SECONDS)

    def finish(self) -> int:
        """Resume as often as it was killed; return the exit code of the one that came to its end."""
        deadline = time.monotonic() + RUN_SECONDS
        while True:
            try:
                code = self._process.wait(deadline - time.monotonic())
            except TimeoutError:
                raise AssertionError(f"no end within {RUN_SECONDS:g} s; it printed:\n{self.output}") from None
            if code >= 0:
                return code
            self.resumes += 1
            assert self.resumes <= MOST_RESUMES, f"killed {self.resumes} times; it printed:\n{self.output}"
            self._between(self)
            self._process = self._start()

    def stop(self) -> None:
        """End everything, however the test ends."""
        for process in self.living():
            process.signal(9)
        self._process.kill()

    def _start(self) -> Spawned:
        resume = ["--resume"] if (self.root / "run" / "job.json").exists() else []
        return self._zygote.start(
            "fedjob",
            ["run", str(self._file), "--dir", str(self.root / "run"), *resume],
            environment=self._environment,
            folder=self.root,
            output=self.root / "output",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    root: Path
    """Folder of the test."""
    evidence: Evidence
    happened: int
    """How many faults happened."""
    exit: int
    output: str
    calls: list[dict[str, Any]] = field(repr=False)

    def count(self, point: str, program: str = "fedjob") -> int:
        """How often a point of a program was called."""
        return sum((call["point"], call["program"]) == (point, program) for call in self.calls)

    def answers(self, point: str) -> list[str | None]:
        """Machine words of the answers to uploads that were made wrongly; ``None`` for a success."""
        return [call["word"] for call in self.calls if call["point"] == point]


def run(
    zygote: Zygote,
    root: Path,
    what: Job,
    *faults: Fault,
    meanwhile: Callable[[LiveJob], None] = lambda _: None,
    between: Callable[[LiveJob], None] = lambda _: None,
) -> Outcome:
    """Run a job to its end.

    Args:
        zygote: Who starts programs.
        root: Folder of the test.
        what: The job.
        faults: What goes wrong inside its programs.
        meanwhile: What is done to them from outside, while the job runs.
        between: What is done to the folder before the job is resumed.
    """
    live = LiveJob(zygote, root, what, faults, between)
    try:
        meanwhile(live)
        code = live.finish()
        live.until_gone()
        return Outcome(
            root=root,
            evidence=gather(live),
            happened=live.happened(),
            exit=code,
            output=live.output,
            calls=live.calls(),
        )
    finally:
        live.stop()


def gather(live: LiveJob) -> Evidence:
    """Read what a finished run left behind."""
    folder, calls, processes = live.folder, live.calls(), live.processes()
    rounds = tuple(_rounds(folder.path / "aggregator" / ROUND_LOG_NAME))
    trainings = _lines(live.root / "trainings")
    committed = {record.round: record.committed_at.timestamp() for record in rounds}
    offset = time.time() - time.monotonic()
    ends = {process.pid: process.ended + offset for process in processes if process.died and process.ended is not None}
    never = float("inf")
    return Evidence(
        status=folder.status(),
        history=tuple(
            StatusSeen(call["term"], call["committed"], call["size"]) for call in calls if call["point"] == "status"
        ),
        rounds=rounds,
        trainings=Counter((note["client"], note["round"]) for note in trainings),
        died=Counter(
            (note["client"], note["round"])
            for note in trainings
            if ends.get(note["pid"], never) < committed.get(note["round"], never)
        ),
        writes=folder.writes(),
        leftovers=(
            *(f"process {process.pid} ({process.name})" for process in live.living()),
            *stray_files(folder.path),
        ),
        texts={path.name: path.read_text(encoding="utf-8", errors="replace") for path in _texts(live)},
        secrets=dict(chain(_tokens(calls), _weights(folder.path / "aggregator"))),
    )


def _rounds(log: Path) -> Iterator[RoundRecord]:
    """Records up to the first that cannot be read: a fault may have damaged the log."""
    for line in log.read_bytes().splitlines() if log.exists() else ():
        try:
            yield RoundRecord.model_validate_json(line)
        except ValidationError:
            return


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _texts(live: LiveJob) -> list[Path]:
    return [live.root / "output", *sorted((live.folder.path / "logs").glob("*.log"))]


def stray_files(folder: Path) -> list[str]:
    """Temporary files, and checkpoints that nobody refers to."""
    aggregator = folder / "aggregator"
    found = [*folder.rglob("*.tmp"), *folder.rglob("*.new"), *_forgotten(aggregator)]
    return [str(path.relative_to(folder)) for path in found]


def _forgotten(aggregator: Path) -> list[Path]:
    try:
        content = json.loads((aggregator / "manifest.json").read_bytes())
    except (FileNotFoundError, ValueError):  # a fault may have damaged it; then nobody knows
        return []
    kept = {content[name]["round"] for name in ("committed", "previous", "best") if content.get(name)}
    names = {Path(name(number)).name for number in kept for name in (checkpoint_name, state_name)}
    return [path for path in (aggregator / "checkpoints").iterdir() if path.name not in names]


def _tokens(calls: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    tokens = [call["token"] for call in calls if call["point"] == "token"]
    for number, token in enumerate(tokens):
        yield f"token {number}", token


def _weights(aggregator: Path) -> Iterator[tuple[str, str]]:
    """Weights of the checkpoints that are there, as Python prints them and as hexadecimal bytes."""
    for path in sorted(aggregator.glob("checkpoints/round-*.safetensors")):
        try:
            tensors = load_file(path)
        except Exception:  # noqa: BLE001 - a fault may have damaged it; then it holds no weights
            continue
        for name, tensor in tensors.items():
            where = f"{name} of {path.stem}"
            yield f"bytes of {where}", tensor.tobytes()[:SHORTEST_WEIGHT].hex()
            for value in tensor.flat[:WEIGHTS_SEARCHED]:
                for form in {str(value), str(float(value))}:
                    if len(form) >= SHORTEST_WEIGHT:
                        yield f"{form[:4]}… of {where}", form
