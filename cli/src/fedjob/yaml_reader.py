"""Reads a YAML document as kubectl does: the tree of JSON values that the API server would get.

PyYAML finds the tokens and their structure; what they mean is decided here and in `fedjob.yaml_scalars`. Stricter than
kubectl in two things: a key given twice is an error, and so are aliases that stand for very many values.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NoReturn

import yaml
from pydantic import JsonValue
from typing_extensions import override
from yaml.reader import ReaderError
from yaml.scanner import ScannerError

from fedjob.yaml_scalars import MERGE, Scalar, ScalarError, json_key, json_value, resolve, resolve_tagged

MAX_DEPTH: Final = 100
"""Deepest nesting of mappings and lists."""
MAX_ALIASED_VALUES: Final = 100_000
"""Most values that all aliases of a document may stand for together."""

_TAB: Final = "found character '\\t' that cannot start any token"
_MERGE_KEY: Final = "<<"
_AFTER_SCALAR: Final = "\0\r\n\x85\u2028\u2029#:,]}"
"""What may come after a plain scalar and blanks."""


class YamlError(ValueError):
    """The text is not YAML, or not what JSON can hold; the message is one line and begins with the line's number."""


def read_documents(text: str) -> list[JsonValue]:
    """Return the documents of a YAML text; empty ones are left out.

    Raises:
        YamlError: If the text is not YAML, a key is given twice, an alias contains itself, or a limit is passed.
    """
    try:
        return [document for document in _Reader(text).documents() if document is not None]
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise YamlError(f"line {line}: character U+{ord(text[error.position]):04X} is not allowed") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = "a tab cannot indent; use spaces" if error.problem == _TAB else error.problem or error.context
        raise YamlError(f"line {mark.line + 1}: {problem}" if mark else f"{problem}") from None


@dataclass(frozen=True, slots=True)
class _Node:
    """A value with the number of values in it, itself included."""

    value: JsonValue
    """The value. A scalar is kept as it was resolved: infinity is good for a key, though not for a value."""
    size: int = 1


class _Loader(yaml.SafeLoader):
    """PyYAML's scanner, brought to kubectl's rules where the two differ."""

    # The stubs call it final; PyYAML reads it through self so that subclasses can set it.
    ESCAPE_REPLACEMENTS = {  # type: ignore[misc]  # noqa: RUF012
        mark: character for mark, character in yaml.SafeLoader.ESCAPE_REPLACEMENTS.items() if mark != "/"
    }

    @override
    def scan_to_next_token(self) -> None:
        """Skip what is between tokens; a tab is a space wherever it cannot be taken for indentation."""
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            self.forward()
            super().scan_to_next_token()

    @override
    def scan_plain(self) -> yaml.ScalarToken:
        """Read a plain scalar; where PyYAML ends it too early, say what to write instead."""
        token = super().scan_plain()
        if self.flow_level and self.peek() == ":" and self.peek(1) in ",[]{}":
            raise ScannerError(None, None, "a colon needs a space after it", self.get_mark())
        blanks = 0
        while self.peek(blanks) in " \t":
            blanks += 1
        if "\t" in self.prefix(blanks) and self.peek(blanks) not in _AFTER_SCALAR:
            raise ScannerError(None, None, "a text with a tab in it needs quotes", self.get_mark())
        return token


