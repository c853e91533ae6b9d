"""The source document, "Connection Management": "Connection Pool" and "Connection Monitoring"."""

from __future__ import annotations

import asyncio

import pytest

from aibos_realtime import ConnectionLimitExceeded, ConnectionMonitor, ConnectionPool, RealtimeClient, RealtimeServer
from tests.contracts.peer import serving
from tests.source_document.conftest import Connect


async def test_connection_pool(realtime_server: RealtimeServer, connect: Connect) -> None:
    connection_pool = ConnectionPool(max_connections=1000, connection_timeout=30, heartbeat_interval=30, heartbeat_timeout=60)
    async with connect():
        [socket] = realtime_server.pool.get_user_connections("user_123")

        # Add connection
        connection_pool.add_connection(socket)
        assert len(connection_pool) == 1

        # Remove connection
        connection_pool.remove_connection(socket.id)
        assert len(connection_pool) == 0 and connection_pool.get_connection(socket.id) is None

        connection_pool.add_connection(socket)

        # Get connection
        connection = connection_pool.get_connection(socket.id)
        assert connection is socket

        # Get all connections
        connections = connection_pool.get_all_connections()
        assert connections == [socket]


async def test_connection_pool_has_an_end(realtime_server: RealtimeServer, connect: Connect) -> None:
    connection_pool = ConnectionPool(max_connections=1)
    async with connect(), connect("user_456"):
        first, second = realtime_server.pool.get_all_connections()
        connection_pool.add_connection(first)
        with pytest.raises(ConnectionLimitExceeded):
            connection_pool.add_connection(second)


async def test_connection_monitoring(realtime_server: RealtimeServer, connect: Connect) -> None:
    connection_pool = realtime_server.pool
    connection_monitor = ConnectionMonitor(pool=connection_pool, metrics={"enable_metrics": True, "sample_rate": 1.0})
    ended: asyncio.Queue[str] = asyncio.Queue()
    realtime_server.on("disconnect", lambda socket, reason: ended.put_nowait(reason))

    async with connect():
        # Get connection metrics
        metrics = await connection_monitor.get_metrics()
        assert (metrics.active_connections, metrics.total_connections) == (1, 1)

    await asyncio.wait_for(ended.get(), 5)
    metrics = await connection_monitor.get_metrics()
    assert (metrics.active_connections, metrics.total_connections) == (0, 1)
    assert 0 < metrics.avg_duration < 60, "seconds"
    assert metrics.error_rate == 0


async def test_the_pool_of_the_snippet_as_the_servers_own() -> None:
    connection_pool = ConnectionPool(max_connections=1000, connection_timeout=30, heartbeat_interval=30, heartbeat_timeout=60)
    connection_monitor = ConnectionMonitor(pool=connection_pool, metrics={"enable_metrics": True, "sample_rate": 1.0})
    async with serving(connections=connection_pool) as server:
        async with RealtimeClient(server.url, token=server.auth.issue(user_id="user_123")):
            assert len(connection_pool) == 1
            assert (await connection_monitor.get_metrics()).active_connections == 1
