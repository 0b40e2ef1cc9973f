"""How a misoperation is played on a live job: done, told, undone, and the job goes on to the undisturbed model."""

import copy
from dataclasses import dataclass
from typing import Any, Final

from fedjob_protocol.reasons import Reason
from tests.faults.misoperations.schema import Place, placed, removed, text_of
from tests.faults.misoperations.stage import Document, Stage
from tests.support.cluster.access import path
from tests.support.cluster.apiserver import Answer
from tests.support.cluster.cluster import eventually
from tests.support.cluster.jobs import a_steered_job
from tests.support.cluster.steered import hold_file

ABSENT: Final = "taken out"
"""The value of a field that is not there."""
HELD: Final = 2
"""The round that is open, with clients that train, while a job is mistreated."""
ROUNDS: Final = 3
REASONS: Final = frozenset(str(reason) for reason in Reason)
NAME: Final = "j"
CONFLICT: Final = 409
UNPROCESSABLE: Final = 422


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """What somebody does to one field."""

    path: Place
    value: Any
    says: Reason | None = None
    """The reason that the status gives; ``None`` where the edit changes nothing for the round that is open."""
    words: str = ""
    """In the message beside the reason."""

    def __str__(self) -> str:
        shown = repr(self.value)
        return f"{text_of(self.path)} = {shown if len(shown) < 60 else shown[:57] + '...'}"

    def made_in(self, spec: Document) -> Document:
        """The spec with it; a template is laid over the one that is there, which steers the trainer."""
        if self.value is ABSENT:
            changed = removed(spec, self.path)
            return spec if changed is None else changed
        if self.path[-1] != "template":
            return placed(spec, self.path, self.value)
        return placed(spec, self.path, laid_over(value_at(spec, self.path), self.value))


def value_at(spec: Document, path: Place) -> Any:
    """What is at a path; ``None`` where nothing is."""
    value: Any = spec
    for part in path:
        if value is None:
            return None
        value = value.get(part) if isinstance(part, str) else value[part]
    return value


