# ruff: noqa: INP001 - no package: the chart hands its text to `python -c`
"""What `helm test` runs: a small job on this cluster, from its creation to its end. Standard library only."""

import json
import os
import secrets
import ssl
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
POLL_SECONDS = 1.0
Document = dict[str, Any]


def job(name: str) -> Document:
    """Two clients, three rounds of linear regression on data that they make themselves."""
    return {
        "apiVersion": "fedjob.dev/v1alpha1",
        "kind": "FederatedJob",
        "metadata": {"name": name},
        "spec": {
            "rounds": 3,
            "model": {"name": "linear"},
            "data": {"name": "synthetic-linear"},
            "training": {"epochs": 5, "learningRate": 0.01},
            "clientGroups": [{"name": "clients", "replicas": 2}],
            "aggregator": {"storage": {"size": "64Mi", "retentionPolicy": {"whenDeleted": "Delete"}}},
        },
    }


class Api:
    """The jobs of one namespace, by the pod's own ServiceAccount."""

    def __init__(self, namespace: str) -> None:
        host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
        host = f"[{host}]" if ":" in host else host
        self._url = f"https://{host}:{port}/apis/fedjob.dev/v1alpha1/namespaces/{namespace}/federatedjobs"
        self._tls = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))

    def call(self, method: str, name: str = "", body: Document | None = None) -> Document:
        """Make one request.

        Raises:
            urllib.error.HTTPError: The API server said no.
        """
        request = urllib.request.Request(  # noqa: S310 - the API server's own address
            f"{self._url}/{name}".rstrip("/"),
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
                "Content-Type": "application/json",
            },
        )
        with urllib.request.urlopen(request, timeout=30, context=self._tls) as response:  # noqa: S310 - as above
            answer: Document = json.load(response)
            return answer


def has_completed(api: Api, name: str, deadline: float) -> bool:
    """Follow a job to its end, with a line for each change."""
    told = ""
    while time.monotonic() < deadline:
        status = api.call("GET", name).get("status", {})
        summary = status.get("summary", {})
        line = " ".join(
            str(part) for part in (status.get("phase"), summary.get("rounds"), status.get("reason")) if part
        )
        if line != told:
            say(f"{line}: {status.get('message') or ''}".rstrip(": "))
            told = line
        if status.get("phase") in {"Complete", "Failed"}:
            return status["phase"] == "Complete"
        time.sleep(POLL_SECONDS)
    say("the time is over")
    return False


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the job; 0 if it completes."""
    api, name = Api(os.environ["TEST_NAMESPACE"]), f"{os.environ['TEST_NAME']}-{secrets.token_hex(3)}"
    deadline = time.monotonic() + float(os.environ["TEST_SECONDS"])
    try:
        api.call("POST", body=job(name))
        try:
            return 0 if has_completed(api, name, deadline) else 1
        finally:
            api.call("DELETE", name)
    except urllib.error.HTTPError as error:
        say(f"{error.url}: {error}: {error.read().decode(errors='replace')}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
