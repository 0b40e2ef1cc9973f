"""Models of runs and of jobs on a cluster: fetched, and asked."""

from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from fedjob.export import Format, card, choose_round, write_card, write_model
from fedjob.failure import Failure
from fedjob.folder import RunFolder
from fedjob.kubectl import Document, Kubectl, PodProxy
from fedjob.progress import say
from fedjob.show import load_job, read_log
from fedjob_operator.adapters.local import leader_folder
from fedjob_operator.api.v1alpha1 import FederatedJob
from fedjob_protocol.digests import sha256_of
from fedjob_protocol.layout import ROUND_LOG_NAME, checkpoint_name
from fedjob_protocol.messages import RoundLog, RoundRecord
from fedjob_protocol.routes import AGGREGATOR_PORT, CLIENT_PORT, ROUNDS_PATH, model_path

MAX_PAGES: Final = 10_000
"""Of the round log; a job has at most a million rounds."""
ASKED: Final = ("server", "evaluator", "client")
"""Who answers ``/predict``, the best first."""


def pull_from_folder(path: Path, *, which: str, kind: Format, output: Path | None, force: bool) -> None:
    """Write a model of a run, and its card.

    Raises:
        Failure: There is no such model, or it cannot be written.
    """
    folder = RunFolder(path)
    job = load_job(folder)
    number = choose_round(job, which)
    file = folder.path / leader_folder(job) / checkpoint_name(number)
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise Failure(f"{path} does not keep the model of round {number}: {_kept(job)}") from None
    except OSError as error:
        raise Failure(f"{file}: {error.strerror or error}") from error
    _write(job, number, data, read_log(folder.path / leader_folder(job) / ROUND_LOG_NAME), kind, output, force=force)


def pull_from_cluster(
    kubectl: Kubectl, name: str, *, which: str, kind: Format, output: Path | None, force: bool
) -> None:
    """Write a model of a job on a cluster, and its card.

    Raises:
        Failure: There is no such model, nobody serves it, or it cannot be written.
    """
    job = kubectl.job(name)
    number = choose_round(job, which)
    pod, token = _aggregator(kubectl, job), kubectl.token(job)
    with kubectl.proxy() as proxy:
        data = proxy.get(pod, AGGREGATOR_PORT, model_path(number), token=token)
        records = _records(proxy, pod, token)
    _write(job, number, data, records, kind, output, force=force)


def rounds_on_cluster(kubectl: Kubectl, name: str) -> list[RoundRecord]:
    """Read the round log of a job on a cluster.

    Raises:
        Failure: There is no such job, nobody serves its log, or it cannot be read.
    """
    job = kubectl.job(name)
    pod, token = _aggregator(kubectl, job), kubectl.token(job)
    with kubectl.proxy() as proxy:
        return _records(proxy, pod, token)


def ask_cluster(kubectl: Kubectl, name: str, inputs: list[Any]) -> Document:
    """Predict with a job's model: a server of it where there is one, else an evaluator or a client that has seen one.

    Raises:
        Failure: Nobody is there to ask, or the answer is a refusal.
    """
    job = kubectl.job(name)
    pod = next((pod for role in ASKED for pod in kubectl.pods(job, role)), None)
    if pod is None:
        raise Failure(
            f"job {name} has no server, evaluator or client that is ready: set spec.serve.replicas, "
            "or pull the model with `fedjob model pull`"
        )
    with kubectl.proxy() as proxy:
        return proxy.post(pod, CLIENT_PORT, "/predict", {"inputs": inputs})


def _aggregator(kubectl: Kubectl, job: FederatedJob) -> Document:
    """The pod that has a job's models and rounds."""
    pods = [pod for pod in kubectl.pods(job, "aggregator") if pod["metadata"]["name"] == _leader(job, pod)]
    if not pods:
        raise Failure(f"job {job.metadata.name}: no aggregator is ready to be asked; it is {job.status.phase}")
    return pods[0]


def _leader(job: FederatedJob, pod: Document) -> str:
    """Name of the aggregator to ask: the leader; where none is known, whichever there is."""
    known = job.status.aggregator.leader if job.status.aggregator else None
    return known or str(pod["metadata"]["name"])


def _records(proxy: PodProxy, pod: Document, token: str) -> list[RoundRecord]:
    records: list[RoundRecord] = []
    for _ in range(MAX_PAGES):
        since = records[-1].round + 1 if records else 0
        raw = proxy.get(pod, AGGREGATOR_PORT, f"{ROUNDS_PATH}?since={since}&limit=1000", token=token)
        try:
            page = RoundLog.model_validate_json(raw)
        except ValidationError as error:
            raise Failure(f"the round log cannot be read: {error.error_count()} problems") from error
        records += page.rounds
        if not page.more or not page.rounds:
            break
    return records


def _write(
    job: FederatedJob,
    number: int,
    data: bytes,
    records: list[RoundRecord],
    kind: Format,
    output: Path | None,
    *,
    force: bool,
) -> None:
    known = {record.round: record.digest for record in records}.get(number)
    digest = sha256_of(data)
    if known is not None and digest != known:
        raise Failure(f"the model of round {number} has the digest {digest}, the round log says {known}")
    path = output or Path(f"{job.metadata.name}-round-{number}.{kind}")
    write_model(path, data, kind, force=force)
    beside = write_card(path, card(job, number, data, records))
    say(f"model: {path} (round {number}, {kind})")
    say(f"digest: {digest}")
    say(f"card: {beside}")


def _kept(job: FederatedJob) -> str:
    status = job.status
    best = f"round {status.best.round} (best)" if status.best else "no best one"
    final = f"round {status.model.round} (final)" if status.model else "no model"
    return f"it has {final} and {best}"
