"""The load on nodes that run already: one work, in a process of its own, as `nodes.py` asks for it.

It takes a `Job` as JSON on its standard input and prints the figures as one line of JSON. CPU is user and system time of whole processes,
from /proc/PID/stat, in steps of 10 ms: a stretch that is measured should cost each process a second or more.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from aibos_realtime.server.loop import new_event_loop, rare_garbage_collection
from benchmarks.nodes_client import DIALECTS, Session

TICK = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
OPENING = 64  # sessions that open at the same time
STALLED = 60.0  # seconds after which events that did not come are given up

Figures = dict[str, float]


@dataclass(frozen=True)
class Job:
    """One work. `publisher`, `member`: the ports of their nodes, which may be the same; `pids`: of publisher, member and redis."""

    work: str
    dialect: str
    publisher: int
    member: int
    pids: dict[str, int] = field(default_factory=dict)
    redis_url: str | None = None
    secret: str = ""
    payload: int = 200  # bytes of JSON
    count: int = 1_000  # events
    window: int = 64  # events on the way
    members: int = 0  # publish: in each room; else in all
    rate: float = 100.0  # latency: events a second
    rooms: int = 1  # idle: over which the members are spread
    silent: float = 30.0  # idle: seconds of silence

    def to_json(self) -> str:
        return json.dumps(asdict(self))


class Processes:
    """What the watched processes have used."""

    def __init__(self, pids: dict[str, int]) -> None:
        self._pids = pids

    def cpu(self) -> dict[str, float]:
        """Seconds."""
        return {name: sum(map(int, self._stat(pid)[11:13])) / TICK for name, pid in self._pids.items()}

    def memory(self) -> dict[str, int]:
        """Resident bytes."""
        return {name: int(self._stat(pid)[21]) * PAGE for name, pid in self._pids.items()}

    async def settle(self) -> None:
        """Return once nobody works any more, as far as this can be seen; after 10 s at the latest."""
        for _ in range(50):
            before = self.cpu()
            await asyncio.sleep(0.2)
            if all(used - before[name] < 2.5 / TICK for name, used in self.cpu().items()):
                return

    def _stat(self, pid: int) -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


class Arrivals:
    """Counts events down to the last one."""

    def __init__(self) -> None:
        self._left = 0
        self._done = asyncio.Event()
        self._done.set()

    def expect(self, number: int) -> None:
        self._left = number
        self._done.clear()
        if number == 0:
            self._done.set()

    def note(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._done.set()

    async def wait(self, seconds: float = STALLED) -> None:
        try:
            await asyncio.wait_for(self._done.wait(), seconds)
        except TimeoutError:
            raise SystemExit(f"{self._left} events did not come within {seconds:g} s") from None


def make_payload(size: int) -> str:
    """A JSON object of `size` bytes."""
    start = '{"invoiceId":"inv_001","number":"2026-0001","amount":1000,"currency":"USD","customer":"Example Ltd","note":"'
    return start + "x" * max(0, size - len(start) - 2) + '"}'


def quantile(samples: list[float], part: float) -> float:
    return sorted(samples)[min(len(samples) - 1, int(len(samples) * part))]


def in_milliseconds(samples: list[float], name: str = "") -> Figures:
    return {f"{name}p50_ms": quantile(samples, 0.5) * 1e3, f"{name}p99_ms": quantile(samples, 0.99) * 1e3}


class Load:
    """The works: each is a method that returns its figures."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.data = make_payload(job.payload)
        self.processes = Processes(job.pids)
        self.arrivals = Arrivals()
        self._dialect = DIALECTS[job.dialect]

    async def run(self) -> Figures:
        works: dict[str, Callable[[], Awaitable[Figures]]] = {
            "publish": self.publish,
            "broadcast": self.broadcast,
            "delivery": self.delivery,
            "latency": self.latency,
            "idle": self.idle,
            "pass": self.pass_on,
        }
        return await works[self.job.work]()

    async def publish(self) -> Figures:
        """Clients of one node, as many as events may be on the way, each in a room of its own and waiting for each acknowledgement."""
        job, acknowledged = self.job, []
        rooms = [f"bench:{number}" for number in range(job.window)]
        members = await self._open_members([room for room in rooms for _ in range(job.members)])
        publishers = await self._open_many(job.publisher, "publisher", job.window)

        async def publish(session: Session, room: str, times: int) -> None:
            for _ in range(times):
                began = time.perf_counter()
                await session.publish(room, self.data)
                acknowledged.append(time.perf_counter() - began)

        async def stretch(events: int) -> int:
            times = max(1, events // job.window)
            self.arrivals.expect(times * len(members))
            await asyncio.gather(*(publish(session, room, times) for session, room in zip(publishers, rooms, strict=True)))
            return times * job.window

        await self._warm_up(lambda: stretch(job.window), members)
        await stretch(job.count // 10)
        await self.arrivals.wait()
        acknowledged.clear()
        figures = await self._measure(lambda: stretch(job.count))
        return figures | in_milliseconds(acknowledged, "ack_")

    async def broadcast(self) -> Figures:
        """The same from the node's own program, each worker of it in a room of its own. No members."""
        job = self.job
        (session,) = await self._open_many(job.publisher, "publisher", 1)

        async def stretch(events: int) -> int:
            events = max(1, events // job.window) * job.window
            await session.call("broadcast", {"count": events, "window": job.window, "data": self.data})
            return events

        await stretch(job.count // 10)
        return await self._measure(lambda: stretch(job.count))

    async def delivery(self) -> Figures:
        """One room: the next event is published when every member has the last one. Per delivery, `publisher` and `redis` per event."""
        job = self.job
        members = await self._open_members(["bench:0"] * job.members)
        (publisher,) = await self._open_many(job.publisher, "publisher", 1)
        times: list[float] = []

        async def stretch(events: int) -> int:
            for _ in range(events):
                self.arrivals.expect(len(members))
                began = time.perf_counter()
                publisher.publish("bench:0", self.data).add_done_callback(lambda done: done.exception())
                await self.arrivals.wait()
                times.append(time.perf_counter() - began)
            return events

        await self._warm_up(lambda: publisher.publish("bench:0", self.data), members)
        await stretch(max(1, job.count // 10))
        times.clear()
        before = sum(member.bytes_in for member in members)
        figures = await self._measure(lambda: stretch(job.count))
        deliveries = job.count * len(members)
        figures["member_cpu_us"] /= len(members)
        figures["deliveries_per_s"] = figures.pop("per_s") * len(members)
        figures["bytes"] = (sum(member.bytes_in for member in members) - before) / deliveries
        return figures | in_milliseconds(times, "last_")

    async def latency(self) -> Figures:
        """One event at a time, at `rate` a second but never in step with anybody's timer: from the publisher's sending to a member's reading."""
        job, random, samples = self.job, Random(1), []
        members = await self._open_members(["bench:0"])
        (publisher,) = await self._open_many(job.publisher, "publisher", 1)
        await self._warm_up(lambda: publisher.publish("bench:0", self.data), members)
        for number in range(job.count + job.count // 10):
            await asyncio.sleep(random.uniform(0.5, 1.5) / job.rate)
            self.arrivals.expect(1)
            began = time.perf_counter()
            acknowledgement = publisher.publish("bench:0", self.data)
            await self.arrivals.wait()
            if number >= job.count // 10:
                samples.append(time.perf_counter() - began)
            await acknowledgement
        return in_milliseconds(samples) | {"mean_ms": statistics.fmean(samples) * 1e3}

    async def idle(self) -> Figures:
        """Members that join and are silent. Of opening and joining: CPU and memory per member. Of silence: CPU per member and second, without what
        the processes use when nobody is there.
        """
        job, processes = self.job, self.processes
        await processes.settle()
        base = await self._use_in_silence()
        cpu, memory, stored = processes.cpu(), processes.memory(), self._redis_bytes()
        await self._open_members([f"bench:{number % job.rooms}" for number in range(job.members)])
        await processes.settle()
        opened = processes.cpu()
        figures = {f"{name}_open_cpu_us": (opened[name] - cpu[name]) / job.members * 1e6 for name in cpu}
        figures["base_mb"] = memory["member"] / 1024**2
        figures["member_kb"] = (processes.memory()["member"] - memory["member"]) / job.members / 1024
        figures["redis_bytes"] = (self._redis_bytes() - stored) / job.members
        silent = await self._use_in_silence()
        figures |= {f"{name}_base_cpu_us": used for name, used in base.items()}
        return figures | {f"{name}_silent_cpu_us": max(0.0, silent[name] - used) / job.members for name, used in base.items()}

    async def pass_on(self) -> Figures:
        """Redis alone: an event to `members` subscribers of one channel. CPU per subscriber."""
        from redis.asyncio import Redis

        job = self.job
        assert job.redis_url is not None
        async with AsyncExitStack() as life:
            client: Any = await life.enter_async_context(Redis.from_url(job.redis_url))
            for _ in range(job.members):
                subscription = await life.enter_async_context(client.pubsub(ignore_subscribe_messages=True))
                await subscription.ssubscribe("bench")
                reading = asyncio.create_task(self._hear(subscription))
                life.callback(reading.cancel)

            async def stretch(events: int) -> int:
                self.arrivals.expect(events * job.members)
                for _ in range(events):
                    await client.execute_command("SPUBLISH", "bench", self.data)
                return events

            await stretch(max(1, job.count // 10))
            await self.arrivals.wait()
            figures = await self._measure(lambda: stretch(job.count))
        return {"redis_cpu_us": figures["redis_cpu_us"] / job.members}

    # — parts of them —

    async def _measure(self, stretch: Callable[[], Awaitable[int]]) -> Figures:
        """CPU per event of each process, until it has come to rest; events a second until the last one was acknowledged and received."""
        await self.processes.settle()
        before, stored, began = self.processes.cpu(), self._redis_bytes(), time.perf_counter()
        events = await stretch()
        seconds = time.perf_counter() - began
        await self.arrivals.wait()
        await self.processes.settle()
        after = self.processes.cpu()
        figures = {f"{name}_cpu_us": (after[name] - before[name]) / events * 1e6 for name in after}
        return figures | {"per_s": events / seconds, "redis_bytes": (self._redis_bytes() - stored) / events}

    async def _warm_up(self, publish: Callable[[], Awaitable[object]], members: Iterable[Session]) -> None:
        """Publish until every member hears of it: with some servers a subscription at Redis is under way when a join is answered."""
        until = time.monotonic() + STALLED
        while True:
            await publish()
            for _ in range(20):
                if all(member.events for member in members):
                    await self.processes.settle()  # an event that is still on its way would be counted for another one
                    return
                await asyncio.sleep(0.05)
            if time.monotonic() > until:
                raise SystemExit("some members never heard of an event")

    async def _open_members(self, rooms: list[str]) -> list[Session]:
        sessions = await self._open_many(self.job.member, "member", len(rooms))
        joining = asyncio.Semaphore(OPENING)

        async def join(session: Session, room: str) -> None:
            async with joining:
                await session.join(room)

        await asyncio.gather(*map(join, sessions, rooms))
        return sessions

    async def _open_many(self, port: int, name: str, number: int) -> list[Session]:
        opening = asyncio.Semaphore(OPENING)

        async def open_one(index: int) -> Session:
            async with opening:
                return await self._dialect.open(port, f"{name}-{index}", self.job.secret, self.arrivals.note)

        return await asyncio.gather(*(open_one(index) for index in range(number)))

    async def _use_in_silence(self) -> Figures:
        """µs of CPU a second."""
        before = self.processes.cpu()
        await asyncio.sleep(self.job.silent)
        after = self.processes.cpu()
        return {name: (after[name] - before[name]) / self.job.silent * 1e6 for name in after}

    async def _hear(self, subscription: Any) -> None:
        while True:
            if await subscription.get_message(timeout=STALLED) is not None:
                self.arrivals.note()

    def _redis_bytes(self) -> int:
        """What Redis holds, without its buffers; 0 without one."""
        if self.job.redis_url is None:
            return 0
        from redis import Redis

        with Redis.from_url(self.job.redis_url) as client:
            found: Any = client.info("memory")
            return int(found["used_memory"] - found["mem_clients_normal"] - found["mem_aof_buffer"])


def main() -> None:
    job = Job(**json.load(sys.stdin))
    with asyncio.Runner(loop_factory=new_event_loop) as runner, rare_garbage_collection():

        async def run() -> Figures:
            return await Load(job).run()

        try:
            print(json.dumps(runner.run(run())))
        except (ConnectionError, TimeoutError) as error:
            raise SystemExit(str(error) or "timed out") from None


if __name__ == "__main__":
    main()
