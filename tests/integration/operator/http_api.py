"""A small API server over HTTP, for what only HTTP can do wrong: watches that break, answers that do not come."""

import asyncio
import json
from collections import Counter, deque
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

JOBS = "/apis/fedjob.dev/v1alpha1/federatedjobs"
PODS = "/api/v1/pods"

VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
DISCOVERY = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "groups": [
            {
                "name": "fedjob.dev",
                "versions": [{"groupVersion": "fedjob.dev/v1alpha1", "version": "v1alpha1"}],
                "preferredVersion": {"groupVersion": "fedjob.dev/v1alpha1", "version": "v1alpha1"},
            }
        ],
    },
    "/api/v1": {
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": "pods", "singularName": "pod", "namespaced": True, "kind": "Pod", "verbs": VERBS},
            {
                "name": "namespaces",
                "singularName": "namespace",
                "namespaced": False,
                "kind": "Namespace",
                "verbs": VERBS,
            },
        ],
    },
    "/apis/fedjob.dev/v1alpha1": {
        "kind": "APIResourceList",
        "groupVersion": "fedjob.dev/v1alpha1",
        "resources": [
            {
                "name": "federatedjobs",
                "singularName": "federatedjob",
                "namespaced": True,
                "kind": "FederatedJob",
                "verbs": VERBS,
            },
            {"name": "federatedjobs/status", "namespaced": True, "kind": "FederatedJob", "verbs": ["patch"]},
        ],
    },
}


class HttpApi:
    """Answers lists with `objects`, and watches with what `send` is given; other paths as `answers` says."""

    def __init__(self):
        self.objects = {JOBS: [], PODS: []}
        self.answers = {}
        """By method and path: a queue of (status, document, headers); the last one stays. A coroutine is awaited."""
        self.requests = []
        self.lists = Counter()
        self.opened = Counter()
        """Watches that were ever opened, by path."""
        self.queries = {}
        self.is_crd_there = True
        self._watches = {JOBS: [], PODS: []}
        self.url = ""

    def answer(self, method, path, *answers):
        """Set what a path answers, one after the other."""
        self.answers[method, path] = deque(answers)

    def send(self, path, kind, document):
        """Send an event to all watches of a path."""
        for queue in self._watches[path]:
            queue.put_nowait({"type": kind, "object": document})

    def break_off(self, path):
        """End all watches of a path as a server does that goes away."""
        for queue in self._watches[path]:
            queue.put_nowait(None)

    def watching(self, path):
        """How many watches of a path are open."""
        return len(self._watches[path])

    async def handle(self, request):
        body = await request.read()
        self.requests.append((request.method, request.path_qs, dict(request.headers), body))
        given = self.answers.get((request.method, request.path))
        if given:
            answer = given[0] if len(given) == 1 else given.popleft()
            if asyncio.iscoroutinefunction(answer):
                return await answer(request)
            status, document, headers = answer
            return web.Response(
                status=status, body=json.dumps(document), content_type="application/json", headers=headers
            )
        if request.path in self.objects:
            if request.path == JOBS and not self.is_crd_there:
                return self._status(404, "NotFound")
            return await self._watch(request) if request.query.get("watch") else self._list(request)
        if request.path in DISCOVERY:
            document = DISCOVERY[request.path]
            if not self.is_crd_there and request.path == "/apis":
                document = {**document, "groups": []}
            return web.json_response(document)
        return self._status(404, "NotFound")

    def _status(self, code, reason):
        body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": f"{reason}!"}
        return web.json_response(body, status=code)

    def _list(self, request):
        self.lists[request.path] += 1
        self.queries[request.path] = dict(request.query)
        kind = "PodList" if request.path == PODS else "FederatedJobList"
        version = "v1" if request.path == PODS else "fedjob.dev/v1alpha1"
        body = {
            "kind": kind,
            "apiVersion": version,
            "metadata": {"resourceVersion": "10"},
            "items": self.objects[request.path],
        }
        return web.json_response(body)

    async def _watch(self, request):
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        queue = asyncio.Queue()
        self.opened[request.path] += 1
        self._watches[request.path].append(queue)
        try:
            while (event := await queue.get()) is not None:
                await response.write(json.dumps(event).encode() + b"\n")
                if event["type"] == "ERROR":
                    break
        finally:
            self._watches[request.path].remove(queue)
        return response


@asynccontextmanager
async def serving(api: HttpApi):
    """Serve, and say where."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        for path in (JOBS, PODS):
            api.break_off(path)
        await runner.cleanup()


def kubeconfig(folder: Path, url: str, user=None) -> str:
    """Write a kubeconfig and return its path."""
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": user or {"token": "t0ken"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)
