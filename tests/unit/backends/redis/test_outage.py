"""Redis away, killed, paused, full, and replies that are lost: what was acknowledged is handled, and nothing is written twice."""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aibos_realtime import BackendError, BrokerUnavailable, MessageQueue
from aibos_realtime.backends.redis import client as module
from aibos_realtime.storage import worker
from aibos_realtime.types import QueueMessage
from tests.faults.proxy import CutBeforeReply, Pass, Proxy, Reset
from tests.servers.redis import PROGRAMS, RedisServer, running_redis


@pytest.fixture(autouse=True)
def _short_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr(module, "COMMAND_TIMEOUT", 0.2)
    monkeypatch.setattr(worker, "IDLE_WAIT", 0.1)


@pytest.fixture(params=list(PROGRAMS) or ["valkey"])
def own(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """It keeps what it has answered when it is killed. With `everysec` it answers before it writes while the disk is busy, for up to two seconds."""
    with running_redis(PROGRAMS.get(request.param), appendfsync="always") as server:
        yield server


class Collected:
    """A handler that remembers what it was given."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._news = asyncio.Event()

    async def __call__(self, message: QueueMessage) -> None:
        self.seen[message.id] += 1
        self._news.set()

    async def until(self, wanted: set[str]) -> None:
        async with asyncio.timeout(15):
            while not wanted <= set(self.seen):
                self._news.clear()
                await self._news.wait()


async def test_a_lost_reply_writes_nothing_twice(own: RedisServer) -> None:
    async with Proxy(str(own.path)) as proxy:
        async with MessageQueue(url=f"redis://127.0.0.1:{proxy.port}") as queue:
            await queue.send("orders", "warm")
            proxy.mode = CutBeforeReply(to=b"EVALSHA")
            with pytest.raises(BrokerUnavailable):
                await queue.send("orders", "unknown", idempotency_key="k")
            assert (await queue.stats("orders")).depth == 2, "it was taken, once"
            assert (await queue.send("orders", "unknown", idempotency_key="k")).duplicate


@pytest.mark.parametrize("command", [b"orders", b"dead", b"done"])
async def test_lost_replies_to_workers_cost_no_message(own: RedisServer, command: bytes) -> None:
    async with Proxy(str(own.path)) as proxy:
        collected = Collected()
        async with MessageQueue(url=f"redis://127.0.0.1:{proxy.port}") as queue, MessageQueue(url=own.url) as sender:
            queue.process("orders", collected, concurrency=5, visibility_timeout=0.25)
            sent: set[str] = set()
            for number in range(5):
                proxy.mode = CutBeforeReply(to=command, times=1)
                sent.add((await sender.send("orders", number)).id)
                async with asyncio.timeout(5):
                    await proxy.until_cut(number + 1)
                await collected.until(sent)
            proxy.mode = Pass()
        assert set(collected.seen) == sent and own.execute("XLEN", "{aibos:orders}:stream") == b":0\r\n"


async def test_a_server_that_was_killed_has_lost_nothing(own: RedisServer) -> None:
    collected, acknowledged = Collected(), set()
    async with MessageQueue(url=own.url) as queue:
        queue.process("orders", collected, concurrency=5, visibility_timeout=1, backoff={"first": 0.1})

        async def send(number: int) -> None:
            try:
                acknowledged.add((await queue.send("orders", number)).id)
            except BackendError:
                pass  # unknown

        for number in range(200):
            if number == 100:
                own.stop(signal.SIGKILL)
                await asyncio.gather(*(send(1000 + more) for more in range(10)))
                own.start()
            await send(number)
        await collected.until(acknowledged)
        assert len(acknowledged) >= 199
    assert own.execute("XLEN", "{aibos:orders}:stream") == b":0\r\n"


async def test_a_server_that_crashes_under_load_loses_no_acknowledged_message_and_no_order(own: RedisServer) -> None:
    """Eight senders with a key each and two processes' worth of workers, while the server is killed three times and comes back on its file."""
    handled: dict[str, list[int]] = {f"k{number}": [] for number in range(8)}
    acknowledged: dict[str, list[int]] = {key: [] for key in handled}
    refused, is_over, news = 0, asyncio.Event(), asyncio.Event()

    async def handle(message: QueueMessage) -> None:
        assert message.key is not None
        await asyncio.sleep(0)
        if message.data not in handled[message.key]:
            handled[message.key].append(message.data)
        news.set()

    async def send(queue: MessageQueue, key: str) -> None:
        nonlocal refused
        for number in itertools.count():
            if is_over.is_set():
                return
            try:
                await queue.send("orders", number, key=key)
                acknowledged[key].append(number)
            except BackendError:  # unknown
                refused += 1
                news.set()
                await asyncio.sleep(0)

    async def until(is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():
                news.clear()
                await news.wait()

    options: dict[str, Any] = {"concurrency": 4, "ordered": True, "visibility_timeout": 0.5, "max_attempts": 50}
    async with MessageQueue(url=own.url) as first, MessageQueue(url=own.url) as second:
        first.process("orders", handle, **options)
        second.process("orders", handle, **options)
        senders = [asyncio.create_task(send(queue, key)) for key, queue in zip(handled, itertools.cycle((first, second)), strict=False)]
        for _ in range(3):
            count = sum(map(len, handled.values()))
            await until(lambda count=count: sum(map(len, handled.values())) >= count + 200)  # type: ignore[misc]
            await asyncio.to_thread(own.stop, signal.SIGKILL)
            failed = refused
            await until(lambda failed=failed: refused >= failed + 8)  # type: ignore[misc]
            await asyncio.to_thread(own.start)
        is_over.set()
        await asyncio.gather(*senders)
        await until(lambda: all(set(acknowledged[key]) <= set(handled[key]) for key in handled))
    assert {key: sorted(numbers) for key, numbers in handled.items()} == handled, "in the order of sending"
    assert sum(map(len, acknowledged.values())) > 600 and refused >= 24
    assert own.execute("XLEN", "{aibos:orders}:stream") == b":0\r\n"


async def test_connections_that_are_reset_are_made_again(own: RedisServer) -> None:
    async with Proxy(str(own.path)) as proxy:
        collected, acknowledged = Collected(), set()
        async with MessageQueue(url=f"redis://127.0.0.1:{proxy.port}") as queue:
            queue.process("orders", collected, visibility_timeout=1)
            for number in range(60):
                if number % 10 == 5:
                    proxy.reset()
                try:
                    acknowledged.add((await queue.send("orders", number)).id)
                except BrokerUnavailable:
                    pass
            proxy.mode = Reset()
            with pytest.raises(BrokerUnavailable):
                await queue.send("orders", "refused")
            proxy.mode = Pass()
            await collected.until(acknowledged)
        assert len(acknowledged) > 40


async def test_a_server_that_stands_still_is_waited_for(own: RedisServer) -> None:
    collected = Collected()
    async with MessageQueue(url=own.url) as queue:
        queue.process("orders", collected, visibility_timeout=5)
        first = await queue.send("orders", 1)
        await collected.until({first.id})
        own.pause()
        try:
            async with asyncio.timeout(3):
                with pytest.raises(BrokerUnavailable):
                    await queue.send("orders", 2)
        finally:
            own.go_on()
        last = await queue.send("orders", 3)
        await collected.until({last.id})


async def test_out_of_memory_refuses_sends_and_workers_go_on(own: RedisServer) -> None:
    collected = Collected()
    async with MessageQueue(url=own.url) as queue:
        sent = {(await queue.send("orders", "x" * 1000, key="k")).id for _ in range(50)}
        own.execute("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(BrokerUnavailable, match="OOM") as failure:
            await queue.send("orders", 1)
        assert failure.value.retryable
        queue.process("orders", collected, concurrency=3, ordered=True, visibility_timeout=1)
        await collected.until(sent)
        own.execute("CONFIG", "SET", "maxmemory", "0")
        await collected.until({(await queue.send("orders", 2)).id})


async def test_an_emptied_server_is_worked_on(own: RedisServer) -> None:
    collected = Collected()
    async with MessageQueue(url=own.url) as queue:
        queue.process("orders", collected)
        await collected.until({(await queue.send("orders", 1)).id})
        for _ in range(5):
            own.execute("FLUSHALL")
            own.execute("SCRIPT", "FLUSH", "SYNC")
            await collected.until({(await queue.send("orders", 2)).id})
    assert set(collected.seen.values()) == {1}
