"""A cluster as its users see it: kubectl, documents, and waiting for what they say."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

RESOURCE = "federatedjobs.fedjob.dev"
"""In full: others use the bare kind name."""
LOOK_SECONDS = 0.25
COMMAND_SECONDS = 120.0

Document = dict[str, Any]


class CommandError(AssertionError):
    """A command failed; its output is in the message."""


def command(*arguments: object, text: str | None = None, seconds: float = COMMAND_SECONDS, **settings: Any) -> str:
    """Run a command and return its standard output.

    Raises:
        CommandError: It ended with another code than 0.
        subprocess.TimeoutExpired: It took longer than `seconds`.
    """
    words = [str(argument) for argument in arguments]
    done = subprocess.run(words, input=text, capture_output=True, text=True, timeout=seconds, check=False, **settings)
    if done.returncode != 0:
        raise CommandError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Kubectl in one namespace of one cluster."""

    namespace: str = "default"
    kubeconfig: str | None = None
    """``None``: the user's own."""

    def within(self, namespace: str) -> Self:
        """Return the same in another namespace."""
        return replace(self, namespace=namespace)

    def __call__(self, *arguments: object, text: str | None = None, seconds: float = COMMAND_SECONDS) -> str:
        """Run kubectl; return its standard output."""
        environment = {**os.environ, **({"KUBECONFIG": self.kubeconfig} if self.kubeconfig else {})}
        return command(
            "kubectl", "--namespace", self.namespace, *arguments, text=text, seconds=seconds, env=environment
        )

    def apply(self, document: Mapping[str, Any]) -> None:
        """Apply one object."""
        self("apply", "-f", "-", text=json.dumps(document))

    def get(self, kind: str, name: str) -> Document:
        """Read one object."""
        found: Document = json.loads(self("get", kind, name, "-o", "json"))
        return found

    def list(self, kind: str, selector: str = "") -> list[Document]:
        """Read all objects of a kind."""
        items: list[Document] = json.loads(self("get", kind, "-l", selector, "-o", "json"))["items"]
        return items

    def names(self, kind: str, selector: str = "") -> set[str]:
        """Names of all objects of a kind."""
        return {item["metadata"]["name"] for item in self.list(kind, selector)}

    def patch(self, kind: str, name: str, document: Mapping[str, Any], *options: str) -> None:
        """Lay a merge patch over an object."""
        self("patch", kind, name, "--type=merge", "-p", json.dumps(document), *options)

    def job(self, name: str) -> Document:
        """Read a FederatedJob."""
        return self.get(RESOURCE, name)

    def status(self, name: str) -> Document:
        """Read the status of a FederatedJob; empty before there is one."""
        found: Document = self.job(name).get("status", {})
        return found

    def wait_for_job(self, name: str, holds: Callable[[Document], bool], what: str, seconds: float) -> Document:
        """Wait until something holds of a job's status, and return it; a job that failed instead ends the wait."""
        last: Document = {}

        def look() -> bool:
            nonlocal last
            last = self.status(name)
            return holds(last) or last.get("phase") == "Failed"

        wait_until(look, lambda: f"{what} of {name}; last seen: {json.dumps(last)[:3000]}", seconds)
        assert holds(last), f"{name} failed before {what}: {last.get('reason')}: {last.get('message')}"
        return last


def wait_until(holds: Callable[[], bool], what: Callable[[], str] | str, seconds: float) -> float:
    """Wait until something holds; return after how many seconds it did.

    Raises:
        AssertionError: It does not hold within `seconds`.
    """
    begin = time.monotonic()
    while not holds():
        if time.monotonic() - begin > seconds:
            raise AssertionError(f"not within {seconds} s: {what if isinstance(what, str) else what()}")
        time.sleep(LOOK_SECONDS)
    return time.monotonic() - begin


def committed(status: Mapping[str, Any]) -> int:
    """Rounds that a status says are committed."""
    rounds: int = status.get("rounds", {}).get("committed", -1)
    return rounds


def condition(status: Mapping[str, Any], kind: str) -> Document:
    """One condition of a status; empty if it is not there."""
    return next((item for item in status.get("conditions", ()) if item["type"] == kind), {})