def laid_over(below: Any, above: Any) -> Any:
    """One template over another, entry by entry where entries have names; a null stays, unlike in a merge."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {key: laid_over(below.get(key), above.get(key, below.get(key))) for key in {**below, **above}}
    if isinstance(below, list) and isinstance(above, list) and above:
        named = {entry["name"]: entry for entry in below}
        return [*(laid_over(named.pop(entry["name"], None), entry) for entry in above), *named.values()]
    return above


class Play:
    """One job in a namespace of its own.

    Args:
        stage: Where.
    """

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.cluster = stage.cluster
        self.home, self.folder = stage.home()
        self.transitions: list[str] = []
        """Changes of the spec that the operator acted upon."""
        self._committed = -1

    # The job

    def train(self, **settings: Any) -> None:
        """Create a job that trains, and wait until its second round is open and held."""
        hold_file(self.folder, HELD).touch()
        self.submit(a_steered_job(NAME, self.folder, rounds=ROUNDS, **settings))
        self.until_training()

    def submit(self, manifest: Document) -> None:
        """Create a job."""
        self._committed = -1
        self.transitions.append("created")
        self.cluster.submit(self.home, manifest)

    def spec(self) -> Document:
        """Its spec."""
        return copy.deepcopy(self.cluster.job(self.home, NAME)["spec"])

    def become(self, spec: Document, what: str) -> None:
        """Replace the spec, and wait until the operator has seen it."""
        self.transitions.append(what)
        generation = self.try_to_become(spec).ok()["metadata"]["generation"]
        self.until(lambda status: self.has_seen(status, generation), f"the operator sees: {what}")

    def try_to_become(self, spec: Document, *, pretend: bool = False) -> Answer:
        """Ask the API server for another spec; return its answer."""
        query = "fieldValidation=Strict" + ("&dryRun=All" if pretend else "")
        url = f"{path('federatedjobs', self.home, NAME)}?{query}"

        def answered() -> Answer | None:
            job = self.cluster.job(self.home, NAME)
            job["spec"] = spec
            answer = self.cluster.server.request("PUT", url, job)
            return None if answer.status == CONFLICT else answer  # the operator wrote in between

        return eventually(answered, "an answer about the spec that was read last")

    @staticmethod
    def has_seen(status: Document, generation: int) -> bool:
        """Whether the operator acted upon a generation of the spec."""
        conditions = [status, *status.get("conditions", [])]
        return any(item.get("observedGeneration", 0) >= generation for item in conditions)

    # What is seen

    def status(self) -> Document:
        """Its status, which never says what no operator may say."""
        status = self.cluster.status(self.home, NAME)
        committed = status.get("rounds", {}).get("committed", -1)
        assert committed >= self._committed, f"a committed round is lost: {self._committed}, then {committed}"
        self._committed = committed
        reasons = {item["reason"] for item in [status, *status.get("conditions", [])] if item.get("reason")}
        assert reasons <= REASONS, f"not of the closed list: {reasons - REASONS}"
        return status

    def until(self, look: Any, what: str) -> Document:
        """Wait until the status is as it should."""

        def found() -> Document | None:
            status = self.status()
            return status if look(status) else None

        try:
            return eventually(found, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.cluster.describe(self.home, NAME)}") from None

    def until_told(self, edit: Edit) -> None:
        """Wait until the status gives the reason of an edit, in words that name the cause."""

        def look(status: Document) -> bool:
            told = [status, *status.get("conditions", [])]
            return any(item.get("reason") == edit.says and edit.words in item.get("message", "") for item in told)

        self.until(look, f"{edit} is told as {edit.says} with {edit.words!r}")

    def until_training(self) -> None:
        """Wait until the held round is open."""
        self.until(is_training, "the second round trains")

    def let_go(self) -> None:
        """Let the held round go on."""
        hold_file(self.folder, HELD).unlink(missing_ok=True)

    def finish(self) -> "Outcome":
        """Let the round go on, and wait until the job is complete."""
        self.let_go()
        return Outcome.of(self.until(lambda status: status.get("phase") == "Complete", "the end of the job"))

    # Misoperations

    def mistreat(self, edit: Edit) -> None:
        """Edit the job in the middle of a round, and take it back."""
        before = self.spec()
        self.become(edit.made_in(before), str(edit))
        if edit.says is not None:
            self.until_told(edit)
        else:
            self.until_training()
        self.become(before, f"{edit} taken back")
        self.until_training()

    def mistreat_suspended(self, edit: Edit) -> None:
        """Suspend the job, edit it, resume it, and take that back in the same way."""
        before = self.spec()
        self.suspend()
        self.become({**edit.made_in(before), "suspend": False}, str(edit))
        if edit.says is not None:
            self.until_told(edit)
        else:
            self.until_training()
        self.suspend()
        self.become(before, f"{edit} taken back")
        self.until_training()

    def suspend(self) -> None:
        """Suspend the job, and wait until it is."""
        self.become({**self.spec(), "suspend": True}, "suspended")
        self.until(lambda status: status.get("phase") == "Suspended", "the suspension")

    def mistreat_new(self, manifest: Document, edit: Edit) -> None:
        """Create a job that is no good, then mend it; what cannot be changed is deleted and created again."""
        self.submit({**manifest, "spec": edit.made_in(manifest["spec"])})
        if edit.says is not None:
            self.until_told(edit)
        mended = {**manifest["spec"]}
        answer = self.try_to_become(mended)
        if answer.status == UNPROCESSABLE:
            assert text_of(edit.path[:1]) in answer.message
            self.create_again(mended)
        else:
            answer.ok()
            self.transitions.append(f"{edit} taken back")

    def create_again(self, spec: Document) -> None:
        """Delete the job, and create it with another spec under the same name at once."""
        self.cluster.delete(self.home, NAME)
        eventually(lambda: self.cluster.api.find("federatedjobs", self.home, NAME) is None, "the end of the job")
        document = {"apiVersion": "fedjob.dev/v1alpha1", "kind": "FederatedJob", "metadata": {"name": NAME}}
        self.submit({**document, "spec": spec})


def is_training(status: Document) -> bool:
    """Whether the held round is open and nothing is wrong."""
    current = status.get("currentRound", {})
    is_open = (current.get("number"), current.get("state")) == (HELD, "Open")
    return is_open and (status.get("phase"), status.get("reason")) == ("Running", "RoundInProgress")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a job ended."""

    digest: str
    rounds: tuple[int, ...]

    @classmethod
    def of(cls, status: Document) -> "Outcome":
        """From the status of a complete job."""
        numbers = tuple(entry["number"] for entry in status["recentRounds"])
        return cls(digest=status["model"]["digest"], rounds=numbers)
