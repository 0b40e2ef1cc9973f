"""The messages of the kubelet's protocols for devices that are needed, by their numbers on the wire.

Facts from the Kubernetes documentation, "Device Plugins" and "Dynamic Resource Allocation", and from the protocols
v1beta1 of device plugins (the service ``v1beta1.Registration`` at the kubelet's socket and ``v1beta1.DevicePlugin`` at
the plugin's own), ``pluginregistration`` and v1 of claims. A map is on the wire a list of entries of key and value.
"""

from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

VERSION: Final = "v1beta1"
FOLDER: Final = "/var/lib/kubelet/device-plugins"
"""Where the kubelet and its plugins have their sockets."""
REGISTRATION: Final = f"/{VERSION}.Registration/Register"
PLUGIN: Final = f"{VERSION}.DevicePlugin"
PLUGINS: Final = "pluginregistration.Registration"
CLAIMS: Final = "k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin"
CLAIMS_VERSION: Final = "v1.DRAPlugin"
HEALTHY: Final = "Healthy"
UNHEALTHY: Final = "Unhealthy"

_FILE: Final = "fake_gpus.proto"
_FIELDS: Final[dict[str, tuple[tuple[str, str, bool], ...]]] = {
    "Empty": (),
    "Options": (("pre_start_required", "bool", False), ("get_preferred_allocation_available", "bool", False)),
    "RegisterRequest": (
        ("version", "string", False),
        ("endpoint", "string", False),
        ("resource_name", "string", False),
        ("options", "Options", False),
    ),
    "Device": (("id", "string", False), ("health", "string", False)),
    "ListAndWatchResponse": (("devices", "Device", True),),
    "ContainerAllocateRequest": (("devices_ids", "string", True),),
    "AllocateRequest": (("container_requests", "ContainerAllocateRequest", True),),
    "Entry": (("key", "string", False), ("value", "string", False)),
    "ContainerAllocateResponse": (("envs", "Entry", True),),
    "AllocateResponse": (("container_responses", "ContainerAllocateResponse", True),),
    "PluginInfo": (
        ("type", "string", False),
        ("name", "string", False),
        ("endpoint", "string", False),
        ("supported_versions", "string", True),
    ),
    "RegistrationStatus": (("plugin_registered", "bool", False), ("error", "string", False)),
    "Claim": (("namespace", "string", False), ("uid", "string", False), ("name", "string", False)),
    "ClaimsRequest": (("claims", "Claim", True),),
    "PreparedDevice": (
        ("request_names", "string", True),
        ("pool_name", "string", False),
        ("device_name", "string", False),
        ("cdi_device_ids", "string", True),
    ),
    "Prepared": (("devices", "PreparedDevice", True), ("error", "string", False)),
    "PreparedEntry": (("key", "string", False), ("value", "Prepared", False)),
    "PrepareResponse": (("claims", "PreparedEntry", True),),
    "Unprepared": (("error", "string", False),),
    "UnpreparedEntry": (("key", "string", False), ("value", "Unprepared", False)),
    "UnprepareResponse": (("claims", "UnpreparedEntry", True),),
}
"""Messages: name, type and whether it is a list of each field, in the order of their numbers."""
_TYPES: Final = {
    "bool": descriptor_pb2.FieldDescriptorProto.TYPE_BOOL,
    "string": descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
}


def _make() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name=_FILE, package=VERSION, syntax="proto3")
    for name, fields in _FIELDS.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, is_list) in enumerate(fields, start=1):
            label = "LABEL_REPEATED" if is_list else "LABEL_OPTIONAL"
            made = message.field.add(name=field, number=number, label=label)
            if kind in _TYPES:
                made.type = _TYPES[kind]
            else:
                made.type, made.type_name = descriptor_pb2.FieldDescriptorProto.TYPE_MESSAGE, f".{VERSION}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{VERSION}.{name}")) for name in _FIELDS}


_MESSAGES: Final = _make()
Empty: Final = _MESSAGES["Empty"]
Options: Final = _MESSAGES["Options"]
RegisterRequest: Final = _MESSAGES["RegisterRequest"]
Device: Final = _MESSAGES["Device"]
ListAndWatchResponse: Final = _MESSAGES["ListAndWatchResponse"]
AllocateRequest: Final = _MESSAGES["AllocateRequest"]
AllocateResponse: Final = _MESSAGES["AllocateResponse"]
PluginInfo: Final = _MESSAGES["PluginInfo"]
RegistrationStatus: Final = _MESSAGES["RegistrationStatus"]
ClaimsRequest: Final = _MESSAGES["ClaimsRequest"]
PrepareResponse: Final = _MESSAGES["PrepareResponse"]
UnprepareResponse: Final = _MESSAGES["UnprepareResponse"]
