"""What the hot paths do not do, counted exactly: no second write, no Python call per member, no task per message, nothing left behind.

These counts are the same on every machine and interpreter. What has no such limit, but a price, is in `test_instructions`.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import Context
from types import CodeType, FrameType
from typing import Any

import pytest

from aibos_realtime import where
from aibos_realtime.protocol.codec import Encoding

from .rig import Client, Net, net
from .workloads import DATA


class CountingLoop(asyncio.SelectorEventLoop):
    """The standard library's loop, which counts what it is asked to make."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Counter[str] = Counter()
        self.timers: list[asyncio.TimerHandle] = []

    def create_future(self) -> asyncio.Future[Any]:
        self.made["future"] += 1
        return super().create_future()

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        self.made["task"] += 1
        return super().create_task(coro, **options)

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]
        self.made["callback"] += 1
        return super().call_soon(callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:  # type: ignore[override]
        self.made["timer"] += 1
        self.timers.append(timer := super().call_at(when, callback, *args, context=context))
        return timer

    @property
    def running_timers(self) -> list[asyncio.TimerHandle]:
        return [timer for timer in self.timers if not timer.cancelled()]


def counted(test: Callable[[Net, CountingLoop], Awaitable[None]]) -> None:
    """Run with a server, on a loop that counts."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, CountingLoop)
        async with net() as running:
            await test(running, loop)

    with asyncio.Runner(loop_factory=CountingLoop) as runner:
        runner.run(run())


async def turns(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


class Calls:
    """Counts the calls of Python functions, by code, and of C functions, by name, while it is entered."""

    def __init__(self) -> None:
        self.python: Counter[CodeType] = Counter()
        self.c: Counter[str] = Counter()

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self.python[frame.f_code] += 1
        elif event == "c_call":
            self.c[argument.__name__] += 1

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)


# — fan-out —


def test_a_burst_is_one_write_for_each_member() -> None:
    async def burst(net: Net, loop: CountingLoop) -> None:
        writes: list[list[bytes]] = [[] for _ in range(1000)]
        for number, written in enumerate(writes):
            client = net.connect(f"member-{number}", write=written.append)
            client.join("live:crowd")
        await turns()
        for written in writes:
            written.clear()
        for _ in range(16):
            await net.server.broadcaster.broadcast_to_room("live:crowd", "invoice.approved", DATA)
        await turns()
        assert [len(written) for written in writes] == [1] * 1000
        assert len({id(written[0]) for written in writes}) == 1, "the same object for all of them"
        assert writes[0][0].count(b'"event":"invoice.approved"') == 16

    counted(burst)


async def calls_of_a_fan_out(net: Net, room: str, members: int, **options: Any) -> Calls:
    heard: list[bytes] = []
    await net.fill(room, [f"{room}-{number}" for number in range(members)], write=heard.append)
    await net.server.broadcaster.broadcast_to_room(room, "invoice.approved", DATA, **options)
    await turns()
    heard.clear()
    with Calls() as calls:
        await net.server.broadcaster.broadcast_to_room(room, "invoice.approved", DATA, **options)
        await turns()
    assert len(heard) == members
    return calls


@pytest.mark.parametrize("options", [{}, {"exclude": ["somebody"]}, {"filter": where(role="user")}], ids=["plain", "exclude", "where"])
def test_another_member_costs_one_call_of_its_stream_and_no_call_in_python(options: dict[str, Any]) -> None:
    async def compare(net: Net, loop: CountingLoop) -> None:
        few, many = await calls_of_a_fan_out(net, "live:few", 10, **options), await calls_of_a_fan_out(net, "live:many", 500, **options)
        assert many.python - few.python == Counter()
        assert many.c - few.c == Counter(append=490)

    counted(compare)


def test_a_frame_is_built_once_for_each_event_and_encoding() -> None:
    async def two_encodings(net: Net, loop: CountingLoop) -> None:
        for codec in ("json", "msgpack"):
            await net.fill("live:both", [f"{codec}-{number}" for number in range(20)], codec=codec)
        with Calls() as calls:
            for _ in range(3):
                await net.server.broadcaster.broadcast_to_room("live:both", "invoice.approved", DATA)
            await turns()
        assert calls.python[Encoding.frame.__code__] == 3 * 2

    counted(two_encodings)


# — requests —


async def made_by(loop: CountingLoop, client: Client, frame: bytes, times: int = 50) -> Counter[str]:
    """What the loop made for each message of a client, who sends one a turn; without what the turns themselves make."""
    for _ in range(20):
        client.send(frame)
        await turns(1)
    before = loop.made.copy()
    for _ in range(times):
        client.send(frame)
        await turns(1)
    made = loop.made - before
    made["callback"] -= times  # of the turns
    return Counter({kind: -(-count // times) for kind, count in made.items()})


def test_a_message_makes_no_task_and_hardly_a_future() -> None:
    async def messages(net: Net, loop: CountingLoop) -> None:
        @net.server.event("look")
        def look(socket: Any, data: Any) -> Any:
            return data

        @net.server.event("read")
        async def read(socket: Any, data: Any) -> Any:
            return data

        answers: list[bytes] = []
        client = net.connect("ann", write=answers.append)
        client.join("live:desk")
        client.join("desk")
        await turns()
        assert await made_by(loop, client, client.frame("ping", ref=1)) <= Counter()
        assert await made_by(loop, client, client.frame("look", DATA, ref=1)) <= Counter()
        assert await made_by(loop, client, client.frame("read", DATA, ref=1)) <= Counter(future=1, callback=1), "to wake the dispatcher by"
        for room in ("live:desk", "desk"):
            made = await made_by(loop, client, client.frame("invoice.created", DATA, room=room, ref=1))
            assert made <= Counter(future=1, callback=1), "the receipt, and the flush at the end of the turn"
        assert len(answers) >= 5 * 70

    counted(messages)


def test_messages_and_deliveries_leave_nothing_for_the_garbage_collector() -> None:
    async def traffic(net: Net, loop: CountingLoop) -> None:
        @net.server.event("look")
        def look(socket: Any, data: Any) -> Any:
            return data

        await net.fill("live:crowd", [f"member-{number}" for number in range(100)])
        client = net.connect("ann")
        frames = [client.frame("look", DATA, ref=1), client.frame("ping", ref=2), client.frame("invoice.created", DATA, room="live:crowd", ref=3)]

        async def round() -> None:
            for frame in frames:
                client.send(frame)
            await net.server.broadcaster.broadcast_to_room("live:crowd", "invoice.approved", DATA)
            await turns(1)

        for _ in range(30):
            await round()
        gc.collect()
        gc.disable()
        try:
            before = len(gc.get_objects())
            for _ in range(200):
                await round()
            left = len(gc.get_objects()) - before
        finally:
            gc.enable()
        assert left < 20, f"200 rounds left {left} objects"

    counted(traffic)


# — idle clients —


def test_an_idle_client_has_no_task_no_future_and_no_timer() -> None:
    async def idle(net: Net, loop: CountingLoop) -> None:
        await turns()
        timers = len(loop.running_timers)
        made = loop.made.copy()
        for number in range(50):
            net.connect(f"user-{number}").join("live:hall")
        await turns()
        assert len(net.server.pool) == 50
        assert len(loop.running_timers) <= timers + 1, "one for all of them, at most"
        assert (loop.made - made)["task"] == 0
        assert len(asyncio.all_tasks()) <= 3

    counted(idle)
