"""The plugin: a gRPC server at a socket beside the kubelet's, registered anew whenever the kubelet was started anew."""

import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any, Final

import grpc
from fake_gpus import wire
from fake_gpus.devices import Devices

LOOK_SECONDS: Final = 0.1
CALL_SECONDS: Final = 5.0
WATCHERS: Final = 8
"""Calls at once: a kubelet keeps one open."""


class Plugin:
    """Advertises the devices of a file.

    Args:
        resource: Name of the resource, such as ``nvidia.com/gpu``.
        file: What there is; it may change at any time.
        folder: Where the kubelet's socket is.
    """

    def __init__(self, resource: str, file: Path, folder: Path) -> None:
        self._resource = resource
        self._file = file
        self._socket = folder / f"{resource.replace('/', '-')}.sock"
        self._kubelet = folder / "kubelet.sock"
        self._stop = threading.Event()

    def run(self) -> None:
        """Serve until `stop`; a kubelet that starts removes all sockets, which is how its plugins know."""
        while not self._stop.is_set():
            self._socket.unlink(missing_ok=True)
            server = grpc.server(futures.ThreadPoolExecutor(WATCHERS), handlers=[self._handlers()])
            server.add_insecure_port(f"unix://{self._socket}")
            server.start()
            if self._register():
                print(f"{self._resource} is registered", flush=True)
                while self._socket.exists() and not self._stop.wait(LOOK_SECONDS):
                    pass
            server.stop(grace=None).wait()
            self._stop.wait(LOOK_SECONDS)

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()

    def _register(self) -> bool:
        """Tell the kubelet of the socket; whether it listened."""
        request = wire.RegisterRequest(
            version=wire.VERSION, endpoint=self._socket.name, resource_name=self._resource, options=wire.Options()
        )
        with grpc.insecure_channel(f"unix://{self._kubelet}") as channel:
            call = channel.unary_unary(
                wire.REGISTRATION,
                request_serializer=wire.RegisterRequest.SerializeToString,
                response_deserializer=wire.Empty.FromString,
            )
            try:
                call(request, timeout=CALL_SECONDS, wait_for_ready=True)
            except grpc.RpcError as error:
                print(f"the kubelet does not answer: {error}", flush=True)
                return False
        return True

    def _handlers(self) -> Any:
        return grpc.method_handlers_generic_handler(
            wire.PLUGIN,
            {
                "GetDevicePluginOptions": _unary(lambda *_: wire.Options(), wire.Empty, wire.Options),
                "ListAndWatch": grpc.unary_stream_rpc_method_handler(
                    self._watch, wire.Empty.FromString, wire.ListAndWatchResponse.SerializeToString
                ),
                "Allocate": _unary(self._allocate, wire.AllocateRequest, wire.AllocateResponse),
            },
        )

    def _watch(self, _: Any, context: Any) -> Iterator[Any]:
        """Tell what there is, and again whenever it changes."""
        told: Devices | None = None
        while context.is_active() and not self._stop.is_set():
            devices = Devices.read(self._file)
            if devices != told:
                told = devices
                yield wire.ListAndWatchResponse(devices=[_device(name, devices) for name in devices.names()])
            self._stop.wait(LOOK_SECONDS)

    def _allocate(self, request: Any, context: Any) -> Any:
        """What a container gets: as from the real plugin, the variable by which a driver knows its devices."""
        if Devices.read(self._file).refuses:
            context.abort(grpc.StatusCode.INTERNAL, f"no {self._resource} can be given")
        answer = wire.AllocateResponse()
        for container in request.container_requests:
            names = ",".join(container.devices_ids)
            answer.container_responses.add().envs.add(key="NVIDIA_VISIBLE_DEVICES", value=names)
        return answer


def _device(name: str, devices: Devices) -> Any:
    return wire.Device(id=name, health=wire.UNHEALTHY if name in devices.unhealthy else wire.HEALTHY)


def _unary(function: Any, request: Any, response: Any) -> Any:
    return grpc.unary_unary_rpc_method_handler(function, request.FromString, response.SerializeToString)
