"""Who is registered, under which index, for how long, and how many there may be."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedjob_aggregator.registry import Applicant, Group, Limits, Registry
from fedjob_protocol.errors import Refusal, Word
from fedjob_protocol.registration import LOST_SECONDS, ExternalGroup, client_token

BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = "the-jobs-token"


def a_registry(*groups: tuple[str, int, int, str | None], most: int = 1000, per_host: int = 64) -> Registry:
    made = [
        Group(external=ExternalGroup(group=name, first=first, count=count), token=token)
        for name, first, count, token in groups or [("clients", 0, most, None)]
    ]
    return Registry(made, limits=Limits(most=most, most_per_host=per_host), token=TOKEN)


def register(registry: Registry, number: int, *, now: float = 0.0, boot: str | None = None, **fields):
    given = {"url": f"http://host-{number}:8000", "peer": f"10.0.0.{number}", **fields}
    applicant = Applicant(boot_id=boot or f"boot-{number}", **given)
    return registry.register(applicant, now=now, at=BEGAN + timedelta(seconds=now))[0]


def beat(registry: Registry, number: int, *, now: float, boot: str | None = None):
    url = f"http://host-{number}:8000"
    return registry.beat(url, boot or f"boot-{number}", now=now, at=BEGAN + timedelta(seconds=now))[0]


def test_indices_are_given_in_the_order_of_registration_and_kept():
    registry = a_registry()
    assert [register(registry, number).index for number in (5, 3, 9)] == [0, 1, 2]
    assert register(registry, 3, boot="restarted").index == 1
    assert [client.client for client in registry.listed(0.0)] == [0, 1, 2]


def test_a_client_is_lost_after_30_seconds_and_there_again_at_its_next_heartbeat():
    registry = a_registry()
    register(registry, 1)
    assert not registry.listed(LOST_SECONDS - 0.1)[0].is_lost
    assert registry.listed(LOST_SECONDS)[0].is_lost
    assert registry.connected(LOST_SECONDS) == 0
    beat(registry, 1, now=50.0)
    (back,) = registry.listed(50.0)
    assert (back.is_lost, back.since, back.client) == (False, BEGAN + timedelta(seconds=50), 0)


def test_who_is_not_registered_has_to_register_first():
    with pytest.raises(Refusal) as caught:
        beat(a_registry(), 1, now=0.0)
    assert caught.value.word is Word.NOT_FOUND


def test_the_place_of_a_lost_client_is_taken_by_one_that_comes():
    registry = a_registry(("outside", 3, 2, None))
    assert [register(registry, number).index for number in (1, 2)] == [3, 4]
    with pytest.raises(Refusal, match="all 2 places"):
        register(registry, 7)
    beat(registry, 2, now=40.0)
    assert register(registry, 7, now=40.0).index == 3
    with pytest.raises(Refusal) as caught:
        beat(registry, 1, now=41.0)
    assert caught.value.word is Word.NOT_FOUND


def test_each_group_wants_its_own_token():
    registry = a_registry(("a", 0, 1, "secret-a"), ("b", 1, 1, "secret-b"))
    assert register(registry, 1, shown="secret-b").index == 1
    assert register(registry, 2, shown="secret-a", group="a").index == 0
    for shown, group, word in (
        (None, None, Word.BAD_TOKEN),
        ("secret", "a", Word.BAD_TOKEN),
        ("secret-b", "a", Word.BAD_TOKEN),
        ("secret-a", "c", Word.FORBIDDEN),
    ):
        with pytest.raises(Refusal) as caught:
            register(registry, 3, shown=shown, group=group)
        assert caught.value.word is word


def test_a_flood_from_one_host_leaves_room_for_the_others():
    registry = a_registry(per_host=3)
    for number in range(3):
        register(registry, 1, url=f"http://victim-{number}", boot=f"flood-{number}")
    with pytest.raises(Refusal, match=r"3 clients were registered by 10.0.0.1"):
        register(registry, 1, url="http://victim-9", boot="flood-9")
    assert register(registry, 2).index == 3
    for number in range(3):
        register(registry, 20 + number, url=f"http://same:{8000 + number}")
    with pytest.raises(Refusal, match="3 clients are registered at same"):
        register(registry, 30, url="http://same:9000")


def test_all_together_are_bounded_and_lost_ones_make_room():
    registry = a_registry(most=2)
    register(registry, 1)
    register(registry, 2)
    with pytest.raises(Refusal, match="2 clients are registered already"):
        register(registry, 3)
    beat(registry, 2, now=30.0)
    register(registry, 3, now=30.0)
    assert [entry.url for entry in registry.entries()] == ["http://host-2:8000", "http://host-3:8000"]


def test_a_claim_on_the_address_of_a_living_client_is_undone_by_its_next_heartbeat():
    registry = a_registry()
    mine = registry.token_of(register(registry, 1))
    theirs = registry.token_of(register(registry, 1, boot="impostor"))
    assert mine != theirs
    assert registry.holder(mine or "") is not None, "an update that is on its way counts"
    assert beat(registry, 1, now=10.0).boot_id == "boot-1"
    assert registry.holder(theirs or "") is None
    with pytest.raises(Refusal) as caught:
        register(registry, 1, boot="impostor")
    assert caught.value.word is Word.FORBIDDEN


def test_nobody_elsewhere_can_claim_the_address_of_a_living_client():
    registry = a_registry()
    register(registry, 1)
    with pytest.raises(Refusal) as caught:
        register(registry, 1, boot="impostor", peer="10.6.6.6", now=29.0)
    assert caught.value.word is Word.UNAVAILABLE
    assert register(registry, 1, boot="moved", peer="10.6.6.7", now=31.0).index == 0


def test_a_client_that_was_started_again_at_its_address_takes_its_place_at_once():
    registry = a_registry()
    register(registry, 1)
    again = register(registry, 1, boot="restarted", now=3.0)
    assert (again.index, again.boot_id) == (0, "restarted")
    assert beat(registry, 1, boot="restarted", now=13.0).boot_id == "restarted"


def test_tokens_are_of_one_client_and_no_way_to_the_jobs_own():
    registry = a_registry()
    tokens = {registry.token_of(register(registry, number)) for number in range(3)}
    assert len(tokens) == 3
    assert TOKEN not in tokens
    assert client_token(None, "boot") is None


def test_a_client_by_hand_is_listed_and_never_given_an_index():
    registry = a_registry()
    entry, _ = registry.register(Applicant(url="http://a", boot_id=None, peer="me"), now=0.0, at=BEGAN)
    assert (entry.index, registry.token_of(entry), registry.listed(0.0)) == (None, None, [])


def test_a_session_numbers_those_who_are_there():
    registry = a_registry()
    for number in range(4):
        register(registry, number)
    for number in (1, 3):
        beat(registry, number, now=35.0)
    assert registry.compact(35.0) == 2
    assert [(client.client, client.url) for client in registry.listed(35.0)] == [
        (0, "http://host-1:8000"),
        (1, "http://host-3:8000"),
    ]


@given(st.lists(st.tuples(st.sampled_from("rb"), st.integers(0, 6), st.integers(0, 2), st.floats(0, 20)), max_size=60))
def test_no_index_is_ever_held_by_two_and_limits_hold(events):
    registry = a_registry(("a", 0, 2, None), ("b", 2, 1, None), most=5, per_host=2)
    now, tokens = 0.0, set()
    for kind, number, boot, later in events:
        now += later
        try:
            if kind == "r":
                register(registry, number, boot=f"boot-{number}-{boot}", now=now, peer=f"10.0.0.{number % 3}")
            else:
                beat(registry, number, boot=f"boot-{number}-{boot}", now=now)
        except Refusal:
            pass
        tokens |= {registry.token_of(entry) for entry in registry.entries()}
        held = {token: holder for token in tokens if (holder := registry.holder(token)) is not None}
        assert set(held.values()) == set(registry.entries())
        assert all(registry.token_of(entry) in held for entry in registry.entries())
        indices = [entry.index for entry in registry.entries()]
        assert len(set(indices)) == len(indices)
        assert set(indices) <= {0, 1, 2}
        assert len(indices) <= 5
