"""Reads a manifest: the file that `fedjob run` and `kubectl apply` take, with one meaning for both.

Everything that is wrong is collected and told at once, one line per problem, each naming the field.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from pydantic import BaseModel, JsonValue, ValidationError

from fedjob.overrides import apply_overrides
from fedjob.yaml_reader import YamlError, read_documents
from fedjob_operator.api.problems import Problem, field_model, field_names, problems_of, show
from fedjob_operator.api.rules import spec_problems
from fedjob_operator.api.v1alpha1 import API_VERSION, KIND, FederatedJob

MAX_BYTES: Final = 1_048_576
"""Largest manifest in bytes; the API server takes hardly more."""


class ManifestError(Exception):
    """The manifest cannot be used; nothing was started."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        """All that is wrong, in the order of the manifest."""
        super().__init__(render_problems(self.problems))


def load_manifest(path: Path, overrides: Sequence[str] = ()) -> FederatedJob:
    """Read a manifest, apply overrides, and check everything that can be checked without running it.

    Args:
        path: A YAML or JSON file with one FederatedJob.
        overrides: Changes such as ``spec.rounds=3``, applied in this order.

    Returns:
        The job, with defaults filled in. A status in the file is ignored, as the API server does.

    Raises:
        ManifestError: If the file cannot be read or is not YAML, or the job is not valid.
    """
    document = _object(path, read_document(path))
    document, problems = apply_overrides(document, overrides)
    if problems:
        raise ManifestError(problems)
    document.pop("status", None)
    document = _without_nulls(document)
    try:
        job = FederatedJob.from_document(document)
    except ValidationError as error:
        raise ManifestError(problems_of(error, FederatedJob)) from None
    problems = spec_problems(job.spec)
    if problems:
        raise ManifestError(problems)
    return job


def render_problems(problems: Iterable[Problem]) -> str:
    """Return one line per problem, each naming the field: what a user sees."""
    return "\n".join(str(problem) for problem in problems)


def read_document(path: Path) -> JsonValue:
    """Read a file that holds one YAML document.

    Raises:
        ManifestError: If it cannot be read, is too large, is not UTF-8 or YAML, or holds another number of documents.
    """
    documents = _documents(path)
    if len(documents) != 1:
        what = f"{len(documents)} documents; put one job into one file" if documents else "nothing in it"
        raise ManifestError([Problem(str(path), f"has {what}")])
    return documents[0]


def _documents(path: Path) -> list[JsonValue]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ManifestError([Problem(str(path), f"cannot be read: {error.strerror}")]) from None
    if len(content) > MAX_BYTES:
        raise ManifestError([Problem(str(path), f"is larger than {MAX_BYTES} bytes")])
    try:
        return read_documents(content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ManifestError([Problem(str(path), f"line {line}: is not UTF-8")]) from None
    except YamlError as error:
        raise ManifestError([Problem(str(path), str(error))]) from None


def _object(path: Path, document: JsonValue) -> dict[str, JsonValue]:
    """Check that a document is a FederatedJob at all: if it is not, more problems would only distract."""
    if not isinstance(document, dict):
        raise ManifestError([Problem(str(path), f"is {show(document)}, not a mapping with apiVersion, kind and spec")])
    problems = [
        Problem(field, "missing" if field not in document else f"{show(document[field])} is not {expected}")
        for field, expected in (("apiVersion", API_VERSION), ("kind", KIND))
        if document.get(field) != expected
    ]
    if problems:
        raise ManifestError(problems)
    return document


def _without_nulls(document: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Leave out fields without a value, as the API server does; what is in a free-form map stays as it is."""
    cleaned = _clean(FederatedJob, document)
    assert isinstance(cleaned, dict)
    return cleaned


def _clean(model: type[BaseModel] | None, value: JsonValue) -> JsonValue:
    if isinstance(value, list):
        return [_clean(model, item) for item in value]
    if model is None or not isinstance(value, dict):
        return value
    known = set(field_names(model))
    return {
        name: _clean(field_model(model, name), item)
        for name, item in value.items()
        if item is not None or name not in known
    }
