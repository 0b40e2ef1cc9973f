"""A real API server for tests: etcd, kube-apiserver and two controllers on ports of 127.0.0.1.

The binaries are where envtest expects them: ``KUBEBUILDER_ASSETS`` names a folder with etcd, kube-apiserver, kubectl
and kube-controller-manager. There is no scheduler and no kubelet: a pod stays as its creator, or a fake kubelet, wrote
it. Calls in plain JSON for other identities are in `tests.support.cluster.access`.

    with ApiServer.start(folder, assets) as server:
        server.apply(ROOT / "crds")
        server.start_controllers()
        server.create_namespace("a")
        token = server.service_account_token("a", "someone")
        kubeconfig = server.kubeconfig(folder / "someone.kubeconfig", token=token, namespace="a")
"""

import json
import os
import secrets
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
import urllib3

from tests.support.cluster.daemons import Daemon
from tests.support.tcp_ports import free_ports

ASSETS_VARIABLE: Final = "KUBEBUILDER_ASSETS"
REQUIRE_VARIABLE: Final = "FEDJOB_REQUIRE_CLUSTER"
"""Where this is 1, tests fail rather than be skipped for want of the binaries."""
BINARIES: Final = ("etcd", "kube-apiserver", "kubectl", "kube-controller-manager")
CONTROLLERS: Final = (
    "garbage-collector-controller,namespace-controller,persistentvolumeclaim-protection-controller,"
    "deployment-controller,replicaset-controller"
)
"""What deletes the objects of a deleted owner, those in a deleted namespace, and claims that no pod uses any more; and
what makes the pods of a Deployment."""
JSON: Final = "application/json"
MERGE_PATCH: Final = "application/merge-patch+json"

_START_TRIES: Final = 3
"""A free port may be taken before it is used; then others are tried."""
_READY_SECONDS: Final = 60.0
_CALL_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.05


def find_assets() -> Path:
    """Return the folder with the binaries; skip the test where there is none, or fail it where that is not allowed."""
    named = os.environ.get(ASSETS_VARIABLE, "")
    missing = [name for name in BINARIES if not named or not (Path(named) / name).is_file()]
    if not missing:
        return Path(named)
    line = f"no API server: {ASSETS_VARIABLE}={named or '(unset)'} is no folder with {', '.join(missing)}"
    if os.environ.get(REQUIRE_VARIABLE) == "1":
        pytest.fail(line, pytrace=False)
    pytest.skip(line)


class StartError(Exception):
    """The API server did not become ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the API server answered."""

    status: int
    body: Any
    """The JSON document, or text."""

    @property
    def message(self) -> str:
        """The words of a refusal."""
        return str(self.body.get("message", "")) if isinstance(self.body, dict) else str(self.body)

    def ok(self) -> Any:
        """Return the document of a success.

        Raises:
            AssertionError: If it is a refusal; with the server's words.
        """
        assert 200 <= self.status < 300, f"{self.status}: {self.message}"
        return self.body


