"""`MessageQueue`: names, options, limits and life, on the store in memory. What every store does: `tests/contracts/test_queue.py`."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from aibos_realtime import (
    BackendError,
    BrokerUnavailable,
    ConfigurationError,
    IdempotencyConflict,
    MessageQueue,
    MessageTooLarge,
    QueueError,
    QueueFull,
    ValidationError,
)
from aibos_realtime.backends.memory.queue import MemoryQueue
from aibos_realtime.backends.queue import QueueDraft, QueueLimits, Sent, Taken, Verdict
from aibos_realtime.storage import queue as module
from aibos_realtime.storage import worker
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.types import QueueMessage, QueueReceipt, QueueStats


class Store(MemoryQueue):
    """Counts what it is asked for. `gate`: sends wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.sends: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_away = False
        self.hangs: set[str] = set()

    async def open(self) -> None:
        self.calls.append("open")
        if self.is_away:
            raise BrokerUnavailable()

    async def close(self) -> None:
        self.calls.append("close")
        await self._meet("close")

    async def send(self, queue: str, drafts: Sequence[QueueDraft], limits: QueueLimits) -> list[Sent | QueueFull | IdempotencyConflict]:
        await self.gate.wait()
        await self._meet("send")
        self.sends.append(len(drafts))
        return await super().send(queue, drafts, limits)

    async def take(self, queue: str, limit: int, *, visibility: float, limits: QueueLimits, ordered: bool = False) -> list[Taken]:
        await self._meet("take")
        return await super().take(queue, limit, visibility=visibility, limits=limits, ordered=ordered)

    async def settle(self, queue: str, verdicts: Sequence[Verdict], limits: QueueLimits) -> list[bool]:
        await self._meet("settle")
        return await super().settle(queue, verdicts, limits)

    async def _meet(self, call: str) -> None:
        if call in self.hangs:
            await asyncio.Event().wait()


@pytest.fixture
async def queue() -> AsyncIterator[MessageQueue]:
    async with MessageQueue(url="memory://") as queue:
        yield queue


def collect(queue: MessageQueue, name: str, **options: Any) -> list[QueueMessage]:
    """Handle a queue by putting its messages into a list."""
    seen: list[QueueMessage] = []
    queue.process(name, seen.append, **options)
    return seen


# — options —


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queues": {"orders": {"maxsize": 5}}}, "queue.queues.orders.maxsize: there is no such option; did you mean 'max_size'?"),
        ({"queues": {"orders": {"max_size": 0}}}, "queue.queues.orders.max_size: 0 was given; allowed is greater than or equal to 1"),
        ({"queues": {"no name": {}}}, "queues: 'no name' is no name of a queue"),
        ({"redis": {"ulr": "redis://x"}}, "queue.redis.ulr: there is no such option; did you mean 'url'?"),
        ({"redis": {"url": "redis://me:hunter2@h:port/"}}, "queue.redis.url: 'redis://…@h:port/' was given; allowed are redis://host:6379/0"),
        ({"redis": {"url": "redis://x", "db": -1}}, "queue.redis.db: -1 was given"),
        ({"redis": {"url": "redis://x", "prefix": "{a}"}}, "queue.redis.prefix: '{a}' was given; allowed are 1–64 letters"),
        ({"redis": {"url": "redis://x"}, "url": "memory://"}, "queue: redis and url were both given; allowed is one of them"),
        ({"url": "mysql://me:hunter2@host/db"}, "queue.url: 'mysql://…@host/db' was given; allowed are redis://…"),
        ({"url": "redis://:hunter2@host/db"}, "queue.url: 'redis://…@host/db' was given; allowed are redis://host:6379/0"),
        ({"url": "sqlite://hunter2:x@/y"}, "url: 'sqlite://…@/y' was given"),
        ({"max_message_bytes": 0}, "queue.max_message_bytes: 0 was given"),
        ({"idempotency_window": 0}, "queue.idempotency_window: 0 was given"),
    ],
)
def test_a_wrong_option_is_named_without_secrets(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as failure:
        MessageQueue(**options)
    assert message in str(failure.value) and "hunter2" not in str(failure.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurency": 3}, "process('orders').concurency: there is no such option; did you mean 'concurrency'?"),
        ({"max_attempts": 0}, "process('orders').max_attempts: 0 was given"),
        ({"visibility_timeout": -1}, "process('orders').visibility_timeout: -1 was given"),
        ({"backoff": {"frist": 1}}, "process('orders').backoff.frist: there is no such option; did you mean 'first'?"),
    ],
)
def test_a_wrong_option_of_a_handler_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        MessageQueue(url="memory://").process("orders", print, **options)


