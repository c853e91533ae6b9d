"""A node without its broker, by the clock: it takes nobody, keeps its clients for a while, and then sends them away."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.server.availability import Availability
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.testing.server import MemoryServer, memory_server


class Broker(MemoryBroker):
    is_available: bool = True


class Bench:
    """A server on a broker that can be taken away, watched by the part under test."""

    def __init__(self, net: MemoryServer, broker: Broker, clock: ManualClock) -> None:
        self.net = net
        self.broker = broker
        self.clock = clock
        self.handshake = net.server._parts.handshake
        self.availability = Availability(broker=broker, sockets=net.server.sockets, handshake=self.handshake, clock=clock)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    clock = ManualClock()
    broker = Broker(clock=clock)
    off = {"heartbeat_interval": None, "heartbeat_timeout": None}
    async with memory_server(clock=clock, broker=broker, connections=off) as net:
        bench = Bench(net, broker, clock)
        bench.availability.start()
        yield bench
        bench.availability.stop()


async def test_without_a_broker_new_connections_are_refused_and_old_ones_stay(bench: Bench) -> None:
    ann = await bench.net.connect("ann")
    bench.broker.is_available = False
    await bench.clock.advance(29)
    assert (bench.handshake.is_open, ann.socket.is_open) == (False, True)
    bench.broker.is_available = True
    await bench.clock.advance(1)
    assert bench.handshake.is_open and ann.socket.is_open and await ann.take_all() == []


async def test_after_thirty_seconds_clients_are_sent_to_the_others_once(bench: Bench) -> None:
    ann = await bench.net.connect("ann")
    bench.broker.is_available = False
    await bench.clock.advance(31)
    told = await ann.receive("reconnect")
    assert told["data"]["delayMin"] == 0 and told["data"]["delayMax"] == 10 and await ann.closed() == 4011
    bob = await bench.net.connect("bob")  # past the handshake, which would have refused him
    await bench.clock.advance(60)
    assert bob.socket.is_open, "those who came back anyway are not driven round"
    bench.broker.is_available = True
    await bench.clock.advance(1)
    assert bench.handshake.is_open
    bench.broker.is_available = False
    await bench.clock.advance(31)
    assert await bob.closed() == 4011, "another loss is another time"
