"""A driver of dynamic resource allocation: prepares the devices that the scheduler chose for a claim.

What there is to be claimed tests write as a ``ResourceSlice``. Which device a claim got the driver reads from the API
server. It tells the container runtime nothing: a device that is not there changes no container.
"""

import json
import ssl
import threading
import urllib.request
from concurrent import futures
from pathlib import Path
from typing import Any, Final

import grpc
from fake_gpus import wire

DRIVER: Final = "gpu.fedjob.dev"
KUBELET: Final = Path("/var/lib/kubelet")
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
CALL_SECONDS: Final = 5.0


class Claims:
    """Serves the kubelet until `stop`."""

    def __init__(self) -> None:
        self._stop = threading.Event()

    def run(self) -> None:
        """Serve until `stop`; the kubelet finds the first socket by itself, and is told of the second."""
        registry = KUBELET / "plugins_registry" / f"{DRIVER}.sock"
        own = KUBELET / "plugins" / DRIVER / "dra.sock"
        own.parent.mkdir(parents=True, exist_ok=True)
        server = grpc.server(futures.ThreadPoolExecutor(4), handlers=[_registration(own), _preparation()])
        for socket in (own, registry):
            socket.unlink(missing_ok=True)
            server.add_insecure_port(f"unix://{socket}")
        server.start()
        self._stop.wait()
        server.stop(grace=None).wait()

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()


def _registration(own: Path) -> Any:
    def info(*_: Any) -> Any:
        return wire.PluginInfo(
            type="DRAPlugin", name=DRIVER, endpoint=str(own), supported_versions=[wire.CLAIMS_VERSION]
        )

    def told(status: Any, _: Any) -> Any:
        print(f"registered: {status.plugin_registered} {status.error}", flush=True)
        return wire.Empty()

    return grpc.method_handlers_generic_handler(
        wire.PLUGINS,
        {
            "GetInfo": _unary(info, wire.Empty, wire.PluginInfo),
            "NotifyRegistrationStatus": _unary(told, wire.RegistrationStatus, wire.Empty),
        },
    )


def _preparation() -> Any:
    return grpc.method_handlers_generic_handler(
        wire.CLAIMS,
        {
            "NodePrepareResources": _unary(_prepare, wire.ClaimsRequest, wire.PrepareResponse),
            "NodeUnprepareResources": _unary(_unprepare, wire.ClaimsRequest, wire.UnprepareResponse),
        },
    )


def _prepare(request: Any, _: Any) -> Any:
    answer = wire.PrepareResponse()
    for claim in request.claims:
        prepared = answer.claims.add(key=claim.uid).value
        try:
            for result in _allocated(claim.namespace, claim.name):
                pool, name = result["pool"], result["device"]
                prepared.devices.add(request_names=[result["request"]], pool_name=pool, device_name=name)
                print(f"prepared {name} for {claim.name}", flush=True)
        except (OSError, ValueError, KeyError) as error:
            prepared.error = f"claim {claim.name}: {error}"
    return answer


def _unprepare(request: Any, _: Any) -> Any:
    answer = wire.UnprepareResponse()
    for claim in request.claims:
        answer.claims.add(key=claim.uid).value.error = ""
    return answer


def _allocated(namespace: str, name: str) -> list[dict[str, str]]:
    """The devices that the scheduler chose for a claim."""
    token = (ACCOUNT / "token").read_text(encoding="utf-8")
    url = f"https://kubernetes.default.svc/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims/{name}"
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    context = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt"))
    with urllib.request.urlopen(request, timeout=CALL_SECONDS, context=context) as answer:
        results: list[dict[str, str]] = json.load(answer)["status"]["allocation"]["devices"]["results"]
    return [result for result in results if result["driver"] == DRIVER]


def _unary(function: Any, request: Any, response: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(function, request.FromString, response.SerializeToString)
