"""The shared log in Redis: what its scripts promise, and what becomes of things in Redis that none of our nodes wrote."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from typing import Any

import pytest

from aibos_realtime import BrokerUnavailable, Position
from aibos_realtime.backends.base import Audience, LoggedEvent
from aibos_realtime.backends.redis import records
from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.log import HEAD_LIFE, IDEMPOTENCY_WINDOW, RedisLog
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.backends.shared_log import End, Remembered
from aibos_realtime.pipeline.eager import start
from aibos_realtime.storage.shared_broker import SharedBroker
from tests.servers.redis import RedisServer, running_redis

from .log_rig import NOW, Bench, draft, log_on, members_on


@pytest.fixture
async def bench(redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[Bench]:
    async with log_on(redis_server.url, redis_prefix) as bench:
        yield bench


@pytest.fixture
async def stored(redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[Bench]:
    async with log_on(redis_server.url, redis_prefix, has_store=True, max_waiting=10) as bench:
        yield bench


def statuses(outcomes: list[Any]) -> list[str]:
    return [outcome.status for outcome in outcomes]


# — appending —


async def test_events_get_positions_that_rise_by_one_and_every_node_hears_them(bench: Bench) -> None:
    assert statuses(await bench.append(draft())) == ["begin"]
    await bench.begin()
    await bench.begin("office", "e2")
    await asyncio.gather(bench.log.follow("lobby"), bench.log.follow("office"))
    audience = Audience(where={"role__in": ["admin"]}, users=frozenset({"ann"}), exclude=frozenset({"eve"}))
    drafts = [draft(data='{"a":"ü"}'.encode(), user_id="ann", audience=audience), draft("office"), draft("nowhere"), draft()]
    outcomes = await bench.append(*drafts)
    assert [outcome.position for outcome in outcomes] == [Position("e1", 1), Position("e2", 1), None, Position("e1", 2)]
    await bench.ears.until(lambda: len(bench.ears.events) == 3)
    first = bench.ears.events[0]
    assert first == LoggedEvent("lobby", "note", '{"a":"ü"}'.encode(), drafts[0].id, "e1", 1, NOW, "ann", audience)
    assert (await bench.log.read_after("lobby", Position("e1", 0), 10)).events == [bench.ears.events[0], bench.ears.events[2]]


async def test_an_id_has_one_position_for_its_time(bench: Bench) -> None:
    await bench.fill(1)
    first, same, other, others, unkeyed = await bench.append(
        draft(id="x", keyed=True, user_id="ann"), draft(id="x", keyed=True, user_id="ann"), draft(id="x", keyed=True, user_id="ann", data=b"2"),
        draft(id="x", keyed=True), draft(id="x", user_id="ann"),
    )  # fmt: skip
    assert (first.status, first.position) == ("appended", Position("e1", 2))
    assert (same.status, same.position, same.is_same) == ("again", Position("e1", 2), True)
    assert (other.status, other.is_same) == ("again", False)
    assert others.position == Position("e1", 3) and unkeyed.position == Position("e1", 4)
    life = await bench.command("TTL", bench.log.layout.of_id("lobby", "ann", "x"))
    assert IDEMPOTENCY_WINDOW - 5 <= life <= IDEMPOTENCY_WINDOW


async def test_a_log_that_lacks_what_was_seen_takes_nothing(bench: Bench) -> None:
    await bench.fill(5)
    for seen in ([Position("e1", 6)], [Position("e0", 1)], [Position("e1", 5), Position("e2", 1)]):
        assert statuses(await bench.append(draft(), seen=seen)) == ["begin"]
    for seen in ([], [Position("e1", 5)], [Position("e1", 2)]):
        assert statuses(await bench.append(draft(), seen=seen)) == ["appended"]


async def test_what_one_node_has_seen_more_of_no_node_goes_on_with(bench: Bench) -> None:
    await bench.fill(5)
    assert await bench.log.end("lobby", [Position("e1", 6)]) == End()
    assert statuses(await bench.append(draft())) == ["begin"] and await bench.log.end("lobby", ()) == End()
    assert await bench.log.begin("lobby", "e2", (), ()) == Position("e2", 0)
    assert statuses(await bench.append(draft())) == ["appended"] and await bench.log.end("lobby", ()) == End(Position("e2", 1))


async def test_a_room_keeps_so_many_events_for_so_long_and_its_end_much_longer(bench: Bench) -> None:
    await bench.fill(30, history_size=10)
    stretch = await bench.log.read_before("lobby", None, 100)
    assert [event.offset for event in stretch.events] == list(range(21, 31))
    await bench.append(draft(history_ttl=60.0), now=NOW + 59_999)
    assert (await bench.log.read_before("lobby", None, 100)).first == 21
    for number in range(6):
        await bench.append(draft(history_ttl=60.0), now=NOW + 60_000 + number)
    assert (await bench.log.read_before("lobby", None, 100)).first == 31, "the old ones go when new ones come"
    assert 50_000 < await bench.command("PTTL", bench.key("log")) <= 60_000
    assert HEAD_LIFE - 5 <= await bench.command("TTL", bench.key("head")) <= HEAD_LIFE
    await bench.command("DEL", bench.key("log"))
    assert (await bench.append(draft()))[0].position == Position("e1", 38)


@pytest.mark.parametrize("more", [{"history_size": 0}, {"history_ttl": 0.0}, {"history_ttl": 1e30}, {"history_ttl": 0.001}])
async def test_a_room_may_keep_nothing_or_much(bench: Bench, more: dict[str, Any]) -> None:
    positions = await bench.fill(3, **more)
    assert [position.offset for position in positions] == [1, 2, 3]


async def test_time_does_not_go_back_in_a_room(bench: Bench) -> None:
    await bench.begin()
    for now in (NOW, NOW - 60_000, NOW + 5):
        await bench.append(draft(), now=now)
    events = (await bench.log.read_after("lobby", Position("e1", 0), 10)).events
    assert [event.timestamp for event in events] == [NOW, NOW, NOW + 5]


async def test_ephemeral_events_are_kept_nowhere(stored: Bench) -> None:
    await stored.fill(2)
    (outcome,) = await stored.append(draft(ephemeral=True))
    assert outcome.position == Position("e1", 3) and outcome.entry == "" and await stored.command("XLEN", stored.shard_key("intake")) == 2
    stretch = await stored.log.read_after("lobby", Position("e1", 0), 10)
    assert (stretch.head, stretch.events) == (Position("e1", 3), []), "what was kept does not reach to the end"
    (outcome,) = await stored.append(draft())
    assert (await stored.log.read_after("lobby", Position("e1", 3), 10)).last == 4


async def test_what_is_kept_waits_for_the_store_and_only_so_much(stored: Bench) -> None:
    await stored.begin()
    outcomes = await stored.append(*(draft(persist=number != 3) for number in range(12)), draft(ephemeral=True))
    assert statuses(outcomes) == ["appended"] * 10 + ["full"] * 2 + ["appended"]
    entries = await stored.command("XRANGE", stored.shard_key("intake"), "-", "+")
    assert [fields[7] for _, fields in entries] == [b"1", b"1", b"1", b"0", *[b"1"] * 6]
    assert [outcome.entry for outcome in outcomes[:10]] == [id.decode() for id, _ in entries]
    assert outcomes[12].position == Position("e1", 11), "what was refused took no place"


async def test_what_cannot_be_kept_is_refused_alone(bench: Bench) -> None:
    await bench.begin()
    crowd = Audience(users=frozenset(f"somebody with a long name, number {number}" for number in range(30_000)))
    outcomes = await bench.append(draft(), draft(audience=crowd), draft(event="half \ud800"), draft(id="\udfff"), draft())
    assert statuses(outcomes) == ["appended", "refused", "refused", "refused", "appended"]
    assert outcomes[4].position == Position("e1", 2)


# — ends and beginnings —


async def test_a_new_epoch_knows_those_before_it(bench: Bench) -> None:
    assert await bench.log.end("lobby", ()) == End()
    for number in range(1, 12):
        seen = [Position(f"e{number - 1}", 5)] if number > 1 else []
        assert await bench.log.begin("lobby", f"e{number}", seen, ()) == Position(f"e{number}", 0)
        assert await bench.log.end("lobby", seen) == End(Position(f"e{number}", 0))
        await bench.append(draft())
    assert await bench.log.end("lobby", [Position("e4", 9)]) == End(Position("e11", 1))
    assert await bench.log.begin("lobby", "e12", [Position("e11", 1)], ()) == Position("e11", 1), "there is nothing to begin"
    assert await bench.log.heads(0, ["lobby", "nowhere"]) == [Position("e11", 1), None]
    assert await bench.log.end("lobby", [Position("e2", 9)]) == End(), "they are not known for ever"


async def test_of_two_that_begin_at_once_one_does(bench: Bench) -> None:
    positions = await asyncio.gather(*(bench.log.begin("lobby", f"e{number}", [Position("e0", 7)], ()) for number in range(1, 6)))
    assert len(set(map(str, positions))) == 1


async def test_ids_come_along_into_a_new_epoch(bench: Bench) -> None:
    ids = [Remembered("ann", "x", "note", b"1", Position("e0", 7)), Remembered("", "y", "note", None, Position("e0", 8))]
    await bench.log.begin("lobby", "e1", (), ids)
    x, other, y, z = await bench.append(
        draft(id="x", keyed=True, user_id="ann"), draft(id="x", keyed=True, user_id="ann", data=b"2"),
        draft(id="y", keyed=True, data=b"3"), draft(id="z", keyed=True),
    )  # fmt: skip
    assert (x.status, x.position, x.is_same, x.entry) == ("again", Position("e0", 7), True, "")
    assert not other.is_same and y.position == Position("e0", 8) and y.is_same and z.position == Position("e1", 1)


async def test_another_era_of_the_store_needs_new_epochs(bench: Bench) -> None:
    await bench.fill(3)
    await bench.log.enter_era("second")
    assert statuses(await bench.append(draft())) == ["begin"] and await bench.log.end("lobby", ()) == End()
    await bench.log.begin("lobby", "e2", (), ())
    await bench.log.enter_era("second")
    assert statuses(await bench.append(draft())) == ["appended"]


async def test_after_a_start_a_room_is_in_doubt_until_everybody_had_time_to_say_what_he_saw(redis_prefix: str) -> None:
    with running_redis() as server:
        async with log_on(server.url, redis_prefix) as bench:
            await bench.fill(3)
            await bench.fill(3, "office")
            server.stop()
            server.start()
            await bench.ears.until(lambda: bench.ears.interruptions == 1)
            assert statuses(await bench.append(draft())) == ["begin"]
            end = await bench.log.end("lobby", ())
            assert end.position == Position("e1", 3) and end.doubt is not None and 0.5 < end.doubt <= 1.0
            assert (await bench.log.end("lobby", (), is_settled=True)).doubt is not None, "not before the time is over"
            assert await bench.log.end("office", [Position("e1", 4)]) == End(), "who saw more need not wait"
            assert await bench.log.age(0) < 1
            await bench.command("HINCRBY", bench.shard_key("state"), "since", -1000)
            assert (await bench.log.end("lobby", ())).doubt == 0
            assert await bench.log.end("lobby", (), is_settled=True) == End(Position("e1", 3))
            assert statuses(await bench.append(draft())) == ["appended"] and await bench.log.age(0) >= 1


async def test_how_long_the_log_remembers_is_known(bench: Bench) -> None:
    assert await bench.log.age(0) == 0
    await bench.command("HINCRBY", bench.shard_key("state"), "since", -400_000)
    assert await bench.log.age(0) >= 400
    await bench.command("DEL", bench.shard_key("state"))
    assert await bench.log.age(0) < 1


# — reading —


async def test_stretches_are_read_in_both_directions(bench: Bench) -> None:
    positions = await bench.fill(50)
    after = await bench.log.read_after("lobby", positions[9], 15)
    assert (after.first, after.last, [event.offset for event in after.events]) == (11, 25, list(range(11, 26)))
    assert after.head == Position("e1", 50) and after.at == (await bench.log.read_after("lobby", positions[8], 1)).events[0].id
    before = await bench.log.read_before("lobby", 30, 12)
    assert (before.first, before.last, [event.offset for event in before.events]) == (18, 29, list(range(18, 30)))
    assert (await bench.log.read_after("lobby", Position("e0", 3), 5)).events == []
    assert (await bench.log.read_after("lobby", Position("e1", 50), 5)).events == []
    assert (await bench.log.read_after("nowhere", Position("e1", 0), 5)).head is None
    assert (await bench.log.read_before("lobby", 1, 5)).events == []
    assert (await bench.log.read_before("lobby", 2**53, 5)).last == 50


async def test_a_stretch_of_large_events_is_cut_and_never_empty(bench: Bench) -> None:
    data = b'"' + b"x" * 260_000 + b'"'
    await bench.fill(20, data=data)
    seen, after = [], Position("e1", 0)
    while after.offset < 20:
        stretch = await bench.log.read_after("lobby", after, 100)
        assert 4 <= len(stretch.events) <= 9 or stretch.last == 20
        seen += [event.offset for event in stretch.events]
        after = Position("e1", stretch.last)
    assert seen == list(range(1, 21))
    before = await bench.log.read_before("lobby", None, 100)
    assert before.is_cut and before.last == 20 and 4 <= len(before.events) <= 9
    assert not (await bench.log.read_before("lobby", 3, 100)).is_cut


# — hearing —


async def test_volatile_events_notices_and_probes_are_heard(redis_server: RedisServer, redis_prefix: str) -> None:
    async with log_on(redis_server.url, redis_prefix) as one, log_on(redis_server.url, redis_prefix, node="b") as two:
        await asyncio.gather(one.log.follow("lobby"), two.log.follow("lobby"))
        event = LoggedEvent("lobby", "typing", b'{"a":1}', "v1", "", 0, NOW, "ann", Audience(exclude=frozenset({"eve"})))
        one.log.send_volatile(event)
        one.log.send_volatile(LoggedEvent("lobby", "half \ud800", b"1", "v2", "", 0, NOW))
        await two.command("SPUBLISH", two.key("room"), b'p{"joined":"ann"}')
        await two.ears.until(lambda: bool(two.ears.volatile and two.ears.notices))
        assert two.ears.volatile == [event] and one.ears.volatile == [] and two.ears.notices == [("lobby", b'{"joined":"ann"}')]
        await one.ears.until(lambda: one.log.is_connected)
        assert await one.log.probe(0, "7")
        await one.ears.until(lambda: one.ears.probes == [(0, "7")])
        assert two.ears.probes == []


async def test_volatile_events_are_dropped_where_too_many_are_on_their_way(redis_prefix: str) -> None:
    with running_redis() as server:
        async with log_on(server.url, redis_prefix) as bench:
            server.pause()
            try:
                for number in range(100):
                    for _ in range(3):
                        bench.log.send_volatile(LoggedEvent("lobby", "typing", b"1", f"v{number}", "", 0, NOW))
                    await asyncio.sleep(0)
                assert bench.metrics.volatile_dropped == 3 * 36
            finally:
                server.go_on()


async def test_reading_begins_without_a_task_also_where_there_is_no_connection(redis_server: RedisServer, redis_prefix: str) -> None:
    """The road runs the first step of a broker's coroutines on the spot."""
    client = Client(read_url(redis_server.url))
    await client.open()
    broker = SharedBroker(RedisLog(client, prefix=redis_prefix, node="a", has_store=False))
    await broker.start()
    position = await broker.position("lobby")
    for connection in client._connections.values():
        connection.close()
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[Any]] = loop.create_future()

    def outside_of_tasks() -> None:
        calls = [broker.read_after("lobby", position, 1), broker.read_before("lobby", None, 1), broker.position("lobby")]
        done.set_result([start(call) for call in calls])

    loop.call_soon(outside_of_tasks)
    for value, rest in await done:
        assert value is None and (await rest) is not None
    await broker.stop()
    await client.close()


