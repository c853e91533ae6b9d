"""Who is connected: admission, look-up, and the figures of those who went."""

from __future__ import annotations

import pytest

from aibos_realtime import ConfigurationError, ConnectionLimitExceeded, ConnectionPool
from aibos_realtime.testing.server import memory_server
from aibos_realtime.types import User


async def test_look_up_by_id_and_by_user() -> None:
    async with memory_server() as net:
        pool = net.server.pool
        first, second = await net.connect("ann"), await net.connect("ann")
        other, nobody = await net.connect("bob"), await net.connect()
        assert pool.get_connection(first.socket.id) is first.socket and pool.get_connection("x") is None
        assert pool.get_user_connections("ann") == [first.socket, second.socket] and pool.count_user_connections("ann") == 2
        assert pool.get_user_connections("zoe") == [] and pool.count_user_connections("zoe") == 0
        assert set(pool) == set(pool.get_all_connections()) == {c.socket for c in (first, second, other, nobody)}
        assert len(pool) == 4 and other.socket.id in pool
        nobody.socket.user = User("ann")
        assert pool.count_user_connections("ann") == 3
        nobody.socket.user = User("bob")
        assert (pool.count_user_connections("ann"), pool.count_user_connections("bob")) == (2, 2)
        other.close()
        assert await other.closed() == 1000
        nobody.cut()
        assert await nobody.closed() == 1006
        assert pool.get_user_connections("bob") == [] and "bob" not in pool._by_user
        assert pool.count_users() == 1 and pool.is_bound(first.socket) and not pool.is_bound(nobody.socket)


async def test_one_connection_of_a_user_or_several() -> None:
    async with memory_server() as net:
        pool = net.server.pool
        one = await net.connect("ann")
        pool.bind(one.socket)
        assert (pool.get_user_connections("ann"), pool.count_user_connections("ann"), pool.is_bound(one.socket)) == ([one.socket], 1, True)
        two = await net.connect("ann")
        assert pool.get_user_connections("ann") == [one.socket, two.socket] and pool.count_users() == 1
        one.cut()
        assert await one.closed() == 1006
        assert pool.get_user_connections("ann") == [two.socket] and pool.is_bound(two.socket) and not pool.is_bound(one.socket)
        pool.unbind(one.socket)
        assert pool.count_user_connections("ann") == 1
        two.cut()
        assert await two.closed() == 1006
        assert pool.count_users() == 0 and pool.get_user_connections("ann") == [] and not pool.is_bound(two.socket)


async def test_a_full_pool_admits_nobody_and_adding_twice_changes_nothing() -> None:
    async with memory_server() as net:
        one, two = await net.connect("ann"), await net.connect("bob")
        pool = ConnectionPool(max_connections=1)
        pool.add_connection(one.socket)
        pool.add_connection(one.socket)
        assert pool.is_full and len(pool) == 1 and pool.metrics.connections_total == 1
        with pytest.raises(ConnectionLimitExceeded, match="All 1 connections") as caught:
            pool.add_connection(two.socket)
        assert caught.value.retryable
        assert pool.remove_connection(one.socket.id) is one.socket and pool.remove_connection(one.socket.id) is None
        pool.add_connection(two.socket)
        assert pool.metrics.peak_connections == 1 and pool.metrics.connections_total == 2
        pool.remove_connection(two.socket.id)


def test_no_limit() -> None:
    assert not ConnectionPool(max_connections=None).is_full


@pytest.mark.parametrize(
    "options",
    [{"max_connections": 0}, {"connection_timeout": 0}, {"heartbeat_interval": 60, "heartbeat_timeout": 60}, {"heartbeat_interval": -1}],
)
def test_options_that_cannot_be(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=r"^connections\."):
        ConnectionPool(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("code", "failed"), [(1000, 0), (1001, 0), (1005, 0), (4001, 0), (4011, 0), (1006, 1), (4008, 1), (4500, 1)])
async def test_which_ends_count_as_failures(code: int, failed: int) -> None:
    async with memory_server() as net:
        client = await net.connect("ann")
        pool = ConnectionPool()
        pool.add_connection(client.socket)
        pool.remove_connection(client.socket.id, code=code)
        assert (pool.metrics.connections_failed, pool.metrics.close_codes, pool.metrics.connections_ended) == (failed, {code: 1}, 1)
