"""The options of ``fedjob serve``: what its sessions have in common, from a manifest or from nothing."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from pydantic import ValidationError

from fedjob.checks import problems_here
from fedjob.failure import EXIT_USAGE, Failure
from fedjob.folder import FolderError, RunFolder
from fedjob.manifest import ManifestError, load_manifest, render_problems
from fedjob.progress import say
from fedjob.run import MANIFEST_FOLDER_ANNOTATION
from fedjob.serve import Served, serve
from fedjob.sessions import GROUP, SessionsError, Template, read_history
from fedjob_operator.adapters.local import JobFile
from fedjob_operator.api.problems import Problem
from fedjob_operator.api.rules import spec_problems
from fedjob_operator.api.v1alpha1 import API_VERSION, KIND, FederatedJob, dump

DEFAULT_FOLDER: Final = Path("runs/serve")
_DEFAULT: Final[dict[str, Any]] = {
    "apiVersion": API_VERSION,
    "kind": KIND,
    "metadata": {"name": "serve"},
    "spec": {
        "rounds": 3,
        "model": {"name": "mlp", "parameters": {"hiddenSizes": [64]}},
        "data": {"name": "digits", "partition": {"scheme": "IID"}},
        "training": {"epochs": 1, "batchSize": 32, "learningRate": 0.05},
        "clientGroups": [{"name": GROUP, "replicas": 1}],
        "objective": {"metric": "accuracy", "mode": "Max"},
    },
}
"""What is trained where no manifest says: real handwritten digits, without any file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line of ``fedjob serve``."""

    file: Path | None
    overrides: tuple[str, ...]
    folder: Path | None
    host: str
    port: int
    rounds: int | None
    places: int
    min_clients: int
    clients_per_round: int | str | None
    join_wait_seconds: int | None
    late_joiners: str | None


def run_server(options: Options) -> int:
    """Serve until interrupted; return the exit code: 0, or 2 for wrong usage."""
    folder = RunFolder(options.folder or DEFAULT_FOLDER)
    try:
        template = _template(options)
        folder.prepare()
        lock = folder.lock()
        with lock:
            history = read_history(folder.path / "sessions.json", uid=str(uuid4()))
            if history.sessions:
                _check_model(template.job, folder)
            place = options.file.resolve().parent if options.file else Path.cwd()
            metadata = template.job.metadata
            annotations = {**metadata.annotations, MANIFEST_FOLDER_ANNOTATION: str(place)}
            metadata = metadata.model_copy(update={"uid": history.uid, "annotations": annotations})
            job = template.job.model_copy(update={"metadata": metadata})
            served = Served(
                template=Template(job=job, rounds=template.rounds, places=template.places),
                folder=folder,
                manifest_folder=place,
                host=options.host,
                port=options.port,
            )
            serve(served)
    except ManifestError as error:
        say(render_problems(error.problems), stream=sys.stderr)
        return EXIT_USAGE
    except (FolderError, SessionsError) as error:
        say(f"fedjob: {error}", stream=sys.stderr)
        return EXIT_USAGE
    return 0


def _template(options: Options) -> Template:
    """What all sessions have in common, checked.

    Raises:
        ManifestError: All problems.
    """
    if options.file is None and options.overrides:
        raise Failure("--set changes a manifest, and none is given", exit_code=EXIT_USAGE)
    given = load_manifest(options.file, options.overrides) if options.file else FederatedJob.from_document(_DEFAULT)
    places = max(options.places, options.min_clients if options.min_clients > 1 else 0)
    document = dump(given)
    spec = document["spec"]
    groups = spec["clientGroups"]
    if len(groups) > 1:
        message = "the clients of a server register themselves: one group describes them all"
        raise ManifestError([Problem("spec.clientGroups", message)])
    about = {name: groups[0][name] for name in ("name", "trainer", "device", "data") if name in groups[0]}
    spec["clientGroups"] = [{**about, "external": {"minClients": max(places, 1)}}]
    spec["minClients"] = options.min_clients
    spec["roundPolicy"] = {
        "deadlineSeconds": 600,
        **spec.get("roundPolicy", {}),
        "minReports": options.min_clients,
        **_policy(options),
    }
    if options.join_wait_seconds is not None:
        spec["joinWaitSeconds"] = options.join_wait_seconds
    if options.late_joiners is not None:
        spec["lateJoiners"] = options.late_joiners.capitalize()
    document["metadata"]["uid"] = "template"
    try:
        job = FederatedJob.from_document(document)
    except ValidationError as error:
        raise ManifestError([Problem("fedjob serve", error.errors()[0]["msg"])]) from error
    # How many take part is cut to the places of each session.
    policy = job.spec.round_policy.model_copy(update={"clients_per_round": None, "over_select": 0})
    sized = job.spec.model_copy(update={"round_policy": policy})
    problems = [*spec_problems(sized), *problems_here(job)]
    if problems:
        raise ManifestError(problems)
    return Template(job=job, rounds=options.rounds or job.spec.rounds, places=places)


def _check_model(job: FederatedJob, folder: RunFolder) -> None:
    """Sessions go on from one model, which no other can take the place of.

    Raises:
        SessionsError: The folder's is another one than the manifest's.
    """
    try:
        before = JobFile(folder.job_file).load().spec.model
    except (OSError, ValueError):
        return  # a session that is to go on says so
    wanted = job.spec.model
    if (before.name, before.parameters, before.exclude) == (wanted.name, wanted.parameters, wanted.exclude):
        return
    shown = f"{before.name} {json.dumps(dict(before.parameters))}"
    raise SessionsError(
        f"{folder.path} holds sessions of another model: {shown}, exclude {list(before.exclude)}; "
        "serve that one there, or give --dir another folder"
    )


def _policy(options: Options) -> dict[str, Any]:
    return {} if options.clients_per_round is None else {"clientsPerRound": options.clients_per_round}
