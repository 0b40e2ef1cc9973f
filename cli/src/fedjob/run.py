"""``fedjob run`` and ``fedjob validate``."""

import json
import shlex
import shutil
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from fedjob.checks import missing_paths, problems_here
from fedjob.engine import Interrupted, Run, execute, utc_now
from fedjob.failure import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE
from fedjob.folder import FolderError, RunFolder, choose
from fedjob.manifest import ManifestError, load_manifest, render_problems
from fedjob.progress import display_for, say
from fedjob.tensorboard import Curves, EventFile, check_installed
from fedjob_operator.adapters.local import JobFile, leader_folder
from fedjob_operator.api.immutable import immutable_changes
from fedjob_operator.api.local import local_notes
from fedjob_operator.api.problems import Problem
from fedjob_operator.api.supported import unsupported_on_cluster
from fedjob_operator.api.v1alpha1 import FederatedJob, FederatedJobStatus, Phase, dump
from fedjob_protocol.layout import ROUND_LOG_NAME

MANIFEST_FOLDER_ANNOTATION = "fedjob.dev/manifest-folder"
"""Where trainers are imported from and relative data paths start; kept for `fedjob predict`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line of ``fedjob run``."""

    file: Path
    overrides: tuple[str, ...]
    folder: Path | None
    resume: bool
    events: Path | None
    """Folder of event files for TensorBoard, if there are to be any."""
    as_json: bool
    listen: tuple[str, int] | None = None
    """Where the aggregator listens; absent means a free port of this machine."""


def run(options: Options) -> int:
    """Run a job; return the exit code: 0 Complete, 1 Failed, 2 wrong manifest or usage, 130 interrupted."""
    people = sys.stderr if options.as_json else sys.stdout
    if options.events is not None:
        check_installed()  # or say so before anything is made
    try:
        wanted = _load(options.file, options.overrides)
        _check_listens(wanted, options)
        folder = choose(wanted.metadata.name, options.folder, resume=options.resume)
        folder.prepare()
        lock = folder.lock()
    except ManifestError as error:
        say(render_problems(error.problems), stream=sys.stderr)
        return EXIT_USAGE
    except FolderError as error:
        say(f"fedjob: {error}", stream=sys.stderr)
        return EXIT_USAGE
    with lock:
        try:
            job = _resumed(wanted, folder) if options.resume else _created(wanted, folder, options.file)
        except ManifestError as error:
            say(render_problems(error.problems), stream=sys.stderr)
            return EXIT_USAGE
        except OSError as error:
            say(f"fedjob: {folder.job_file} cannot be written: {error.strerror or error}", stream=sys.stderr)
            return EXIT_FAILED
        for note in local_notes(wanted):
            say(f"note: {note.path}: {note.message}", stream=people)
        say(f"{job.metadata.name}: {folder.path}", stream=people)
        return _execute(options, folder, people_is_json=options.as_json)


def validate(file: Path, overrides: tuple[str, ...]) -> int:
    """Check a manifest; return 0 or 2."""
    try:
        job = load_manifest(file, overrides)
    except ManifestError as error:
        say(render_problems(error.problems), stream=sys.stderr)
        return EXIT_USAGE
    here, on_cluster = problems_here(job), unsupported_on_cluster(job.spec)
    nowhere = [problem for problem in here if problem in on_cluster]
    if nowhere:
        say(render_problems(nowhere), stream=sys.stderr)
        return EXIT_USAGE
    say(f"{file}: {job.metadata.name} is valid")
    for problem in here:
        say(f"note: not with `fedjob run`: {problem.path}: {problem.message}")
    return 0


def _load(file: Path, overrides: tuple[str, ...]) -> FederatedJob:
    """Read a manifest and check what this machine can check before anything is started.

    Raises:
        ManifestError: All problems.
    """
    job = load_manifest(file, overrides)
    problems = problems_here(job)
    problems += missing_paths(job, file.resolve().parent)
    if problems:
        raise ManifestError(tuple(problems))
    return job


def _check_listens(job: FederatedJob, options: Options) -> None:
    """Clients that register themselves have to know where.

    Raises:
        ManifestError: There are such clients, and no address is given.
    """
    for index, group in enumerate(job.spec.client_groups):
        if group.external is not None and options.listen is None:
            message = "its clients register at the aggregator: say where that is with --listen 127.0.0.1:9000"
            raise ManifestError((Problem(f"spec.clientGroups[{index}].external", message),))


