"""What every model of the resource is built from: base classes and scalar types.

The types are what a Kubernetes structural schema can hold, and they read values as the API server does: a string is
never a number, a boolean is never an integer, and ``10.0`` is the integer 10 (JSON has only one kind of number).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, ClassVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    JsonValue,
    Strict,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

from fedjob_operator.api.quantity import PERCENT_PATTERN, QUANTITY_PATTERN, parse_percent
from fedjob_protocol.strategies import PARAMETERS, Parameter

MAX_CLIENTS = 10_000
"""Most clients of one job, and so the longest list of client indices in a status."""
MAX_ROUNDS = 1_000_000
"""Most rounds of one job."""
MAX_SECONDS = 31_536_000
"""Longest duration anywhere in the resource: 365 days, in seconds."""
MAX_SAFE_INTEGER = 9_007_199_254_740_991
"""Largest integer that every JSON reader keeps exact: 2^53 - 1."""
MAX_GROUPS = 64
"""Most client groups of one job."""
DNS_1035 = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
"""A DNS-1035 label: lower-case letters, digits and dashes, beginning with a letter and not ending with a dash."""
DNS_1123_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
"""The name of most Kubernetes objects."""
WORD_PATTERN = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
"""The name of something registered."""
TRAINER_PATTERN = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_.]*$"
"""A class in a module: ``package.module:Class``."""
_RFC_3339 = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T")


class Base(BaseModel):
    """Frozen; camelCase in documents, snake_case in Python; attribute docstrings become descriptions."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True,
        alias_generator=to_camel,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


class SpecModel(Base):
    """A part of the resource that people write: a field that is not known is an error."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


class StatusModel(Base):
    """A part that programs write: a field of a newer version is ignored when an older one reads it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="ignore")


def dump(model: BaseModel) -> dict[str, Any]:
    """Return a model as the JSON document that the API server holds: camelCase, absent fields left out.

    Args:
        model: Any model of the resource.

    Returns:
        A new tree of dicts, lists, strings, numbers and booleans; times are RFC 3339 strings in UTC.
    """
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _integral(value: object) -> object:
    """Turn a float without a fraction into the integer that it is in JSON; leave the rest for the type to judge."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


@dataclass(frozen=True, slots=True)
class Whole:
    """Annotation of an integer from `least` to `most`; ``10.0`` is one, ``"10"`` and ``true`` are not."""

    least: int
    most: int

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Build the check; the bounds sit on the integer itself so that they reach the JSON schema."""
        integer = core_schema.int_schema(strict=True, ge=self.least, le=self.most)
        return core_schema.no_info_before_validator_function(_integral, integer)


def _count_or_percent(least: int) -> BeforeValidator:
    """Return the check of a field that takes a count of at least `least`, or a percentage such as "20%"."""

    def check(value: object) -> object:
        value = _integral(value)
        if isinstance(value, str):
            parse_percent(value)
        elif isinstance(value, bool) or not isinstance(value, int):
            # pydantic turns a ValueError into a problem of the field, and lets a TypeError through
            raise ValueError('should be an integer or a percentage such as "20%"')  # noqa: TRY004
        elif not least <= value <= MAX_CLIENTS:
            raise ValueError(f"should be from {least} to {MAX_CLIENTS}, or a percentage")
        return value

    return BeforeValidator(check)


def _count_or_percent_schema(least: int) -> WithJsonSchema:
    # "minimum" and "maximum" bind numbers only, "pattern" strings only: no union is needed.
    return WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": least,
            "maximum": MAX_CLIENTS,
            "pattern": PERCENT_PATTERN,
            "maxLength": 4,
        }
    )


def _utc_time(value: object) -> object:
    """Let only RFC 3339 text and datetimes through: pydantic alone would read a number as seconds since 1970."""
    is_text = isinstance(value, str) and _RFC_3339.match(value) is not None
    if not is_text and not isinstance(value, datetime):
        # pydantic turns a ValueError into a problem of the field, and lets a TypeError through
        raise ValueError("should be an RFC 3339 time such as 2026-01-31T12:00:00Z")
    return value


