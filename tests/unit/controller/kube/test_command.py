"""What the command makes of its flags and environment, and what the log looks like."""

import json
import logging
import sys

import pytest
from click.testing import CliRunner

from fedjob_operator import __main__ as command
from fedjob_operator.adapters.kube.login import LoginError
from fedjob_operator.logs import JsonFormatter
from fedjob_operator.settings import Reach
from fedjob_protocol.version import __version__


@pytest.fixture
def asked(monkeypatch):
    """Settings that the operator was started with; nothing is started."""
    found = []

    async def run(settings):
        found.append(settings)

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command, "configure_logs", lambda *_args, **_options: None)
    return found


def start(*flags, **environment):
    variables = {f"FEDJOB_OPERATOR_{name}": value for name, value in environment.items()}
    return CliRunner().invoke(command.main, flags, env=variables)


def test_without_a_word_it_drives_all_namespaces_with_the_images_of_its_release(asked):
    assert start().exit_code == 0
    [settings] = asked
    assert settings.namespaces == ()
    assert settings.pods.client_image == f"fedjob/client:{__version__}"
    assert settings.pods.service_accounts is None
    assert (settings.key_secret, settings.lease) == ("fedjob-operator-key", "fedjob-operator")
    assert (settings.health_port, settings.metrics_port) == (8080, 9090)


def test_every_setting_comes_from_the_environment_too(asked):
    result = start(
        CLIENT_IMAGE="c:1",
        AGGREGATOR_IMAGE="a:1",
        IMAGE_PULL_POLICY="Always",
        IMAGE_PULL_SECRETS="one, two",
        NAMESPACES="lab,,field ",
        NAMESPACE="ops",
        IDENTITY="pod-1",
        SERVICE_ACCOUNTS="trainer",
        REACH="api-proxy",
        HEALTH_PORT="0",
        METRICS_PORT="9999",
        LOG_FORMAT="json",
    )
    assert result.exit_code == 0, result.output
    [settings] = asked
    assert (settings.namespaces, settings.namespace, settings.identity) == (("lab", "field"), "ops", "pod-1")
    assert (settings.pods.client_image, settings.pods.aggregator_image) == ("c:1", "a:1")
    assert (settings.pods.image_pull_policy, settings.pods.image_pull_secrets) == ("Always", ("one", "two"))
    assert settings.pods.service_accounts == frozenset({"trainer"})
    assert (settings.reach, settings.health_port, settings.metrics_port) == (Reach.API_PROXY, 0, 9999)


def test_two_on_one_machine_are_two(asked):
    start()
    start()
    assert asked[0].identity != asked[1].identity


@pytest.mark.parametrize(
    "flags", [["--reach", "by-foot"], ["--health-port", "70000"], ["--image-pull-policy", "Sometimes"], ["extra"]]
)
def test_what_makes_no_sense_is_refused_before_anything_starts(asked, flags):
    assert start(*flags).exit_code == 2
    assert asked == []


@pytest.mark.parametrize("error", [LoginError("no kubeconfig"), OSError("port 8080 is in use")])
def test_what_it_cannot_do_without_is_said_in_one_line(monkeypatch, error):
    async def run(_):
        raise error

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command, "configure_logs", lambda *_args, **_options: None)
    result = start()
    assert (result.exit_code, result.output) == (1, f"Error: {error}\n")


def test_the_namespace_is_that_of_the_pod(tmp_path):
    file = tmp_path / "namespace"
    assert command.own_namespace(file) == "default"
    file.write_text("ops\n")
    assert command.own_namespace(file) == "ops"


def test_a_line_of_the_log_can_be_one_of_json():
    try:
        raise ValueError("boom")  # noqa: TRY301 - it is only to be caught
    except ValueError:
        caught = sys.exc_info()
    record = logging.LogRecord("fedjob", logging.ERROR, "x.py", 1, 'job "%s"\nfailed', ("mnist",), caught)
    line = JsonFormatter().format(record)
    assert "\n" not in line
    document = json.loads(line)
    assert (document["level"], document["logger"]) == ("ERROR", "fedjob")
    assert document["message"] == 'job "mnist"\nfailed'
    assert "ValueError: boom" in document["traceback"]
