"""Errors as both sides see them: a stable machine word, its HTTP status, and who may try again.

Every error answer is ``application/problem+json`` (RFC 9457) whose ``word`` is a member of `Word`. Programs decide by
the word, people read ``detail``.
"""

from enum import StrEnum
from http import HTTPStatus
from types import MappingProxyType
from typing import Final, NamedTuple

from pydantic import BaseModel, ConfigDict

PROBLEM_MEDIA_TYPE: Final = "application/problem+json"
MAX_QUOTED: Final = 80
"""Longest piece of a peer's input that a message repeats, in characters."""


class Word(StrEnum):
    """Stable machine words of error answers; a word never changes its meaning and is never removed."""

    # Requests
    BAD_REQUEST = "bad-request"
    BAD_TOKEN = "bad-token"  # noqa: S105 - a word, not a secret
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    UNSUPPORTED_PROTOCOL = "unsupported-protocol"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    # Rounds
    WRONG_JOB = "wrong-job"
    STALE_TERM = "stale-term"
    STALE_ATTEMPT = "stale-attempt"
    WRONG_BOOT = "wrong-boot"
    WRONG_ROUND = "wrong-round"
    WRONG_BASE = "wrong-base"
    ROUND_CLOSED = "round-closed"
    ROUND_CONFLICT = "round-conflict"
    NOT_A_PARTICIPANT = "not-a-participant"
    ALREADY_REPORTED = "already-reported"
    NOT_LEADER = "not-leader"
    # Uploads that were damaged on the way and are worth sending again
    LENGTH_REQUIRED = "length-required"
    TRUNCATED = "truncated"
    DIGEST_MISMATCH = "digest-mismatch"
    # Uploads that are wrong in themselves
    TOO_LARGE = "too-large"
    UNSUPPORTED_MEDIA = "unsupported-media"
    MALFORMED_WEIGHTS = "malformed-weights"
    WRONG_NAMES = "wrong-names"
    WRONG_SHAPE = "wrong-shape"
    WRONG_DTYPE = "wrong-dtype"
    NON_FINITE = "non-finite"
    VALUE_OUT_OF_RANGE = "value-out-of-range"
    BAD_EXAMPLES = "bad-examples"
    # Storage
    STORAGE_FULL = "storage-full"
    # Simple forms
    TRAINING_IN_PROGRESS = "training-in-progress"


class Kind(NamedTuple):
    """How an error answer is sent and what its receiver may do."""

    status: HTTPStatus
    """The HTTP status that goes with the word."""
    retryable: bool
    """Whether the same request may succeed when it is sent again, without anything else changing."""


