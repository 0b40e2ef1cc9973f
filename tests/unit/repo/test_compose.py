"""The compose files: what they start is ours, reachable, and told what it knows."""

import re
import shutil
import subprocess

import click
import pytest
import yaml

from fedjob_aggregator.command import main as aggregator_command
from fedjob_client.command import main as client_command
from fedjob_client.command import port_of
from tests.support.repository import ROOT

CLIENTS = {"client-1": 8001, "client-2": 8002, "client-3": 8003}


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def variables(command: click.Command) -> set[str]:
    """The environment variables that a program reads."""
    names = {"FEDJOB_DIR"}
    for option in command.params:
        given = option.envvar or f"FEDJOB_{(option.name or '').upper()}"
        names.update([given] if isinstance(given, str) else given)
    return names


def test_it_is_three_clients_and_an_aggregator_on_the_ports_of_the_lab():
    services = read("compose.yaml")["services"]
    published = {name: service["ports"] for name, service in services.items()}
    wanted = {**CLIENTS, "aggregator": 9000}
    assert published == {name: [f"127.0.0.1:{port}:{port}"] for name, port in wanted.items()}
    assert {name: int(service["environment"]["FEDJOB_PORT"]) for name, service in services.items()} == wanted


def test_they_are_built_from_the_two_images():
    services = read("compose.yaml")["services"]
    for name, service in services.items():
        file = ROOT / service["build"]["context"] / service["build"]["dockerfile"]
        assert file.is_file()
        assert f"fedjob-{'aggregator' if name == 'aggregator' else 'client'}" in file.read_text(encoding="utf-8")


def test_clients_are_built_for_the_cpu_and_with_gpus_for_them():
    stages = re.findall(r"^FROM .* AS (\S+)$", (ROOT / "images/client/Dockerfile").read_text("utf-8"), re.MULTILINE)
    for file, target in (("compose.yaml", "client"), ("compose.gpu.yaml", "client-cuda")):
        services = read(file)["services"]
        assert target in stages
        assert {services[name]["build"]["target"] for name in CLIENTS} == {target}
        assert {services[name]["image"] for name in CLIENTS} == {f"fedjob/{target}:lab"}


def test_each_client_registers_where_the_aggregator_reaches_it_and_has_data_of_its_own():
    services = read("compose.yaml")["services"]
    assert len({services[name]["environment"]["FEDJOB_INDEX"] for name in CLIENTS}) == 3
    for name, port in CLIENTS.items():
        environment = services[name]["environment"]
        assert environment["SERVER_URL"] == "http://aggregator:9000"
        assert environment["CLIENT_URL"] == f"http://{name}:{port}"
        assert environment.keys() <= variables(client_command)
    assert services["aggregator"]["environment"].keys() <= variables(aggregator_command)


def test_what_is_written_to_is_a_volume_or_memory():
    compose = read("compose.yaml")
    for service in compose["services"].values():
        assert service["read_only"] is True
        assert "/tmp" in service["tmpfs"]
    assert compose["services"]["aggregator"]["volumes"] == ["models:/data"]
    assert "models" in compose["volumes"]


def test_the_file_for_gpus_adds_nothing_but_gpus_and_their_image_to_the_clients():
    services = read("compose.gpu.yaml")["services"]
    assert services.keys() == CLIENTS.keys()
    for service in services.values():
        assert service.keys() == {"deploy", "image", "build"}
        (device,) = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])


@pytest.mark.parametrize("files", [("compose.yaml",), ("compose.yaml", "compose.gpu.yaml")])
def test_compose_itself_takes_the_files(files):
    docker = shutil.which("docker")
    known = docker and subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode == 0
    if not known:
        pytest.skip("no docker compose on this machine")
    given = [part for file in files for part in ("-f", file)]
    done = subprocess.run([docker, "compose", *given, "config", "-q"], cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_client_that_registers_listens_where_a_published_5000_leads():
    assert port_of(None, "http://host:5000") == 5000
    assert port_of(None, None) == 8000
    assert port_of(8001, "http://host:5000") == 8001
    image = (ROOT / "images/client/Dockerfile").read_text(encoding="utf-8")
    assert "FEDJOB_PORT" not in image, "the image must not say otherwise"
    assert "FEDJOB_HOST=0.0.0.0" in image
