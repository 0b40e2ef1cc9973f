"""The rules of the tree that keep imports unambiguous. `operator/` must never hide the standard library's module."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.support.repository import DISTRIBUTIONS, ROOT, files

PYTHON = [path for path in files() if path.suffix == ".py"]


def test_operator_has_python_files_in_its_src_only():
    astray = [str(path) for path in PYTHON if path.parts[0] == "operator" and path.parts[:2] != ("operator", "src")]
    assert astray == []


def test_operator_is_the_standard_librarys_from_the_repository_root():
    code = "import operator; print(operator.__file__)"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True)
    assert Path(found.stdout.strip()).is_relative_to(sysconfig.get_path("stdlib"))


def test_tests_are_in_one_place():
    astray = [str(path) for path in PYTHON if path.name.startswith(("test_", "conftest")) and path.parts[0] != "tests"]
    assert astray == []


def test_every_folder_with_tests_is_a_package():
    """Otherwise two test modules of the same name would be one."""
    folders = {parent for path in PYTHON if path.parts[0] == "tests" for parent in path.parents if parent.parts}
    missing = [str(folder) for folder in sorted(folders) if not (ROOT / folder / "__init__.py").is_file()]
    assert missing == []


@pytest.mark.parametrize(("folder", "name"), DISTRIBUTIONS.items())
def test_every_distribution_has_one_typed_package_with_a_flat_name(folder, name):
    source = ROOT / folder / "src"
    packages = [path.name for path in source.iterdir() if path.is_dir() and not path.name.endswith(".egg-info")]
    assert packages == [name]
    assert (source / name / "py.typed").is_file()


def test_no_two_modules_have_the_same_import_name():
    names = [str(path.relative_to(Path(folder) / "src")) for folder in DISTRIBUTIONS for path in below(folder)]
    assert len(set(names)) == len(names)


def below(folder: str) -> list[Path]:
    source = Path(folder) / "src"
    return [path for path in PYTHON if path.is_relative_to(source)]


def test_modules_do_not_hide_the_standard_library():
    """A top-level module or package on our paths with the name of one of Python's would be imported in its place."""
    tops = {path.relative_to(Path(folder) / "src").parts[0] for folder in DISTRIBUTIONS for path in below(folder)}
    assert not {Path(top).stem for top in tops} & sys.stdlib_module_names
