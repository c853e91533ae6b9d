"""One contestant of the queue benchmark: sends N messages and handles them, in this one process, and prints a line of JSON with the seconds.

Run by `queues.py` with the Python that has the library; it imports nothing of this project unless it is ours that runs.
Every peer is set up for throughput and for ours' promise as far as it can keep it: acknowledged after the handler, no results kept.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.metadata import version
from typing import Any

CONCURRENCY = 64  # handlers at work
WINDOW = 256  # sends on the way
PAYLOAD = {"type": "invoice.created", "roomId": "tenant_123", "data": {"invoiceId": "inv_001", "amount": 1000}}


class Counter:
    """Counts what was handled; `done` is set by the last one."""

    def __init__(self, messages: int) -> None:
        self.left = messages
        self.done = asyncio.Event()

    def count(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.done.set()


class Stopwatch:
    """Seconds for sending all of it, then for handling all of it."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.sent = self.handled = 0.0

    def note_sent(self) -> None:
        self.sent = time.perf_counter() - self.started
        self.started = time.perf_counter()

    def note_handled(self) -> None:
        self.handled = time.perf_counter() - self.started


async def send_all(messages: int, send: Callable[[], Awaitable[object]]) -> None:
    """`WINDOW` sends at a time, each awaited for its own answer."""
    for start in range(0, messages, WINDOW):
        await asyncio.gather(*(send() for _ in range(min(WINDOW, messages - start))))


async def run_worker(work: Awaitable[object], counter: Counter, watch: Stopwatch) -> None:
    """Let a peer's worker run until everything was handled. How it ends is not timed."""
    worker = asyncio.ensure_future(work)
    finished = asyncio.ensure_future(counter.done.wait())
    await asyncio.wait((worker, finished), return_when=asyncio.FIRST_COMPLETED)
    if not finished.done():
        worker.result()
        raise RuntimeError(f"the worker ended with {counter.left} messages to go")
    watch.note_handled()
    worker.cancel()
    await asyncio.wait((worker,), timeout=10)


async def run_ours(url: str, messages: int) -> Stopwatch:
    from aibos_realtime.storage.queue import MessageQueue

    counter, watch = Counter(messages), Stopwatch()
    place = {"redis": {"url": url}} if url.startswith(("redis", "unix")) else {"url": url}
    async with MessageQueue(**place, queues={"bench": {"max_size": messages + 1}}) as queue:
        watch = Stopwatch()
        await send_all(messages, lambda: queue.send("bench", PAYLOAD))
        watch.note_sent()

        async def handle(message: Any) -> None:
            counter.count()

        queue.process("bench", handle, concurrency=CONCURRENCY)
        await counter.done.wait()
        watch.note_handled()
    return watch


async def run_arq(url: str, messages: int) -> Stopwatch:
    from arq import create_pool
    from arq.connections import RedisSettings
    from arq.worker import Worker

    counter = Counter(messages)

    async def handle(context: object, data: object) -> None:
        counter.count()

    settings = RedisSettings.from_dsn(url)
    pool = await create_pool(settings)
    watch = Stopwatch()
    await send_all(messages, lambda: pool.enqueue_job(handle.__qualname__, PAYLOAD))
    watch.note_sent()
    worker = Worker(
        [handle],
        redis_pool=pool,
        handle_signals=False,
        max_jobs=CONCURRENCY,
        queue_read_limit=1000,
        poll_delay=0.001,
        keep_result=0,
        log_results=False,
    )
    await run_worker(worker.async_run(), counter, watch)
    await pool.aclose()
    return watch


async def run_taskiq(url: str, messages: int) -> Stopwatch:
    from taskiq.acks import AcknowledgeType
    from taskiq.api import run_receiver_task
    from taskiq_redis import RedisStreamBroker

    counter = Counter(messages)
    broker = RedisStreamBroker(url, consumer_id="0", xread_count=1000, max_connection_pool_size=WINDOW + CONCURRENCY)

    @broker.task(task_name="handle")
    async def handle(data: dict[str, Any]) -> None:
        counter.count()

    await broker.startup()
    watch = Stopwatch()
    await send_all(messages, lambda: handle.kiq(PAYLOAD))
    watch.note_sent()
    work = run_receiver_task(broker, max_async_tasks=CONCURRENCY, max_prefetch=1000, ack_time=AcknowledgeType.WHEN_EXECUTED, validate_params=False)
    await run_worker(work, counter, watch)
    await broker.shutdown()
    return watch


async def run_saq(url: str, messages: int) -> Stopwatch:
    from redis.asyncio import BlockingConnectionPool, Redis
    from saq import Job, Worker
    from saq.queue.redis import RedisQueue

    counter = Counter(messages)

    async def handle(context: object, *, data: dict[str, Any]) -> None:
        counter.count()

    queue = RedisQueue(Redis(connection_pool=BlockingConnectionPool.from_url(url, max_connections=WINDOW + CONCURRENCY)), max_concurrent_ops=WINDOW)
    await queue.connect()
    watch = Stopwatch()
    await send_all(messages, lambda: queue.enqueue(Job("handle", kwargs={"data": PAYLOAD}, ttl=-1)))
    watch.note_sent()
    worker = Worker(queue, functions=[("handle", handle)], concurrency=CONCURRENCY)
    await run_worker(worker.start(), counter, watch)
    await queue.disconnect()
    return watch


async def run_streaq(url: str, messages: int) -> Stopwatch:
    from streaq import Worker

    counter = Counter(messages)
    worker: Any = Worker(redis_url=url, concurrency=CONCURRENCY, prefetch=1000, handle_signals=False)

    @worker.task(ttl=0, silent=True)
    async def handle(data: dict[str, Any]) -> None:
        counter.count()

    async with worker:
        watch = Stopwatch()
        for start in range(0, messages, WINDOW):
            await worker.enqueue_many([handle.enqueue(PAYLOAD) for _ in range(min(WINDOW, messages - start))])
        watch.note_sent()
    await run_worker(worker.run_async(), counter, watch)
    return watch


CONTESTANTS: dict[str, tuple[Callable[[str, int], Awaitable[Stopwatch]], tuple[str, ...]]] = {
    "ours": (run_ours, ("aibos-realtime", "redis")),
    "arq": (run_arq, ("arq", "redis")),
    "taskiq": (run_taskiq, ("taskiq", "taskiq-redis", "redis")),
    "saq": (run_saq, ("saq", "redis")),
    "streaq": (run_streaq, ("streaq", "coredis")),
}


def main() -> None:
    name, url, messages = sys.argv[1], sys.argv[2], int(sys.argv[3])
    run, packages = CONTESTANTS[name]
    logging.disable(logging.WARNING)
    make_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    with suppress(ImportError):
        from uvloop import new_event_loop

        make_loop = new_event_loop
    with asyncio.Runner(loop_factory=make_loop) as runner:
        watch: Stopwatch = runner.run(run(url, messages))  # type: ignore[arg-type]
    versions = {package: version(package) for package in packages}
    print(json.dumps({"name": name, "messages": messages, "sent": watch.sent, "handled": watch.handled, "versions": versions}))


if __name__ == "__main__":
    main()
