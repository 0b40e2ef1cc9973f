"""The Dockerfiles: what holds without building them. `make e2e` builds and runs them."""

import re
import subprocess
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


def stages(image):
    """What each stage is built from, and its instructions, by name; the last one may have none."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, argument in instructions(image):
        if name == "FROM":
            source, _, stage = argument.partition(" AS ")
            found[stage or "last"] = current = [(name, source)]
        elif found:
            current.append((name, argument))
    return found


def runtime_stage(image):
    """The stage that pods run."""
    return stages(image).get(image) or stages(image)["last"]


@each_image
def test_one_base_builds_and_runs_and_can_be_another(image):
    assert arguments(image, "ARG")[0].startswith("BASE=docker.io/library/python:3.11-slim")
    assert [stage.split()[0] for stage in arguments(image, "FROM")][:3] == ["${BASE}", "packages", "${BASE}"]
    assert runtime_stage(image)[0] == ("FROM", "${BASE}")


@each_image
def test_no_builder_but_buildkit_would_refuse_it(image):
    text = (ROOT / FILES[image]).read_text(encoding="utf-8")
    assert not re.search(r"--mount|--link|--chmod|<<-?['\"]?\w", text)


@each_image
def test_packages_come_by_hash_and_programs_without_any(image):
    installs = [command for command in re.split(r"&&", " && ".join(arguments(image, "RUN"))) if " install " in command]
    assert len(installs) == (4 if image == "client" else 3)
    for command in installs:
        assert "--require-hashes -r requirements/image-" in command or "--no-deps --no-index" in command


@each_image
def test_the_stage_that_runs_only_copies_and_runs_as_the_user_of_the_pods(image):
    stage = runtime_stage(image)
    copies = [argument for name, argument in stage if name == "COPY"]
    assert all(argument.startswith("--from=") for argument in copies)
    assert not any("pip" in argument or "apt" in argument for name, argument in stage if name == "RUN")
    assert ("USER", f"{USER}:{USER}") in stage
    assert ("ENTRYPOINT", f'["fedjob-{image}"]') in stage
    assert ("EXPOSE", f"{PORTS[image]} {METRICS_PORT}") in stage
    environment = " ".join(argument for name, argument in stage if name == "ENV")
    assert "PYTHONSAFEPATH=1" in environment
    assert "HOME=/home/fedjob" in environment


def test_the_image_for_gpus_is_the_same_client_with_one_layer_more():
    found = stages("client")
    assert [name for name, _ in found["client-cuda"]] == ["FROM", "COPY", "LABEL"]
    assert found["client-cuda"][0] == ("FROM", "client")
    assert found["packages-cuda"][0] == ("FROM", "packages")
    assert found["last"] == [("FROM", "client")]  # without a target the client for the CPU is built
    added = " ".join(argument for name, argument in found["packages-cuda"] if name == "RUN")
    assert re.search(r"--prefix /build/cuda +--require-hashes -r requirements/image-client-cuda.txt", added)


def test_the_packages_for_gpus_are_those_of_the_client_and_what_compiles_kernels():
    def pins(name):
        text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
        return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))

    plain, cuda = pins("image-client"), pins("image-client-cuda")
    assert plain.items() <= cuda.items()
    added = cuda.keys() - plain.keys()
    assert "numba-cuda" in added
    assert all(name.startswith(("numba-cuda", "cuda-", "nvidia-", "packaging")) for name in added)


@pytest.mark.parametrize("target", ["images", "image-cuda"])
def test_the_makefile_names_the_target_of_the_client(target):
    recipe = subprocess.run(
        ["make", "-n", target, "DOCKER=docker"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout  # fmt: skip
    assert ("--target client-cuda" if target == "image-cuda" else "--target client)") in recipe


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