def _created(wanted: FederatedJob, folder: RunFolder, file: Path) -> FederatedJob:
    annotations = {**wanted.metadata.annotations, MANIFEST_FOLDER_ANNOTATION: str(file.resolve().parent)}
    metadata = wanted.metadata.model_copy(
        update={"uid": str(uuid4()), "creation_timestamp": utc_now(), "annotations": annotations}
    )
    fresh = wanted.model_copy(update={"metadata": metadata, "status": FederatedJobStatus()})
    return JobFile(folder.job_file).create(fresh)


def _resumed(wanted: FederatedJob, folder: RunFolder) -> FederatedJob:
    """Take up a run; the manifest may have changed only in what may change.

    Raises:
        ManifestError: It changed in something else, or the file of the run cannot be read.
    """
    store = JobFile(folder.job_file)
    try:
        job = store.load()
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ManifestError((Problem(str(folder.job_file), f"cannot be read: {reason}"),)) from error
    status = job.status
    problems = immutable_changes(
        job.spec,
        wanted.spec,
        committed=status.rounds.committed,
        complete=status.phase is Phase.COMPLETE,
        layout=status.layout,
    )
    if status.phase is Phase.FAILED and wanted.spec != job.spec:
        problems.append(Problem("spec", "the run has failed and cannot go on; start a new one to change it"))
    if wanted.metadata.name != job.metadata.name:
        problems.append(Problem("metadata.name", f"the folder holds a run of {job.metadata.name}"))
    if problems:
        raise ManifestError(tuple(problems))
    if wanted.spec == job.spec:
        return job
    metadata = job.metadata.model_copy(update={"generation": job.metadata.generation + 1})
    return store.create(job.model_copy(update={"spec": wanted.spec, "metadata": metadata}))


def _execute(options: Options, folder: RunFolder, *, people_is_json: bool) -> int:
    people = sys.stderr if people_is_json else sys.stdout
    manifest_folder = options.file.resolve().parent
    began = time.monotonic()
    display = display_for(people)
    try:
        with display, _events(options.events) as events:
            curves = Curves(events, tell=lambda why: say(f"fedjob: {why}", stream=sys.stderr))

            def on_change(job: FederatedJob, before: FederatedJobStatus) -> None:
                display.update(job, before)
                if job.status.rounds.committed > before.rounds.committed:
                    curves.follow(folder.path / leader_folder(job) / ROUND_LOG_NAME)

            listen = options.listen or ("127.0.0.1", 0)
            job = execute(Run(folder=folder, manifest_folder=manifest_folder, on_change=on_change, listen=listen))
    except Interrupted:
        again = [_program(), "run", str(options.file), "--dir", str(folder.path), "--resume"]
        if options.listen:
            again += ["--listen", f"{options.listen[0]}:{options.listen[1]}"]
        for override in options.overrides:
            again += ["--set", override]
        say(f"interrupted; go on with: {shlex.join(again)}", stream=people)
        if options.as_json:
            _print_job(JobFile(folder.job_file).load())
        return EXIT_INTERRUPTED
    _conclude(job, folder, seconds=time.monotonic() - began, as_json=options.as_json)
    return 0 if job.status.phase is Phase.COMPLETE else EXIT_FAILED


def _events(folder: Path | None) -> AbstractContextManager[EventFile | None]:
    return nullcontext() if folder is None else EventFile(folder)


def _conclude(job: FederatedJob, folder: RunFolder, *, seconds: float, as_json: bool) -> None:
    people = sys.stderr if as_json else sys.stdout
    status = job.status
    say(f"{status.phase}: {status.message} ({seconds:.1f} s)", stream=people)
    if status.phase is Phase.FAILED:
        say(f"logs: {folder.path / 'logs'}", stream=people)
    if status.model and status.model.path:
        say(f"model: {folder.path / leader_folder(job) / status.model.path}", stream=people)
        say(f"digest: {status.model.digest}", stream=people)
        say("next:", stream=people)
        for command in (["rounds"], ["model", "show"], ["predict"]):
            say(f"  {shlex.join([_program(), *command, str(folder.path)])}", stream=people)
    if as_json:
        _print_job(job)


def _print_job(job: FederatedJob) -> None:
    say(json.dumps(dump(job), allow_nan=False))


def _program() -> str:
    """How the user can call this program again."""
    called = Path(sys.argv[0])
    found = shutil.which("fedjob")
    if called.name != "fedjob" or (found and Path(found).resolve() == called.resolve()):
        return "fedjob"
    return str(called)
