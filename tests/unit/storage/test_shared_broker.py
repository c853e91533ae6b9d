"""The broker of one of several nodes, one fault at a time, by a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aibos_realtime import BrokerUnavailable, IdempotencyConflict, Overloaded, Position, StoreUnavailable, UnrecoverablePosition, ValidationError
from aibos_realtime.backends.base import LoggedEvent
from aibos_realtime.backends.shared_log import Append, Appended
from aibos_realtime.storage import shared_broker as module
from aibos_realtime.testing.clock import settle
from tests.unit.storage.shared_rig import Nodes


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    async with Nodes(2) as nodes:
        yield nodes


@pytest.fixture
async def stored() -> AsyncIterator[Nodes]:
    async with Nodes(2, has_store=True) as nodes:
        yield nodes


def failure(receipt: asyncio.Future[Any]) -> BaseException | None:
    return receipt.exception() if receipt.done() else None


# — publishing —


async def test_what_is_published_at_one_moment_goes_together_in_the_order_of_the_calls(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    append = nodes[0].link.append

    async def counting(shard: int, events: list[Append], *, is_awaited: bool) -> list[Appended]:
        sizes.append(len(events))
        return await append(shard, events, is_awaited=is_awaited)

    monkeypatch.setattr(nodes[0].link, "append", counting)
    await nodes.publish_all(1)
    sizes.clear()
    positions = await nodes.publish_all(300)
    assert [position.offset for position in positions] == list(range(2, 302)) and sizes == [128, 128, 44]


async def test_nodes_that_begin_a_room_at_once_agree_on_its_epoch(nodes: Nodes) -> None:
    positions = [*await asyncio.gather(*(node.watch("lobby") for node in nodes.nodes))]
    receipts = [nodes.publish(number) for number in range(2)]
    await settle()
    assert positions[0] == positions[1]
    assert sorted(str(receipt.result().position) for receipt in receipts) == sorted(str(Position(positions[0][0].epoch, offset)) for offset in (1, 2))


async def test_one_room_that_has_to_begin_holds_up_no_order(nodes: Nodes) -> None:
    receipts = [nodes.publish(0, room) for room in ("a", "b", "a", "c", "a", "b")]
    await settle()
    assert [receipt.result().position.offset for receipt in receipts] == [1, 1, 2, 1, 3, 2]  # type: ignore[union-attr]


async def test_a_lost_reply_is_an_error_and_what_came_later_does_not_overtake_it(nodes: Nodes) -> None:
    await nodes.publish_all(1)
    nodes[0].link.replies_lost = 1
    first = nodes.publish(id="x", keyed=True)
    await settle(1)
    later = [nodes.publish(id=id, keyed=True) for id in "yz"]
    await settle()
    assert [type(failure(receipt)) for receipt in (first, *later)] == [BrokerUnavailable] * 3
    again = [nodes.publish(id=id, keyed=True) for id in "xyz"]
    await settle()
    assert [(receipt.result().duplicate, receipt.result().position.offset) for receipt in again] == [  # type: ignore[union-attr]
        (True, 2), (False, 3), (False, 4),
    ]  # fmt: skip


async def test_a_log_that_hangs_refuses_what_is_published_in_time(nodes: Nodes) -> None:
    await nodes.publish_all(1)
    nodes.log.is_hung = True
    receipts = [nodes.publish()]
    await nodes.clock.advance(0.5)
    receipts += [nodes.publish() for _ in range(700)]
    await nodes.clock.advance(2.0)
    assert {type(failure(receipt)) for receipt in receipts} == {BrokerUnavailable}
    nodes.log.is_hung = False
    await nodes.clock.advance(2.5)
    await nodes.publish_all(1)
    assert nodes[0].broker.is_available


async def test_a_publisher_that_gives_up_costs_nobody_else_his_receipt(nodes: Nodes) -> None:
    receipts = [nodes.publish() for _ in range(3)]
    receipts[1].cancel()
    await settle()
    assert receipts[0].result().position.offset == 1 and receipts[2].result().position.offset == 3  # type: ignore[union-attr]


async def test_an_event_that_cannot_be_kept_is_refused_alone(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    append = nodes[0].link.append

    async def refusing(shard: int, events: list[Append], *, is_awaited: bool) -> list[Appended]:
        outcomes = await append(shard, [event for event in events if event.draft.id != "poison"], is_awaited=is_awaited)
        return [Appended("refused") if event.draft.id == "poison" else outcomes.pop(0) for event in events]

    monkeypatch.setattr(nodes[0].link, "append", refusing)
    receipts = [nodes.publish(), nodes.publish(id="poison"), nodes.publish()]
    await settle()
    assert isinstance(failure(receipts[1]), ValidationError) and nodes[0].metrics.publishes_refused == 1
    assert receipts[2].result().position.offset == 2  # type: ignore[union-attr]


async def test_too_much_that_waits_for_the_store_is_refused_until_it_has_come_so_far() -> None:
    async with Nodes(1, has_store=True, max_waiting=3) as nodes:
        assert nodes.store is not None
        await nodes[0].watch("lobby")
        nodes.store.is_down = True
        receipts = [nodes.publish() for _ in range(5)]
        await settle()
        assert [type(failure(receipt)) for receipt in receipts] == [type(None)] * 3 + [Overloaded] * 2
        nodes.store.is_down = False
        await nodes.clock.advance(3)
        assert [position.offset for position in await nodes.publish_all(2)] == [4, 5], "what was refused took no place"


async def test_a_batch_that_fails_for_a_fault_of_ours_leaves_nobody_waiting(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nodes[0].link, "append", lambda *_, **__: 1 / 0)
    receipts = [nodes.publish() for _ in range(600)]
    await settle()
    assert {type(failure(receipt)) for receipt in receipts} == {BrokerUnavailable} and "failed in itself" in caplog.text
    monkeypatch.undo()
    await nodes.publish_all(1)


# — ids —


async def test_an_id_is_known_on_every_node(nodes: Nodes) -> None:
    (first,) = await nodes.publish_all(1, 0, id="x", keyed=True)
    again, other = nodes.publish(1, id="x", keyed=True), nodes.publish(1, id="x", keyed=True, data=b"2")
    await settle()
    assert again.result().duplicate and again.result().position == first and isinstance(failure(other), IdempotencyConflict)


async def test_an_id_outlives_the_loss_of_the_log_where_the_store_has_it(stored: Nodes) -> None:
    (first,) = await stored.publish_all(1, id="x", keyed=True)
    await stored.clock.advance(1)
    stored.log.forget_all()
    for number in (1, 0):
        again, other = stored.publish(number, id="x", keyed=True), stored.publish(number, id="x", keyed=True, data=b"2")
        await settle()
        assert again.result().duplicate and again.result().position == first and isinstance(failure(other), IdempotencyConflict)


async def test_a_room_that_begins_where_nothing_was_lost_for_long_does_not_ask_the_store(stored: Nodes) -> None:
    await stored.publish_all(1, 0, "office")
    await stored.clock.advance(301)
    assert stored.store is not None
    stored.store.is_down = True
    await stored.publish_all(1)


@pytest.mark.parametrize("who_publishes", [0, 1])
async def test_an_id_outlives_a_fail_over_where_the_store_has_it(stored: Nodes, who_publishes: int) -> None:
    """Also where the event was published to a room that nobody watches, by a node that is gone: then the store alone knows of it."""
    await stored.publish_all(3)
    (first,) = await stored.publish_all(1, id="x", keyed=True)
    await stored.clock.advance(1)
    stored.log.fail_over(1)
    if who_publishes == 1:
        stored[0].broker._told.clear()
    again = stored.publish(who_publishes, id="x", keyed=True)
    await stored.clock.advance(3)
    assert again.result().duplicate and again.result().position == first


# — fail-over —


async def test_what_a_fail_over_lost_is_no_position_of_anything_else(nodes: Nodes) -> None:
    """The node that publishes first does not know that something was lost; the one that knows says so in time."""
    await nodes.publish_all(5)
    (lost,) = await nodes.publish_all(1)
    nodes.log.fail_over(1)
    receipt = nodes.publish(1)
    await nodes.clock.advance(2)
    assert receipt.result().position == Position(nodes.log.heads["lobby"].epoch, 1) and receipt.result().position.epoch != lost.epoch  # type: ignore[union-attr]


async def test_who_saw_more_is_believed_at_once_also_where_the_store_is_away(stored: Nodes) -> None:
    """The ids of the last minutes have to come from the store first; meanwhile nobody goes on in the old epoch."""
    positions = await stored.publish_all(2)
    assert stored.store is not None
    stored.log.fail_over(1)
    stored.store.is_down = True
    await stored.clock.advance(10)
    receipt = stored.publish(1)
    await stored.clock.advance(3)
    assert isinstance(failure(receipt), StoreUnavailable)
    stored.store.is_down = False
    await stored.clock.advance(1)
    (position,) = await stored.publish_all(1, 1)
    assert position.epoch != positions[0].epoch


async def test_a_start_that_lost_nothing_goes_on_where_it_was(nodes: Nodes) -> None:
    await nodes[0].watch("lobby")
    positions = await nodes.publish_all(5)
    nodes.log.restart()
    receipt = nodes.publish(1)
    await nodes.clock.advance(2)
    assert receipt.result().position == Position(positions[0].epoch, 6) and nodes[0].watcher.resyncs("lobby")[1:] == []


async def test_a_reply_that_comes_after_a_fail_over_is_said_in_time_too(nodes: Nodes) -> None:
    """By then this node hears again, and has looked at what may be lost."""
    (known,) = await nodes.publish_all(1)
    nodes[0].link.turns = lambda: 600
    late = nodes.publish(0)
    await settle(700)
    nodes[0].link.turns = lambda: 1
    nodes.log.fail_over(1)
    await nodes.clock.advance(0.1)
    assert not late.done() and nodes[0].broker.is_available
    await settle(600)
    assert late.result().position == Position(known.epoch, 2)
    receipt = nodes.publish(1)
    await nodes.clock.advance(2)
    assert receipt.result().position != late.result().position


async def test_what_one_room_waits_for_holds_up_no_other_in_saying_what_was_seen(nodes: Nodes) -> None:
    await nodes.publish_all(1, 0, "office")
    await nodes[0].link.enter_era("e2")
    await nodes.publish_all(1, 1, "office")  # in an epoch of which the first node has not heard
    (known,) = await nodes.publish_all(1)
    nodes[0].link.turns = lambda: 60
    late = nodes.publish(0)
    await settle(80)
    nodes[0].link.turns = lambda: 10
    nodes.log.fail_over(1)
    receipt = nodes.publish(1)
    await settle(100)
    assert late.result().position == Position(known.epoch, 2) and not receipt.done()
    await nodes.clock.advance(2)
    assert receipt.result().position != late.result().position


async def test_a_new_era_of_the_store_begins_new_epochs(nodes: Nodes) -> None:
    (before,) = await nodes.publish_all(1)
    await nodes[0].link.enter_era("e2")
    (after,) = await nodes.publish_all(1)
    (later,) = await nodes.publish_all(1)
    assert after.epoch != before.epoch and after.offset == 1 and later == Position(after.epoch, 2)


# — acknowledgement by the store —


async def test_committed_means_that_the_store_has_it(stored: Nodes) -> None:
    assert stored.store is not None
    stored.store.gate.clear()
    committed, queued = stored.publish(ack="committed"), stored.publish(ack="queued")
    await settle()
    await stored.clock.advance(1)
    assert queued.done() and not committed.done()
    stored.store.gate.set()
    await settle()
    assert committed.result().position.offset == 1 and len(stored.store.rows) == 2  # type: ignore[union-attr]


async def test_a_store_that_is_away_leaves_the_outcome_unknown(stored: Nodes) -> None:
    await stored[0].watch("lobby")
    assert stored.store is not None
    stored.store.is_down = True
    committed = stored.publish(ack="committed")
    await stored.clock.advance(1.5)
    assert not committed.done()
    await stored.clock.advance(1)
    assert isinstance(failure(committed), StoreUnavailable) and len(stored[0].watcher.events("lobby")) == 1
    stored.store.is_down = False
    await stored.clock.advance(2)
    again = stored.publish(id=stored.published[0][1].id, ack="committed")
    await settle()
    assert not again.done() or again.result().position is not None


async def test_how_far_the_store_is_is_asked_for_where_nobody_says_so(stored: Nodes) -> None:
    stored[0].link.fate = lambda: []
    committed = stored.publish(ack="committed")
    await stored.clock.advance(1.1)
    assert committed.done() and committed.exception() is None


async def test_after_a_fail_over_lower_entries_are_not_taken_for_stored(stored: Nodes) -> None:
    """The clock of the server that took over is behind."""
    committed = stored.publish(ack="committed")
    await stored.clock.advance(1)
    assert committed.done() and stored.store is not None
    stored.store.gate.clear()
    stored.log.fail_over(0)
    stored.clock.jump(-3600)
    await stored.clock.advance(3)
    receipt = stored.publish(ack="committed")
    await stored.clock.advance(1)
    assert not receipt.done()
    stored.store.gate.set()
    await stored.clock.advance(1)
    assert receipt.result().position is not None


async def test_without_a_store_committed_is_queued(nodes: Nodes) -> None:
    assert (await nodes.publish_all(1, ack="committed"))[0].offset == 1


# — reading —


async def test_a_client_that_comes_from_a_faster_node_is_recovered_here_too(nodes: Nodes) -> None:
    await nodes[1].watch("lobby")
    nodes[1].link.fate = lambda: []
    positions = await nodes.publish_all(3)
    nodes[1].link.fate = None
    page = await nodes[1].broker.read_after("lobby", positions[1], 10)
    assert [event.offset for event in page.events] == [3] and len(nodes[1].watcher.events("lobby")) == 3
    with pytest.raises(UnrecoverablePosition):
        await nodes[1].broker.read_after("lobby", Position(positions[0].epoch, 4), 10)


async def test_a_client_ahead_of_a_node_that_cannot_ask_is_told_so_in_time(nodes: Nodes) -> None:
    await nodes[1].watch("lobby")
    nodes[1].link.is_deaf = True
    positions = await nodes.publish_all(3)
    nodes[1].link.is_cut_off = True
    reading = asyncio.ensure_future(nodes[1].broker.read_after("lobby", positions[1], 10))
    await nodes.clock.advance(2.1)
    assert isinstance(reading.exception(), BrokerUnavailable)


async def test_what_will_be_delivered_is_not_handed_out_before(nodes: Nodes) -> None:
    """Else members who recover would get it twice."""
    await nodes[1].watch("lobby")
    positions = await nodes.publish_all(2)
    nodes[1].link.fate = lambda: []
    await nodes.publish_all(3)
    nodes[1].link.turns = lambda: 50
    nodes[1].broker.followed(["lobby"])  # a gap is being read
    await settle(10)
    page = await nodes[1].broker.read_after("lobby", Position(positions[0].epoch, 0), 10)
    assert ([event.offset for event in page.events], page.more) == ([1, 2], False)
    await settle(500)
    assert [event.offset for event in nodes[1].watcher.events("lobby")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("offset", [-1, 2**53 + 1, 2**70])
async def test_positions_that_no_log_has_are_refused(nodes: Nodes, offset: int) -> None:
    (position,) = await nodes.publish_all(1)
    with pytest.raises(UnrecoverablePosition):
        await nodes[0].broker.read_after("lobby", Position(position.epoch, offset), 10)
    page = await nodes[0].broker.read_before("lobby", Position(position.epoch, offset), 10)
    assert len(page.events) == (offset > 0)


async def test_history_is_whole_or_ends(stored: Nodes) -> None:
    """What the store has not yet, and the log no more, is no hole in a page."""
    assert stored.store is not None
    await stored.publish_all(5, history_size=3)
    await stored.clock.advance(1)
    stored.store.is_down = True
    await stored.publish_all(10, history_size=3)
    stored.store.is_down = False
    page = await stored[0].broker.read_before("lobby", None, 10)
    assert ([event.offset for event in page.events], page.more) == ([13, 14, 15], False)
    await stored.clock.advance(3)
    page = await stored[0].broker.read_before("lobby", None, 10)
    assert ([event.offset for event in page.events], page.more) == (list(range(6, 16)), True)


async def test_history_of_a_young_epoch_is_what_was_before_it(stored: Nodes) -> None:
    positions = await stored.publish_all(3)
    await stored.clock.advance(1)
    stored.log.forget_all()
    page = await stored[0].broker.read_before("lobby", None, 10)
    assert (page.epoch, [event.offset for event in page.events]) == (positions[0].epoch, [1, 2, 3])
    (position,) = await stored.publish_all(1)
    page = await stored[0].broker.read_before("lobby", None, 10)
    assert (page.epoch, [event.offset for event in page.events]) == (position.epoch, [1])


# — hearing —


async def test_volatile_events_and_notices_reach_the_other_nodes(nodes: Nodes) -> None:
    heard: list[tuple[str, bytes]] = []
    for node in nodes.nodes:
        await node.watch("lobby")
    nodes[1].broker.on_notice(lambda room, payload: heard.append((room, payload)))
    event = LoggedEvent("lobby", "typing", b"1", "v", "", 0, 0)
    nodes[0].broker.send_volatile(event)
    nodes[1].link.tell_notice("lobby", b"{}")
    await settle()
    assert nodes[1].watcher.volatile == [event] and nodes[0].watcher.volatile == [] and heard == [("lobby", b"{}")]


async def test_a_node_that_went_deaf_is_found_within_ten_seconds(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    await nodes[1].watch("lobby", "office")
    await nodes.clock.advance(30)
    nodes[1].link.is_deaf = True
    await nodes.publish_all(3)
    await nodes.clock.advance(10)
    assert nodes[1].link.reconnects == 1 and nodes[0].link.reconnects == 0 and caplog.text.count("gone deaf") == 1
    assert len(nodes[1].watcher.events("lobby")) == 3
    await nodes.publish_all(1)
    assert len(nodes[1].watcher.events("lobby")) == 4, "heard, not looked for"


async def test_no_outage_is_taken_for_deafness(nodes: Nodes) -> None:
    for outage in (0.3, 1.0, 4.0, 6.0, 30.0):
        nodes.log.is_down = True
        await nodes.clock.advance(outage)
        nodes.log.is_down = False
        await nodes.clock.advance(12)
        nodes.log.is_hung = True
        nodes[1].link.lose_connection()
        await nodes.clock.advance(outage)
        nodes.log.is_hung = False
        await nodes.clock.advance(12)
        nodes.log.restart()
        await nodes.clock.advance(12)
    assert [node.link.reconnects for node in nodes.nodes] == [0, 0]
    assert all(node.broker.is_available for node in nodes.nodes)


@pytest.mark.parametrize("away", [4.2, 4.6, 5.0, 5.4, 5.8])
async def test_a_connection_that_comes_back_late_is_not_taken_for_deaf(nodes: Nodes, away: float) -> None:
    for start in (0.0, 0.5):
        await nodes.clock.advance(start)
        nodes[0].link.away = away
        nodes[0].link.lose_connection()
        await nodes.clock.advance(away + 0.05)
        assert nodes[0].broker.is_available
        await nodes.clock.advance(10)
    assert nodes[0].broker._interruptions == 2, "those that were meant"


async def test_availability_follows_the_log(nodes: Nodes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    node = nodes[0]
    seen = [node.broker.is_available]
    nodes.log.is_down = True
    await nodes.clock.advance(1.5)
    seen.append(node.broker.is_available)
    nodes.log.is_down = False
    await nodes.clock.advance(0.5)
    seen.append(node.broker.is_available)
    node.link.lose_connection()
    seen.append(node.broker.is_available)  # what it cannot hear its members would miss
    await nodes.clock.advance(0.1)
    seen.append(node.broker.is_available)
    assert seen == [True, False, True, False, True] and caplog.text.count("does not answer") == 2


async def test_a_node_is_available_again_also_where_the_last_room_that_it_missed_was_let_go(nodes: Nodes) -> None:
    node = nodes[0]
    await node.watch("lobby", "office")
    node.link.lose_connection()
    node.link.deaf_rooms.clear()
    node.link._come_back(node.link._connection)
    node.link._heard.discard("office")
    node.broker.interrupted()
    seen = [node.broker.is_available]
    node.link.unfollow("office")
    assert [*seen, node.broker.is_available] == [False, True]


# — life —


async def test_stopping_ends_everything_at_once_whatever_is_on_its_way() -> None:
    for what in ("is_hung", "is_down", ""):
        nodes = Nodes(2, has_store=True)
        async with nodes:
            for node in nodes.nodes:
                await node.watch("lobby")
            await nodes.publish_all(3)
            assert nodes.store is not None
            nodes.store.is_down = True
            for number in range(2):
                nodes.publish(number, ack="committed")
            await nodes.clock.advance(0.2)
            if what:
                setattr(nodes.log, what, True)
            for number in range(2):
                nodes.publish(number)
            nodes[0].watcher.watched.add("office")
            asking = asyncio.ensure_future(nodes[0].broker.position("office"))
            await nodes.clock.advance(0.1)
            nodes.log.fail_over(1)
            await settle()
        await asyncio.gather(asking, return_exceptions=True)
        with pytest.raises(BrokerUnavailable):
            await nodes[0].broker.publish(nodes.draft())
        with pytest.raises(BrokerUnavailable):
            await nodes[0].broker.position("lobby")
        nodes.log.is_hung = False
        await nodes.clock.advance(10)
        assert nodes.clock.planned == [] and asyncio.all_tasks() == {asyncio.current_task()}


async def test_stopping_that_is_cancelled_gives_up_what_waits(nodes: Nodes) -> None:
    await nodes.publish_all(1)
    nodes.log.is_hung = True
    receipts = [nodes.publish() for _ in range(600)]
    await settle(3)
    stopping = asyncio.ensure_future(nodes[0].broker.stop())
    await settle(3)
    stopping.cancel()
    await asyncio.gather(stopping, return_exceptions=True)
    assert {type(failure(receipt)) for receipt in receipts} == {BrokerUnavailable}


async def test_what_is_known_of_rooms_that_are_published_to_is_bounded(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROOMS_REMEMBERED", 10)
    for number in range(30):
        await nodes.publish_all(1, 0, f"room{number}")
    assert list(nodes[0].broker._told) == [f"room{number}" for number in range(20, 30)]
