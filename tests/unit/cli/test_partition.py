"""The table and the picture of how data are divided."""

import pytest
from PIL import Image

from fedjob.failure import Failure
from fedjob.manifest import load_manifest
from fedjob.partition import label_distance, survey_request
from fedjob.plot import BAR, colour, draw
from fedjob_protocol.survey import ClientShare, Survey
from tests.support.runs import manifest, write_manifest


def a_share(index: int, *labels: int) -> ClientShare:
    return ClientShare(index=index, name=f"clients-{index}", examples=sum(labels), labels=labels)


def test_every_client_is_asked_for_with_its_part_and_trainers_of_ones_own_are_left_out(tmp_path):
    document = manifest(
        "job",
        rounds=1,
        model={"name": "softmax"},
        data={"name": "digits", "partition": {"scheme": "IID"}},
        seed=9,
        clientGroups=[
            {"name": "a", "replicas": 2},
            {"name": "own", "replicas": 1, "trainer": "x:Y"},
            {"name": "b", "replicas": 1, "maxReplicas": 2, "data": {"name": "npz", "path": "b.npz"}},
        ],
    )
    request, strangers = survey_request(load_manifest(write_manifest(tmp_path, document)))
    assert strangers == ["own"]
    assert request.seed == 9
    assert [(client.index, client.name) for client in request.clients] == [
        (0, "a-0"),
        (1, "a-1"),
        (3, "b-3"),
        (4, "b-4"),
    ]
    assert [
        (c.data.name, c.data.partition and (c.data.partition.index, c.data.partition.count)) for c in request.clients
    ] == [
        ("digits", (0, 5)),
        ("digits", (1, 5)),
        ("npz", None),
        ("npz", None),
    ]


@pytest.mark.parametrize(
    ("shares", "distance"),
    [
        ([a_share(0, 5, 5), a_share(1, 10, 10)], 0.0),
        ([a_share(0, 10, 0), a_share(1, 0, 10)], 0.5),
        ([a_share(0, 4, 0, 0, 0), a_share(1, 0, 4, 0, 0), a_share(2, 0, 0, 4, 0), a_share(3, 0, 0, 0, 4)], 0.75),
        ([a_share(0, 6, 0), a_share(1, 3, 3)], 0.25),
        ([a_share(0, 1, 1), ClientShare(index=1, name="x", examples=4, labels=None)], None),
    ],
)
def test_the_skew_of_labels_is_their_mean_distance_from_the_whole(shares, distance):
    assert label_distance(shares) == (None if distance is None else pytest.approx(distance))


def test_the_picture_has_a_bar_for_each_client_with_its_classes_in_proportion(tmp_path):
    file = tmp_path / "out.png"
    draw(Survey(clients=(a_share(0, 300, 100), a_share(1, 0, 200))), file, title="job")
    with Image.open(file) as picture:
        assert picture.format == "PNG"
        pixels = picture.convert("RGB")
    counts = [sum(count for count, value in pixels.getcolors(1 << 20) if value == colour(label)) for label in (0, 1)]
    legend = 13 * 13
    assert counts[0] == pytest.approx(600 * BAR + legend, rel=0.01)
    assert counts[1] == pytest.approx((200 + 400) * BAR + legend, rel=0.01)


def test_classes_have_colours_of_their_own():
    assert len({colour(label) for label in range(100)}) == 100


def test_a_picture_that_cannot_be_drawn_is_one_line(tmp_path):
    survey = Survey(clients=(a_share(0, 1),))
    with pytest.raises(Failure, match="No such file or directory"):
        draw(survey, tmp_path / "nosuch" / "out.png", title="job")
    many = Survey(clients=tuple(a_share(index, 1) for index in range(1001)))
    with pytest.raises(Failure, match="at most 1000 clients, there are 1001"):
        draw(many, tmp_path / "out.png", title="job")
