"""A lease: one holder at a time, by the server's clock, whatever stands in its key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from aibos_realtime.backends.redis.client import Client
from aibos_realtime.backends.redis.layout import Layout
from aibos_realtime.backends.redis.lease import RedisLease
from aibos_realtime.backends.redis.urls import read_url
from aibos_realtime.errors import BrokerUnavailable
from tests.servers.redis import RedisServer, running_redis

MakeLease = Callable[..., RedisLease]


@pytest.fixture
async def client(redis_url_any: str) -> AsyncIterator[Client]:
    client = Client(read_url(redis_url_any))
    await client.open()
    yield client
    await client.close()


@pytest.fixture
def layout(redis_prefix: str) -> Layout:
    return Layout(redis_prefix, 1)


@pytest.fixture
def lease_of(client: Client, layout: Layout) -> MakeLease:
    return lambda holder, ttl=5.0: RedisLease(client, layout, "drain", holder, ttl)


async def until(is_so: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again, for five seconds."""
    async with asyncio.timeout(5):
        while not await is_so():
            pass


class TestHolding:
    async def test_one_at_a_time(self, lease_of: MakeLease) -> None:
        leases = [lease_of(f"n{number}") for number in range(5)]
        held = await asyncio.gather(*(lease.hold() for lease in leases))
        assert sorted(held) == [False] * 4 + [True]
        holder = leases[held.index(True)]
        assert await holder.hold() and not await leases[held.index(False)].hold()

    async def test_giving_it_back(self, lease_of: MakeLease) -> None:
        one, other = lease_of("one"), lease_of("other")
        assert await one.hold()
        await other.release()
        assert not await other.hold(), "only who has it gives it back"
        await one.release()
        await one.release()
        assert await other.hold()

    async def test_names_are_apart(self, client: Client, layout: Layout) -> None:
        assert await RedisLease(client, layout, "a", "one").hold()
        assert await RedisLease(client, layout, "b", "other").hold()

    async def test_a_holder_that_stood_still_finds_it_lost(self, lease_of: MakeLease) -> None:
        one, other = lease_of("one", 0.05), lease_of("other")
        assert await one.hold()
        await until(other.hold)
        assert not await one.hold()
        await one.release()
        assert await other.hold() and not await one.hold()

    async def test_renewing_keeps_it(self, lease_of: MakeLease, client: Client, layout: Layout) -> None:
        one = lease_of("one", 100.0)
        key = layout.of_nodes("lease:drain")
        assert await one.hold()
        await client.command("PEXPIRE", key, 1000)
        assert await one.hold()
        assert await client.command("PTTL", key) > 90_000


class TestWhatIsNotOurs:
    @pytest.mark.parametrize("command", [("HSET", "field", "1"), ("XADD", "*", "a", "b"), ("SADD", "one")])
    async def test_another_kind_of_value(self, lease_of: MakeLease, client: Client, layout: Layout, command: tuple[str, ...]) -> None:
        await client.command(command[0], layout.of_nodes("lease:drain"), *command[1:])
        await lease_of("one").release()
        assert await lease_of("one").hold()

    @pytest.mark.parametrize("rest", [(), ("EX", 1_000_000)])
    async def test_a_holder_for_ever(self, lease_of: MakeLease, client: Client, layout: Layout, rest: tuple[object, ...]) -> None:
        await client.command("SET", layout.of_nodes("lease:drain"), "somebody", *rest)
        await until(lease_of("one", 0.05).hold)


async def test_redis_being_away_is_an_error() -> None:
    with running_redis() as server:
        client = Client(read_url(server.url))
        await client.open()
        lease = RedisLease(client, Layout("t", 1), "drain", "one")
        assert await lease.hold()
        await asyncio.to_thread(server.stop)
        for act in (lease.hold, lease.release):
            with pytest.raises(BrokerUnavailable):
                await act()
        await client.close()


async def test_a_full_redis_still_gives_it(redis_prefix: str) -> None:
    """What is drained makes room."""
    with running_redis(maxmemory="3mb") as server:
        fill(server)
        client = Client(read_url(server.url))
        await client.open()
        lease = RedisLease(client, Layout(redis_prefix, 1), "drain", "one")
        assert await lease.hold() and await lease.hold()
        await lease.release()
        await client.close()


def fill(server: RedisServer) -> None:
    for number in range(1000):
        if server.execute("SET", f"k{number}", "x" * 50_000).startswith(b"-OOM"):
            return
    raise AssertionError("it was never full")
