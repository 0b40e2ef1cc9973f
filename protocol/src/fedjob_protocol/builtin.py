"""Parameters of the built-in models and data sets: for clients, and for who checks a manifest before one is started."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Final, TypeAlias

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, field_validator

from fedjob_protocol.wire import Message

MAX_CLASSES: Final = 1_000_000
LINEAR_W: Final = 3.5
LINEAR_B: Final = 2.0
LINEAR_NOISE: Final = 0.5
LOGISTIC_W: Final = 1.5
LOGISTIC_B: Final = -0.75

Side: TypeAlias = Annotated[int, Field(ge=1, le=65_536)]
"""Of an image, in pixels, or its number of channels."""
Names: TypeAlias = Annotated[tuple[str, ...], Field(min_length=2, max_length=MAX_CLASSES)]
"""Of classes, in their order."""
Samples: TypeAlias = Annotated[int, Field(ge=1, le=100_000_000)]
Weight: TypeAlias = Annotated[float, Field(ge=-1e6, le=1e6)]


def _either(what: str) -> WrapValidator:
    """Of several types one; where it is none of them, one message rather than one for each."""

    def check(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        try:
            return handler(value)
        except ValidationError:
            raise ValueError(f"{what} is needed") from None

    return WrapValidator(check)


Column: TypeAlias = Annotated[
    Annotated[int, Field(ge=0, strict=True)] | str | None, _either("the name of a column, or its number from 0,")
]
Classes: TypeAlias = Annotated[
    Annotated[int, Field(ge=2, le=MAX_CLASSES, strict=True)] | Names | None,
    _either(f"the number of classes, 2 to {MAX_CLASSES}, or the list of their names"),
]


class NoParameters(Message):
    """``parameters`` of what has none."""


class MlpParameters(Message):
    """``model.parameters`` of ``mlp``."""

    hidden_sizes: Annotated[tuple[Annotated[int, Field(ge=1, le=65_536)], ...], Field(min_length=1, max_length=16)] = (
        64,
    )
    """Widths of the hidden layers."""


class CnnParameters(Message):
    """``model.parameters`` of ``cnn``."""

    channels: tuple[Annotated[int, Field(ge=1, le=1024)], Annotated[int, Field(ge=1, le=1024)]] = (32, 64)
    """Of the two convolutions."""
    kernel_size: int = Field(default=5, ge=1, le=15)
    """Side of their square kernels, in pixels; odd."""
    hidden_size: int = Field(default=512, ge=1, le=65_536)
    """Width of the dense layer."""

    @field_validator("kernel_size")
    @classmethod
    def _is_odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("an odd number is needed, so that the kernel has a middle")
        return value


class LinearDataParameters(Message):
    """``data.parameters`` of ``synthetic-linear``."""

    num_samples: Samples = 1000
    num_test_samples: Samples = 1000
    features: int = Field(default=1, ge=1, le=100_000)
    noise: float = Field(default=LINEAR_NOISE, ge=0, le=1e6)
    """Standard deviation of what is added to each value."""
    w: Weight = LINEAR_W
    """The truth: every feature's weight."""
    b: Weight = LINEAR_B
    """The truth: the intercept."""


class LogisticDataParameters(Message):
    """``data.parameters`` of ``synthetic-logistic``."""

    num_samples: Samples = 1000
    num_test_samples: Samples = 1000
    features: int = Field(default=1, ge=1, le=100_000)
    w: Weight = LOGISTIC_W
    """The truth: every feature's weight."""
    b: Weight = LOGISTIC_B
    """The truth: the intercept."""


class NpzParameters(Message):
    """``data.parameters`` of ``npz``."""

    classes: int | None = Field(default=None, ge=2, le=MAX_CLASSES)
    """Their number."""


class CsvParameters(Message):
    """``data.parameters`` of ``csv``."""

    label: Column = None
    """Name of the label's column, or its number from 0; absent: the last one."""
    classes: Classes = None
    """Their number, or their names in order."""
    test_path: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """A file of held-out examples."""
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ","
    scale: float = Field(default=1.0, gt=0, le=1e9)
    """What features are divided by."""
    image: tuple[Side, Side, Side] | None = None
    """Height, width and channels, where a line is an image."""


MODEL_PARAMETERS: Final[Mapping[str, type[Message]]] = MappingProxyType(
    {
        "cnn": CnnParameters,
        "linear": NoParameters,
        "logistic": NoParameters,
        "mlp": MlpParameters,
        "softmax": NoParameters,
    }
)
"""Every model that clients can train without a trainer of the user's own, and its parameters."""
DATA_PARAMETERS: Final[Mapping[str, type[Message]]] = MappingProxyType(
    {
        "cifar10": NoParameters,
        "csv": CsvParameters,
        "digits": NoParameters,
        "mnist": NoParameters,
        "npz": NpzParameters,
        "synthetic-linear": LinearDataParameters,
        "synthetic-logistic": LogisticDataParameters,
    }
)
"""Every data set that they can read without one, and its parameters."""
DATA_WITH_PATH: Final = frozenset({"mnist", "cifar10", "npz", "csv"})
"""Data sets that are read from a path."""
