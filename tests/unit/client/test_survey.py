"""What ``fedjob partition`` counts is what clients then train on."""

import numpy as np
import pytest

from fedjob_client.data.registry import load_dataset, load_labels
from fedjob_client.data.survey import survey
from fedjob_client.errors import DataError
from fedjob_protocol.config import DataConfig
from fedjob_protocol.survey import SurveyedClient, SurveyRequest


def asked(*data: dict, seed: int = 7) -> SurveyRequest:
    clients = [
        SurveyedClient(index=index, name=f"c-{index}", data=DataConfig.model_validate(each))
        for index, each in enumerate(data)
    ]
    return SurveyRequest(seed=seed, clients=tuple(clients))


def part(index: int, count: int, **values) -> dict:
    return {"scheme": "Dirichlet", "alpha": 0.3, "index": index, "count": count, "seed": 7} | values


def test_shares_are_those_that_clients_load():
    request = asked(*({"name": "digits", "maxTrainSamples": 500, "partition": part(i, 4)} for i in range(4)))
    shares = survey(request).clients
    for client, share in zip(request.clients, shares, strict=True):
        train = load_dataset(client.data, seed=7, index=client.index).train
        assert share.examples == len(train)
        assert share.labels == tuple(np.bincount(train.y, minlength=10))
    assert sum(share.examples for share in shares) == 500


def test_groups_with_data_of_their_own_and_values_are_counted_too(tmp_path):
    path = tmp_path / "own.npz"
    np.savez(path, x_train=np.zeros((3, 2)), y_train=[0, 2, 2], x_test=np.zeros((1, 2)), y_test=[1])
    own, values, divided = survey(
        asked(
            {"name": "npz", "path": str(path)},
            {"name": "synthetic-linear", "parameters": {"numSamples": 11}},
            {"name": "synthetic-linear", "parameters": {"numSamples": 11}, "partition": part(2, 3, scheme="IID")},
        )
    ).clients
    assert (own.examples, own.labels) == (3, (1, 0, 2))
    assert (values.examples, values.labels) == (11, None)
    assert (divided.examples, divided.labels) == (3, None)


def test_a_data_set_that_is_divided_is_read_once(monkeypatch):
    reads = []
    monkeypatch.setattr(
        "fedjob_client.data.survey.load_labels", lambda *a, **k: reads.append(1) or load_labels(*a, **k)
    )
    survey(asked(*({"name": "digits", "partition": part(index, 50, scheme="IID")} for index in range(50))))
    assert len(reads) == 1


def test_what_cannot_be_divided_is_said():
    with pytest.raises(DataError, match="1437 examples cannot be divided among 2000 clients"):
        survey(asked({"name": "digits", "partition": part(0, 2000, scheme="IID")}))