def test_a_handler_is_a_function_and_the_only_one_of_its_queue() -> None:
    queue = MessageQueue(url="memory://")
    with pytest.raises(ConfigurationError, match="a function is expected, not int"):
        queue.process("orders", 5)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="is no name of a queue"):
        queue.process("no name", print)
    queue.process("orders", print)
    with pytest.raises(ConfigurationError, match="has a handler"):
        queue.process("orders", print)


def test_nothing_is_opened_at_construction() -> None:
    MessageQueue()
    MessageQueue(redis={"url": "redis://localhost:1", "db": 1})
    MessageQueue(url="postgresql://localhost:1/x")


async def test_a_store_that_is_away_is_an_error_at_the_start() -> None:
    queue = MessageQueue(url="redis://127.0.0.1:1")
    for _ in range(2):
        with pytest.raises(BrokerUnavailable) as failure:
            await queue.start()
        assert failure.value.retryable and failure.value.__cause__ is not None
    with pytest.raises(BackendError):
        await queue.send("orders", 1)
    await queue.stop()


# — names —


async def test_where_queues_are_declared_no_other_can_be_used() -> None:
    async with MessageQueue(url="memory://", queues={"orders": {}, "mails": {}}) as queue:
        queue.process("handled", print)
        for call in (queue.send("other", 1), queue.stats("other"), queue.dead_letters("other"), queue.requeue("other"), queue.purge("other")):
            with pytest.raises(QueueError, match="unknown queue 'other'; known are: handled, mails, orders"):
                await call
        await queue.send("handled", 1)
        await queue.send("orders", 1)
        assert queue.names == ["handled", "mails", "orders"]


async def test_where_none_is_declared_any_name_will_do(queue: MessageQueue) -> None:
    await queue.send("anything:at/all", 1)
    assert (await queue.stats("anything:at/all")).depth == 1 and await queue.stored_names() == ["anything:at/all"]
    for wrong in ("", "no name", "x" * 129, "é", "a{b}"):
        with pytest.raises(QueueError, match="is no name of a queue; allowed are 1–128 letters"):
            await queue.send(wrong, 1)


# — sending —


async def test_what_is_sent_is_handled(queue: MessageQueue) -> None:
    seen = collect(queue, "orders")
    before = datetime.now(UTC)
    receipt = await queue.send("orders", {"type": "invoice.created", "amount": Decimal("1.50")}, key="ann")
    assert type(receipt) is QueueReceipt and not receipt.duplicate
    await settle()
    (message,) = seen
    assert (message.data, message.id, message.attempt, message.key) == ({"type": "invoice.created", "amount": "1.50"}, receipt.id, 1, "ann")
    assert timedelta(0) <= message.enqueued_at - before < timedelta(seconds=5) and message.enqueued_at.tzinfo is UTC


async def test_ids_are_unique(queue: MessageQueue) -> None:
    receipts = await asyncio.gather(*(queue.send("orders", None) for _ in range(1000)))
    assert len({receipt.id for receipt in receipts}) == 1000


