"""Which folder a run uses, and who may use it."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedjob.folder import FolderError, RunFolder, choose


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def make_run(path: str) -> None:
    Path(path).mkdir(parents=True)
    (Path(path) / "job.json").write_text("{}")


def test_a_first_run_goes_below_runs():
    assert choose("mnist", None, resume=False).path == Path("runs/mnist")


def test_the_next_run_gets_the_next_number():
    make_run("runs/mnist")
    make_run("runs/mnist-2")
    make_run("runs/mnist-10")

    assert choose("mnist", None, resume=False).path == Path("runs/mnist-11")


def test_a_job_whose_name_ends_with_a_number_is_another_job():
    make_run("runs/mnist-2")

    assert choose("mnist-2", None, resume=False).path == Path("runs/mnist-2-2")


def test_resume_takes_the_newest_run():
    make_run("runs/mnist")
    make_run("runs/mnist-3")

    assert choose("mnist", None, resume=True).path == Path("runs/mnist-3")


def test_resume_of_nothing_says_so():
    with pytest.raises(FolderError, match="no run of mnist"):
        choose("mnist", None, resume=True)


def test_a_named_folder_with_a_run_is_not_overwritten():
    make_run("here")

    with pytest.raises(FolderError, match="holds a run already; give --resume"):
        choose("mnist", Path("here"), resume=False)


def test_a_named_folder_without_a_run_cannot_be_resumed():
    Path("here").mkdir()

    with pytest.raises(FolderError, match="no run to resume"):
        choose("mnist", Path("here"), resume=True)


def test_a_folder_below_a_file_is_an_error_in_one_line():
    Path("file").write_text("")

    with pytest.raises(FolderError, match="file/run"):
        RunFolder(Path("file/run")).prepare()


def test_preparing_removes_what_an_earlier_run_left_for_its_processes():
    folder = RunFolder(Path("here"))
    folder.prepare()
    stale = Path("here/run/client-0-0.termination")
    stale.write_text("{}")

    folder.prepare()

    assert not stale.exists()


def test_only_one_process_holds_the_lock():
    folder = RunFolder(Path("here"))
    folder.prepare()
    other = (
        "import sys, pathlib\n"
        "from fedjob.folder import FolderError, RunFolder\n"
        "try:\n    RunFolder(pathlib.Path('here')).lock()\n"
        "except FolderError as error:\n    sys.exit(str(error))\n"
    )

    with folder.lock():
        result = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)
    after = subprocess.run([sys.executable, "-c", other], capture_output=True, text=True, check=False)

    assert (result.returncode, after.returncode) == (1, 0)
    assert "in use by another `fedjob run`" in result.stderr