class _Reader:
    """Builds values from PyYAML's events, one document after another."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=_Loader)
        self._anchors: dict[str, _Node | None] = {}
        """Finished values by anchor; None while one is being read."""
        self._aliased = 0
        self._depth = 0

    def documents(self) -> Iterator[JsonValue]:
        """Yield each document as a JSON value."""
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                if event.version not in {None, (1, 1)}:
                    _fail(event, "only YAML 1.1 can be declared, as with kubectl; leave the %YAML line out")
                self._anchors = {}
                root = next(self._events)
                yield _json(root, self._node(root)).value

    def _node(self, event: yaml.Event) -> _Node:
        """Read the value that begins with an event."""
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        node = _Node(_scalar(event)) if isinstance(event, yaml.ScalarEvent) else self._collection(event)
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _alias(self, event: yaml.AliasEvent) -> _Node:
        name = event.anchor or ""
        if name not in self._anchors:
            _fail(event, f"alias *{name} has no anchor &{name} before it")
        node = self._anchors[name]
        if node is None:
            _fail(event, f"alias *{name} contains itself")
        self._aliased += node.size
        if self._aliased > MAX_ALIASED_VALUES:
            _fail(event, f"aliases stand for more than {MAX_ALIASED_VALUES} values")
        return node

    def _collection(self, event: yaml.Event) -> _Node:
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            self._anchors[event.anchor] = None
        self._depth += 1
        if self._depth > MAX_DEPTH:
            _fail(event, f"nested more than {MAX_DEPTH} levels deep")
        node = self._sequence() if isinstance(event, yaml.SequenceStartEvent) else self._mapping()
        self._depth -= 1
        return node

    def _sequence(self) -> _Node:
        values: list[JsonValue] = []
        size = 1
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            node = _json(event, self._node(event))
            values.append(node.value)
            size += node.size
        return _Node(values, size)

    def _mapping(self) -> _Node:
        values: dict[str, JsonValue] = {}
        lines: dict[str, int] = {}
        size = 1
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if _is_merge(event):
                size += self._merge(values)
                continue
            key = _key(event, self._node(event))
            if key in lines:
                _fail(event, f'"{key}" is given twice; the first is in line {lines[key]}')
            lines[key] = _line(event)
            value = next(self._events)
            node = _json(value, self._node(value))
            values[key] = node.value
            size += node.size
        return _Node(values, size)

    def _merge(self, values: dict[str, JsonValue]) -> int:
        """Merge what follows the key ``<<`` into a mapping, over the keys before it, as kubectl does.

        Returns:
            How many values that were.
        """
        event = next(self._events)
        if isinstance(event, yaml.SequenceStartEvent):
            merged = []
            while not isinstance(item := next(self._events), yaml.SequenceEndEvent):
                merged.append(self._node(item))
        else:
            merged = [self._node(event)]
        for node in reversed(merged):  # the first of a list wins, so it comes last
            if not isinstance(node.value, dict):
                _fail(event, "<< needs a mapping, or a list of mappings")
            values.update(node.value)
        return sum(node.size for node in merged)


def _scalar(event: yaml.ScalarEvent) -> Scalar:
    plain, _ = event.implicit
    if any(0xD800 <= ord(character) <= 0xDFFF for character in event.value):
        _fail(event, "a \\u escape names half a character; write the whole one as \\U and eight digits")
    try:
        if event.tag is not None:
            return resolve_tagged(event.tag, event.value)
        return resolve(event.value) if plain else event.value
    except ScalarError as error:
        _fail(event, str(error))


def _json(event: yaml.Event, node: _Node) -> _Node:
    """Return a node as the value of something; a number that JSON cannot hold is an error."""
    if isinstance(node.value, dict | list):
        return node
    try:
        return _Node(json_value(node.value))
    except ScalarError as error:
        _fail(event, str(error))


def _key(event: yaml.Event, node: _Node) -> str:
    """Return a node as the key of a mapping."""
    if isinstance(node.value, dict | list):
        _fail(event, "a mapping or a list cannot be a key")
    try:
        return json_key(node.value)
    except ScalarError as error:
        _fail(event, str(error))


def _is_merge(event: yaml.Event) -> bool:
    if not isinstance(event, yaml.ScalarEvent) or event.value != _MERGE_KEY:
        return False
    return event.tag == MERGE or (event.tag is None and event.implicit[0])


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 0


def _fail(event: yaml.Event, problem: str) -> NoReturn:
    raise YamlError(f"line {_line(event)}: {problem}")