KINDS: Final = MappingProxyType(
    {
        Word.BAD_REQUEST: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, retryable=False),
        Word.BAD_TOKEN: Kind(HTTPStatus.UNAUTHORIZED, retryable=False),
        Word.FORBIDDEN: Kind(HTTPStatus.FORBIDDEN, retryable=False),
        Word.NOT_FOUND: Kind(HTTPStatus.NOT_FOUND, retryable=False),
        Word.METHOD_NOT_ALLOWED: Kind(HTTPStatus.METHOD_NOT_ALLOWED, retryable=False),
        Word.UNSUPPORTED_PROTOCOL: Kind(HTTPStatus.UPGRADE_REQUIRED, retryable=False),
        Word.INTERNAL: Kind(HTTPStatus.INTERNAL_SERVER_ERROR, retryable=True),
        Word.UNAVAILABLE: Kind(HTTPStatus.SERVICE_UNAVAILABLE, retryable=True),
        Word.WRONG_JOB: Kind(HTTPStatus.CONFLICT, retryable=False),
        Word.STALE_TERM: Kind(HTTPStatus.PRECONDITION_FAILED, retryable=False),
        Word.STALE_ATTEMPT: Kind(HTTPStatus.PRECONDITION_FAILED, retryable=False),
        Word.WRONG_BOOT: Kind(HTTPStatus.PRECONDITION_FAILED, retryable=False),
        Word.WRONG_ROUND: Kind(HTTPStatus.CONFLICT, retryable=False),
        Word.WRONG_BASE: Kind(HTTPStatus.CONFLICT, retryable=False),
        Word.ROUND_CLOSED: Kind(HTTPStatus.CONFLICT, retryable=False),
        Word.ROUND_CONFLICT: Kind(HTTPStatus.CONFLICT, retryable=False),
        Word.NOT_A_PARTICIPANT: Kind(HTTPStatus.FORBIDDEN, retryable=False),
        Word.ALREADY_REPORTED: Kind(HTTPStatus.CONFLICT, retryable=False),
        Word.NOT_LEADER: Kind(HTTPStatus.MISDIRECTED_REQUEST, retryable=False),
        Word.LENGTH_REQUIRED: Kind(HTTPStatus.LENGTH_REQUIRED, retryable=False),
        Word.TRUNCATED: Kind(HTTPStatus.BAD_REQUEST, retryable=True),
        Word.DIGEST_MISMATCH: Kind(HTTPStatus.BAD_REQUEST, retryable=True),
        Word.TOO_LARGE: Kind(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, retryable=False),
        Word.UNSUPPORTED_MEDIA: Kind(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, retryable=False),
        Word.MALFORMED_WEIGHTS: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, retryable=False),
        Word.WRONG_NAMES: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, retryable=False),
        Word.WRONG_SHAPE: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, retryable=False),
        Word.WRONG_DTYPE: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, retryable=False),
        Word.NON_FINITE: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, retryable=False),
        Word.VALUE_OUT_OF_RANGE: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, retryable=False),
        Word.BAD_EXAMPLES: Kind(HTTPStatus.UNPROCESSABLE_ENTITY, retryable=False),
        Word.STORAGE_FULL: Kind(HTTPStatus.INSUFFICIENT_STORAGE, retryable=True),
        Word.TRAINING_IN_PROGRESS: Kind(HTTPStatus.CONFLICT, retryable=False),
    }
)
"""HTTP status and retry rule of every word."""
WRONG_IN_ITSELF: Final = frozenset(
    {
        Word.TOO_LARGE,
        Word.UNSUPPORTED_MEDIA,
        Word.MALFORMED_WEIGHTS,
        Word.WRONG_NAMES,
        Word.WRONG_SHAPE,
        Word.WRONG_DTYPE,
        Word.NON_FINITE,
        Word.VALUE_OUT_OF_RANGE,
        Word.BAD_EXAMPLES,
    }
)
"""Refusals of an update itself: sending the same again would not help, so its client has failed in the attempt."""


class Problem(BaseModel):
    """Body of an error answer (RFC 9457)."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    word: str
    """Member of `Word`; a string here, because a newer peer may know more words."""


class FedJobError(Exception):
    """Base of the errors that the programs raise on purpose."""


class Refusal(FedJobError):  # noqa: N818 - it is what the protocol calls it
    """A request that is refused with a machine word.

    Args:
        word: Why, for programs.
        detail: Why, for people: the thing, what was seen, what to do.
    """

    def __init__(self, word: Word, detail: str) -> None:
        super().__init__(f"{word}: {detail}")
        self.word = word
        self.detail = detail

    @property
    def kind(self) -> Kind:
        """HTTP status and retry rule."""
        return KINDS[self.word]

    def problem(self) -> Problem:
        """The body to answer with."""
        return Problem(title=self.kind.status.phrase, status=self.kind.status, detail=self.detail, word=self.word)


class LocalProtocolError(FedJobError):
    """A step that would break the protocol: a bug of ours."""


class RemoteProtocolError(FedJobError):
    """The peer broke the protocol: its answer cannot be used."""


def quote(value: object) -> str:
    """A peer's value for a message: printable and short."""
    text = ascii(value)
    return text if len(text) <= MAX_QUOTED else text[: MAX_QUOTED - 3] + "..."
