"""Nothing in the repository is marked as unfinished."""

import re

from tests.support.repository import ROOT, files

MARKS = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "X" * 3, "raise " + "NotImplementedError")) + r")\b")
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".json", ".sh", ".cfg", ".ini", ""}


def test_nothing_is_marked_as_unfinished():
    marked = []
    for path in files():
        if path.suffix in TEXT:
            for number, line in enumerate((ROOT / path).read_text(encoding="utf-8").splitlines(), start=1):
                if MARKS.search(line):
                    marked.append(f"{path}:{number}: {line.strip()[:80]}")
    assert marked == []


def test_the_marks_are_found():
    for mark in ("TO" + "DO", "FIX" + "ME", "X" * 3):
        assert MARKS.search(f"# {mark}: later")
    assert not MARKS.search("a TODOS list, XXXL, NotImplemented")
