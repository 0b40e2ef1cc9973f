"""What stands in for the API server's proxy to pods: the real one refuses the loopback addresses that pods have here.

As a program, ``pod_proxy.py KUBECTL SOCKET``: serves what ``kubectl proxy`` would, for paths of pods only.
"""

import re
import shlex
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

_PATH = re.compile(r"/api/v1/namespaces/([a-z0-9-]+)/pods/([a-z0-9-]+):(\d+)/proxy(/.*)")
PASSED_ON = ("Fedjob-Token", "Fedjob-Protocol", "Content-Type")


def install(folder: Path, kubectl: Path) -> Path:
    """Make a kubectl that is the real one but for its proxy; return the folder to put on PATH."""
    folder.mkdir()
    program = folder / "kubectl"
    stand_in = shlex.join([sys.executable, "-P", str(Path(__file__)), str(kubectl)])
    program.write_text(
        "#!/bin/sh\n"
        f'for word in "$@"; do case $word in --unix-socket=*) exec {stand_in} "${{word#*=}}";; esac; done\n'
        f'exec {shlex.quote(str(kubectl))} "$@"\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return folder


def application(kubectl: str) -> web.Application:
    """Passes requests on to pods."""

    async def serve(request: web.Request) -> web.Response:
        match = _PATH.fullmatch(request.path)
        if match is None:
            return web.json_response({"message": f"no pod is at {request.path}"}, status=404)
        namespace, name, port, path = match.groups()
        address = _address(kubectl, namespace, name)
        url = f"http://{address}:{port}{path}" + (f"?{request.query_string}" if request.query_string else "")
        headers = {key: request.headers[key] for key in PASSED_ON if key in request.headers}
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, url, headers=headers, data=await request.read()) as answer,
        ):
            return web.Response(body=await answer.read(), status=answer.status)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", serve)
    return app


def _address(kubectl: str, namespace: str, name: str) -> Any:
    arguments = ["get", "pod", name, f"--namespace={namespace}", "--output=jsonpath={.status.podIP}"]
    return subprocess.run([kubectl, *arguments], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    web.run_app(application(sys.argv[1]), path=sys.argv[2], print=None)