@pytest.mark.parametrize("data", [object(), {1j}, "a\0b", "\ud800", 2**60, float("nan"), [float("inf")], {"a": [b"x", object()]}])
async def test_what_json_cannot_express_is_refused(queue: MessageQueue, data: Any) -> None:
    with pytest.raises(ValidationError):
        await queue.send("orders", data)


@pytest.mark.parametrize(
    "options",
    [{"delay": -1}, {"delay": float("nan")}, {"delay": 1e9}, {"key": ""}, {"key": "x" * 129}, {"idempotency_key": "a\0"}, {"idempotency_key": 5}],
)
async def test_wrong_values_are_refused(queue: MessageQueue, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(options))):
        await queue.send("orders", 1, **options)


async def test_a_message_has_its_size() -> None:
    async with MessageQueue(url="memory://", max_message_bytes=10) as queue:
        await queue.send("orders", "x" * 8)
        with pytest.raises(MessageTooLarge, match="11 bytes; at most 10 are allowed"):
            await queue.send("orders", "x" * 9)
    async with MessageQueue(url="memory://") as queue:
        await queue.send("orders", "x" * (256 * 1024 - 2))
        with pytest.raises(MessageTooLarge):
            await queue.send("orders", "x" * (256 * 1024 - 1))


async def test_the_limits_of_a_queue_hold() -> None:
    async with MessageQueue(url="memory://", queues={"orders": {"max_size": 2}}) as queue:
        await queue.send("orders", 1)
        await queue.send("orders", 2)
        with pytest.raises(QueueFull) as failure:
            await queue.send("orders", 3)
        assert failure.value.retryable and failure.value.code == "overloaded"


async def test_a_queue_is_bounded_by_default() -> None:
    store = Store()
    async with MessageQueue(store=store) as queue:
        await queue.send("orders", 1)
        for name in ("orders", "other"):
            assert queue._limits_of(name) == QueueLimits(max_size=100_000, ttl=None, max_dead=10_000, idempotency_window=300.0)


async def test_a_time_to_live_holds() -> None:
    clock = ManualClock()
    async with MessageQueue(url="memory://", queues={"orders": {"ttl": 60}}, clock=clock) as queue:
        await queue.send("orders", 1)
        await clock.advance(61)
        seen = collect(queue, "orders")
        await clock.advance(1)
        assert seen == [] and (await queue.stats("orders")).expired == 1


async def test_a_delay_is_kept_to() -> None:
    clock = ManualClock()
    async with MessageQueue(url="memory://", clock=clock) as queue:
        seen = collect(queue, "orders")
        await queue.send("orders", "later", delay=timedelta(minutes=1))
        await queue.send("orders", "soon", delay=10)
        await clock.advance(11)
        assert [message.data for message in seen] == ["soon"] and (await queue.stats("orders")).delayed == 1
        await clock.advance(50)
        assert [message.data for message in seen] == ["soon", "later"]


async def test_an_idempotency_key_is_one_message_for_five_minutes() -> None:
    clock = ManualClock()
    async with MessageQueue(url="memory://", clock=clock) as queue:
        first = await queue.send("orders", {"a": 1}, idempotency_key="k")
        assert await queue.send("orders", {"a": 1}, idempotency_key="k") == QueueReceipt(first.id, duplicate=True)
        with pytest.raises(IdempotencyConflict):
            await queue.send("orders", {"a": 2}, idempotency_key="k")
        await clock.advance(301)
        assert not (await queue.send("orders", {"a": 2}, idempotency_key="k")).duplicate


async def test_sends_of_one_moment_are_one_call() -> None:
    store = Store()
    async with MessageQueue(store=store) as queue:
        await asyncio.gather(*(queue.send("orders", number) for number in range(100)))
    assert store.sends == [100]


async def test_cancelling_a_send_leaves_the_queue_usable() -> None:
    store = Store()
    async with MessageQueue(store=store) as queue:
        store.gate.clear()
        sending = asyncio.create_task(queue.send("orders", 1))
        await settle()
        sending.cancel()
        await asyncio.wait([sending])
        store.gate.set()
        assert (await queue.send("orders", 2)).id
        assert (await queue.stats("orders")).depth == 2, "it was on its way"


