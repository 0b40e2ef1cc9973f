"""The files that are made from the code are up to date, and are the same every time."""

import importlib

import pytest

from tests.support.markdown import ROOT


@pytest.fixture
def generate(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return importlib.import_module("generate")


def test_generated_files_are_up_to_date(generate):
    stale = [name for name, make in generate.FILES.items() if (ROOT / name).read_text(encoding="utf-8") != make()]
    assert stale == [], "call `make generate` and commit what it writes"


@pytest.mark.parametrize("folder", ["docs/reference", "charts/fedjob/files"])
def test_nothing_else_is_in_a_generated_folder(generate, folder):
    there = {f"{folder}/{path.name}" for path in (ROOT / folder).iterdir()}
    assert there <= set(generate.FILES)