@dataclass(slots=True)
class ApiServer:
    """A running API server, and whoever runs beside it.

    Args:
        folder: Holds logs, certificates and the database.
        assets: Holds the binaries.
        port: Port of the API server on 127.0.0.1.
        admin_token: Token of a member of system:masters.
    """

    folder: Path
    assets: Path
    port: int
    admin_token: str
    programs: dict[str, Daemon] = field(default_factory=dict)
    """What runs, by name, in the order of the start."""
    _pool: urllib3.PoolManager | None = None

    @classmethod
    @contextmanager
    def start(cls, folder: Path, assets: Path) -> Iterator["ApiServer"]:
        """Start etcd and the API server, and stop all programs at the end.

        Args:
            folder: An empty folder for everything that they write; it is kept.
            assets: Where the binaries are.

        Raises:
            StartError: If the API server does not become ready; with the end of its log.
        """
        for attempt in range(1, _START_TRIES + 1):
            etcd, peer, port = free_ports(3)
            server = cls(folder=folder / f"try-{attempt}", assets=assets, port=port, admin_token=secrets.token_hex(16))
            try:
                server._start_etcd(etcd, peer)
                server._start_api_server(etcd)
                server._wait_until_ready()
                break
            except StartError:
                server.stop()
                if attempt == _START_TRIES:
                    raise
        try:
            yield server
        finally:
            server.stop()

    @property
    def url(self) -> str:
        """The address of the API server."""
        return f"https://127.0.0.1:{self.port}"

    @property
    def ca(self) -> Path:
        """The certificate that clients trust."""
        return self._certificates / "apiserver.crt"

    @property
    def _certificates(self) -> Path:
        return self.folder / "certificates"

    def _start_etcd(self, port: int, peer: int) -> None:
        client_url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
        self.folder.mkdir(parents=True)
        self._run(
            "etcd",
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client_url}",
            f"--advertise-client-urls={client_url}",
            f"--listen-peer-urls={peer_url}",
            f"--initial-advertise-peer-urls={peer_url}",
            f"--initial-cluster=default={peer_url}",
            "--unsafe-no-fsync",
        )

    def _start_api_server(self, etcd: int) -> None:
        tokens = self.folder / "tokens.csv"
        tokens.write_text(f'{self.admin_token},admin,admin,"system:masters"\n', encoding="utf-8")
        # The API server makes itself a certificate; its key signs the tokens of ServiceAccounts, too.
        key = self._certificates / "apiserver.key"
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            f"--secure-port={self.port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--cert-dir={self._certificates}",
            f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=ServiceAccount",  # pods need no account, as nothing runs in them
            f"--service-account-issuer={self.url}",
            f"--service-account-signing-key-file={key}",
            f"--service-account-key-file={key}",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--allow-privileged=true",
            "--profiling=false",
        )

    def start_controllers(self) -> None:
        """Start the garbage collector and the namespace controller.

        Start them when the resources are there: the garbage collector looks for new ones every 30 s only.
        """
        kubeconfig = self.kubeconfig(self.folder / "controllers.kubeconfig")
        self._run(
            "kube-controller-manager",
            f"--kubeconfig={kubeconfig}",
            f"--controllers={CONTROLLERS}",
            "--leader-elect=false",
            "--secure-port=0",
        )

    def _run(self, name: str, *flags: str) -> None:
        self.programs[name] = Daemon.start([self.assets / name, *flags], self.folder / f"{name}.log")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            for name, program in self.programs.items():
                if not program.is_running:
                    raise StartError(f"{name} ended by itself:\n{program.tail()}")
            try:
                if self.ca.exists() and self.request("GET", "/readyz").status == 200:
                    return
            except (OSError, urllib3.exceptions.HTTPError):
                pass  # it does not listen yet
            if time.monotonic() > deadline:
                raise StartError(f"not ready after {_READY_SECONDS:g} s:\n{self.logs()}")
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        """Stop all programs, the last one first."""
        if self._pool is not None:
            self._pool.clear()
        for program in reversed(self.programs.values()):
            program.stop()

    def logs(self) -> str:
        """The end of every log."""
        return "\n".join(f"== {name} ({program.log})\n{program.tail()}" for name, program in self.programs.items())

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = JSON,
        token: str | None = None,
    ) -> Answer:
        """Make one call.

        Args:
            method: HTTP method.
            path: Path with query, such as ``/api/v1/namespaces``.
            body: JSON document, or nothing.
            content_type: Kind of the body; `MERGE_PATCH` for a patch.
            token: Who calls; the administrator where it is not given.

        Returns:
            The answer, refusals included.
        """
        headers = {"Authorization": f"Bearer {token or self.admin_token}", "Content-Type": content_type}
        data = None if body is None else json.dumps(body).encode()
        response = self._connections().request(method, f"{self.url}{path}", body=data, headers=headers)
        is_json = response.headers.get("Content-Type", "").startswith(JSON)
        return Answer(status=response.status, body=response.json() if is_json else response.data.decode())

    def _connections(self) -> urllib3.PoolManager:
        if self._pool is None:
            trust = ssl.create_default_context(cafile=str(self.ca))
            self._pool = urllib3.PoolManager(maxsize=8, ssl_context=trust, retries=False, timeout=_CALL_SECONDS)
        return self._pool

    def kubectl(
        self, *arguments: str | Path, kubeconfig: Path | None = None, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl to its end, as the administrator where no kubeconfig is given; what it says is captured."""
        config = kubeconfig or self.kubeconfig(self.folder / "admin.kubeconfig")
        environment = {"PATH": os.defpath, "HOME": str(self.folder)}
        return subprocess.run(
            [str(self.assets / "kubectl"), f"--kubeconfig={config}", *map(str, arguments)],
            check=False,
            input=stdin if stdin is not None else "",
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def kubeconfig(self, path: Path, *, token: str | None = None, namespace: str = "default") -> Path:
        """Write a kubeconfig, the administrator's where no token is given, and return its path."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}],
            "clusters": [{"name": "test", "cluster": {"server": self.url, "certificate-authority": str(self.ca)}}],
            "users": [{"name": "test", "user": {"token": token or self.admin_token}}],
        }
        path.write_text(json.dumps(document, indent=1), encoding="utf-8")
        return path

    def apply(self, path: Path) -> None:
        """Apply a file or folder with kubectl, and wait until the resources that it defines can be used."""
        done = self.kubectl("apply", "-f", path)
        assert done.returncode == 0, done.stderr
        names = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("customresourcedefinition")]
        for name in names:
            # Of a definition that has no conditions yet kubectl says at once that it cannot be waited for.
            self._until_kubectl("wait", "--for=condition=Established", "--timeout=30s", name)
            # Objects can be listed: an established definition's storage may still be "(re)initializing".
            self._until_kubectl("get", name.partition("/")[2], "--all-namespaces")

    def _until_kubectl(self, *arguments: str) -> None:
        """Run kubectl again and again until it succeeds."""
        deadline = time.monotonic() + _READY_SECONDS
        while (done := self.kubectl(*arguments)).returncode:
            if time.monotonic() > deadline:
                raise StartError(f"kubectl {' '.join(arguments)} fails after {_READY_SECONDS:g} s: {done.stderr}")
            time.sleep(_LOOK_SECONDS)

    def create_namespace(self, name: str, labels: Mapping[str, str] | None = None) -> None:
        """Create a namespace."""
        metadata = {"name": name, "labels": dict(labels or {})}
        self.request("POST", "/api/v1/namespaces", {"metadata": metadata}).ok()

    def service_account_token(self, namespace: str, name: str) -> str:
        """Return a token of a ServiceAccount, which is created where it is not there; bind roles to it as usual."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        created = self.request("POST", accounts, {"metadata": {"name": name}})
        assert created.status in {201, 409}, created.message
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        return str(self.request("POST", f"{accounts}/{name}/token", request).ok()["status"]["token"])
