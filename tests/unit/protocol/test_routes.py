"""Paths: one function makes each of them."""

import string

import pytest

from fedjob_protocol import routes


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (routes.round_path(3), "/v1/rounds/3"),
        (routes.update_path(3, 7), "/v1/rounds/3/updates/7"),
        (routes.failure_path(3, 7), "/v1/rounds/3/failures/7"),
        (routes.evaluation_path(3), "/v1/rounds/3/evaluation"),
        (routes.train_path(3), "/v1/rounds/3/train"),
        (routes.model_path(3), "/v1/models/3"),
        (routes.model_path("best"), "/v1/models/best"),
    ],
)
def test_paths_are_those_of_the_protocol(path, expected):
    assert path == expected


def constants(suffix):
    return {name: value for name, value in vars(routes).items() if name.endswith(suffix)}


def test_no_two_paths_are_the_same():
    paths = list(constants("_PATH").values())
    assert len(set(paths)) == len(paths)


def test_every_place_in_a_path_is_filled_by_its_function():
    for name, path in constants("_PATH").items():
        places = [place for _, place, _, _ in string.Formatter().parse(path) if place]
        if places:
            make = getattr(routes, name.lower())
            assert "{" not in make(*range(len(places)))


def test_headers_are_our_own_and_all_different():
    headers = list(constants("_HEADER").values())
    assert all(header.startswith("Fedjob-") for header in headers)
    assert len({header.lower() for header in headers}) == len(headers)


def test_ports_differ():
    ports = list(constants("_PORT").values())
    assert len(set(ports)) == len(ports)
