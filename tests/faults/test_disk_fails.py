"""The disk is full or read-only for a while, or what was on it comes back damaged, missing, or another job's."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.faults.jobs import ALL_OF_THREE, LARGE_UPDATES, THREE_OF_SIX
from tests.support.faults.local import run
from tests.support.faults.points import Fault

ERRORS = ("ENOSPC", "EROFS", "EIO")
"""Full, read-only, broken."""
REFUSED = {"checkpoint write": 20, "fsync": 28, "rename": 12, "log write": 4}
"""What the aggregator's disk refuses, and how often an undisturbed run does it."""
REFUSALS = 3
"""So many calls in a row are refused."""
SMALL_DISK, ENOUGH = "300k", "16m"
"""Less than one model of the large job, and more than it needs."""


@pytest.mark.parametrize(
    ("point", "nth"), [(point, nth) for point, count in REFUSED.items() for nth in range(1, count + 1)]
)
def test_a_disk_that_refuses_for_a_while_delays_the_commit_and_loses_nothing(
    programs, undisturbed, judge, tmp_path, point, nth
):
    error = ERRORS[nth % len(ERRORS)]
    fault = Fault(program="aggregator", point=point, nth=nth, action=error, calls=REFUSALS, times=REFUSALS)
    outcome = run(programs, tmp_path, ALL_OF_THREE, fault)
    assert outcome.exit == 0, outcome.output
    assert outcome.happened
    judge("disk refuses", undisturbed(ALL_OF_THREE).evidence, outcome.evidence, output=outcome.output)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("nth", [2, 4, 6, 8])
def test_a_disk_that_does_not_take_the_status_for_a_while_delays_the_job_and_loses_nothing(
    programs, undisturbed, judge, tmp_path, error, nth
):
    fault = Fault(program="fedjob", point="status fsync", nth=nth, action=error, calls=REFUSALS, times=REFUSALS)
    outcome = run(programs, tmp_path, ALL_OF_THREE, fault)
    assert outcome.exit == 0, outcome.output
    assert outcome.happened
    judge("disk refuses", undisturbed(ALL_OF_THREE).evidence, outcome.evidence, output=outcome.output)


def mounted(folder, size):
    """A small disk of its own; ``False`` where this user may not mount one."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.fixture
def small_disk(tmp_path):
    """The folder of the job's aggregator, on a disk that is too small for it."""
    folder = tmp_path / "run" / "aggregator"
    if not mounted(folder, SMALL_DISK):
        pytest.skip("only root can mount a small disk, and not in every container")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_disk_that_is_really_full_is_named_and_the_job_goes_on_when_there_is_room(
    programs, undisturbed, judge, tmp_path, small_disk
):
    def make_room(live):
        live.until(lambda: live.folder.document() and live.folder.status().reason == "CheckpointFailed", "the reason")
        assert "No space left" in live.folder.status().message
        subprocess.run(["mount", "-o", f"remount,size={ENOUGH}", str(small_disk)], check=True)

    outcome = run(programs, tmp_path, LARGE_UPDATES, meanwhile=make_room)
    assert outcome.exit == 0, outcome.output
    judge("disk refuses", undisturbed(LARGE_UPDATES).evidence, outcome.evidence, output=outcome.output)


# What was on the disk

LOG = "aggregator/rounds.jsonl"


def checkpoint(number):
    """The file of a model, in the folder of a run."""
    return f"aggregator/checkpoints/round-{number:06}.safetensors"


def torn(file):
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def flipped(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def emptied(file):
    file.write_bytes(b"")


def missing(file):
    file.unlink()


def without_its_end(file):
    file.write_bytes(file.read_bytes()[:-10])


DAMAGE = {damage.__name__: damage for damage in (torn, flipped, emptied, missing)}
NEEDED = [(name, damage) for name in (checkpoint(2), "aggregator/manifest.json") for damage in DAMAGE]
NEEDED += [(LOG, damage) for damage in ("torn", "emptied", "missing")]


def hold_round_three(live):
    """Kill `fedjob run` once the model of round 2 is committed and nobody has finished the third round."""
    for client in range(6):
        live.hold(client, 3)
    live.until(lambda: live.folder.committed() >= 2, "the commit of round 2")
    live.kill()


class Change:
    """Changes the folder of a run when all its programs have ended, and lets its third round go on.

    Args:
        change: Told the folder.
    """

    def __init__(self, change):
        self._change = change
        self.rounds = ()
        """The round log before."""

    def __call__(self, live):
        live.until_gone()
        self.rounds = tuple(live.folder.rounds())
        self._change(live.folder.path)
        for client in range(6):
            (live.root / f"hold-{client}-3").unlink()


def contents(folder):
    """All files of a folder but the lock."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder): path.read_bytes() for path in files}


@pytest.mark.parametrize(("name", "damage"), NEEDED)
def test_what_is_committed_and_damaged_fails_the_job_and_repeats_nothing(
    programs, undisturbed, judge, tmp_path, name, damage
):
    change = Change(lambda folder: DAMAGE[damage](folder / name))
    outcome = run(programs, tmp_path, ALL_OF_THREE, meanwhile=hold_round_three, between=change)
    assert outcome.exit == 1, outcome.output
    assert name.rpartition("/")[2] in outcome.evidence.status.message
    # What the disk lost is told, so it is not lost silently: the log is judged as it was before.
    evidence = replace(outcome.evidence, rounds=change.rounds)
    judge("disk loses what is committed", undisturbed(ALL_OF_THREE).evidence, evidence, output=outcome.output)


@pytest.mark.parametrize("damage", DAMAGE)
def test_the_model_before_the_newest_is_not_needed(programs, undisturbed, judge, tmp_path, damage):
    between = Change(lambda folder: DAMAGE[damage](folder / checkpoint(1)))
    outcome = run(programs, tmp_path, THREE_OF_SIX, meanwhile=hold_round_three, between=between)
    assert outcome.exit == 0, outcome.output
    calm = undisturbed(THREE_OF_SIX).evidence
    judge("disk loses what is not needed", calm, outcome.evidence, output=outcome.output)


def test_the_end_of_the_round_log_is_written_again(programs, undisturbed, judge, tmp_path):
    between = Change(lambda folder: without_its_end(folder / LOG))
    outcome = run(programs, tmp_path, THREE_OF_SIX, meanwhile=hold_round_three, between=between)
    assert outcome.exit == 0, outcome.output
    calm = undisturbed(THREE_OF_SIX).evidence
    judge("disk loses what is not needed", calm, outcome.evidence, output=outcome.output)


def test_the_folder_of_another_job_is_refused_and_left_as_it_is(programs, undisturbed, judge, tmp_path):
    other = undisturbed(THREE_OF_SIX).root / "run" / "aggregator"

    def exchange(folder):
        shutil.rmtree(folder / "aggregator")
        shutil.copytree(other, folder / "aggregator")

    change = Change(exchange)
    outcome = run(programs, tmp_path, ALL_OF_THREE, meanwhile=hold_round_three, between=change)
    assert outcome.exit == 1, outcome.output
    assert contents(tmp_path / "run" / "aggregator") == contents(other)
    evidence = replace(outcome.evidence, rounds=change.rounds)
    judge("disk of another job", undisturbed(ALL_OF_THREE).evidence, evidence, output=outcome.output)