# — what is none of ours —

GARBAGE: list[list[Any]] = [
    ["SET", "text"],
    ["SET", pickle.dumps({"a": 1})],
    ["RPUSH", "a", "b"],
    ["SADD", "a"],
    ["ZADD", 1, "a"],
    ["HSET", "a", "b"],
    ["HSET", "epoch", "e 1", "offset", "3"],
    ["HSET", "epoch", "e1\0", "offset", "3"],
    ["HSET", "epoch", "e" * 10_000_000, "offset", "3"],
    *(["HSET", "epoch", "e1", "offset", offset] for offset in ("nan", "inf", "-1", "1.5", "1e5", "0x10", "", "9" * 30, str(2**63))),
    ["XADD", "999-0", "r", "{}", "t", "1"],
    LAST := ["XADD", "18446744073709551615-18446744073709551615", "r", "{}", "t", "1"],
    ["XADD", "1-0", "a", "x" * 10_000_000],
    ["SETBIT", 80_000_000, 1],
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=[f"{number}-{words[0]}" for number, words in enumerate(GARBAGE)])
@pytest.mark.parametrize("name", ["head", "log", "id", "intake", "state", "stored"])
async def test_whatever_is_where_a_key_should_be_events_go_on(redis_server: RedisServer, redis_prefix: str, name: str, garbage: list[Any]) -> None:
    """The room, or where the shard's own keys are meant all rooms, go on in the same epoch or in a new one, and that is told."""
    async with members_on(redis_server.url, redis_prefix, 1) as (member,), log_on(redis_server.url, redis_prefix, node="b", has_store=True) as writer:
        await member.watch("lobby", "office")
        await member.publish("lobby")
        await member.publish("office")
        layout = member.log.layout
        key = {"id": layout.of_id("lobby", "", "x"), "head": writer.key("head"), "log": writer.key("log")}.get(name) or writer.shard_key(name)
        await writer.command("DEL", key)
        await writer.command(garbage[0], key, *garbage[1:])
        lobby = [await member.publish("lobby", id="x", keyed=True), await member.publish("lobby")]
        office = [await member.publish("office"), await member.publish("office")]
        await member.until_at(lobby[1])
        await member.until_at(office[1])
        assert [position.offset for position in office] == [2, 3] and member.resyncs("office") == []
        for room in ("lobby", "office"):
            at = Position(member.events(room)[0].epoch, 0)
            changes = iter([*member.resyncs(room), None])
            for event in member.events(room):
                if event.epoch != at.epoch:
                    at = next(changes) or at
                assert Position(event.epoch, event.offset - 1) == at, "told before what is later"
                at = Position(event.epoch, event.offset)
        if name == "intake" and garbage is LAST:
            assert statuses(await writer.append(draft("lobby"), draft("office"))) == ["full"] * 2, "until the drainer has taken it out"
            await writer.command("XDEL", key, LAST[1])
            assert statuses(await writer.append(draft("lobby"))) == ["full"]
        assert statuses(await writer.append(draft("lobby"), draft("office"))) == ["appended"] * 2
        if name == "stored":
            with pytest.raises(BrokerUnavailable) if garbage[0] not in ("SET", "SETBIT") else _nothing():
                await writer.log.committed(0)


