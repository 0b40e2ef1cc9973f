"""Pinned, hash-checked requirements without addresses, and one version for all distributions."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from fedjob_protocol import __version__
from tests.support.repository import DISTRIBUTIONS, ROOT, files

RUN, DEV, ADAPTERS = "requirements/run.txt", "requirements/dev.txt", "requirements/adapters.txt"
PLUGIN = "tests/support/device_plugin/requirements.txt"
FILES = [RUN, DEV, ADAPTERS, PLUGIN]
PIN = re.compile(r"^([a-z0-9][a-z0-9.-]*)==([^ ;\\]+)( ;[^\\]+)?( \\)?$")
HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def project(folder: str) -> dict:
    return tomllib.loads((ROOT / folder / "pyproject.toml").read_text(encoding="utf-8"))


def pins(name: str) -> dict[str, set[str]]:
    """Versions by package; several where markers choose."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        if match := PIN.match(line):
            found.setdefault(match[1], set()).add(match[2])
    return found


def required(specifications: list[str]) -> set[str]:
    """Names of packages, as they are written in a requirements file."""
    names = {re.split(r"[\s<>=!~;\[]", specification, maxsplit=1)[0] for specification in specifications}
    return {re.sub(r"[-_.]+", "-", name).lower() for name in names}


@pytest.mark.parametrize("name", FILES)
def test_every_line_is_a_pin_or_one_of_its_hashes(name):
    is_open = False
    for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), start=1):
        expected = HASH if is_open else PIN
        assert expected.match(line), f"{name}:{number}: {line}"
        assert is_open or line.endswith("\\"), f"{name}:{number}: no hash follows {line}"
        is_open = line.endswith("\\")
    assert not is_open


@pytest.mark.parametrize("name", FILES)
def test_no_address_is_recorded(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|git\+|index-url|find-links| @ ", text)


def test_there_is_no_lock_file_that_records_addresses():
    locks = {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "package-lock.json", "yarn.lock", "pnpm-lock.yaml"}
    assert [str(path) for path in files() if path.name in locks] == []


def test_what_runs_is_what_is_tested():
    """Both files pin the same version of what is in both. What stands beside Flower is older by its wish."""
    run, dev = pins(RUN), pins(DEV)
    assert {name: versions for name, versions in run.items() if name in dev and dev[name] != versions} == {}


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_every_direct_dependency_is_pinned(folder):
    names = required(project(folder)["project"]["dependencies"])
    assert {name for name in names if not name.startswith("fedjob")} <= set(pins(RUN)) & set(pins(ADAPTERS))


def test_the_developers_packages_are_pinned():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]
    assert required(groups.pop("adapters")) <= set(pins(ADAPTERS))
    assert required(groups.pop("device-plugin")) <= set(pins(PLUGIN))
    assert required([item for group in groups.values() for item in group]) <= set(pins(DEV))


def test_our_own_distributions_are_not_pinned():
    for name in FILES:
        assert [package for package in pins(name) if package.startswith("fedjob")] == []


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_the_version_is_written_once(folder):
    document = project(folder)
    assert "version" not in document["project"]
    assert "version" in document["project"]["dynamic"]
    source = ROOT / folder / document["tool"]["hatch"]["version"]["path"]
    assert source.resolve() == ROOT / "VERSION"


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_every_distribution_has_that_version(folder):
    written = (ROOT / "VERSION").read_text(encoding="utf-8").strip()
    assert version(project(folder)["project"]["name"]) == written == __version__


@pytest.mark.parametrize("folder", DISTRIBUTIONS)
def test_every_distribution_supports_the_same_pythons_and_has_the_same_licence(folder):
    described = project(folder)["project"]
    assert (described["requires-python"], described["license"]) == (">=3.11", "Apache-2.0")


def test_a_readme_belongs_to_every_distribution():
    for folder in DISTRIBUTIONS:
        assert (ROOT / folder / Path(project(folder)["project"]["readme"])).is_file()
