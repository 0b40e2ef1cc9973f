"""What is wrong with the parameters of the local training, free-form ones: what optimizer and schedule do not take."""

from collections.abc import Collection, Iterator, Mapping

from pydantic import BaseModel, ValidationError

from fedjob_operator.api.problems import Problem, problems_of, suggestion
from fedjob_operator.api.schedules import SCHEDULES, CosineSchedule
from fedjob_operator.api.spec import FederatedJobSpec
from fedjob_protocol.optimizers import OPTIMIZERS


def training_problems(spec: FederatedJobSpec) -> Iterator[Problem]:
    """Yield the problems of optimizer and schedule. Groups with a trainer of their own may have any optimizer."""
    path, optimizer = "spec.training.optimizer", spec.training.optimizer
    if any(group.trainer is None for group in spec.client_groups):
        if optimizer.name in OPTIMIZERS:
            yield from parameter_problems(f"{path}.parameters", optimizer.parameters, OPTIMIZERS[optimizer.name])
        else:
            yield not_built_in(f"{path}.name", optimizer.name, OPTIMIZERS)
    else:
        for name, value in optimizer.parameters.items():
            if isinstance(value, bool) or not isinstance(value, int | float):
                yield Problem(f"{path}.parameters.{name}", "is not a number")
    yield from _schedule(spec)


def not_built_in(path: str, name: str, known: Collection[str]) -> Problem:
    """A name that nothing built in has."""
    near = suggestion(name, known)
    return Problem(path, f'"{name}" is not built in{near}; built in are {", ".join(sorted(known))}')


def _schedule(spec: FederatedJobSpec) -> Iterator[Problem]:
    path, schedule = "spec.training.learningRateSchedule", spec.training.learning_rate_schedule
    if schedule is None:
        return
    if schedule.name not in SCHEDULES:
        yield not_built_in(f"{path}.name", schedule.name, SCHEDULES)
        return
    kind = SCHEDULES[schedule.name]
    problems = list(parameter_problems(f"{path}.parameters", schedule.parameters, kind))
    yield from problems
    if kind is CosineSchedule and not problems:
        least = CosineSchedule.model_validate(dict(schedule.parameters)).min_learning_rate
        if least > spec.training.learning_rate:
            rate = spec.training.learning_rate
            yield Problem(f"{path}.parameters.minLearningRate", f"{least:g} is more than learningRate ({rate:g})")


def parameter_problems(path: str, given: Mapping[str, object], kind: type[BaseModel]) -> Iterator[Problem]:
    """Yield what is wrong with a free-form map that should be of a kind."""
    try:
        kind.model_validate(dict(given))
    except ValidationError as error:
        for problem in problems_of(error, kind):
            yield Problem(f"{path}.{problem.path}", problem.message)