class _nothing:
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


async def test_foreign_keys_are_counted(stored: Bench) -> None:
    await stored.fill(1)
    for key, expected in ((stored.log.layout.of_id("lobby", "", "x"), 1), (stored.shard_key("intake"), 2)):
        await stored.command("DEL", key)
        await stored.command("SET", key, "nonsense")
        assert statuses(await stored.append(draft(id="x", keyed=True))) == ["appended"]
        await stored.command("DEL", stored.log.layout.of_id("lobby", "", "x"))
        assert stored.metrics.foreign_records == expected
    await stored.command("DEL", stored.key("head"))
    await stored.command("SET", stored.key("head"), "nonsense")
    assert await stored.log.end("lobby", ()) == End() and stored.metrics.foreign_records == 3


HEADS: list[dict[str, Any]] = [
    {"epoch": "e1"},
    {"offset": "3"},
    *({"epoch": epoch, "offset": "3"} for epoch in ("e 1", "e1\0", "", "e" * 65, "é", "e1\r\n")),
    *({"epoch": "e1", "offset": offset} for offset in ("nan", "inf", "-1", "1.5", "1e5", "0x10", "", " 3", "9" * 16, str(2**63))),
]


@pytest.mark.parametrize("head", HEADS, ids=range(len(HEADS)))
async def test_a_head_that_makes_no_sense_is_none(bench: Bench, head: dict[str, Any]) -> None:
    await bench.fill(3)
    await bench.command("HDEL", bench.key("head"), "epoch", "offset")
    await bench.command("HSET", bench.key("head"), *(word for pair in head.items() for word in pair))
    assert statuses(await bench.append(draft())) == ["begin"]
    assert await bench.log.heads(0, ["lobby"]) == [None] and await bench.log.end("lobby", ()) == End()
    assert (await bench.log.read_after("lobby", Position("e1", 0), 10)).head is None
    assert await bench.log.begin("lobby", "e2", (), ()) == Position("e2", 0)
    assert (await bench.append(draft()))[0].position == Position("e2", 1)