async def test_many_names_leave_little_behind(queue: MessageQueue) -> None:
    for number in range(1500):
        await queue.send(f"q{number}", 1)
    assert len(queue._batches) <= 1000


# — life —


async def test_sending_opens_what_it_needs_and_handles_nothing() -> None:
    store = Store()
    queue = MessageQueue(store=store)
    seen = collect(queue, "orders")
    await queue.send("orders", 1)
    await settle()
    assert store.calls == ["open"] and seen == []
    await queue.start()
    await settle()
    assert len(seen) == 1
    await queue.stop()
    assert store.calls == ["open", "close"]


async def test_starting_and_stopping_twice_is_once_and_both_can_be_repeated() -> None:
    store = Store()
    queue = MessageQueue(store=store)
    seen = collect(queue, "orders")
    await queue.stop()
    for round in range(1, 3):
        await asyncio.gather(queue.start(), queue.start())
        await queue.send("orders", 1)
        await settle()
        assert len(seen) == round
        await asyncio.gather(queue.stop(), queue.stop(drain=1))
    assert store.calls == ["open", "close"] * 2


async def test_a_start_during_a_stop_begins_anew_after_it() -> None:
    store = Store()
    queue = MessageQueue(store=store)
    gate, seen = asyncio.Event(), []

    @queue.process("orders")
    async def handle(message: QueueMessage) -> None:
        await gate.wait()
        seen.append(message.data)

    await queue.start()
    await queue.send("orders", 1)
    await settle()
    stopping = asyncio.create_task(queue.stop())
    await settle()
    starting = asyncio.create_task(queue.start())
    await settle()
    assert not stopping.done() and not starting.done()
    gate.set()
    await asyncio.gather(stopping, starting)
    assert store.calls == ["open", "close", "open"]
    await queue.send("orders", 2)
    await settle()
    assert seen == [1, 2]
    stop_and_start = [asyncio.create_task(queue.stop()), asyncio.create_task(queue.start()), asyncio.create_task(queue.stop())]
    await asyncio.gather(*stop_and_start)
    assert store.calls == ["open", "close"] * 3 and queue._workers == []


async def test_a_stop_during_a_start_has_the_last_word(monkeypatch: pytest.MonkeyPatch) -> None:
    store, gate = Store(), asyncio.Event()
    queue = MessageQueue(store=store)
    seen = collect(queue, "orders")
    monkeypatch.setattr(store, "open", gate.wait)
    starting = asyncio.create_task(queue.start())
    await settle()
    stopping = asyncio.create_task(queue.stop())
    await settle()
    gate.set()
    await asyncio.gather(starting, stopping)
    await store.send("orders", [QueueDraft("a", b"1")], QueueLimits())
    await settle()
    assert seen == [] and store.calls == ["close"]


