"""A client that was written for Flower, with the real library, in a whole job of real processes."""

import json

import pytest

from fedjob_client.flower import flower_trainer
from tests.support.repository import ROOT
from tests.support.runs import fedjob
from tests.unit.client.builders import a_context

EXAMPLE = ROOT / "examples" / "52-flower"


def run(folder, cwd):
    done = fedjob("run", EXAMPLE / "job.yaml", "--dir", folder, "-o", "json", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])["status"]


def test_the_example_learns_and_gives_the_same_bits_again(tmp_path):
    first, again = (run(tmp_path / name, tmp_path) for name in ("first", "again"))
    assert next(item["value"] for item in first["metrics"] if item["name"] == "accuracy") > 0.85
    assert first["model"]["digest"] == again["model"]["digest"]


def test_a_client_is_told_which_part_is_its_own(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    from flower_app.client_app import DigitsClient, client_fn, load_part  # noqa: PLC0415

    trainer = flower_trainer(client_fn)(a_context(index=1, clients=3, hidden=4))
    assert isinstance(trainer._client, DigitsClient)
    assert trainer._client.x.equal(load_part(1, 3)[0])
    assert trainer._client.net[0].out_features == 4


def test_the_clients_counters_are_not_in_the_model(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE)
    from flower_app.client_app import client_fn  # noqa: PLC0415

    trainer = flower_trainer(client_fn)(a_context(index=0, clients=3, hidden=4))
    names = trainer.init(1)
    assert sorted(names) == ["00000", "00001", "00002", "00003", "00004", "00005", "00007", "00008"]
    assert pytest.approx(1.0) == names["00005"].mean()
