"""What a node makes of rooms that it follows, one fault at a time, by a clock that is moved by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from aibos_realtime import BrokerUnavailable, Position, UnrecoverablePosition
from aibos_realtime.backends.base import LoggedEvent
from aibos_realtime.storage import followed as followed_module
from aibos_realtime.storage.following import CHECK_EVERY, SLICES
from aibos_realtime.testing.clock import settle
from tests.unit.storage.shared_rig import Nodes

FOUND_WITHIN = 2 * SLICES * CHECK_EVERY
"""Seconds after which a quiet room was looked at twice."""


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    async with Nodes(2) as nodes:
        for node in nodes.nodes:
            await node.watch("lobby")
        yield nodes
        await nodes.be_quiet()
        nodes.check(["lobby"])


def offsets(nodes: Nodes, number: int, room: str = "lobby") -> list[int]:
    return [event.offset for event in nodes[number].watcher.events(room)]


# — what is not heard —


async def test_what_one_node_publishes_every_node_delivers(nodes: Nodes) -> None:
    await nodes.publish_all(3)
    await nodes.publish_all(2, 1)
    assert offsets(nodes, 0) == offsets(nodes, 1) == [1, 2, 3, 4, 5]


async def test_a_gap_is_filled_as_soon_as_something_later_is_heard(nodes: Nodes) -> None:
    nodes[1].link.fate = lambda: []
    await nodes.publish_all(250)
    assert offsets(nodes, 1) == []
    nodes[1].link.fate = None
    await nodes.publish_all(1)
    assert offsets(nodes, 1) == list(range(1, 252)) and nodes[1].metrics.gaps_repaired == 1 and nodes[0].metrics.gaps_repaired == 0


async def test_messages_that_come_doubled_late_or_out_of_order_change_nothing(nodes: Nodes) -> None:
    delays = iter([[0.3], [0.0, 0.0, 0.1], [0.2], [0.0], [0.0, 0.5]])
    nodes[1].link.fate = lambda: next(delays)
    await nodes.publish_all(5)
    nodes[1].link.fate = None
    await nodes.clock.advance(0.6)
    assert offsets(nodes, 1) == [1, 2, 3, 4, 5] and nodes[1].watcher.resyncs("lobby")[1:] == []


async def test_a_quiet_rooms_missed_event_is_found_by_looking(nodes: Nodes) -> None:
    nodes[1].link.fate = lambda: []
    await nodes.publish_all(1)
    nodes[1].link.fate = None
    await nodes.clock.advance(FOUND_WITHIN + 0.1)
    assert offsets(nodes, 1) == [1] and nodes[1].link.reconnects == 0


async def test_an_event_that_is_on_its_way_is_not_taken_for_missed(nodes: Nodes) -> None:
    nodes[1].link.fate = lambda: [SLICES * CHECK_EVERY - 0.1]
    for _ in range(20):
        await nodes.publish_all(1)
        await nodes.clock.advance(0.7)
    assert nodes[1].metrics.gaps_repaired == 0


async def test_a_node_that_is_deaf_for_one_room_alone_hears_it_anew(nodes: Nodes) -> None:
    await nodes[1].watch("office")
    nodes[1].link.deaf_rooms.add("lobby")
    await nodes.publish_all(1)
    await nodes.clock.advance(FOUND_WITHIN + 0.1)
    assert offsets(nodes, 1) == [1] and nodes[1].link.reconnects == 0
    await nodes.publish_all(1)
    assert offsets(nodes, 1) == [1, 2], "heard, not looked for"


async def test_what_was_missed_while_a_connection_was_lost_is_read_when_it_is_back(nodes: Nodes) -> None:
    nodes[1].link.lose_connection()
    await nodes.publish_all(3)
    assert (offsets(nodes, 1), nodes[1].broker.is_available) == ([], False)
    await nodes.clock.advance(0.05)
    assert (offsets(nodes, 1), nodes[1].broker.is_available) == ([1, 2, 3], True)
    assert nodes[1].metrics.subscriptions_repaired == 1 and nodes[1].watcher.resyncs("lobby")[1:] == []


async def test_a_connection_that_is_lost_while_a_gap_is_read_makes_it_read_again(nodes: Nodes) -> None:
    """What is read may be from before, and what is heard from after the event that was missed."""
    node = nodes[1]
    node.link.fate = lambda: []
    await nodes.publish_all(1)
    node.link.fate = None
    node.link.turns = lambda: 10
    await nodes.publish_all(1)  # it is heard, and the gap before it is being read
    node.link.lose_connection()
    await settle(8)
    nodes.publish()
    await settle(4)
    await nodes.clock.advance(0.05)
    await settle(100)
    assert offsets(nodes, 1) == [1, 2, 3], "without a look at quiet rooms"


async def test_what_is_heard_while_a_gap_is_read_comes_after_it(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(followed_module, "MAX_HELD", 5)
    nodes[1].link.turns = lambda: 20
    for size in (3, 20):
        nodes[1].link.fate = lambda: []
        await nodes.publish_all(1)
        nodes[1].link.fate = None
        for _ in range(size):
            nodes.publish()
            await settle(2)
        await settle(200)
        assert offsets(nodes, 1) == list(range(1, len(nodes.published) + 1))


# — what is lost —


async def test_what_was_trimmed_away_is_told_before_anything_later(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    nodes[1].link.fate = lambda: []
    await nodes.publish_all(20, history_size=5)
    nodes[1].link.fate = None
    (last,) = await nodes.publish_all(1, history_size=5)
    assert nodes[1].watcher.told["lobby"][1:] == [last] and nodes[1].metrics.gaps_lost == 1
    assert "continuity of the room lobby was lost" in caplog.text
    await nodes.publish_all(1)
    assert offsets(nodes, 1) == [22]


async def test_a_gap_in_a_busy_ephemeral_room_is_told_once(nodes: Nodes) -> None:
    """Its events are kept nowhere: what is missing cannot be read, and neither can what comes while it is asked where the room ends."""
    nodes[1].link.turns = lambda: 10
    nodes[1].link.fate = lambda: []
    await nodes.publish_all(1, ephemeral=True)
    nodes[1].link.fate = None
    for _ in range(200):
        nodes.publish(ephemeral=True)
        await settle(3)
    await settle(100)
    assert len(nodes[1].watcher.resyncs("lobby")) == 2 and nodes[1].metrics.gaps_lost == 1
    assert offsets(nodes, 1)[-1] == 201 and len(offsets(nodes, 1)) > 180


async def test_another_event_at_a_place_that_was_delivered_is_told_as_a_loss(nodes: Nodes) -> None:
    (position,) = await nodes.publish_all(1)
    nodes[1].broker.heard(LoggedEvent("lobby", "note", b"1", "other", position.epoch, 1, 0))
    await settle()
    assert nodes[1].watcher.resyncs("lobby")[1:] == [position] and nodes[0].watcher.resyncs("lobby")[1:] == []


async def test_a_log_that_has_another_event_there_is_told_as_a_loss(nodes: Nodes) -> None:
    """A copy of the log had taken over and went on, while this node had published to the original: so many took the places of its events that the log
    stands further than before. It went on in the same epoch, and a client that came to another node with a position of this one missed what was
    there.
    """
    nodes[0].link.lose_connection()
    nodes.log.is_down = True
    await nodes.clock.advance(1)
    await nodes.publish_all(0)
    nodes.log.is_down = False
    (first,) = await nodes.publish_all(1, 1)
    head = nodes.log.heads["lobby"]
    await nodes.clock.advance(1)
    await nodes.publish_all(2, 1)
    assert offsets(nodes, 0) == [1, 2, 3]
    head.events = [LoggedEvent("lobby", "note", b"1", f"other{offset}", first.epoch, offset, 0) for offset in range(1, 6)]
    head.offset = 5
    nodes[0].broker.followed(["lobby"])
    await settle(100)
    [told] = nodes[0].watcher.resyncs("lobby")[1:]
    assert told.epoch != first.epoch and told.offset == 0 and offsets(nodes, 0) == [1, 2, 3]
    await nodes.clock.advance(FOUND_WITHIN)
    assert nodes[1].watcher.resyncs("lobby")[-1].epoch == told.epoch
    with pytest.raises(UnrecoverablePosition):
        await nodes[1].broker.read_after("lobby", Position(first.epoch, 3), 10)


async def test_a_copy_of_the_log_that_has_as_many_other_events_is_told_as_a_loss(nodes: Nodes) -> None:
    """It took over while this node had published to the original; the counts were the same by chance, and nobody ever looked at what was counted."""
    (first,) = await nodes.publish_all(1)
    nodes.log.heads["lobby"].events = [LoggedEvent("lobby", "note", b"1", "other", first.epoch, 1, 0)]
    nodes.log.restart()
    nodes[0].broker.followed(["lobby"])
    await settle(100)
    [told] = nodes[0].watcher.resyncs("lobby")[1:]
    assert told.epoch != first.epoch


async def test_a_room_that_begins_a_new_epoch_is_read_from_its_beginning(nodes: Nodes) -> None:
    await nodes.publish_all(3)
    nodes[1].link.is_deaf = True
    nodes.log.forget_all()
    positions = await nodes.publish_all(4)
    await nodes.clock.advance(10)
    assert nodes[1].watcher.told["lobby"][4] == Position(positions[0].epoch, 0), "told before what is later, of which nothing is missing"
    assert offsets(nodes, 1) == [1, 2, 3, 1, 2, 3, 4]


async def test_what_the_store_cannot_tell_now_is_told_as_a_loss(nodes: Nodes) -> None:
    async with Nodes(2, has_store=True) as stored:
        await stored[1].watch("lobby")
        stored[1].link.fate = lambda: []
        await stored.publish_all(20, history_size=5)
        await stored.clock.advance(1)
        assert stored.store is not None and len(stored.store.rows) == 20
        stored.store.is_down = True
        stored[1].link.fate = None
        await stored.publish_all(1, history_size=5)
        await stored.publish_all(1, history_size=5)
        assert offsets(stored, 1) == [22] and stored[1].metrics.gaps_lost == 1


async def test_what_was_trimmed_away_is_read_from_the_store_without_what_that_does_not_keep(nodes: Nodes) -> None:
    async with Nodes(2, has_store=True) as stored:
        await stored[1].watch("lobby")
        stored[1].link.fate = lambda: []
        await stored.publish_all(10, history_size=5)
        await stored.publish_all(1, history_size=5, persist=False)
        await stored.publish_all(240, history_size=5)
        await stored.clock.advance(1)
        stored[1].link.fate = None
        await stored.publish_all(1, history_size=5)
        await settle(100)
        assert offsets(stored, 1) == [*range(1, 11), *range(12, 253)] and stored[1].metrics.gaps_lost == 0
        assert all(event.data for event in stored[1].watcher.events("lobby"))


async def test_an_event_that_the_store_has_under_another_id_is_still_the_same(nodes: Nodes) -> None:
    async with Nodes(2, has_store=True) as stored:
        await stored[1].watch("lobby")
        stored[1].link.fate = lambda: []
        positions = await stored.publish_all(3, history_size=1)
        await stored.clock.advance(1)
        assert stored.store is not None
        first = stored.log.waiting == [[]] and stored.store.rows[0]
        assert first
        stored.store.rows[0] = structs.replace(first, id="id1~e:1")
        await stored.publish_all(1, history_size=1)
        stored.log.heads["lobby"].events.clear()
        await stored.clock.advance(1)
        await stored[1].broker.read_after("lobby", positions[2], 1)
        stored[1].broker.heard(first)
        await settle(100)
        assert offsets(stored, 1) == [1, 2, 3, 4] and stored[1].metrics.gaps_lost == 0


# — which rooms —


async def test_a_room_that_nobody_watches_is_let_go_and_stands_elsewhere_afterwards(nodes: Nodes) -> None:
    node = nodes[1]
    await nodes.publish_all(1)
    node.watcher.watched.clear()
    await nodes.clock.advance(FOUND_WITHIN + 0.1)
    await nodes.publish_all(2)
    assert offsets(nodes, 1) == [1] and len(node.broker._follower) == 0
    node.watcher.told["lobby"] = []
    (position,) = await node.watch("lobby")
    assert position.offset == 3
    await nodes.publish_all(1)
    assert offsets(nodes, 1) == [4]


async def test_somebody_who_comes_back_in_time_misses_nothing(nodes: Nodes) -> None:
    nodes[1].watcher.watched.clear()
    await nodes.clock.advance(2.5)
    await nodes.publish_all(1)
    nodes[1].watcher.watched.add("lobby")
    await nodes.clock.advance(10)
    await nodes.publish_all(1)
    assert offsets(nodes, 1) == [1, 2]


async def test_a_reading_that_outlives_its_room_delivers_nothing_into_the_next_one(nodes: Nodes) -> None:
    node = nodes[1]
    node.link.fate = lambda: []
    await nodes.publish_all(5)
    node.link.fate = None
    node.link.turns = lambda: 2000  # the gap takes long to read
    nodes.publish()
    await settle(30)
    node.watcher.watched.clear()
    await nodes.clock.advance(FOUND_WITHIN + 0.1)
    assert len(node.broker._follower) == 0
    node.link.turns = lambda: 1
    node.watcher.told["lobby"] = []
    await node.watch("lobby")
    await settle(5000)
    assert offsets(nodes, 1) == []


async def test_every_room_is_looked_at_in_time_while_others_come_and_go(nodes: Nodes) -> None:
    node = nodes[1]
    for number in range(40):
        node.watcher.watched.add(f"r{number}")
        await node.broker.position(f"r{number}")
        node.watcher.watched.discard(f"r{number - 2}")
        if number == 20:
            node.link.fate = lambda: []
            await nodes.publish_all(1)
            node.link.fate = None
        await nodes.clock.advance(FOUND_WITHIN / 10)
        if number == 31:
            assert offsets(nodes, 1) == [1]


# — asking —


async def test_a_room_that_is_watched_is_answered_while_the_log_is_away(nodes: Nodes) -> None:
    (position,) = await nodes.publish_all(1)
    nodes.log.is_down = True
    nodes[0].link.lose_connection()
    await nodes.clock.advance(10)
    assert await nodes[0].broker.position("lobby") == position


async def test_a_room_that_cannot_be_heard_in_time_is_refused_and_can_be_asked_for_again(nodes: Nodes) -> None:
    node = nodes[0]
    nodes.log.is_down = True
    node.link.lose_connection()
    node.watcher.watched.add("office")
    asking = [asyncio.ensure_future(node.broker.position("office")) for _ in range(3)]
    await nodes.clock.advance(2.1)
    assert [type(answer) for answer in await asyncio.gather(*asking, return_exceptions=True)] == [BrokerUnavailable] * 3
    nodes.log.is_down = False
    await nodes.clock.advance(1)
    (position,) = await node.watch("office")
    await nodes.publish_all(1, 1, "office")
    assert position.offset == 0 and offsets(nodes, 0, "office") == [1]


async def test_who_gives_up_asking_ends_it_for_nobody_else(nodes: Nodes) -> None:
    nodes[0].watcher.watched.add("office")
    asking = [asyncio.ensure_future(nodes[0].broker.position("office")) for _ in range(3)]
    await settle(1)
    asking[0].cancel()
    await settle()
    assert asking[0].cancelled() and asking[1].result() == asking[2].result()


async def test_an_event_between_hearing_and_asking_is_not_lost(nodes: Nodes) -> None:
    """The room is heard, then something is published, then it is asked where the room ends: in every order."""
    for turns in range(12):
        room = f"room{turns}"
        nodes[1].link.turns = lambda: 5
        nodes[1].watcher.watched.add(room)
        asking = asyncio.ensure_future(nodes[1].broker.position(room))
        await settle(turns)
        positions = await nodes.publish_all(2, 0, room)
        await settle(50)
        start = asking.result()
        later = [offset for offset in offsets(nodes, 1, room) if offset > start.offset]
        assert later == [position.offset for position in positions if position.offset > start.offset]


# — other faults —


async def test_an_error_in_what_is_done_with_an_event_costs_that_event(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    watcher = nodes[1].watcher
    deliver, calls = watcher.deliver, 0

    def fail_once(event: LoggedEvent) -> None:
        nonlocal calls
        calls += 1
        if calls in (2, 4):
            raise RuntimeError("no")
        deliver(event)

    watcher.deliver = fail_once  # type: ignore[method-assign]
    await nodes.publish_all(3)
    nodes[1].link.fate = lambda: []
    await nodes.publish_all(2)
    nodes[1].link.fate = None
    await nodes.publish_all(2)
    assert offsets(nodes, 1) == [1, 3, 5, 6, 7] and caplog.text.count("not delivered") == 2
    watcher.told["lobby"] = nodes[0].watcher.told["lobby"]  # the loss is not the log's


async def test_an_error_in_following_itself_is_logged_and_got_over(
    nodes: Nodes, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_after = nodes[1].link.read_after
    monkeypatch.setattr(nodes[1].link, "read_after", lambda *_: 1 / 0)
    nodes[1].link.fate = lambda: []
    await nodes.publish_all(1)
    nodes[1].link.fate = None
    await nodes.publish_all(1)
    await nodes.clock.advance(3)
    assert offsets(nodes, 1) == [] and caplog.text.count("something failed in itself") == 1
    monkeypatch.setattr(nodes[1].link, "read_after", read_after)
    await nodes.clock.advance(1)
    assert offsets(nodes, 1) == [1, 2]
