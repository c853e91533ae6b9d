"""A node's figures, by a clock that is moved by hand."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from aibos_realtime import RealtimeServer, RoomManager
from aibos_realtime.admin.figures import SAMPLES, Figures, Usage, read_usage
from aibos_realtime.admin.reports import NodeReport
from aibos_realtime.hub.connections import ConnectionPool
from aibos_realtime.metrics import Histogram
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.testing.server import MemoryServer, memory_server

OPEN = {"permissions": {"*": ["read", "write"]}}


class Desk:
    """Figures of a pool, and what a process seems to have used."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.pool = ConnectionPool(clock=self.clock, max_connections=7)
        self.metrics = self.pool.metrics
        self.usage = Usage(0.0, 1_000)
        self.state = "ok"
        self.probe_lag: float | None = None
        self.figures = Figures(
            id="1", name="node-1", url=None, pool=self.pool, rooms=RoomManager(clock=self.clock), state=lambda: self.state,
            probe_lag=lambda: self.probe_lag, store_waiting=lambda: None, clock=self.clock, loop_clock=self.clock,
            usage=lambda: self.usage,
        )  # fmt: skip
        self.figures.start()

    def samples(self, count: int = SAMPLES, since: float = 0.0) -> NodeReport:
        return self.figures.report(samples=count, since=since)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    yield desk
    desk.figures.stop()


async def test_a_report_of_nothing_yet(desk: Desk) -> None:
    report = desk.samples()
    assert (report.connections, report.max_connections, report.users, report.samples, report.latency_p50) == (0, 7, 0, [], None)
    assert report.started_at == report.now == desk.clock.now() and report.memory == 1_000 and report.version


async def test_a_sample_every_second_of_what_was_in_it(desk: Desk) -> None:
    await desk.clock.advance(1.05)
    desk.metrics.messages_in, desk.metrics.events, desk.metrics.bytes_out = 5, 3, 100
    desk.metrics.note_fanout(0.002, 0.002)
    desk.metrics.note_fanout(0.004, 0.004)
    desk.usage = Usage(0.25, 2_000)
    await desk.clock.advance(1.0)
    await desk.clock.advance(1.0)
    first, second, third = desk.samples().samples
    assert third.time - second.time == pytest.approx(1.0) and third.time == pytest.approx(desk.clock.now(), abs=0.11)
    assert (first.messages_in, second.messages_in, third.messages_in, second.events, second.bytes_out) == (0, 5, 5, 3, 100)
    assert (first.latency_p50, second.latency_p50, second.latency_p99) == (None, 0.004, 0.004)
    assert third.latency_p50 is None and desk.samples().latency_p50 == 0.004  # of the latest, whenever they were
    assert second.cpu == pytest.approx(0.25) and first.cpu == third.cpu == 0.0 and second.memory == 2_000


async def test_only_the_samples_that_are_asked_for(desk: Desk) -> None:
    await desk.clock.advance(5.05)
    times = [sample.time for sample in desk.samples().samples]
    assert len(times) == 5 and times == sorted(times)
    assert [sample.time for sample in desk.samples(2).samples] == times[-2:]
    assert [sample.time for sample in desk.samples(since=times[2]).samples] == times[3:]
    assert desk.samples(0).samples == []


async def test_ten_minutes_are_kept(desk: Desk) -> None:
    await desk.clock.advance(SAMPLES + 50.0)
    found = desk.samples(10 * SAMPLES).samples
    assert len(found) == SAMPLES and found[-1].time == pytest.approx(desk.clock.now(), abs=0.2)


class StandingStill:
    """A clock by which the event loop stands still: timers come later than they were planned."""

    def __init__(self) -> None:
        self.inner = ManualClock()
        self.stall = 0.0

    def now(self) -> float:
        return self.inner.now()

    def monotonic(self) -> float:
        return self.inner.monotonic()

    async def sleep(self, delay: float) -> None:
        await self.inner.sleep(delay)

    def call_later(self, delay: float, callback: object, *args: object) -> object:
        stall, self.stall = self.stall, 0.0
        return self.inner.call_later(delay + stall, callback, *args)  # type: ignore[arg-type]


