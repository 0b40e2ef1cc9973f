"""The optimizers of the built-in models and their parameters: for who trains, and for who checks a manifest before."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final

from pydantic import Field

from fedjob_protocol.wire import Message

Share = Annotated[float, Field(strict=True, ge=0, lt=1)]
"""A number from 0 to below 1."""
WeightDecay = Annotated[float, Field(strict=True, ge=0, le=1e3)]


class SgdParameters(Message):
    """``training.optimizer.parameters`` of SGD."""

    momentum: Share = 0.0
    """How much of the last step is in the next one; 0 is plain gradient descent."""
    weight_decay: WeightDecay = 0.0
    """Added to the gradient, times the parameter."""


class AdamParameters(Message):
    """``training.optimizer.parameters`` of Adam."""

    beta1: Share = 0.9
    """Decay of the mean of the gradients."""
    beta2: Share = 0.999
    """Decay of the mean of their squares."""
    epsilon: float = Field(default=1e-8, strict=True, gt=0, le=1)
    """Added to the root of the mean square."""
    weight_decay: WeightDecay = 0.0
    """Added to the gradient, times the parameter."""


OPTIMIZERS: Final[Mapping[str, type[SgdParameters] | type[AdamParameters]]] = MappingProxyType(
    {"Adam": AdamParameters, "SGD": SgdParameters}
)
"""Every optimizer there is, and its parameters."""
