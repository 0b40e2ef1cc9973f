"""The base of every message: camelCase on the wire, frozen, and strict about what it does not know."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class Message(BaseModel):
    """A request: unknown fields are refused, so that a typing error is not silently ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class Answer(Message):
    """An answer: unknown fields are ignored, so that an older program can read a newer one's."""

    model_config = ConfigDict(extra="ignore")


RoundNumber = Annotated[int, Field(ge=0, le=1_000_000_000)]
ClientIndex = Annotated[int, Field(ge=0, le=1_000_000)]
Sha256 = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Xxh3 = Annotated[str, Field(pattern=r"^xxh3-128:[0-9a-f]{32}$")]
ShortText = Annotated[str, Field(max_length=1024)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
Url = Annotated[str, Field(max_length=2048, pattern=r"^https?://")]
Metrics = Annotated[dict[Annotated[str, Field(max_length=64)], float], Field(max_length=64)]
