"""The learning-rate schedules and their parameters; `fedjob_operator.core.schedules` has the formulas."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, TypeAlias

from pydantic import Field

from fedjob_operator.api.base import Number, NumRounds, SpecModel
from fedjob_operator.api.learning import LearningRateSchedule

Factor = Annotated[Number, Field(gt=0, le=1)]


class ConstantSchedule(SpecModel):
    """The learning rate does not change."""


class StepSchedule(SpecModel):
    """It is multiplied by gamma after every so many rounds."""

    every_rounds: NumRounds
    """Rounds between two steps."""
    gamma: Factor = 0.1
    """Factor of a step, more than 0 and at most 1. Default 0.1."""


class ExponentialSchedule(SpecModel):
    """It is multiplied by gamma after every round."""

    gamma: Factor
    """Factor of a round, more than 0 and at most 1."""


class CosineSchedule(SpecModel):
    """It goes down to minLearningRate along half a cosine over all rounds."""

    min_learning_rate: Number = Field(default=0.0, ge=0, le=1_000_000)
    """Where it ends. Default 0."""


Schedule: TypeAlias = ConstantSchedule | StepSchedule | ExponentialSchedule | CosineSchedule

SCHEDULES: Final[Mapping[str, type[Schedule]]] = MappingProxyType(
    {
        "Constant": ConstantSchedule,
        "Cosine": CosineSchedule,
        "Exponential": ExponentialSchedule,
        "Step": StepSchedule,
    }
)
"""Every schedule there is, and its parameters."""


def schedule_of(given: LearningRateSchedule | None) -> Schedule:
    """Read a schedule; absent means that the learning rate does not change.

    Raises:
        ValueError: There is no such schedule, or (as pydantic's ValidationError) its parameters are wrong.
    """
    if given is None:
        return ConstantSchedule()
    kind = SCHEDULES.get(given.name)
    if kind is None:
        known = ", ".join(sorted(SCHEDULES))
        raise ValueError(f'training.learningRateSchedule.name: "{given.name}" is not built in; built in are {known}')
    return kind.model_validate(dict(given.parameters))
