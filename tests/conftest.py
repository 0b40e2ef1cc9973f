"""What all tests share: none depends on how fast the machine is."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ANY_MACHINE = "any machine"

settings.register_profile(ANY_MACHINE, settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(ANY_MACHINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of all fault runs, wherever they take place."""
    help_ = "write counts of fault runs by class as JSON"
    group = parser.getgroup("faults")
    group.addoption("--faults-report", type=Path, metavar="PATH", help=help_)
    group.addoption("--subset", action="store_true", help="strike at some moments instead of at every one")


def pytest_configure(config: pytest.Config) -> None:
    """Count fault runs, in the process that hears of all tests."""
    path = config.getoption("--faults-report")
    if path is not None and not hasattr(config, "workerinput"):
        from tests.faults.report import Collector  # noqa: PLC0415 - needs the programs, which few tests do

        config.pluginmanager.register(Collector(path), "faults-report")
