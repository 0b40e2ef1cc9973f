"""The pages that are made from the code are up to date, and are the same every time."""

import importlib

import pytest

from tests.support.markdown import ROOT


@pytest.fixture
def generate(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("generate")


def test_generated_pages_are_up_to_date(generate):
    stale = [
        name for name, make in generate.PAGES.items() if (ROOT / "docs" / name).read_text(encoding="utf-8") != make()
    ]
    assert stale == [], "call `make generate` and commit what it writes"


def test_nothing_else_is_in_the_generated_folder(generate):
    there = {f"reference/{path.name}" for path in (ROOT / "docs/reference").iterdir()}
    assert there <= set(generate.PAGES)