@pytest.mark.parametrize("ms", ["", "nan", "inf", "1e30", "9" * 15, "-1", "x"])
async def test_a_time_that_makes_no_sense_is_none(bench: Bench, ms: str) -> None:
    await bench.fill(1)
    await bench.command("HSET", bench.key("head"), "ms", ms)
    assert statuses(await bench.append(draft())) == ["appended"]
    assert [event.timestamp for event in (await bench.log.read_after("lobby", Position("e1", 1), 10)).events] == [NOW]


RECORD = records.encode(draft())
ENTRIES: list[list[Any]] = [
    ["x", "y"],
    ["r", RECORD],
    ["r", RECORD, "more", "1", "t", "1"],
    ["t", "1", "r", RECORD],
    ["r", RECORD, "t", "-1"],
    ["r", RECORD, "t", "1" * 20],
    ["r", b"{}", "t", "1"],
    ["r", b"[1,2]", "t", "1"],
    ["r", b"not json", "t", "1"],
    ["r", b"\xff\xfe", "t", "1"],
    ["r", pickle.dumps([1]), "t", "1"],
    ["r", b'{"e":1,"d":1,"i":"x"}', "t", "1"],
    ["r", b'{"e":"a","d":1,"i":"x","a":{"users":5}}', "t", "1"],
    ["r", b'{"e":"\xed\xa0\x80","d":1,"i":"x"}', "t", "1"],
    ["r", b'{"e":"a","d":"\xff","i":"x"}', "t", "1"],
    ["r", b"[" * 100_000, "t", "1"],
    ["r", b'{"e":"a","d":"' + b"x" * 10_000_000 + b'","i":"x"}', "t", "1"],
]