@pytest.mark.parametrize("hanging", [("take",), ("settle",), ("send",), ("close",), ("take", "settle", "send", "close")], ids="-".join)
async def test_a_store_that_hangs_does_not_hold_up_the_stop(hanging: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    for where in (module, worker):
        monkeypatch.setattr(where, "GRACE", 0.05)
        monkeypatch.setattr(where, "LAST_WORDS", 0.05)
    store = Store()
    queue = MessageQueue(store=store)
    again = asyncio.Event()
    queue.process("orders", lambda message: again.set() if message.data == "again" else None, concurrency=2)
    await queue.start()
    await settle()
    store.hangs = set(hanging)
    sends = [asyncio.create_task(queue.send("orders", number)) for number in range(600)]  # more than one batch
    await settle()
    async with asyncio.timeout(2):
        await queue.stop(drain=0.05)
        results = await asyncio.gather(*sends, return_exceptions=True)
    if "send" in hanging:
        assert {(type(result), str(result)) for result in results} == {(BackendError, str(results[0]))} and "is unknown" in str(results[0])
    else:
        assert all(isinstance(result, QueueReceipt) for result in results)
    store.hangs = set()
    async with queue:
        await queue.send("orders", "again")
        await asyncio.wait_for(again.wait(), 5)


async def test_a_start_that_failed_can_be_repeated() -> None:
    store = Store()
    store.is_away = True
    queue = MessageQueue(store=store)
    with pytest.raises(BrokerUnavailable):
        await queue.start()
    store.is_away = False
    async with queue:
        await queue.send("orders", 1)


async def test_a_handler_that_comes_after_the_start_begins_at_once(queue: MessageQueue) -> None:
    await queue.send("orders", 1)
    seen: list[Any] = []

    @queue.process("orders", concurrency=4)
    async def handle(message: QueueMessage) -> None:
        seen.append(message.data)

    assert callable(handle)
    await settle()
    assert seen == [1]


async def test_stopping_finishes_the_sends_that_are_on_their_way() -> None:
    store = Store()
    queue = MessageQueue(store=store)
    await queue.start()
    store.gate.clear()
    sending = asyncio.create_task(queue.send("orders", 1))
    await settle()
    stopping = asyncio.create_task(queue.stop())
    await settle()
    assert not stopping.done()
    store.gate.set()
    await stopping
    assert (await sending).id and store.calls == ["open", "close"]


async def test_stopping_drains() -> None:
    queue = MessageQueue(url="memory://")
    begun, gate, ended = asyncio.Event(), asyncio.Event(), []

    @queue.process("orders")
    async def handle(message: QueueMessage) -> None:
        begun.set()
        await gate.wait()
        ended.append(message.data)

    await queue.start()
    await queue.send("orders", 1)
    await begun.wait()
    stopping = asyncio.create_task(queue.stop(drain=timedelta(seconds=5)))
    await settle()
    assert not stopping.done()
    gate.set()
    await stopping
    assert ended == [1]


# — dead letters —


async def test_dead_letters_are_shown_and_sent_again(queue: MessageQueue) -> None:
    def fail(message: QueueMessage) -> None:
        if message.data != "good":
            raise ValueError("no good")

    queue.process("orders", fail, max_attempts=1)
    receipt = await queue.send("orders", {"secret": 1}, key="ann")
    await settle()
    (letter,) = await queue.dead_letters("orders", limit=10)
    assert (letter.id, letter.data, letter.key, letter.attempts, letter.reason) == (receipt.id, {"secret": 1}, "ann", 1, "ValueError: no good")
    assert letter.enqueued_at <= letter.buried_at and letter.enqueued_at.tzinfo is UTC and "secret" not in repr(letter)
    assert await queue.dead_letters("orders", before=letter.place) == []
    assert await queue.requeue("orders", ["nobody"]) == 0 and await queue.requeue("orders") == 1
    await settle()
    assert (await queue.stats("orders")).dead == 1, "it failed again"
    assert await queue.purge("orders", dead=True) == 1 and await queue.purge("orders") == 0
    assert await queue.stats("orders") == QueueStats(0, 0, 0, 0, None)


async def test_pages_and_ids_are_checked(queue: MessageQueue) -> None:
    for limit in (0, -1, 1001):
        with pytest.raises(ValidationError, match="limit"):
            await queue.dead_letters("orders", limit=limit)
    with pytest.raises(ValidationError, match="ids"):
        await queue.requeue("orders", "m1")


async def test_the_queues_own_number_of_attempts_is_the_handlers_default() -> None:
    async with MessageQueue(url="memory://", queues={"orders": {"max_attempts": 1}}) as queue:

        @queue.process("orders")
        def fail(message: QueueMessage) -> None:
            raise ValueError

        await queue.send("orders", 1)
        await settle()
        assert (await queue.stats("orders")).dead == 1
