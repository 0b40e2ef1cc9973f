"""Everything that the command line asks of a cluster, through kubectl: its contexts, its logins, its proxies.

So there is no second way to be logged in, and nothing to install but what users of a cluster have.
"""

import asyncio
import json
import shutil
import signal
import subprocess
import tempfile
import time
from base64 import b64decode
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
from pydantic import ValidationError

from fedjob.failure import EXIT_USAGE, Failure
from fedjob_operator.api.v1alpha1 import GROUP, PLURAL, FederatedJob
from fedjob_protocol import PROTOCOL_VERSION, routes

RESOURCE: Final = f"{PLURAL}.{GROUP}"
"""In full: others use the bare kind name."""
JOB_LABEL: Final = f"{GROUP}/job"
JOB_UID_LABEL: Final = f"{GROUP}/job-uid"
ROLE_LABEL: Final = f"{GROUP}/role"
INDEX_LABEL: Final = f"{GROUP}/index"
PROXY_SECONDS: Final = 15.0
"""How long kubectl's proxy may take to serve."""
ANSWER_SECONDS: Final = 120.0
LOOK_SECONDS: Final = 0.02

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubectl:
    """kubectl, in a namespace of a cluster."""

    namespace: str | None = None
    """``None``: the context's own."""
    context: str | None = None
    """``None``: the current one."""

    def command(self, *arguments: str) -> list[str]:
        """A command line.

        Raises:
            Failure: There is no kubectl.
        """
        found = shutil.which("kubectl")
        if found is None:
            raise Failure("kubectl is not on PATH: commands for a cluster go through it", exit_code=EXIT_USAGE)
        where = ["--namespace", self.namespace] if self.namespace else []
        where += ["--context", self.context] if self.context else []
        return [found, *where, *arguments]

    def run(self, *arguments: str, text: str | None = None) -> str:
        """Run it to its end; return what it printed.

        Raises:
            Failure: It failed; its own words say why.
        """
        done = subprocess.run(  # noqa: S603 - the user's own kubectl
            self.command(*arguments), input=text, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Failure(f"kubectl: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def pass_on(self, *arguments: str) -> int:
        """Run it with this process's own input and output; return its exit code."""
        with subprocess.Popen(self.command(*arguments)) as child:  # noqa: S603 - as above
            try:
                return child.wait()
            except KeyboardInterrupt:
                child.send_signal(signal.SIGINT)
                return child.wait()

    def document(self, kind: str, name: str) -> Document:
        """Read an object.

        Raises:
            Failure: It cannot be read.
        """
        document: Document = json.loads(self.run("get", kind, name, "--output=json"))
        return document

    def job(self, name: str) -> FederatedJob:
        """Read a job.

        Raises:
            Failure: It cannot be read, or is of a release that this one does not understand.
        """
        return parse_job(self.document(RESOURCE, name))

    def pods(self, job: FederatedJob, role: str) -> list[Document]:
        """The ready pods of a role of a job, by name."""
        selector = f"{JOB_UID_LABEL}={job.metadata.uid},{ROLE_LABEL}={role}"
        found = json.loads(self.run("get", "pods", f"--selector={selector}", "--output=json"))["items"]
        return [pod for pod in sorted(found, key=lambda pod: str(pod["metadata"]["name"])) if _is_ready(pod)]

    def token(self, job: FederatedJob) -> str:
        """The job's token, from its Secret; whoever may not read that is told so.

        Raises:
            Failure: It cannot be read.
        """
        name = f"{job.metadata.name}-{job.metadata.uid[:8]}-token"
        encoded = self.run("get", "secret", name, "--output=jsonpath={.data.token}")
        return b64decode(encoded).decode()

    @contextmanager
    def proxy(self) -> Iterator["PodProxy"]:
        """A way to pods through the API server, for as long as the block runs: a socket that only this user can open.

        Raises:
            Failure: It does not come up.
        """
        with tempfile.TemporaryDirectory(prefix="fedjob-") as folder:
            socket, log = Path(folder) / "proxy", Path(folder) / "log"
            with log.open("wb") as errors:
                child = subprocess.Popen(  # noqa: S603 - as above
                    self.command("proxy", f"--unix-socket={socket}"),
                    stdout=errors,
                    stderr=errors,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            try:
                _wait_for(socket, child, log)
                yield PodProxy(socket)
            finally:
                child.terminate()
                child.wait()


class PodProxy:
    """HTTP calls to pods through the API server.

    Args:
        socket: Where kubectl's proxy listens.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    def get(self, pod: Document, port: int, path: str, *, token: str) -> bytes:
        """Read something of a pod.

        Raises:
            Failure: There was no answer, or it was a refusal.
        """
        headers = {routes.TOKEN_HEADER: token, routes.PROTOCOL_HEADER: str(PROTOCOL_VERSION)}
        return asyncio.run(self._call("GET", pod, port, path, headers, None))

    def post(self, pod: Document, port: int, path: str, body: Document) -> Document:
        """Ask something of a pod, in JSON.

        Raises:
            Failure: There was no answer, or it was a refusal.
        """
        answer = asyncio.run(self._call("POST", pod, port, path, {}, body))
        try:
            value = json.loads(answer)
        except ValueError as error:
            raise Failure(f"pod {pod['metadata']['name']} answers no JSON") from error
        if not isinstance(value, dict):
            raise Failure(f"pod {pod['metadata']['name']} answers {type(value).__name__}, not an object")
        return value

    async def _call(
        self, method: str, pod: Document, port: int, path: str, headers: dict[str, str], body: Document | None
    ) -> bytes:
        name, namespace = pod["metadata"]["name"], pod["metadata"]["namespace"]
        url = f"http://localhost/api/v1/namespaces/{namespace}/pods/{name}:{port}/proxy{path}"
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        headers = {"Accept-Encoding": "identity", **headers}
        try:
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self._socket)), timeout=timeout) as session,
                session.request(method, url, headers=headers, json=body) as response,
            ):
                raw = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise Failure(f"pod {name} does not answer: {type(error).__name__}: {error}") from error
        if response.status >= 400:
            raise Failure(f"pod {name}: {_detail(raw, response.status)}")
        return raw


def parse_job(document: Document) -> FederatedJob:
    """Read a job as the API server holds it.

    Raises:
        Failure: It is of a release that this one does not understand.
    """
    try:
        return FederatedJob.from_document(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Failure(f"the job cannot be read by this release: {where}: {first['msg']}") from error


def _detail(raw: bytes, status: int) -> str:
    """What a refusal says: ours have a detail, the API server's a message."""
    try:
        value = json.loads(raw)
    except ValueError:
        return f"status {status}: {raw[:200].decode(errors='replace')}"
    found = value.get("detail") or value.get("message") if isinstance(value, dict) else None
    return str(found or f"status {status}")[:500]


def _is_ready(pod: Document) -> bool:
    conditions: Sequence[Document] = pod.get("status", {}).get("conditions", [])
    is_going = "deletionTimestamp" in pod["metadata"]
    return not is_going and any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _wait_for(socket: Path, child: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PROXY_SECONDS
    while not socket.exists():
        if child.poll() is not None or time.monotonic() > deadline:
            words = log.read_text(encoding="utf-8", errors="replace").strip()
            raise Failure(f"kubectl proxy does not serve: {words or 'it said nothing'}")
        time.sleep(LOOK_SECONDS)
    socket.chmod(0o600)
