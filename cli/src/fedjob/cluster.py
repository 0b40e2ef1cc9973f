"""Jobs of a cluster from the command line: submit, list, watch, logs, suspend, resume."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from fedjob.failure import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, Failure
from fedjob.kubectl import INDEX_LABEL, JOB_LABEL, RESOURCE, ROLE_LABEL, Kubectl, parse_job
from fedjob.manifest import ManifestError, load_manifest, render_problems
from fedjob.progress import display_for, say
from fedjob_operator.api.supported import unsupported_on_cluster
from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus, Phase, dump
from fedjob_operator.core.phases import TERMINAL

READ_BYTES: Final = 64 << 10


def submit(kubectl: Kubectl, file: Path, overrides: tuple[str, ...], *, watch_it: bool) -> int:
    """Create the job of a manifest; return the exit code."""
    try:
        job = load_manifest(file, overrides)
    except ManifestError as error:
        say(render_problems(error.problems), stream=sys.stderr)
        return EXIT_USAGE
    if problems := unsupported_on_cluster(job.spec):
        say(render_problems(problems), stream=sys.stderr)
        return EXIT_USAGE
    document = dump(job)
    document.pop("status", None)
    if kubectl.namespace:
        document["metadata"]["namespace"] = kubectl.namespace
    else:
        document["metadata"].pop("namespace", None)
    document["metadata"].pop("generation", None)
    say(kubectl.run("create", "--filename=-", text=json.dumps(document)).strip())
    return watch(kubectl, job.metadata.name) if watch_it else 0


def show_jobs(kubectl: Kubectl, *, everywhere: bool, as_json: bool) -> int:
    """Print the jobs of a namespace, or of all; return the exit code."""
    arguments = ["get", RESOURCE, *(["--all-namespaces"] if everywhere else [])]
    return kubectl.pass_on(*arguments, "--output=json" if as_json else "--output=wide")


def watch(kubectl: Kubectl, name: str) -> int:
    """Show a job until it is finished, as ``fedjob run`` does; return 0 Complete, 1 Failed."""
    job = kubectl.job(name)
    before = FederatedJobStatus()
    command = kubectl.command("get", RESOURCE, name, "--watch", "--output=json")
    try:
        with (
            display_for(sys.stdout) as display,
            subprocess.Popen(command, stdout=subprocess.PIPE) as child,  # noqa: S603 - the user's own kubectl
        ):
            assert child.stdout is not None
            try:
                for job in _jobs(child.stdout):
                    display.update(job, before)
                    before = job.status
                    if job.status.phase in TERMINAL:
                        break
            finally:
                child.terminate()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    if job.status.phase not in TERMINAL:
        raise Failure(f"job {name} is not watched any more: it is {job.status.phase}; it was deleted, or kubectl ended")
    say(f"{job.status.phase}: {job.status.message}")
    return 0 if job.status.phase is Phase.COMPLETE else EXIT_FAILED


def _jobs(stream: IO[bytes]) -> Iterator[FederatedJob]:
    """The versions of a job that a watch tells of: JSON objects one after the other."""
    decoder, text = json.JSONDecoder(), ""
    while block := stream.readline():
        text += block.decode()
        if block != b"}\n":
            continue  # an indented object ends with a brace of its own
        document, end = decoder.raw_decode(text.lstrip())
        text = text.lstrip()[end:]
        yield parse_job(document)


def show_logs(kubectl: Kubectl, name: str, *, role: str | None, index: int | None, follow: bool, tail: int) -> int:
    """Print what the job's programs say, each line with its pod; return the exit code."""
    job = kubectl.job(name)
    selector = [f"{JOB_LABEL}={job.metadata.name}"]
    selector += [f"{ROLE_LABEL}={role}"] if role else []
    selector += [f"{INDEX_LABEL}={index}"] if index is not None else []
    arguments = ["logs", f"--selector={','.join(selector)}", "--prefix", f"--tail={tail}", "--ignore-errors"]
    arguments.append("--max-log-requests=200")
    return kubectl.pass_on(*arguments, *(["--follow"] if follow else []))


def set_suspended(kubectl: Kubectl, name: str, *, is_suspended: bool) -> None:
    """Suspend a job, or let it go on."""
    patch = json.dumps({"spec": {"suspend": is_suspended}})
    say(kubectl.run("patch", RESOURCE, name, "--type=merge", f"--patch={patch}").strip())
