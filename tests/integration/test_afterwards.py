"""Example 42, after the training: predictions from files and images, the model taken away, curves for TensorBoard."""

import hashlib
import json
import resource
import struct
import subprocess
import sys
from importlib.util import find_spec
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from tensorboardX.proto.event_pb2 import Event

from fedjob_protocol.weights import decode
from tests.support.repository import ROOT
from tests.support.runs import FEDJOB, Folder, environment, fedjob

EXAMPLE = ROOT / "examples/42-serve-and-predict.yaml"
ROUNDS = 6


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    done = fedjob("run", EXAMPLE, "--dir", folder / "run", "--tensorboard", folder / "curves",
                  "--set", f"spec.rounds={ROUNDS}", cwd=folder)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "note: spec.serve: is ignored on this machine" in done.stdout
    return folder


def predicted(folder, *arguments):
    done = fedjob("predict", folder / "run", *arguments, "-o", "json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def digits():
    found = load_digits()
    return found.data[:40].astype(np.float32) / 16, found.target[:40]


def test_rows_from_npz_and_csv_give_the_same_predictions(run, digits):
    rows, labels = digits
    np.savez(run / "rows.npz", x=rows)
    np.savetxt(run / "rows.csv", rows, delimiter=",", fmt="%.9g")
    answers = [predicted(run, "--inputs", run / name)["outputs"] for name in ("rows.npz", "rows.csv")]
    assert answers[0] == answers[1]
    assert np.mean(np.array(answers[0]) == labels) > 0.7


def test_an_image_is_brought_to_the_size_of_the_models_data(run, digits):
    rows, labels = digits
    for number in range(10):
        pixels = np.uint8(255 - rows[number].reshape(8, 8) * 255)  # dark on light, as on paper
        Image.fromarray(pixels).resize((80, 80), Image.Resampling.BICUBIC).save(run / f"{number}.png")
    images = [part for number in range(10) for part in ("--image", run / f"{number}.png")]
    answer = predicted(run, *images, "--invert")
    assert np.mean(np.array(answer["outputs"]) == labels[:10]) >= 0.7


def test_the_best_model_or_one_that_is_kept_can_be_asked(run, digits):
    status = Folder(run / "run").status()
    (run / "one.json").write_text(json.dumps(digits[0][:1].tolist()))
    assert predicted(run, "--inputs", run / "one.json", "--checkpoint", "best")["round"] == status.best.round
    assert predicted(run, "--inputs", run / "one.json", "--checkpoint", str(ROUNDS - 1))["round"] == ROUNDS - 1
    gone = fedjob("predict", run / "run", "--checkpoint", "1", cwd=run)
    assert gone.returncode == 1
    assert "does not keep the model of round 1; try --checkpoint best or final" in gone.stderr


@pytest.mark.parametrize("arguments", [["--image", "a.png", "--inputs", "b"], ["--image", "absent.png"]])
def test_a_wrong_question_is_one_line(run, arguments):
    done = fedjob("predict", run / "run", *arguments, cwd=run)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_the_model_and_its_card(run):
    done = fedjob("model", "pull", run / "run", "--checkpoint", "best", "--output", run / "model.safetensors", cwd=run)
    assert done.returncode == 0, done.stderr
    status, data = Folder(run / "run").status(), (run / "model.safetensors").read_bytes()
    card = json.loads((run / "model.safetensors.json").read_text())
    assert card["digest"] == "sha256:" + hashlib.sha256(data).hexdigest() == status.best.digest
    assert (card["job"], card["seed"], card["round"], card["isBest"]) == ("served", 1, status.best.round, True)
    assert card["rounds"] == {"committed": ROUNDS, "total": ROUNDS}
    assert card["metrics"]["accuracy"] == status.best.value
    assert card["tensors"] == {
        name: {"dtype": str(a.dtype), "shape": list(a.shape)} for name, a in decode(data)[0].items()
    }
    chain = card["chain"]
    assert [link["round"] for link in chain] == list(range(status.best.round + 1))
    assert all(link["parent"] == before["digest"] for before, link in pairwise(chain))
    assert chain[-1]["digest"] == card["digest"]


def test_a_model_as_npz_is_the_same_and_no_file_is_replaced_unasked(run):
    arguments = ["model", "pull", run / "run", "--format", "npz"]
    assert fedjob(*arguments, cwd=run).returncode == 0
    with np.load(run / f"served-round-{ROUNDS}.npz", allow_pickle=False) as arrays:
        expected = decode((run / f"run/aggregator/checkpoints/round-{ROUNDS:06}.safetensors").read_bytes())[0]
        assert set(arrays) == set(expected)
        assert all(np.array_equal(arrays[name], array) for name, array in expected.items())
    again = fedjob(*arguments, cwd=run)
    assert again.returncode == 2
    assert "exists; give --force" in again.stderr
    assert fedjob(*arguments, "--force", cwd=run).returncode == 0


@pytest.mark.skipif(find_spec("torch") is not None, reason="PyTorch is installed: tests/adapters has the other case")
def test_a_model_for_pytorch_needs_pytorch(run):
    done = fedjob("model", "pull", run / "run", "--format", "pt", "--output", run / "m.pt", cwd=run)
    assert done.returncode == 2
    assert "--format pt needs PyTorch, which is not installed here" in done.stderr
    assert not (run / "m.pt").exists()


def events(folder):
    """Scalars of the event files in a folder: TFRecords of protobuf messages."""
    found = {}
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            at += 12 + length + 4
        assert at == len(data), "no record is cut short"
    return found


def test_the_curves_are_those_of_the_round_log_while_it_runs_and_afterwards(run):
    done = fedjob("rounds", run / "run", "--tensorboard", run / "later", cwd=run)
    assert done.returncode == 0, done.stderr
    curves = events(run / "curves")
    assert curves == events(run / "later")
    records = Folder(run / "run").rounds()[1:]
    for name in ("accuracy", "clients/accuracy"):
        expected = {record.round: pytest.approx(record.metrics[name], rel=1e-6) for record in records}
        assert curves[f"metrics/{name}"] == expected
    assert curves["round/updates"] == dict.fromkeys(range(1, ROUNDS + 1), 3.0)
    assert {f"clients/clients-{index}/loss" for index in range(3)} <= curves.keys()
    assert {"spread/accuracy/lowest", "spread/accuracy/highest"} <= curves.keys()


def limited_to(size):
    """A limit on the size of the files that a program writes: what it meets there is as on a full disk."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("size", [10, 1000], ids=["at once", "later"])
def test_curves_that_the_disk_does_not_take_are_one_line(run, tmp_path, size):
    done = subprocess.run(
        [FEDJOB, "rounds", str(run / "run"), "--tensorboard", "curves"],
        cwd=tmp_path,
        env=environment(),
        preexec_fn=limited_to(size),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"fedjob: {tmp_path / 'curves'}/events.out.tfevents.")
    assert line.endswith("cannot be written: File too large; make room, or name another folder")


FULL_DISK = """
import errno, sys
import tensorboardX.record_writer as package
from fedjob.__main__ import main

class Full:
    def __init__(self, path):
        self.file, self.left = open(path, "wb"), 1000
        self.fileno, self.flush, self.close = self.file.fileno, self.file.flush, self.file.close

    def write(self, data):
        self.left -= len(data)
        if self.left < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.file.write(data)

package.open_file = Full
main()
"""


def test_a_job_goes_on_when_the_disk_of_its_curves_is_full(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, "run", str(EXAMPLE), "--dir", "run", "--tensorboard", "curves",
         "--set", f"spec.rounds={ROUNDS}"],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert Folder(tmp_path / "run").committed() == ROUNDS
    (line,) = done.stderr.splitlines()
    assert "cannot be written: No space left on device; " in line
    assert line.endswith("; the job goes on without curves: `fedjob rounds` writes them afterwards")


def test_without_the_package_nothing_is_begun(tmp_path):
    (tmp_path / "tensorboardX.py").write_text("raise ImportError('not here')")
    variables = environment(PYTHONPATH=str(tmp_path))
    done = subprocess.run(
        [FEDJOB, "run", str(EXAMPLE), "--tensorboard", "curves"],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "fedjob: --tensorboard needs tensorboardX: pip install 'fedjob[tensorboard]'\n"
    assert not (tmp_path / "runs").exists()