@pytest.mark.parametrize("fields", ENTRIES, ids=range(len(ENTRIES)))
async def test_an_entry_that_is_none_of_ours_is_missing_and_not_passed_over(bench: Bench, fields: list[Any]) -> None:
    """What stands before it and after it is read; across it there is no recovery."""
    await bench.fill(2)
    await bench.command("XADD", bench.key("log"), "3-0", *fields)
    await bench.command("HSET", bench.key("head"), "offset", "3")
    await bench.append(draft(), draft())
    first = await bench.log.read_after("lobby", Position("e1", 0), 10)
    assert ([event.offset for event in first.events], first.last) == ([1, 2], 2) and bench.metrics.foreign_records == 1
    assert (await bench.log.read_after("lobby", Position("e1", 2), 10)).events == []
    assert [event.offset for event in (await bench.log.read_after("lobby", Position("e1", 3), 10)).events] == [4, 5]
    assert [event.offset for event in (await bench.log.read_before("lobby", None, 10)).events] == [4, 5]


async def test_entries_between_and_beyond_ours_are_not_ours(bench: Bench) -> None:
    await bench.fill(2)
    await bench.command("XADD", bench.key("log"), "2-5", "r", RECORD, "t", "1")
    await bench.append(draft())
    assert [event.offset for event in (await bench.log.read_after("lobby", Position("e1", 0), 10)).events] == [1, 2, 3]
    await bench.command("XADD", bench.key("log"), "4-0", "r", RECORD, "t", "1")
    assert [event.offset for event in (await bench.log.read_after("lobby", Position("e1", 0), 10)).events] == [1, 2, 3]
    assert [event.offset for event in (await bench.log.read_before("lobby", None, 10)).events] == [1, 2, 3]
    assert statuses(await bench.append(draft())) == ["begin"] and await bench.log.end("lobby", ()) == End()
    await bench.log.begin("lobby", "e2", (), ())
    assert (await bench.append(draft()))[0].position == Position("e2", 1)


