"""The messages that a decision sends, made from the spec and the intent in the status."""

from typing import Any

from fedjob_operator.api.resolve import clients_per_round, min_reports
from fedjob_operator.api.v1alpha1 import CurrentRound, FederatedJob
from fedjob_operator.core.actions import OpenRound, StartTask
from fedjob_operator.core.divergence import base_of_round, learning_rate_factor
from fedjob_operator.core.layout import group_of
from fedjob_operator.core.observed import PodView
from fedjob_operator.core.origin import served_origin
from fedjob_operator.core.scene import Scene
from fedjob_operator.core.schedules import learning_rate
from fedjob_operator.core.selection import init_seed, training_seed
from fedjob_operator.core.stopping import is_due
from fedjob_operator.core.turns import takes_turns
from fedjob_protocol.messages import Base, Participant, RoundSpec, RoundView, Strategy, Weighting
from fedjob_protocol.routes import failure_path, model_path, update_path
from fedjob_protocol.strategies import BUILT_IN_STRATEGIES
from fedjob_protocol.tasks import Destination, InitTask, OptimizerConfig, TrainingConfig, TrainTask, WarmInitTask

FEDPROX = "FedProx"
"""Name of the strategy whose parameter `mu` the clients need."""
MAX_LABEL_COUNTS = 20_000
"""Most label counts of all participants together that a round is opened with."""
MAX_EXAMPLES = 2**53
"""Most training examples that the protocol lets a client announce."""


def client_name(job: FederatedJob, index: int) -> str:
    """Name of a client for people: its group and its index in the job."""
    return f"{group_of(job.status.layout, index)}-{index}"


def base_of(job: FederatedJob) -> Base | None:
    """The committed model; ``None`` before round 0."""
    model = job.status.model
    return Base(round=model.round, digest=model.digest) if model else None


def open_round(scene: Scene, current: CurrentRound, aggregator: PodView) -> OpenRound:
    """Open the round of the intent, or hand the aggregator that has it open the current term."""
    job, url = scene.job, aggregator.url or ""
    first = current.number == 0
    wanted = 1 if first else min(clients_per_round(job.spec), len(current.selected))
    spec = RoundSpec(
        job_uid=job.metadata.uid,
        term=job.status.term,
        attempt=current.attempt,
        redraw=current.redraw,
        base=base_of_round(job, current.number),
        participants=_participants(scene, current.selected),
        clients_per_round=wanted,
        min_reports=1 if first else min(min_reports(job.spec), wanted),
        deadline_seconds=job.spec.round_policy.deadline_seconds,
        weighting=_weighting(job),
        strategy=Strategy(name=job.spec.strategy.name, parameters=dict(job.spec.strategy.parameters)),
        expects_evaluation=is_due(job.spec, current.number),
        max_model_bytes=job.spec.model.max_bytes,
    )
    return OpenRound(url=url, incarnation=aggregator.incarnation, round=current.number, spec=spec)


def _weighting(job: FederatedJob) -> Weighting:
    """Strategies that take no mean count each update the same."""
    terms = BUILT_IN_STRATEGIES.get(job.spec.strategy.name)
    return Weighting(job.spec.strategy.weighting) if terms is None or terms.takes_mean else Weighting.UNIFORM


def training_config(job: FederatedJob, *, round_number: int, index: int) -> TrainingConfig:
    """Hyperparameters of one client's training in one round.

    Raises:
        pydantic.ValidationError: A parameter of the optimizer, of the schedule or of FedProx is not what it should be.
        ValueError: There is no such schedule.
    """
    training = job.spec.training
    return TrainingConfig(
        epochs=training.epochs,
        batch_size=training.batch_size,
        learning_rate=learning_rate(job.spec, round_number) * learning_rate_factor(job.status, round_number),
        optimizer=OptimizerConfig(name=training.optimizer.name, parameters=dict(training.optimizer.parameters)),
        proximal_mu=_proximal_mu(job),
        parameters=dict(training.parameters),
        seed=training_seed(seed=job.spec.seed, round_number=round_number, index=index),
    )


def _proximal_mu(job: FederatedJob) -> Any:
    """Of FedProx (Li et al., MLSys 2020, equation 2): on the server it is FedAvg, its term is in the clients' loss."""
    strategy = job.spec.strategy
    return strategy.parameters.get("mu", 0.0) if strategy.name == FEDPROX else 0.0


def start_task(
    scene: Scene, current: CurrentRound, *, client: PodView, aggregator: PodView, view: RoundView
) -> StartTask:
    """Give a client its task: train, or in round 0 make the initial model.

    The time that it has is what the aggregator says is left, since the aggregator closes the round; the deadline in the
    status is older when the operator was away between its intent and the opening.
    """
    job, index, number = scene.job, client.index, current.number
    root = aggregator.url or ""
    remaining = job.spec.round_policy.deadline_seconds if view.seconds_left is None else view.seconds_left
    destination = Destination(
        term=job.status.term,
        attempt=current.attempt,
        boot_id=view.boot_id,
        upload_url=root + update_path(number, index),
        failure_url=root + failure_path(number, index),
        deadline_seconds=max(remaining, 1.0),
    )
    base = base_of_round(job, number)
    task: TrainTask | InitTask
    if base is None:
        task = InitTask(job_uid=job.metadata.uid, seed=init_seed(seed=job.spec.seed), destination=destination)
        if origin := served_origin(scene, current.attempt):
            task = WarmInitTask(**dict(task), origin=origin)
    else:
        task = TrainTask(
            job_uid=job.metadata.uid,
            base=base,
            config=training_config(job, round_number=number, index=index),
            model_url=root + model_path(base.round),
            max_model_bytes=job.spec.model.max_bytes,
            destination=destination,
        )
    return StartTask(
        url=client.url or "",
        incarnation=client.incarnation,
        boot_id=client.boot_id,
        client=index,
        round=number,
        task=task,
    )


def _participants(scene: Scene, selected: tuple[int, ...]) -> tuple[Participant, ...]:
    """Who may report, with what each has; the labels only while the request stays small enough to be read."""
    participants = tuple(_participant(scene, index) for index in selected)
    if sum(len(each.labels or ()) for each in participants) <= MAX_LABEL_COUNTS:
        return participants
    return tuple(each.model_copy(update={"labels": None}) for each in participants)


def _participant(scene: Scene, index: int) -> Participant:
    pod = scene.pods.clients.get(index)
    # Where clients take turns most are not there yet: an attempt that is opened again has to say the same.
    info = scene.seen.infos.get(pod.incarnation) if pod and not takes_turns(scene.spec) else None
    examples = info.examples if info and scene.job.status.model else None
    if examples is not None and not 1 <= examples <= MAX_EXAMPLES:
        examples = None
    labels = info.labels if info and examples is not None else None
    return Participant(client=index, name=client_name(scene.job, index), max_examples=examples, labels=labels)
