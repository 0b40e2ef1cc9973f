"""Hosted CI and `.ci/run` call the targets that a developer calls."""

import re

import yaml

from tests.support.markdown import ROOT

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/ci.yaml").read_text(encoding="utf-8"))
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
SCRIPT = (ROOT / ".ci/run").read_text(encoding="utf-8")
CHECKS = ["test", "lint", "types", "verify", "demo"]


def test_the_workflow_runs_make_targets_only():
    commands = [step["run"] for step in WORKFLOW["jobs"]["test"]["steps"] if "run" in step]
    assert commands == [f"make {target}" for target in CHECKS]


def test_the_workflow_runs_every_supported_python():
    assert WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]


def test_actions_are_pinned_by_commit():
    used = [step["uses"] for step in STEPS if "uses" in step]
    assert used
    assert [action for action in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", action)] == []


def test_the_workflow_gets_no_permissions_of_its_own():
    assert WORKFLOW["permissions"] == {}


def test_one_job_says_whether_all_is_green():
    others = set(WORKFLOW["jobs"]) - {"all-green"}
    assert set(WORKFLOW["jobs"]["all-green"]["needs"]) == others


def test_the_script_runs_the_tests_first_and_then_the_rest():
    called = [
        target for line in re.findall(r"^make ([a-z ]+?)(?: 2>.*)?$", SCRIPT, re.MULTILINE) for target in line.split()
    ]
    assert called == CHECKS
