"""The watches of fault runs are disturbed as is said of them."""

import asyncio
import json

from tests.support.cluster.streams import Streams


def lines(*events):
    return [
        json.dumps({"type": type_, "object": {"kind": kind, "name": name}}).encode() for type_, kind, name in events
    ]


ADDED, CHANGED, GONE = lines(("ADDED", "Pod", "a"), ("MODIFIED", "Pod", "a"), ("DELETED", "Pod", "a"))
OTHER = lines(("MODIFIED", "FederatedJob", "j"))[0]


async def told(streams, *given):
    async def watch():
        for line in given:
            yield line

    return [line async for line in streams.passed_on(watch())]


async def test_nothing_is_changed_unless_asked_for():
    assert await told(Streams(), ADDED, CHANGED, GONE) == [ADDED, CHANGED, GONE]


async def test_a_frozen_stream_tells_nothing_and_never_will():
    streams = Streams()
    streams.is_frozen = True
    assert await told(streams, ADDED, CHANGED) == []
    streams.is_frozen = False
    assert await told(streams, GONE) == [GONE]


async def test_each_event_is_repeated():
    streams = Streams()
    streams.repeats = 3
    assert await told(streams, ADDED, GONE) == [ADDED] * 3 + [GONE] * 3


async def test_every_second_change_of_each_kind_is_lost_and_no_first_news():
    streams = Streams()
    streams.lose_every = 2
    assert await told(streams, ADDED, ADDED, CHANGED, OTHER, GONE, CHANGED) == [ADDED, ADDED, CHANGED, OTHER, CHANGED]
    assert streams.lost == 1


async def test_what_is_held_is_told_in_order_later():
    streams = Streams()
    streams.hold()
    telling = asyncio.create_task(told(streams, ADDED, CHANGED))
    await asyncio.sleep(0)
    assert not telling.done()
    streams.proceed()
    assert await telling == [ADDED, CHANGED]
