"""The Dockerfiles: what holds without building them. `make e2e` builds and runs them."""

import re
from fnmatch import fnmatch

import pytest

from fedjob_operator.build.pods import DATA_FOLDER, USER
from fedjob_operator.settings import HEALTH_PORT
from fedjob_protocol.routes import AGGREGATOR_PORT, CLIENT_PORT, METRICS_PORT
from tests.support.repository import ROOT

FILES = {
    "client": "images/client/Dockerfile",
    "aggregator": "images/aggregator/Dockerfile",
    "operator": "operator/Dockerfile",
}
PORTS = {"client": CLIENT_PORT, "aggregator": AGGREGATOR_PORT, "operator": HEALTH_PORT}
each_image = pytest.mark.parametrize("image", FILES)


def instructions(image):
    """Instruction and argument of each, comments dropped and continued lines joined."""
    text = (ROOT / FILES[image]).read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(maxsplit=1)) for line in text.splitlines() if line.strip()]


def arguments(image, name):
    return [argument for instruction, argument in instructions(image) if instruction == name]


def last_stage(image):
    found = instructions(image)
    begin = max(position for position, (name, _) in enumerate(found) if name == "FROM")
    return found[begin:]


@each_image
def test_one_base_builds_and_runs_and_can_be_another(image):
    assert arguments(image, "ARG")[0].startswith("BASE=docker.io/library/python:3.11-slim")
    assert [stage.split()[0] for stage in arguments(image, "FROM")] == ["${BASE}", "packages", "${BASE}"]


@each_image
def test_no_builder_but_buildkit_would_refuse_it(image):
    text = (ROOT / FILES[image]).read_text(encoding="utf-8")
    assert not re.search(r"--mount|--link|--chmod|<<-?['\"]?\w", text)


@each_image
def test_packages_come_by_hash_and_programs_without_any(image):
    installs = [command for command in re.split(r"&&", " && ".join(arguments(image, "RUN"))) if " install " in command]
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes -r requirements/image-" in command or "--no-deps --no-index" in command


@each_image
def test_the_last_stage_only_copies_and_runs_as_the_user_of_the_pods(image):
    stage = last_stage(image)
    copies = [argument for name, argument in stage if name == "COPY"]
    assert all(argument.startswith("--from=") for argument in copies)
    assert not any("pip" in argument or "apt" in argument for name, argument in stage if name == "RUN")
    assert ("USER", f"{USER}:{USER}") in stage
    assert ("ENTRYPOINT", f'["fedjob-{image}"]') in stage
    assert ("EXPOSE", f"{PORTS[image]} {METRICS_PORT}") in stage
    environment = " ".join(argument for name, argument in stage if name == "ENV")
    assert "PYTHONSAFEPATH=1" in environment
    assert "HOME=/home/fedjob" in environment


def test_the_aggregators_folder_is_where_its_volume_is():
    assert f"FEDJOB_DIR={DATA_FOLDER}" in " ".join(arguments("aggregator", "ENV"))


@each_image
def test_what_is_copied_is_in_the_context(image):
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    sources = [
        source for argument in arguments(image, "COPY") if "--from" not in argument for source in argument.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        depth = source.count("/") + 1  # of a folder, what is allowed of it is copied
        assert any(fnmatch(source, "/".join(entry.split("/")[:depth])) for entry in allowed), source