async def test_how_late_the_loop_was_at_its_worst() -> None:
    clock = StandingStill()
    pool = ConnectionPool(clock=clock.inner)
    figures = Figures(
        id="1", name="node-1", url=None, pool=pool, rooms=RoomManager(), state=lambda: "ok", probe_lag=lambda: None, store_waiting=lambda: None,
        clock=clock.inner, loop_clock=clock, usage=lambda: Usage(0.0, 0),  # type: ignore[arg-type]
    )  # fmt: skip
    figures.start()
    await clock.inner.advance(0.95)
    clock.stall = 2.5  # of the timer that is planned next
    await clock.inner.advance(3.1)
    *_, late = figures.report(samples=9).samples
    assert late.loop_lag == pytest.approx(2.5) and figures.report().loop_lag == pytest.approx(2.5) == figures.worst_lag()
    await clock.inner.advance(2.0)
    assert figures.report().loop_lag == pytest.approx(0.0) and figures.worst_lag() == pytest.approx(2.5)
    await clock.inner.advance(61.0)
    assert figures.worst_lag() == pytest.approx(0.0)
    assert len(figures.lag) > 600 and figures.lag.total == pytest.approx(2.5) and sum(figures.lag.counts[-4:]) == 1
    figures.stop()


async def test_stopped_it_looks_no_more_and_started_again_it_goes_on(desk: Desk) -> None:
    await desk.clock.advance(2.05)
    desk.figures.stop()
    desk.figures.stop()
    await desk.clock.advance(10.0)
    assert len(desk.samples().samples) == 2 and desk.clock.planned == []
    desk.figures.start()
    desk.figures.start()
    assert len(desk.clock.planned) == 2
    await desk.clock.advance(1.05)
    assert desk.samples().samples[-1].loop_lag == pytest.approx(0.0) and desk.figures.worst_lag() == pytest.approx(0.0)


async def test_what_others_know_is_asked_at_that_moment(desk: Desk) -> None:
    desk.state, desk.probe_lag = "draining", 0.2
    assert (desk.samples().state, desk.samples().probe_lag) == ("draining", 0.2)


def test_what_this_process_uses() -> None:
    before = read_usage()
    held = bytearray(64 * 1024 * 1024)
    held[::4096] = b"x" * len(held[::4096])
    after = read_usage()
    assert after.cpu >= before.cpu > 0 and after.memory - before.memory > 32 * 1024 * 1024


async def test_the_figures_of_a_server_at_work() -> None:
    clock = ManualClock()
    async with memory_server(clock=clock, authorization=OPEN) as net:
        ann, other = await net.connect("ann"), await net.connect("ann")
        await net.connect()
        await ann.request("join-room", "lobby")
        await ann.request("invoice.created", {"amount": 1}, room="lobby")
        other.close()
        await other.closed()
        await clock.advance(1.05)
        report = figures_of(net).report(samples=5)
        assert (report.state, report.connections, report.users, report.rooms) == ("ok", 2, 1, 1)
        assert (report.events, report.deliveries, report.messages_in, report.close_codes) == (1, 1, 2, {"1000": 1})
        assert report.samples and report.samples[-1].connections == 2 and report.latency_p99 is not None
        assert NodeReport.model_validate(report.to_wire()) == report
    assert figures_of(net).report().state == "stopped"
    await clock.advance(2.0)  # the audit log's second of strangers
    assert clock.planned == []


async def test_bytes_that_wait_are_known_a_second_later() -> None:
    clock = ManualClock()
    async with memory_server(clock=clock, authorization=OPEN) as net:
        slow = await net.connect("slow")
        await net.connect("ann")
        await clock.advance(2.0)
        assert figures_of(net).report().outbox_bytes == 0
        slow.socket.emit("news", "x" * 100_000)  # and does not read
        await clock.advance(2.0)
        assert (net.server.metrics.connections_behind, figures_of(net).report().outbox_bytes > 30_000) == (1, True)
        await slow.take_all()
        await clock.advance(2.0)
        assert (net.server.metrics.connections_behind, figures_of(net).report().outbox_bytes) == (0, 0)


def figures_of(net: MemoryServer) -> Figures:
    server: RealtimeServer = net.server
    return server._operation.figures


class Watched(Histogram):
    """Tells when it was given something long."""

    __slots__ = ("has_long",)

    def __init__(self) -> None:
        super().__init__()
        self.has_long = asyncio.Event()

    def note(self, seconds: float) -> None:
        super().note(seconds)
        if seconds > 0.2:
            self.has_long.set()


async def test_a_loop_that_is_blocked_shows_by_the_real_clock() -> None:
    """A handler that blocks: the next look is late by about as much."""
    async with memory_server() as net:
        figures = figures_of(net)
        figures.lag = watched = Watched()
        until = time.monotonic() + 0.4
        while time.monotonic() < until:
            pass
        async with asyncio.timeout(5):
            await watched.has_long.wait()
        assert 0.2 < figures.worst_lag() < 5.0
