"""An API server in memory: names, unique ids, versions, merge patches and refusals as the real one has them."""

import copy
from collections import Counter
from collections.abc import Callable

from fedjob_operator.adapters.kube.api import ApiRefusedError, ApiUnavailableError, Kind
from fedjob_operator.adapters.kube.documents import label, meta, name_of, uid_of

Failure = Callable[[], Exception | None]


def absent(what="it"):
    return ApiRefusedError(f"{what} not found", status=404, reason="NotFound")


def conflict(message="the object has been modified"):
    return ApiRefusedError(message, status=409, reason="Conflict")


def field(document, path):
    for part in path.split("."):
        document = document.get(part, {})
    return document


def merge(target, patch):
    result = dict(target)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict):
            inner = result.get(key)
            result[key] = merge(inner if isinstance(inner, dict) else {}, value)
        else:
            result[key] = value
    return result


class FakeApi:
    """`KubeApi` without a network.

    Args:
        graceful: Whether a deleted pod stays for a while, as one with a node does.
    """

    def __init__(self, *, graceful=False):
        self.objects = {}
        self.graceful = graceful
        self.calls = []
        self.counts = Counter()
        self.failures = {}
        self._version = 100
        self._uids = 0

    # Steering

    def fail(self, verb, error, *, times=1):
        """Let the next requests with a verb fail."""
        self.failures.setdefault(verb, []).extend([error] * times)

    def put(self, kind, document):
        """Put an object in place as somebody else would."""
        return self._store(kind, copy.deepcopy(document))

    def find(self, kind, name):
        return next(
            (value for (plural, _, other), value in self.objects.items() if (plural, other) == (kind.plural, name)),
            None,
        )

    def remove(self, kind, name):
        for key in [key for key in self.objects if (key[0], key[2]) == (kind.plural, name)]:
            del self.objects[key]

    # KubeApi

    async def get(self, kind: Kind, namespace, name):
        self._called("get", kind, name)
        return copy.deepcopy(self._held(kind, namespace, name))

    async def list(self, kind, namespace, *, labels="", fields="", most=None):
        self._called("list", kind, labels or fields)
        wanted = dict(part.split("=", 1) for part in labels.split(",") if "=" in part)
        fields = dict(part.split("=", 1) for part in fields.split(",") if part)
        found = [
            copy.deepcopy(value)
            for (plural, space, _), value in self.objects.items()
            if plural == kind.plural
            and namespace in (None, space)
            and all(label(value, key) == text for key, text in wanted.items())
            and all(field(value, path) == text for path, text in fields.items())
        ]
        return found[:most]

    async def create(self, kind, namespace, document, *, dry_run=False):
        self._called("dry-run" if dry_run else "create", kind, name_of(document))
        if (kind.plural, namespace, name_of(document)) in self.objects:
            raise ApiRefusedError(
                f"{kind.plural} {name_of(document)!r} already exists", status=409, reason="AlreadyExists"
            )
        if dry_run:
            return document
        return copy.deepcopy(self._store(kind, merge({"metadata": {"namespace": namespace}}, copy.deepcopy(document))))

    async def replace(self, kind, namespace, document):
        self._called("update", kind, name_of(document))
        held = self._held(kind, namespace, name_of(document))
        if meta(held)["resourceVersion"] != meta(document).get("resourceVersion"):
            raise conflict()
        return copy.deepcopy(self._store(kind, copy.deepcopy(document), uid=uid_of(held)))

    async def patch_status(self, kind, namespace, name, patch):
        self._called("patch", kind, name)
        held = self._held(kind, namespace, name)
        guard = meta(patch)
        if guard.get("resourceVersion", meta(held)["resourceVersion"]) != meta(held)["resourceVersion"]:
            raise conflict()
        if guard.get("uid", uid_of(held)) != uid_of(held):
            raise conflict("the UID in the precondition does not match")
        changed = {**held, "status": merge(held.get("status", {}), patch.get("status", {}))}
        if changed == held:
            return copy.deepcopy(held)
        return copy.deepcopy(self._store(kind, changed, uid=uid_of(held)))

    async def delete(self, kind, namespace, name, *, uid, grace_seconds=None):
        self._called("delete", kind, name)
        held = self._held(kind, namespace, name)
        if uid_of(held) != uid:
            raise conflict("the UID in the precondition does not match")
        if self.graceful:
            held["metadata"] |= {
                "deletionTimestamp": "2026-01-01T00:00:05Z",
                "deletionGracePeriodSeconds": grace_seconds,
            }
            return copy.deepcopy(held)
        return self.objects.pop((kind.plural, namespace, name))

    def _called(self, verb, kind, what):
        self.calls.append((verb, kind.plural, what))
        self.counts[verb, kind.plural] += 1
        waiting = self.failures.get(verb)
        if waiting:
            raise waiting.pop(0)

    def _held(self, kind, namespace, name):
        held = self.objects.get((kind.plural, namespace, name))
        if held is None:
            raise absent(f"{kind.plural} {name!r}")
        return held

    def _store(self, kind, document, uid=None):
        self._version += 1
        if uid is None:
            self._uids += 1
            uid = uid_of(document) or f"uid-{self._uids}"
        document["metadata"] = {**meta(document), "uid": uid, "resourceVersion": str(self._version)}
        self.objects[kind.plural, meta(document).get("namespace"), name_of(document)] = document
        return document


def unavailable():
    return ApiUnavailableError("no answer")


def refused(message, status=403):
    return ApiRefusedError(message, status=status, reason={403: "Forbidden", 422: "Invalid"}.get(status, ""))
