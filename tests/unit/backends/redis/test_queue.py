"""Queues in Redis: the keys that a plain client sees, and what other programs put there. The promises: `tests/contracts/test_queue.py`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.crc import key_slot

from aibos_realtime import MessageQueue
from aibos_realtime.backends.queue import QueueDraft, QueueLimits, Taken, Verdict
from aibos_realtime.backends.redis import queue as module
from aibos_realtime.backends.redis.options import RedisOptions
from aibos_realtime.backends.redis.queue import RedisQueue
from aibos_realtime.types import QueueMessage
from tests.servers.redis import RedisServer

LIMITS = QueueLimits()


@pytest.fixture
async def plain(redis_server: RedisServer) -> AsyncIterator[Redis]:
    """A client that knows nothing of us."""
    async with Redis(unix_socket_path=str(redis_server.path)) as client:
        yield client


@pytest.fixture
async def store(redis_server: RedisServer, redis_prefix: str) -> AsyncIterator[RedisQueue]:
    store = RedisQueue(RedisOptions(url=redis_server.url, prefix=redis_prefix))
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def stream(redis_prefix: str) -> str:
    return f"{{{redis_prefix}:orders}}:stream"


async def keys_of(plain: Redis, prefix: str) -> list[str]:
    return sorted([key.decode().partition("}:")[2] async for key in plain.scan_iter(match=f"{{{prefix}:*")])


async def take(store: RedisQueue, limit: int = 10, ordered: bool = False, visibility: float = 60.0, limits: QueueLimits = LIMITS) -> list[Taken]:
    return await store.take("orders", limit, visibility=visibility, limits=limits, ordered=ordered)


async def add(plain: Redis, stream: str, **fields: Any) -> str:
    """One XADD; the name of the entry."""
    words = [word for pair in fields.items() for word in pair]
    entry: bytes = await plain.execute_command("XADD", stream, "*", *words)  # type: ignore[no-untyped-call]
    return entry.decode()


async def entries_of(plain: Redis, stream: str) -> list[tuple[str, dict[bytes, bytes]]]:
    rows: Any = await plain.xrange(stream)
    return [(entry.decode(), fields) for entry, fields in rows]


def ids(taken: list[Taken]) -> list[str]:
    return [one.id for one in taken]


# — another program sends —


async def test_another_program_sends_with_one_command(plain: Redis, store: RedisQueue, stream: str) -> None:
    entry = await add(plain, stream, data='{"type": "invoice.created"}')
    await add(plain, stream, data="[1]", id="inv-1", key="tenant_1")
    first, second = await take(store)
    assert (first.id, first.data, first.key, first.attempt) == (entry, b'{"type": "invoice.created"}', None, 1)
    assert abs(first.enqueued_at - time.time()) < 5
    assert (second.id, second.data, second.key) == ("inv-1", b"[1]", "tenant_1")


async def test_another_program_may_say_when_it_is_due_and_when_it_expires(plain: Redis, store: RedisQueue, stream: str) -> None:
    now = int(time.time() * 1000)
    for id, field, at in (
        ("later", "due", now + 60_000),
        ("now", "due", now - 1),
        ("gone", "expires", now - 1),
        ("lasting", "expires", now + 60_000),
    ):
        await add(plain, stream, data="1", id=id, **{field: str(at)})
    assert ids(await take(store)) == ["now", "lasting"]
    stats = await store.stats("orders")
    assert (stats.depth, stats.in_flight, stats.delayed, stats.expired) == (0, 2, 1, 1)


async def test_what_another_program_got_wrong_is_dead_with_a_reason_and_harms_nobody(
    plain: Redis, redis_server: RedisServer, redis_prefix: str, stream: str
) -> None:
    wrong: list[dict[str, Any]] = [
        {"nonsense": "1"},
        {"data": ""},
        {"data": "{'a': 1}"},
        {"data": b'"\xff\xfe"'},
        {"data": "x" * 300_000},
        {"data": "}", "id": b"\xff\xff", "key": b"\xff\x00"},
    ]
    odd: list[dict[str, Any]] = [
        {"data": "1", "id": "x" * 5000},
        {"data": "2", "id": "a\nb", "key": ""},
        {"data": "3", "due": "soon", "expires": "inf"},
        {"data": "4", "due": "9" * 400, "expires": "-1"},
        {"data": "5", "attempt": "-3", "sent": "x"},
        {"data": "6", "key": b"\xff\x00"},
    ]
    for fields in [*wrong, *odd]:
        await add(plain, stream, **fields)
    seen: list[QueueMessage] = []
    done = asyncio.Event()
    async with MessageQueue(redis={"url": redis_server.url, "prefix": redis_prefix}) as queue:

        @queue.process("orders", ordered=True)
        def handle(message: QueueMessage) -> None:
            seen.append(message)
            if len(seen) == 7:
                done.set()

        await queue.send("orders", "end")
        await asyncio.wait_for(done.wait(), 5)
        assert sorted(str(message.data) for message in seen) == ["1", "2", "3", "4", "5", "6", "end"]
        assert all(len(message.id) <= 128 and message.id.isprintable() for message in seen)
        letters = await queue.dead_letters("orders")
    reasons = [letter.reason for letter in reversed(letters)]
    assert reasons == ["the data is not valid JSON"] * 4 + ["300000 bytes; at most 262144 are allowed", "the data is not valid JSON"]


# — what is there, and what is left —


async def test_all_keys_of_a_queue_are_in_one_slot(plain: Redis, store: RedisQueue, redis_prefix: str) -> None:
    drafts = [
        QueueDraft("a", b"1", key="k", idempotency_key="i"), QueueDraft("b", b"1", key="k"), QueueDraft("c", b"1", delay=60),
        QueueDraft("d", b"1"),
    ]  # fmt: skip
    await store.send("orders", drafts, LIMITS)
    taken = await take(store, ordered=True)
    await store.settle("orders", [Verdict(one, "dead", reason="no") for one in taken if one.id == "d"], LIMITS)
    keys = [key async for key in plain.scan_iter(match=f"*{redis_prefix}*")]
    assert len(keys) == 8 and len({key_slot(key) for key in keys}) == 1
    assert all(key.startswith(f"{{{redis_prefix}:orders}}:".encode()) for key in keys)
    assert set(keys) >= {f"{{{redis_prefix}:orders}}:{part}".encode() for part in module.KEYS if part != "counters"}


async def test_the_fields_of_a_message_are_those_of_the_reference(plain: Redis, store: RedisQueue, stream: str) -> None:
    await store.send("orders", [QueueDraft("m1", b'{"a":1}', key="k", delay=60, ttl=600, idempotency_key="i")], LIMITS)
    ((entry, fields),) = await entries_of(plain, stream)
    sent = int(entry.partition("-")[0])
    for field, later in ((b"due", 60_000), (b"expires", 600_000)):
        assert -100 < int(fields.pop(field)) - sent - later <= 0, "by the time at which the script began"
    assert fields == {b"data": b'{"a":1}', b"id": b"m1", b"key": b"k"}
    await store.send("orders", [QueueDraft("m2", b"1")], LIMITS)
    assert (await entries_of(plain, stream))[1][1] == {b"data": b"1", b"id": b"m2"}
    (groups,) = await plain.xinfo_groups(stream) if await take(store) else [{}]
    assert groups["name"] == b"workers" and groups["pending"] == 2


async def test_finished_messages_leave_an_empty_stream_and_nothing_else(plain: Redis, store: RedisQueue, redis_prefix: str, stream: str) -> None:
    drafts = [QueueDraft(f"m{number}", b"1", key=f"k{number % 3}") for number in range(30)]
    await store.send("orders", [*drafts, QueueDraft("d", b"1", delay=0.001)], LIMITS)
    count = 0
    while taken := await take(store, 4, ordered=True):
        kinds = ["done" if one.attempt > 1 or index % 2 else "retry" for index, one in enumerate(taken)]
        await store.settle("orders", [Verdict(one, kind) for one, kind in zip(taken, kinds, strict=True)], LIMITS)  # type: ignore[arg-type]
        count += kinds.count("done")
    assert count == 31 and await keys_of(plain, redis_prefix) == ["stream"]
    assert await plain.xlen(stream) == 0
    (group,) = await plain.xinfo_groups(stream)
    assert group["pending"] == 0 and group["consumers"] <= 1, "dead workers leave no names"
    await store.purge("orders")
    assert await keys_of(plain, redis_prefix) == []


async def test_purging_and_requeueing_leave_nothing(plain: Redis, store: RedisQueue, redis_prefix: str) -> None:
    await store.send("orders", [QueueDraft(f"m{number}", b"1", key="k", ttl=0.001) for number in range(3)], LIMITS)
    await store.send("orders", [QueueDraft("a", b"1", key="k"), QueueDraft("b", b"1", key="k"), QueueDraft("c", b"1", delay=60)], LIMITS)
    taken: list[Taken] = []
    while not taken:
        taken = await take(store, ordered=True)
    await store.settle("orders", [Verdict(taken[-1], "dead")], LIMITS)
    await store.requeue("orders", None, LIMITS)
    assert "dead" not in await keys_of(plain, redis_prefix)
    await store.purge("orders")
    assert await keys_of(plain, redis_prefix) == []


async def test_idempotency_keys_end_by_themselves(plain: Redis, store: RedisQueue, redis_prefix: str) -> None:
    await store.send("orders", [QueueDraft("a", b"1", idempotency_key="secret key")], LIMITS)
    (key,) = [key async for key in plain.scan_iter(match=f"{{{redis_prefix}:orders}}:sent:*")]
    assert 290_000 < await plain.pttl(key) <= 300_000 and b"secret" not in key
    value = await plain.get(key)
    assert isinstance(value, bytes) and value[40:] == b"a", "the id alone; the content as a digest"


def test_no_script_trims() -> None:
    """MAXLEN and MINID delete what nobody has handled yet."""
    for name in ("common", "extend", "purge", "requeue", "send", "settle", "stats", "take"):
        text = (Path(module.__file__).parent / "scripts" / f"{name}.lua").read_text().upper()
        assert "MAXLEN" not in text and "MINID" not in text and "XTRIM" not in text


async def test_names_are_found_among_many_keys(plain: Redis, store: RedisQueue, redis_prefix: str) -> None:
    await plain.mset({f"{{{redis_prefix}:x{number}}}:other": "1" for number in range(3000)})
    for number in range(5):
        await store.send(f"q{number}", [QueueDraft("a", b"1")], LIMITS)
    assert await store.names() == [f"q{number}" for number in range(5)]


async def test_prefixes_and_databases_do_not_mix(redis_server: RedisServer, redis_prefix: str) -> None:
    options: list[dict[str, Any]] = [{"prefix": f"{redis_prefix}a"}, {"prefix": f"{redis_prefix}b"}, {"prefix": f"{redis_prefix}a", "db": 3}]
    for number, more in enumerate(options):
        async with MessageQueue(redis={"url": redis_server.url, **more}) as queue:
            await queue.send("orders", number)
            assert (await queue.stats("orders")).depth == 1


# — things done by hand —


async def test_the_group_is_made_again(plain: Redis, store: RedisQueue, stream: str) -> None:
    await store.send("orders", [QueueDraft("a", b"1"), QueueDraft("b", b"1", delay=0.001)], LIMITS)
    await take(store, 1)
    await plain.xgroup_destroy(stream, "workers")
    rest = ids(await take(store)) + ids(await take(store))
    assert rest == ["b"] or rest == ["a"], "what is being handled is not handed out again"
    await plain.flushall()
    await store.send("orders", [QueueDraft("c", b"1")], LIMITS)
    assert ids(await take(store)) == ["c"]


async def test_entries_that_were_deleted_by_hand_hold_nothing(plain: Redis, store: RedisQueue, redis_prefix: str, stream: str) -> None:
    await store.send("orders", [QueueDraft("a", b"1", key="k"), QueueDraft("b", b"1", key="k"), QueueDraft("c", b"1", key="k")], LIMITS)
    (a,) = await take(store, ordered=True)
    entries = await entries_of(plain, stream)
    await plain.xdel(stream, entries[0][0], entries[1][0])
    assert await store.settle("orders", [Verdict(a, "retry")], LIMITS) == [True]
    (c,) = await take(store, ordered=True)
    assert c.id == "c"
    await store.settle("orders", [Verdict(c, "dead")], LIMITS)
    assert await keys_of(plain, redis_prefix) == ["dead", "stream"]


async def test_a_backlog_of_expired_and_held_messages_is_worked_off_in_steps(store: RedisQueue) -> None:
    await store.send("orders", [QueueDraft(f"e{number}", b"1", ttl=0.001) for number in range(1500)], LIMITS)
    await store.send("orders", [QueueDraft(f"k{number}", b"1", key="k") for number in range(1500)], LIMITS)
    await store.send("orders", [QueueDraft("last", b"1")], LIMITS)
    seen: list[str] = []
    for _ in range(5):
        seen += ids(await take(store, 5, ordered=True))
        await asyncio.wait_for(store.wait("orders", 0.01), 5)
    assert seen == ["k0", "last"] and (await store.stats("orders")).expired == 1500


async def test_a_dead_letter_that_another_program_wrote_hides_no_other(store: RedisQueue, plain: Redis, stream: str) -> None:
    """Another program put an entry without our fields among the dead letters: from then on nobody could list them, nor have one tried again."""
    dead = stream.removesuffix("stream") + "dead"
    for fields in (
        {"x": "y"},
        {"sent": "\xff", "attempts": "many", "id": ""},
        {"sent": "9" * 5000, "attempts": "9" * 5000, "data": b"\x80\x04pickle"},
    ):
        await plain.xadd(dead, fields)  # type: ignore[arg-type]
    await store.send("orders", [QueueDraft("mine", b"1")], LIMITS)
    [taken] = await take(store)
    await store.settle("orders", [Verdict(taken, "dead", reason="no")], LIMITS)
    letters = await store.dead_letters("orders", 10)
    assert [letter.id for letter in letters][:1] == ["mine"] and len(letters) == 4
    assert [(letter.attempts, letter.data) for letter in letters[1:]] == [(0, b"\x80\x04pickle"), (0, b""), (0, b"")]
    assert await store.requeue("orders", None, LIMITS) == 4
    assert sorted(len(found.data) for found in await take(store)) == [0, 0, 1, 8]


async def test_a_message_of_a_time_without_a_date_is_handled(redis_server: RedisServer, redis_prefix: str, plain: Redis, stream: str) -> None:
    """An entry may be given any id, and so any time. One of the year 584 million ended the worker's task, message after message."""
    got: list[Any] = []
    async with MessageQueue(redis={"url": redis_server.url, "prefix": redis_prefix}) as queue:
        await plain.xadd(stream, {"data": b'"late"', "id": "x"}, id="18446744073709551000-0")
        done = asyncio.Event()

        @queue.process("orders")
        async def handle(message: QueueMessage) -> None:
            got.append((message.data, message.enqueued_at.year))
            done.set()

        async with asyncio.timeout(10):
            await done.wait()
    assert got == [("late", 9999)]