async def test_an_event_that_somebody_deleted_is_missing(bench: Bench) -> None:
    await bench.fill(5)
    await bench.command("XDEL", bench.key("log"), "3-0")
    assert (await bench.log.read_after("lobby", Position("e1", 1), 10)).last == 2
    assert (await bench.log.read_after("lobby", Position("e1", 2), 10)).events == []
    assert (await bench.log.read_before("lobby", None, 10)).first == 4


EPOCH = "EPOCH"
MESSAGES: list[bytes] = [
    b"", b"e", b"x" + RECORD, b"e " + RECORD, b"v", b"vnode " + RECORD, b"vnode x " + RECORD, b"\x80\x04\x95" + RECORD,
    b"eEPOCH 2 1 not json", b"eEPOCH x 1 " + RECORD, b"eEPOCH -2 1 " + RECORD, b"eEPOCH 2 1e5 " + RECORD, b"eEPOCH 2 1 " + b"[" * 50_000,
    b"eEPOCH 2 1 " + b'{"e":"a","d":"' + b"x" * 2_000_000 + b'","i":"x"}', b"eEPOCH 2 1 \xff\xfe", b"e" + b"x" * 100 + b" 2 1 " + RECORD,
    b"e\xff 2 1 " + RECORD, b"eEPOCH 99999999999999999 1 " + RECORD, b"eEPOCH 2 1 " + pickle.dumps({"a": 1}),
]  # fmt: skip
SPOOFED: list[bytes] = [
    b"eEPOCH 9999999999999999 1 " + RECORD, b"eEPOCH 0 1 " + RECORD, b"eother 2 1 " + RECORD, b"e 5 1 " + RECORD,
]  # fmt: skip


