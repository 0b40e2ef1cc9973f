"""What the documentation says is there, is there."""

import re
import subprocess
from pathlib import Path

import click
import pytest

from fedjob.__main__ import cli
from fedjob.manifest import load_manifest
from fedjob_protocol.reasons import GOING_WELL, Reason
from tests.support.markdown import ROOT, anchors, blocks, links, pages, section

README = ROOT / "README.md"
ARCHITECTURE = ROOT / "ARCHITECTURE.md"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
TARGETS = {name for line in re.findall(r"^\.PHONY: (.+)$", MAKEFILE, re.MULTILINE) for name in line.split()}

SOURCES = ("protocol", "operator", "images", "cli", "docs", "examples", "tests", "bench")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", pages(), ids=name)
def test_links_resolve(page):
    broken = []
    for link in links(page):
        if re.match(r"https?://", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", pages(), ids=name)
def test_commands_exist(page):
    text = page.read_text(encoding="utf-8")
    code = "\n".join([*re.findall(r"`([^`\n]+)`", text), *blocks(page, "sh"), *blocks(page, "bash")])
    unknown = [
        target
        for command in re.findall(r"^ *make ((?:[a-z][a-z0-9-]*(?: |$))+)", code, re.MULTILINE)
        for target in command.split()
        if target not in TARGETS
    ]
    unknown += [
        command
        for command in re.findall(r"^ *(?:\.venv/bin/)?fedjob ([a-z]+)", code, re.MULTILINE)
        if not known(command)
    ]
    assert unknown == []


def known(command: str) -> bool:
    return isinstance(cli, click.Group) and command in cli.commands


@pytest.mark.parametrize("page", pages(), ids=name)
def test_shell_blocks_are_valid_bash(page):
    for block in [*blocks(page, "sh"), *blocks(page, "bash")]:
        checked = subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, f"{checked.stderr}\n{block}"


@pytest.mark.parametrize("page", pages(), ids=name)
def test_named_source_files_exist(page):
    named = re.findall(r"`((?:[\w.-]+/)*[\w-]+\.py)`", page.read_text(encoding="utf-8"))
    sources = [f"/{name(path)}" for folder in SOURCES for path in (ROOT / folder).rglob("*.py")]
    assert [file for file in named if not any(source.endswith(f"/{file}") for source in sources)] == []


def test_manifests_in_the_documentation_are_valid(tmp_path):
    manifests = [block for page in pages() for block in blocks(page, "yaml") if "kind: FederatedJob" in block]
    assert manifests
    for number, text in enumerate(manifests):
        path = tmp_path / f"{number}.yaml"
        path.write_text(text, encoding="utf-8")
        load_manifest(path, ())


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/**/*.yaml")), ids=name)
def test_examples_are_valid(path):
    load_manifest(path, ())


def test_help_lists_every_target():
    shown = subprocess.run(["make", "-s", "help"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    listed = set(re.findall(r"^  ([a-z][a-z0-9-]*) +\S", shown, re.MULTILINE))
    assert listed == TARGETS


def test_the_map_names_eight_files_in_an_order():
    text = section(ARCHITECTURE, "Read these eight files, in this order")
    listed = re.findall(r"^(\d)\. \[([^\]]+)\]\(([^)]+)\)", text, re.MULTILINE)
    assert [number for number, _, _ in listed] == list("12345678")
    assert all(shown == target and (ROOT / target).is_file() for _, shown, target in listed)


def test_the_map_names_every_folder():
    text = ARCHITECTURE.read_text(encoding="utf-8")
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    folders = {line.split("/")[0] for line in tracked.splitlines() if "/" in line and not line.startswith(".")}
    assert [folder for folder in sorted(folders - {"requirements"}) if f"{folder}/" not in text] == []


@pytest.mark.parametrize("page", [README, ARCHITECTURE], ids=name)
def test_entry_pages_are_short(page):
    assert len(page.read_text(encoding="utf-8").splitlines()) <= 150


def test_troubleshooting_explains_every_reason_that_needs_it():
    text = (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8")
    assert [reason for reason in Reason if reason not in GOING_WELL and f"`{reason}`" not in text] == []


def test_the_changelog_has_this_version():
    version = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
