"""What every store of queues promises (`backends.queue.QueueStore`), against each of them.

Times are short where something has to be over, and long where it must not be: a slow machine makes no test fail.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from time import time
from typing import Any, Literal

import pytest

from aibos_realtime import IdempotencyConflict, MessageQueue, QueueFull
from aibos_realtime.backends.memory.queue import MemoryQueue
from aibos_realtime.backends.queue import QueueDraft, QueueLimits, QueueStats, QueueStore, Sent, Taken, Verdict
from aibos_realtime.backends.redis.options import RedisOptions
from aibos_realtime.backends.redis.queue import RedisQueue
from aibos_realtime.backends.sql.queue import SqlQueue
from aibos_realtime.clock import SYSTEM_CLOCK
from aibos_realtime.storage.handling import QueueMessage
from aibos_realtime.testing.clock import ManualClock
from tests.servers.redis_sets import KINDS

SOON, LATER = 0.05, 60.0
"""Seconds after which something is over when `until_soon` has passed, and that no test lives to see."""
UNBOUNDED = QueueLimits()

_ids = itertools.count()


@dataclass
class Bench:
    """A store, and how to make others on the same data."""

    store: QueueStore
    make: Callable[[], Awaitable[QueueStore]]
    clock: ManualClock | None = None
    queue: str = "orders"

    async def until_soon(self) -> None:
        """What was due SOON is due now."""
        if self.clock is not None:
            await self.clock.advance(2 * SOON)
        else:
            await asyncio.sleep(2 * SOON)

    def now(self) -> float:
        return self.clock.now() if self.clock is not None else time()

    async def send(self, *drafts: QueueDraft, limits: QueueLimits = UNBOUNDED) -> list[Sent | QueueFull | IdempotencyConflict]:
        return await self.store.send(self.queue, drafts, limits)

    async def take(self, limit: int = 10, visibility: float = LATER, limits: QueueLimits = UNBOUNDED, ordered: bool = False) -> list[Taken]:
        return await self.store.take(self.queue, limit, visibility=visibility, limits=limits, ordered=ordered)

    async def settle(
        self, kind: Literal["done", "retry", "release", "dead"], *taken: Taken, limits: QueueLimits = UNBOUNDED, **more: Any
    ) -> list[bool]:
        return await self.store.settle(self.queue, [Verdict(one, kind, **more) for one in taken], limits)

    async def stats(self) -> QueueStats:
        return await self.store.stats(self.queue)


STORES = ["memory", "sqlite", "postgresql", *KINDS]


@pytest.fixture(params=STORES)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with AsyncExitStack() as stack:

        async def opened(store: QueueStore) -> QueueStore:
            await store.open()
            stack.push_async_callback(store.close)
            return store

        if request.param == "memory":
            clock = ManualClock()
            only = MemoryQueue(clock=clock)
            yield Bench(only, lambda: opened(only), clock)
            return
        if request.param in ("sqlite", "postgresql"):
            place = f"sqlite:///{tmp_path}/queue.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
            yield Bench(await opened(SqlQueue(place)), lambda: opened(SqlQueue(place)))
            return
        url, prefix = request.getfixturevalue("redis_urls")(request.param), request.getfixturevalue("redis_prefix")

        async def make() -> QueueStore:
            return await opened(RedisQueue(RedisOptions(url=url, prefix=prefix)))

        yield Bench(await make(), make)


def draft(data: bytes = b"1", **more: Any) -> QueueDraft:
    return QueueDraft(more.pop("id", f"id{next(_ids)}"), data, **more)


def ids(messages: list[Any]) -> list[str]:
    return [message.id for message in messages]


def drafts(*names: str, **more: Any) -> list[QueueDraft]:
    return [draft(id=name, **more) for name in names]


# — sending and taking —


async def test_messages_come_out_as_they_went_in(bench: Bench) -> None:
    sent = [draft('{"name":"Zoë 🚀"}'.encode(), key="ann"), draft(b'"' + b"x" * 262_142 + b'"'), draft(b"null")]
    before = bench.now()
    assert await bench.send(*sent) == [Sent(one.id) for one in sent]
    taken = await bench.take()
    assert [(one.id, one.data, one.key, one.attempt) for one in taken] == [(one.id, one.data, one.key, 1) for one in sent]
    assert all(before - 2 <= one.enqueued_at <= bench.now() + 2 for one in taken)
    assert await bench.take() == [], "each is handed out once"


async def test_they_come_in_the_order_of_sending_and_no_more_than_asked(bench: Bench) -> None:
    await bench.send(*drafts("a", "b", "c"))
    await bench.send(*drafts("d", "e"))
    assert ids(await bench.take(2)) == ["a", "b"]
    assert ids(await bench.take(2)) == ["c", "d"]
    assert ids(await bench.take(2)) == ["e"]


async def test_queues_do_not_mix(bench: Bench) -> None:
    await bench.send(*drafts("a"))
    await bench.store.send("other", drafts("b"), UNBOUNDED)
    assert ids(await bench.take()) == ["a"]
    assert await bench.store.names() == ["orders", "other"]
    assert await bench.store.purge("other") == 1 and await bench.store.names() == ["orders"]


async def test_of_many_takers_one_gets_each(bench: Bench) -> None:
    stores = [bench.store, *[await bench.make() for _ in range(3)]]
    await bench.send(*(draft(id=f"m{number}") for number in range(100)))
    takes = [store.take("orders", 7, visibility=LATER, limits=UNBOUNDED) for store in stores * 5]
    got = [message.id for taken in await asyncio.gather(*takes) for message in taken]
    assert sorted(got) == sorted(f"m{number}" for number in range(100))


async def test_concurrent_senders_all_get_in(bench: Bench) -> None:
    stores = [bench.store, await bench.make()]
    await asyncio.gather(
        *(store.send("orders", [draft(id=f"{number}-{which}")], UNBOUNDED) for which, store in enumerate(stores) for number in range(20))
    )
    assert len(set(ids(await bench.take(100)))) == 40


# — what becomes of them —


async def test_what_is_done_is_gone(bench: Bench) -> None:
    await bench.send(*drafts("a", "b"))
    taken = await bench.take(visibility=SOON)
    assert await bench.settle("done", *taken) == [True, True]
    await bench.until_soon()
    assert await bench.take() == [] and await bench.stats() == QueueStats(0, 0, 0, 0, None)
    assert await bench.settle("done", *taken) == [False, False], "saying it again changes nothing"
    assert await bench.store.names() == []


async def test_a_failed_one_comes_again_after_its_delay(bench: Bench) -> None:
    await bench.send(*drafts("a", "b"))
    a, b = await bench.take()
    assert await bench.settle("retry", a, delay=SOON) == [True] and await bench.settle("retry", b, delay=LATER) == [True]
    await bench.until_soon()
    (again,) = await bench.take()
    assert (again.id, again.attempt, again.data, again.enqueued_at) == ("a", 2, a.data, a.enqueued_at)
    stats = await bench.stats()
    assert (stats.depth, stats.in_flight, stats.delayed) == (0, 1, 1)


async def test_a_retry_without_delay_comes_at_once(bench: Bench) -> None:
    await bench.send(*drafts("a"))
    for attempt in range(1, 5):
        (taken,) = await bench.take()
        assert taken.attempt == attempt
        await bench.settle("retry", taken)


async def test_what_is_given_back_has_its_old_place_and_attempt(bench: Bench) -> None:
    await bench.send(*drafts("a", "b", "c"))
    a, b = await bench.take(2)
    assert await bench.settle("release", a, b) == [True, True]
    assert (await bench.stats()).depth == 3
    assert [(one.id, one.attempt) for one in await bench.take()] == [("a", 1), ("b", 1), ("c", 1)]


async def test_a_verdict_that_is_said_again_does_not_take_a_message_from_its_next_holder(bench: Bench) -> None:
    """Its first saying counted, and the answer was lost. A release takes the attempt back, so attempts alone do not tell the holders apart."""
    await bench.send(draft(id="a", key="k"), draft(id="b", key="k"))
    (first,) = await bench.take(ordered=True)
    assert await bench.settle("release", first) == [True]
    other = await bench.make()
    (second,) = await other.take("orders", 10, visibility=LATER, limits=UNBOUNDED, ordered=True)
    assert (second.id, second.attempt) == ("a", 1) and second.lease != first.lease
    for kind in ("release", "retry", "dead", "done"):
        assert await bench.settle(kind, first) == [False]
    assert await bench.store.extend("orders", [first], SOON) == [False]
    await bench.until_soon()
    assert await bench.take(ordered=True) == []
    assert await bench.store.extend("orders", [second], LATER) == [True] and await bench.settle("retry", second) == [True]
    (third,) = await bench.take(ordered=True)
    assert (third.id, third.attempt) == ("a", 2)
    assert await bench.settle("done", first, second, third) == [False, False, True]
    assert ids(await bench.take(ordered=True)) == ["b"]


async def test_a_verdict_about_what_was_purged_does_not_count_for_what_came_after(bench: Bench) -> None:
    taken: list[Taken] = []
    for _ in range(20):
        await bench.send(draft())
        taken += await bench.take()
        await bench.store.purge("orders")
    await bench.send(draft())
    (last,) = await bench.take()
    assert await bench.settle("done", *taken) == [False] * 20
    assert await bench.settle("done", last) == [True]


async def test_a_lease_that_ran_out_is_another_workers(bench: Bench) -> None:
    await bench.send(*drafts("a"))
    (first,) = await bench.take(visibility=SOON)
    await bench.until_soon()
    assert (await bench.stats()).in_flight == 1, "nobody took it over yet"
    other = await bench.make()
    (second,) = await other.take("orders", 10, visibility=LATER, limits=UNBOUNDED)
    assert (second.id, second.attempt, second.data) == ("a", 2, first.data)
    for kind in ("done", "retry", "release", "dead"):
        assert await bench.settle(kind, first) == [False]
    assert await bench.store.extend("orders", [first], SOON) == [False]
    stats = await bench.stats()
    assert (stats.depth, stats.in_flight, stats.delayed, stats.dead) == (0, 1, 0, 0)
    assert await bench.settle("done", second) == [True]


async def test_a_lease_that_ran_out_counts_as_long_as_nobody_took_over(bench: Bench) -> None:
    await bench.send(*drafts("a", "b"))
    a, b = await bench.take(visibility=SOON)
    await bench.until_soon()
    assert await bench.store.extend("orders", [a], LATER) == [True]
    assert await bench.settle("done", b) == [True]
    assert await bench.take() == []


async def test_a_lease_lasts_as_long_as_it_is_extended(bench: Bench) -> None:
    await bench.send(*drafts("a", "b"))
    a, b = await bench.take(visibility=SOON)
    assert await bench.store.extend("orders", [a], LATER) == [True]
    await bench.until_soon()
    assert ids(await bench.take()) == ["b"]
    assert await bench.store.extend("orders", [a, b], LATER) == [True, False]
    await bench.settle("done", a)
    assert await bench.store.extend("orders", [a], LATER) == [False]


async def test_verdicts_of_all_kinds_in_one_call(bench: Bench) -> None:
    await bench.send(*drafts("a", "b", "c", "d"))
    a, b, c, d = await bench.take()
    verdicts = [Verdict(a, "done"), Verdict(b, "retry", delay=LATER), Verdict(c, "release"), Verdict(d, "dead", reason="no"), Verdict(a, "dead")]
    assert await bench.store.settle("orders", verdicts, UNBOUNDED) == [True, True, True, True, False]
    stats = await bench.stats()
    assert (stats.depth, stats.in_flight, stats.delayed, stats.dead) == (1, 0, 1, 1)


# — delay —


async def test_a_delayed_message_is_not_taken_before_its_time(bench: Bench) -> None:
    await bench.send(draft(id="later", delay=LATER), draft(id="soon", delay=SOON), draft(id="now"))
    stats = await bench.stats()
    assert (stats.depth, stats.delayed) == (1, 2) or (stats.depth, stats.delayed) == (2, 1)
    assert "later" not in ids(await bench.take())
    await bench.until_soon()
    await bench.take()
    stats = await bench.stats()
    assert (stats.depth, stats.in_flight, stats.delayed) == (0, 2, 1)
    assert await bench.take() == []


async def test_a_delayed_message_comes_before_a_backlog_and_once(bench: Bench) -> None:
    await bench.send(*(draft() for _ in range(20)), draft(id="soon", delay=SOON), *(draft() for _ in range(5)))
    await bench.until_soon()
    first = await bench.take(3)
    assert "soon" in ids(first)
    (soon,) = [one for one in first if one.id == "soon"]
    assert await bench.settle("retry", soon, delay=LATER) == [True]
    rest = await bench.take(100)
    assert len(rest) == 23 and "soon" not in ids(rest)
    stats = await bench.stats()
    assert (stats.depth, stats.in_flight, stats.delayed) == (0, 25, 1)


# — dead letters —


async def test_dead_letters_are_kept_with_their_reason(bench: Bench) -> None:
    await bench.send(draft(b'{"a":1}', id="a", key="ann"), draft(b"2", id="b"))
    a, b = await bench.take()
    await bench.settle("dead", a, reason="ValueError: nö")
    await bench.settle("retry", b)
    (b,) = await bench.take()
    await bench.settle("dead", b, reason="")
    newest, oldest = await bench.store.dead_letters("orders", 10)
    assert (oldest.id, oldest.data, oldest.key, oldest.attempts, oldest.reason) == ("a", b'{"a":1}', "ann", 1, "ValueError: nö")
    assert (newest.id, newest.data, newest.key, newest.attempts, newest.reason) == ("b", b"2", None, 2, "")
    assert oldest.enqueued_at == a.enqueued_at and abs(oldest.buried_at - bench.now()) < 5
    stats = await bench.stats()
    assert (stats.depth, stats.in_flight, stats.dead) == (0, 0, 2)
    assert await bench.store.names() == ["orders"]


async def test_dead_letters_in_pages(bench: Bench) -> None:
    await bench.send(*drafts(*"abcde"))
    for one in await bench.take():
        await bench.settle("dead", one)
    seen, before = [], None
    while page := await bench.store.dead_letters("orders", 2, before):
        seen.append(ids(page))
        before = page[-1].place
    assert seen == [["e", "d"], ["c", "b"], ["a"]]


async def test_the_oldest_dead_letters_make_room(bench: Bench) -> None:
    await bench.send(*drafts(*"abcde"))
    taken = await bench.take()
    await bench.settle("dead", *taken[:3], limits=QueueLimits(max_dead=2))
    await bench.settle("dead", *taken[3:], limits=QueueLimits(max_dead=2))
    assert ids(await bench.store.dead_letters("orders", 10)) == ["e", "d"]
    stats = await bench.stats()
    assert (stats.dead, stats.dropped) == (2, 3)


async def test_dead_letters_are_sent_again(bench: Bench) -> None:
    await bench.send(*drafts("a", "b", "c"), draft(id="d", key="ann", data=b"4"))
    taken = await bench.take()
    await bench.settle("dead", *taken)
    assert await bench.store.requeue("orders", ["b", "nobody"], UNBOUNDED) == 1
    assert [(one.id, one.attempt) for one in await bench.take()] == [("b", 1)]
    assert await bench.store.requeue("orders", ["b"], UNBOUNDED) == 0
    assert await bench.store.requeue("orders", None, UNBOUNDED) == 3
    again = await bench.take()
    assert ids(again) == ["a", "c", "d"] and (again[-1].key, again[-1].data) == ("ann", b"4")
    assert again[0].enqueued_at >= taken[0].enqueued_at
    assert (await bench.stats()).dead == 0 and await bench.store.requeue("orders", None, UNBOUNDED) == 0


async def test_many_dead_letters_are_sent_again(bench: Bench) -> None:
    await bench.send(*(draft(id=f"m{number}") for number in range(250)))
    await bench.settle("dead", *await bench.take(250))
    assert await bench.store.requeue("orders", ["m249", "m0", "m120"], UNBOUNDED) == 3
    assert await bench.store.requeue("orders", None, UNBOUNDED) == 247
    assert len(set(ids(await bench.take(300)))) == 250


# — size, expiry —


async def test_a_full_queue_refuses_and_keeps_what_it_has(bench: Bench) -> None:
    limits = QueueLimits(max_size=3)
    outcomes = await bench.send(*drafts("a", "b", "c", "d", "e"), limits=limits)
    assert outcomes[:3] == [Sent("a"), Sent("b"), Sent("c")] and [type(one) for one in outcomes[3:]] == [QueueFull, QueueFull]
    a, b, _ = await bench.take()
    await bench.settle("retry", b, delay=LATER)
    assert isinstance((await bench.send(draft(), limits=limits))[0], QueueFull), "in flight and delayed ones count"
    await bench.settle("done", a)
    assert [type(one) for one in await bench.send(draft(id="f"), draft(), limits=limits)] == [Sent, QueueFull]
    assert ids(await bench.take()) == ["f"]


async def test_dead_letters_take_no_room(bench: Bench) -> None:
    await bench.send(draft(), limits=QueueLimits(max_size=1))
    await bench.settle("dead", *await bench.take())
    assert isinstance((await bench.send(draft(), limits=QueueLimits(max_size=1)))[0], Sent)


async def test_expired_messages_are_counted_and_never_handed_out(bench: Bench) -> None:
    await bench.send(draft(id="own", ttl=SOON), draft(id="long", ttl=LATER), draft(id="none"))
    await bench.until_soon()
    assert ids(await bench.take(1)) == ["long"]
    assert await bench.take(limits=QueueLimits(ttl=SOON)) == [], "by the taker's limit, where it has none of its own"
    stats = await bench.stats()
    assert (stats.depth, stats.in_flight, stats.expired) == (0, 1, 2)


async def test_a_message_may_expire_while_it_waits_for_another_attempt_and_not_in_flight(bench: Bench) -> None:
    await bench.send(draft(id="a"), draft(id="b"), draft(id="c", delay=SOON))
    a, b = [one for one in await bench.take() if one.id != "c"]
    await bench.settle("retry", a, delay=SOON)
    await bench.until_soon()
    assert "a" not in ids(await bench.take(limits=QueueLimits(ttl=SOON))) and (await bench.stats()).expired >= 1
    assert await bench.settle("done", b) == [True]


async def test_expired_messages_hold_no_place(bench: Bench) -> None:
    limits = QueueLimits(max_size=2, ttl=SOON)
    await bench.send(draft(id="a"), draft(id="b", key="k"))
    assert ids(await bench.take(1)) == ["a"]
    await bench.until_soon()
    outcomes = await bench.send(draft(id="c", key="k", ttl=LATER), draft(id="d", ttl=LATER), limits=limits)
    assert [type(one) for one in outcomes] == [Sent, QueueFull], "the one in flight does"
    assert (await bench.stats()).expired == 1


# — idempotency —


async def test_the_same_key_is_one_message(bench: Bench) -> None:
    first = draft(b"1", idempotency_key="k")
    assert await bench.send(first, draft(b"1", idempotency_key="k")) == [Sent(first.id), Sent(first.id, duplicate=True)], "in one call"
    assert await bench.send(draft(b"1", idempotency_key="k")) == [Sent(first.id, duplicate=True)]
    await bench.settle("done", *await bench.take())
    assert await bench.send(draft(b"1", idempotency_key="k")) == [Sent(first.id, duplicate=True)], "whatever has become of it"
    assert await bench.take() == []


async def test_the_same_key_with_other_content_is_a_conflict(bench: Bench) -> None:
    await bench.send(draft(b"1", idempotency_key="k", key="ann"))
    outcomes = await bench.send(draft(b"2", idempotency_key="k", key="ann"), draft(b"1", idempotency_key="k"), draft(b"1", idempotency_key="l"))
    assert [type(one) for one in outcomes] == [IdempotencyConflict, IdempotencyConflict, Sent]
    assert len(await bench.take()) == 2


async def test_a_key_is_remembered_for_its_time(bench: Bench) -> None:
    short = QueueLimits(idempotency_window=SOON)
    await bench.send(draft(idempotency_key="k"), limits=short)
    await bench.until_soon()
    (again,) = await bench.send(draft(b"2", idempotency_key="k"), limits=short)
    assert isinstance(again, Sent) and not again.duplicate
    assert len(await bench.take()) == 2


async def test_a_key_is_the_queues_own(bench: Bench) -> None:
    await bench.send(draft(b"1", idempotency_key="k"))
    (other,) = await bench.store.send("other", [draft(b"2", idempotency_key="k")], UNBOUNDED)
    assert isinstance(other, Sent) and not other.duplicate


async def test_a_duplicate_needs_no_room_and_what_was_refused_is_not_remembered(bench: Bench) -> None:
    limits = QueueLimits(max_size=1)
    first = draft(idempotency_key="k")
    await bench.send(first, limits=limits)
    duplicate, refused = await bench.send(draft(idempotency_key="k"), draft(idempotency_key="l"), limits=limits)
    assert duplicate == Sent(first.id, duplicate=True) and isinstance(refused, QueueFull)
    await bench.settle("done", *await bench.take())
    (taken,) = await bench.send(draft(idempotency_key="l"), limits=limits)
    assert isinstance(taken, Sent) and not taken.duplicate


async def test_what_expired_while_it_stood_in_line_is_passed_over(bench: Bench) -> None:
    limits = QueueLimits(max_size=3)
    await bench.send(draft(id="a", key="k"), draft(id="b", key="k", ttl=SOON), draft(id="c", key="k"))
    (a,) = await bench.take(ordered=True)
    await bench.until_soon()
    assert [type(one) for one in await bench.send(draft(id="d", key="k"), limits=limits)] == [Sent], "it holds no place in the queue"
    assert await bench.settle("done", a) == [True]
    for id in "cd":
        (taken,) = await bench.take(ordered=True)
        assert taken.id == id
        await bench.settle("done", taken)
    assert (await bench.stats()).expired == 1


# — order by key —


async def test_of_each_key_one_at_a_time_in_order(bench: Bench) -> None:
    await bench.send(draft(id="a1", key="a"), draft(id="a2", key="a"), draft(id="x"), draft(id="b1", key="b"), draft(id="a3", key="a"), draft(id="y"))
    first = await bench.take(ordered=True)
    assert ids(first) == ["a1", "x", "b1", "y"]
    stats = await bench.stats()
    assert (stats.depth, stats.in_flight, stats.delayed) == (2, 4, 0)
    assert await bench.take(ordered=True) == []
    await bench.settle("done", first[0])
    (a2,) = await bench.take(ordered=True)
    assert (a2.id, a2.attempt) == ("a2", 1)
    await bench.send(draft(id="a4", key="a"))
    assert await bench.take(ordered=True) == []
    await bench.settle("dead", a2)
    assert ids(await bench.take(ordered=True)) == ["a3"]


async def test_a_key_waits_while_its_first_message_does(bench: Bench) -> None:
    await bench.send(draft(id="a1", key="a"), draft(id="a2", key="a"), draft(id="b1", key="b"))
    a1, b1 = await bench.take(ordered=True)
    await bench.settle("retry", a1, delay=SOON)
    await bench.settle("release", b1)
    assert ids(await bench.take(1, ordered=True)) in (["b1"], ["a1"])
    await bench.until_soon()
    assert "a2" not in ids(await bench.take(ordered=True))


async def test_a_key_waits_for_a_lease_that_ran_out(bench: Bench) -> None:
    await bench.send(draft(id="a1", key="a"), draft(id="a2", key="a"))
    (first,) = await bench.take(visibility=SOON, ordered=True)
    await bench.until_soon()
    other = await bench.make()
    (again,) = await other.take("orders", 10, visibility=LATER, limits=UNBOUNDED, ordered=True)
    assert (again.id, again.attempt) == ("a1", 2)
    assert await bench.settle("done", first) == [False]
    assert await bench.take(ordered=True) == []
    await bench.settle("done", again)
    assert ids(await bench.take(ordered=True)) == ["a2"]


async def test_an_expired_message_does_not_hold_its_key(bench: Bench) -> None:
    await bench.send(draft(id="a1", key="a"), draft(id="a2", key="a"), draft(id="a3", key="a", ttl=LATER))
    (a1,) = await bench.take(ordered=True)
    await bench.settle("retry", a1)
    await bench.until_soon()
    taken = await bench.take(ordered=True, limits=QueueLimits(ttl=SOON))
    taken += await bench.take(ordered=True, limits=QueueLimits(ttl=SOON))
    assert ids(taken) == ["a3"] and (await bench.stats()).expired == 2


async def test_a_delayed_message_takes_its_place_when_it_is_due(bench: Bench) -> None:
    await bench.send(draft(id="a1", key="a", delay=LATER), draft(id="a2", key="a", delay=SOON), draft(id="a3", key="a"))
    await bench.until_soon()
    first = await bench.take(ordered=True)
    assert len(first) == 1
    await bench.settle("done", *first)
    second = await bench.take(ordered=True)
    assert sorted(ids(first + second)) == ["a2", "a3"]
    await bench.settle("done", *second)
    assert await bench.take(ordered=True) == [] and (await bench.stats()).delayed == 1


async def test_a_long_line_comes_in_order(bench: Bench) -> None:
    await bench.send(*(draft(id=f"{key}{number}", key=key) for number in range(40) for key in "abc"))
    seen: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    while taken := await bench.take(2, ordered=True):
        for one in taken:
            assert one.key is not None
            seen[one.key].append(int(one.id[1:]))
        await bench.settle("done", *taken)
    assert set(map(tuple, seen.values())) == {tuple(range(40))}
    assert await bench.stats() == QueueStats(0, 0, 0, 0, None)


async def test_order_holds_among_many_takers(bench: Bench) -> None:
    """Six at once, who now and then put a message back: whoever gets one gets the first unfinished one of its key."""
    chance = random.Random(0)
    stores = [bench.store, await bench.make(), await bench.make()]
    await bench.send(*(draft(id=f"{key}{number}", key=key) for number in range(20) for key in "abcd"))
    finished = dict.fromkeys("abcd", 0)
    wrong: list[str] = []

    async def work(store: QueueStore) -> None:
        while sum(finished.values()) < 80 and not wrong:
            taken = await store.take(bench.queue, chance.randint(1, 3), visibility=LATER, limits=UNBOUNDED, ordered=True)
            wrong.extend(one.id for one in taken if one.key is None or one.id != f"{one.key}{finished[one.key]}")
            done = [one for one in taken if chance.random() < 0.7]
            for one in done:
                finished[one.key or ""] += 1
            verdicts = [Verdict(one, "done" if one in done else "retry") for one in taken]
            await (store.settle(bench.queue, verdicts, UNBOUNDED) if verdicts else asyncio.sleep(0))

    async with asyncio.timeout(20):
        await asyncio.gather(*(work(store) for store in stores * 2))
    assert wrong == [] and await bench.stats() == QueueStats(0, 0, 0, 0, None)


async def test_without_asking_for_order_keys_mean_nothing(bench: Bench) -> None:
    await bench.send(draft(id="a1", key="a"), draft(id="a2", key="a"))
    assert ids(await bench.take()) == ["a1", "a2"]


# — looking, waiting, emptying —


async def test_an_unknown_queue_is_an_empty_one(bench: Bench) -> None:
    assert await bench.store.stats("nobody") == QueueStats(0, 0, 0, 0, None)
    assert await bench.store.take("nobody", 10, visibility=LATER, limits=UNBOUNDED) == []
    assert await bench.store.dead_letters("nobody", 10) == [] and await bench.store.requeue("nobody", None, UNBOUNDED) == 0
    assert await bench.store.purge("nobody") == 0 and await bench.store.purge("nobody", dead=True) == 0
    assert await bench.store.names() == []


async def test_the_oldest_is_the_one_whose_time_has_come(bench: Bench) -> None:
    await bench.send(draft(id="delayed", delay=LATER))
    assert (await bench.stats()).oldest_age is None
    await bench.send(*drafts("a", "b"))
    await bench.until_soon()
    old = (await bench.stats()).oldest_age
    assert old is not None and old >= SOON
    a, b = await bench.take()
    await bench.settle("done", a)
    still = (await bench.stats()).oldest_age
    assert still is not None and still >= SOON, "in flight"
    await bench.settle("done", b)
    assert (await bench.stats()).oldest_age is None


async def test_purging_leaves_nothing_but_the_dead(bench: Bench) -> None:
    await bench.send(*drafts("a", "b", "c"), draft(delay=LATER), draft(id="k1", key="k"), draft(id="k2", key="k"), draft(ttl=SOON))
    a, b = await bench.take(2, ordered=True)
    await bench.settle("dead", a)
    assert await bench.store.purge("orders") == 6
    stats = await bench.stats()
    assert stats == QueueStats(0, 0, 0, 1, None)
    assert await bench.settle("retry", b) == [False] and await bench.take(ordered=True) == []
    assert await bench.store.purge("orders", dead=True) == 1
    assert await bench.stats() == QueueStats(0, 0, 0, 0, None)
    await bench.send(draft(id="k3", key="k"))
    assert ids(await bench.take(ordered=True)) == ["k3"]


async def test_waiting_ends_when_a_message_comes(bench: Bench) -> None:
    assert await bench.take() == []
    other = await bench.make()
    waiting = asyncio.create_task(bench.store.wait("orders", LATER))
    await asyncio.sleep(0)
    await other.send("orders", [draft()], UNBOUNDED)
    async with asyncio.timeout(5):
        await waiting
    assert len(await bench.take()) == 1


async def test_waiting_ends_at_once_where_a_message_came_since_the_take(bench: Bench) -> None:
    assert await bench.take() == []
    await (await bench.make()).send("orders", [draft()], UNBOUNDED)
    async with asyncio.timeout(5):
        await bench.store.wait("orders", LATER)


async def pass_while(bench: Bench, waiting: Awaitable[None]) -> None:
    """Wait, while time goes on; for five seconds at most."""
    task = asyncio.ensure_future(waiting)
    if bench.clock is not None:
        await asyncio.sleep(0)
        await bench.until_soon()
    async with asyncio.timeout(5):
        await task


async def test_waiting_ends_with_a_delay_a_lease_and_the_time_given(bench: Bench) -> None:
    await bench.send(draft(delay=SOON))
    if (taken := await bench.take()) == []:
        await pass_while(bench, bench.store.wait("orders", LATER))
        await bench.until_soon()
        taken = await bench.take()
    await bench.settle("retry", *taken, delay=SOON)
    if (taken := await bench.take(visibility=SOON)) == []:
        await pass_while(bench, bench.store.wait("orders", LATER))
        await bench.until_soon()
        taken = await bench.take(visibility=SOON)
    assert len(taken) == 1
    if (again := await bench.take()) == []:
        await pass_while(bench, bench.store.wait("orders", LATER))
        await bench.until_soon()
        again = await bench.take()
    assert again[0].attempt == 3
    await bench.take()
    await pass_while(bench, bench.store.wait("orders", SOON))


async def test_waiting_ends_when_this_store_gives_something_back(bench: Bench) -> None:
    await bench.send(draft())
    (taken,) = await bench.take()
    assert await bench.take() == []
    waiting = asyncio.create_task(bench.store.wait("orders", LATER))
    await asyncio.sleep(0)
    await bench.settle("release", taken)
    async with asyncio.timeout(5):
        await waiting
    assert len(await bench.take()) == 1


async def test_cancelling_a_wait_changes_nothing(bench: Bench) -> None:
    assert await bench.take() == []
    for _ in range(10):
        waiting = asyncio.create_task(bench.store.wait("orders", LATER))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
    await bench.send(*drafts("a"))
    async with asyncio.timeout(5):
        await bench.store.wait("orders", LATER)
    assert ids(await bench.take()) == ["a"]


async def test_opening_and_closing_twice_is_once(bench: Bench) -> None:
    await bench.send(*drafts("a"))
    for _ in range(2):
        await bench.store.open()
        await bench.store.close()
        await bench.store.close()
        await bench.store.open()
    assert ids(await bench.take()) == ["a"]


# — all together —


async def test_everything_is_handled_in_order_though_handlers_fail_and_workers_die(bench: Bench) -> None:
    """Two workers with ordered keys, every third attempt failing, and a third one that takes messages and is never heard of again."""
    chance = random.Random(7)
    sent = {key: [f"{key}{number}" for number in range(25)] for key in "abcd"}
    handled: dict[str, list[str]] = {key: [] for key in sent}

    async def handle(message: QueueMessage) -> None:
        assert message.key is not None
        await asyncio.sleep(0)
        if chance.random() < 0.3:
            raise ValueError("by chance")
        handled[message.key].append(message.id)

    async def die() -> None:
        store = await bench.make()
        for _ in range(5):
            await store.take(bench.queue, 2, visibility=SOON, limits=UNBOUNDED, ordered=True)
            await bench.until_soon()

    clock = bench.clock or SYSTEM_CLOCK
    workers = [MessageQueue(store=await bench.make(), clock=clock, random=chance.random) for _ in range(2)]
    await bench.send(*(draft(id=sent[key][number], key=key) for number in range(25) for key in sent))
    for worker in workers:
        options = {"concurrency": 3, "max_attempts": 50, "visibility_timeout": 20 * SOON, "backoff": {"first": 0.01, "limit": 0.02}}
        worker.process(bench.queue, handle, ordered=True, **options)
        await worker.start()
    await die()
    async with asyncio.timeout(20):
        while set().union(*handled.values()) != set().union(*sent.values()):
            await bench.until_soon()
    for worker in workers:
        await worker.stop()
    await bench.store.open()
    assert {key: list(dict.fromkeys(ids)) for key, ids in handled.items()} == sent, "in order, and again only where a lease ran out"
    assert await bench.stats() == QueueStats(0, 0, 0, 0, None)
