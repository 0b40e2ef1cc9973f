"""The CRD that is made from the models: what an API server, and whoever reads it, demands of it."""

import importlib

import pytest

from tests.support.repository import ROOT

MAX_BYTES = 200 * 1024
"""A client-side apply writes all of it into an annotation of at most 262,144 bytes."""


@pytest.fixture
def crd(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("generator.crd")


@pytest.fixture
def structural(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("generator.structural")


@pytest.fixture
def nodes(crd):
    """Every schema below spec and status, by its path."""
    schema = crd.document()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return {path: node for part in ("spec", "status") for path, node in walk(part, schema["properties"][part])}


def walk(path, node):
    yield path, node
    for name, field in node.get("properties", {}).items():
        yield from walk(f"{path}.{name}", field)
    if "items" in node:
        yield from walk(f"{path}[]", node["items"])


def test_it_is_small_enough_for_a_plain_apply(crd):
    assert len(crd.custom_resource_definition().encode()) < MAX_BYTES


def test_every_field_is_described(nodes):
    assert [path for path, node in nodes.items() if not path.endswith("[]") and not node.get("description")] == []


def test_every_string_and_list_is_bounded(nodes):
    strings = {path: node for path, node in nodes.items() if node.get("type") == "string"}
    lists = {path: node for path, node in nodes.items() if node.get("type") == "array"}
    assert strings
    assert lists
    assert [path for path, node in strings.items() if not {"maxLength", "enum"} & set(node)] == []
    assert [path for path, node in lists.items() if "maxItems" not in node] == []


def test_every_list_says_how_it_merges(nodes):
    kinds = {path: node["x-kubernetes-list-type"] for path, node in nodes.items() if "items" in node}
    assert {path for path, kind in kinds.items() if kind == "map"} == {"spec.clientGroups", "status.conditions"}
    assert set(kinds.values()) == {"map", "atomic"}


def test_there_is_nothing_that_a_structural_schema_may_not_have(nodes):
    for path, node in nodes.items():
        assert not {"$ref", "$defs", "oneOf", "allOf", "const", "additionalProperties", "title"} & set(node), path
        assert "anyOf" not in node or node["x-kubernetes-int-or-string"], path
        assert ("type" in node) != node.get("x-kubernetes-int-or-string", False), path
        assert None not in node.get("enum", ()), path


def test_a_status_holds_what_was_written(nodes):
    status = {path: set(node) for path, node in nodes.items() if path.startswith("status")}
    assert [path for path, keys in status.items() if keys & {"default", "x-kubernetes-validations"}] == []


def test_messages_of_rules_are_the_rest_of_a_line(nodes):
    rules = [rule for node in nodes.values() for rule in node.get("x-kubernetes-validations", ())]
    assert len(rules) > 50
    assert [rule for rule in rules if not rule["message"][0].islower() or "\n" in rule["rule"]] == []


def test_a_keyword_that_is_not_known_is_not_lost_in_silence(structural):
    definitions = {"X": {"type": "object", "description": "X.", "properties": {"a": {"multipleOf": 3}}}}
    with pytest.raises(ValueError, match="multipleOf"):
        structural.Structural(definitions).status("X")
