"""The figures that an operator asks for."""

from __future__ import annotations

import pytest

from aibos_realtime import ConfigurationError, ConnectionMonitor, ConnectionPool
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.testing.server import memory_server

OPEN = {"permissions": {"*": ["read", "write"]}}


async def test_nothing_yet() -> None:
    metrics = await ConnectionMonitor(pool=ConnectionPool()).get_metrics()
    assert (metrics.active_connections, metrics.total_connections, metrics.avg_duration, metrics.error_rate) == (0, 0, 0.0, 0.0)
    assert metrics.latency_p50 is None and metrics.close_codes == {}


async def test_the_figures_of_a_server_at_work() -> None:
    async with memory_server(authorization=OPEN) as net:
        ann, bob, eve = await net.connect("ann"), await net.connect("bob"), await net.connect("eve")
        await ann.request("join-room", "lobby")
        await bob.request("join-room", "lobby")
        await ann.request("invoice.created", {"amount": 1}, room="lobby")
        await bob.receive("invoice.created")
        eve.cut()
        await eve.closed()
        metrics = await net.server.monitor.get_metrics()
        assert (metrics.active_connections, metrics.total_connections, metrics.peak_connections) == (2, 3, 3)
        assert (metrics.error_rate, metrics.close_codes) == (1.0, {1006: 1})
        assert (metrics.messages_in, metrics.events, metrics.deliveries) == (3, 1, 2)
        assert metrics.bytes_in > 0 and metrics.bytes_out > 0 and metrics.messages_out >= 2
        assert metrics.latency_p50 is not None and 0 <= metrics.latency_p50 <= metrics.latency_p99 < 5  # type: ignore[operator]


async def test_durations_are_those_of_the_servers_clock() -> None:
    clock = ManualClock()
    pool = ConnectionPool(clock=clock)
    monitor = ConnectionMonitor(pool=pool)
    async with memory_server(clock=clock, connections={"heartbeat_interval": None, "heartbeat_timeout": None}) as net:
        first = await net.connect("ann")
        pool.add_connection(first.socket)
        await clock.advance(100)
        pool.add_connection((await net.connect("bob")).socket)
        assert (await monitor.get_metrics()).avg_duration == pytest.approx(50)
        pool.remove_connection(first.socket.id)
        await clock.advance(20)
        assert (await monitor.get_metrics()).avg_duration == pytest.approx(60)


async def test_switched_off_it_gives_the_connections_alone() -> None:
    async with memory_server() as net:
        await net.connect("ann")
        metrics = await ConnectionMonitor(pool=net.server.pool, metrics={"enable_metrics": False}).get_metrics()
        assert metrics.active_connections == 1 and metrics.bytes_out == 0


def test_the_sample_rate_is_a_share() -> None:
    assert ConnectionMonitor(pool=(pool := ConnectionPool()), metrics={"sample_rate": 0.25}).options.sample_rate == pool.metrics.sample_rate == 0.25
    for wrong in (0, 1.5, -1):
        with pytest.raises(ConfigurationError, match=r"^metrics\.sample_rate"):
            ConnectionMonitor(pool=ConnectionPool(), metrics={"sample_rate": wrong})
