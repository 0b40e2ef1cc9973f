"""Follows the logs of all containers of a job while pods and nodes come and go: what is gone cannot be read later."""

import json
import subprocess
import threading
from dataclasses import dataclass, field
from typing import Final

from tests.support.kubectl import CommandError, Document, Kubectl

LOOK_SECONDS: Final = 0.5
Key = tuple[str, str, int]
"""Name of a pod, its unique id, and how often its container was restarted."""


@dataclass(slots=True)
class _Follower:
    """One ``kubectl logs --follow``; it ends with the container, or with the connection to its node."""

    process: subprocess.Popen[str]
    reader: threading.Thread


@dataclass(slots=True)
class JobLogs:
    """Follows the logs of a job from a thread of its own.

    Args:
        kubectl: In the job's namespace.
        selector: Selects the job's pods.
    """

    kubectl: Kubectl
    selector: str
    lines: dict[Key, dict[str, None]] = field(default_factory=dict)
    """What was read of each container: lines with their time, so that one that is read again is not counted twice."""
    _followers: dict[Key, _Follower] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin."""
        self._thread = threading.Thread(target=self._run, name=f"logs of {self.selector}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, with all processes."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        for follower in self._followers.values():
            follower.process.terminate()
            follower.process.wait()
            follower.reader.join()

    def texts(self) -> dict[str, str]:
        """What every container said, by pod and restart."""
        return {f"{name}#{restart}": "\n".join(lines) for (name, _, restart), lines in self.lines.items()}

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                pods = self.kubectl.list("pods", self.selector)
            except (CommandError, subprocess.TimeoutExpired, json.JSONDecodeError):
                continue  # the API server is asked again
            for pod in pods:
                self._follow(pod)

    def _follow(self, pod: Document) -> None:
        statuses = pod.get("status", {}).get("containerStatuses", ())
        if not statuses or "running" not in statuses[0]["state"]:
            return
        key = (pod["metadata"]["name"], pod["metadata"]["uid"], statuses[0]["restartCount"])
        before = self._followers.get(key)
        if before is not None and before.process.poll() is None:
            return
        words = ["kubectl", "--namespace", self.kubectl.namespace, "logs", "--follow", "--timestamps", key[0]]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        reader = threading.Thread(target=self._read, args=(key, process), daemon=True)
        self._followers[key] = _Follower(process, reader)
        reader.start()

    def _read(self, key: Key, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        kept = self.lines.setdefault(key, {})
        with process.stdout:
            for line in process.stdout:
                kept[line.rstrip("\n")] = None