def _in_utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("is outside of the years 1 to 9999 in UTC") from error


Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
"""A finite number; integers are numbers, strings and booleans are not."""
Bool = Annotated[bool, Strict()]
"""``true`` or ``false``, nothing else."""
Text = Annotated[str, Strict(), Field(max_length=1024)]
"""A string of at most 1,024 characters."""
Word = Annotated[str, Strict(), Field(min_length=1, max_length=63, pattern=WORD_PATTERN)]
"""The name of something registered: a model, an optimizer, a metric, a data set."""
TrainerName = Annotated[str, Strict(), Field(max_length=253, pattern=TRAINER_PATTERN)]
"""A class of the user's own."""
MetricName = Annotated[str, Strict(), Field(min_length=1, max_length=64)]
"""The name of a metric; whatever a trainer reports."""
TensorPattern = Annotated[str, Strict(), Field(min_length=1, max_length=253)]
"""A pattern of tensor names: ``*`` is any text, ``?`` one character, ``[…]`` one of some."""
Label = Annotated[str, Strict(), Field(min_length=1, max_length=40, pattern=DNS_1035)]
"""A DNS-1035 label of at most 40 characters: names of jobs and groups, so that derived names fit into 63."""
ObjectName = Annotated[str, Strict(), Field(min_length=1, max_length=253, pattern=DNS_1123_SUBDOMAIN)]
"""The name of another Kubernetes object."""
Path = Annotated[str, Strict(), Field(min_length=1, max_length=4096)]
"""A path in a file system."""
Quantity = Annotated[str, Strict(), Field(min_length=1, max_length=32, pattern=QUANTITY_PATTERN)]
"""A Kubernetes quantity such as ``1Gi``."""
Digest = Annotated[str, Strict(), Field(max_length=128)]
"""A digest with its algorithm, such as ``sha256:…``."""
Seconds = Annotated[int, Whole(1, MAX_SECONDS)]
"""A duration of 1 second to 365 days."""
SecondsOrZero = Annotated[int, Whole(0, MAX_SECONDS)]
"""A duration of at most 365 days, or none."""
Index = Annotated[int, Whole(0, MAX_CLIENTS - 1)]
"""The index of a client in the job."""
NumClients = Annotated[int, Whole(0, MAX_CLIENTS)]
"""A number of clients, or none."""
SomeClients = Annotated[int, Whole(1, MAX_CLIENTS)]
"""A number of clients."""
RoundNumber = Annotated[int, Whole(0, MAX_ROUNDS)]
"""The number of a round; 0 is the initial model."""
NumRounds = Annotated[int, Whole(1, MAX_ROUNDS)]
"""A number of rounds."""
Counter = Annotated[int, Whole(0, MAX_SAFE_INTEGER)]
"""A number that only goes up."""
Amount = Annotated[int, Whole(1, MAX_SAFE_INTEGER)]
"""A number of bytes, or of examples."""
Time = Annotated[AwareDatetime, BeforeValidator(_utc_time), AfterValidator(_in_utc)]
"""A time in UTC; an RFC 3339 string in documents."""
CountOrPercent = Annotated[int | str, _count_or_percent(1), _count_or_percent_schema(1)]
"""A count of at least 1, or "1%" to "100%"."""
CountOrPercentOrZero = Annotated[int | str, _count_or_percent(0), _count_or_percent_schema(0)]
"""A count, or "1%" to "100%"."""


def _parameter_schema(parameter: Parameter) -> dict[str, Any]:
    lower = "exclusiveMinimum" if parameter.is_above_least else "minimum"
    upper = "exclusiveMaximum" if parameter.is_below_most else "maximum"
    return {
        "type": "integer" if parameter.is_whole else "number",
        "description": parameter.meaning,
        lower: parameter.least,
        upper: parameter.most,
    }


FreeForm = Annotated[
    Mapping[str, JsonValue],
    WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True}),
]
"""Any JSON object; the API server keeps all of it."""
StrategyParameters = Annotated[
    Mapping[str, JsonValue],
    WithJsonSchema(
        {
            "type": "object",
            "title": "StrategyParameters",
            "properties": {name: _parameter_schema(parameter) for name, parameter in PARAMETERS.items()},
            "x-kubernetes-preserve-unknown-fields": True,
        }
    ),
]
"""Any JSON object; where a name is one of `fedjob_protocol.strategies.PARAMETERS`, `api.rules` wants its range."""