async def test_messages_that_are_none_of_ours_are_counted_and_the_room_goes_on(redis_server: RedisServer, redis_prefix: str) -> None:
    async with members_on(redis_server.url, redis_prefix, 1) as (member,), log_on(redis_server.url, redis_prefix, node="b") as writer:
        await member.watch("lobby", "office")
        first = await member.publish()
        for number, message in enumerate(MESSAGES, 1):
            await writer.command("SPUBLISH", writer.key("room"), message.replace(b"EPOCH", first.epoch.encode()))
            position = await member.publish()
            await member.until_at(position)
            assert member.metrics.foreign_records == number, message[:50]
        for message in SPOOFED:
            await writer.command("SPUBLISH", writer.key("room"), message.replace(b"EPOCH", first.epoch.encode()))
            await member.until_at(await member.publish())
        assert [event.offset for event in member.events()] == list(range(1, 2 + len(MESSAGES) + len(SPOOFED)))
        assert member.metrics.gaps_lost == 0 and member.resyncs("office") == []
        for channel, message in (("probe:node0", b"\xff\0"), ("committed", b"\xff" * 100), ("committed", b"9" * 10_000 + b"-1")):
            await writer.command("SPUBLISH", writer.shard_key(channel), message)
        await member.until_at(await member.publish())


async def test_an_event_that_somebody_made_up_is_found_out_and_told(redis_server: RedisServer, redis_prefix: str) -> None:
    """It takes the place of the next one, which then is another than the one that was delivered there."""
    async with members_on(redis_server.url, redis_prefix, 1) as (one,), log_on(redis_server.url, redis_prefix, node="b") as writer:
        await one.watch("lobby")
        first = await one.publish()
        await one.until_at(first)
        await writer.command("SPUBLISH", writer.key("room"), b"e%s 2 1 %s" % (first.epoch.encode(), RECORD))
        await one.until_at(Position(first.epoch, 2))
        await writer.append(draft())
        await one.receiver.until(lambda: one.resyncs() != [])
        await one.until_at(await one.publish())
        [told] = one.resyncs()
        assert told.epoch != first.epoch and told.offset == 0, "who has a position of that epoch may mean either event"
        assert (one.events()[-1].epoch, one.events()[-1].offset) == (told.epoch, 1)
