"""What is taken for deafness, and what is not. How it is got over is in `test_shared_broker.py`."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime.errors import BrokerUnavailable
from aibos_realtime.storage.prober import LIMIT, Prober
from aibos_realtime.testing.clock import ManualClock, settle


class Log:
    """It takes probes of two shards, and says how often it was told to hear everything anew."""

    shards = 2

    def __init__(self) -> None:
        self.is_connected = True
        self.silent: set[int] = set()
        self.down: set[int] = set()
        self.unheard: set[int] = set()
        """Shards whose probes the server knows nobody hears."""
        self.reconnects = 0
        self.prober: Any = None
        self.meanwhile: Any = lambda: None
        self.hangs = False

    async def probe(self, shard: int, token: str) -> bool:
        if self.hangs:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        if shard in self.down:
            raise BrokerUnavailable()
        self.meanwhile()
        if shard not in self.silent:
            self.prober.heard(shard, token)
        return shard not in self.unheard

    def reconnect(self) -> None:
        self.reconnects += 1


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.log = Log()
        self.answered = 0
        log: Any = self.log
        self.prober = self.log.prober = Prober(log, on_answered=self._count, clock=self.clock)

    def _count(self) -> None:
        self.answered += 1


@pytest.fixture
async def bench() -> Any:
    bench = Bench()
    bench.prober.start()
    await settle()
    yield bench
    await bench.prober.stop()
    await settle()
    assert bench.clock.planned == [] and not bench.prober.is_answered


async def test_one_shard_that_is_not_heard_is_enough(bench: Bench) -> None:
    await bench.clock.advance(10)
    assert bench.log.reconnects == 0 and bench.prober.is_answered and bench.answered == 1
    bench.log.silent = {1}
    await bench.clock.advance(LIMIT + 2.1)
    assert bench.log.reconnects == 1
    await bench.clock.advance(LIMIT - 1)
    assert bench.log.reconnects == 1, "it gets time to come back"
    await bench.clock.advance(3)
    assert bench.log.reconnects == 2


async def test_what_the_server_knows_nobody_hears_is_found_at_once(bench: Bench) -> None:
    bench.log.unheard = {0}
    await bench.clock.advance(1.1)
    assert bench.log.reconnects == 1
    bench.log.is_connected = False
    await bench.clock.advance(3)
    assert bench.log.reconnects == 1, "then it is known, and being mended"


async def test_a_connection_that_comes_up_while_a_probe_is_on_its_way_is_not_deaf(bench: Bench) -> None:
    bench.log.is_connected, bench.log.unheard = False, {0, 1}

    def connect() -> None:
        bench.log.is_connected = True

    bench.log.meanwhile = connect
    await bench.clock.advance(0.6)
    await bench.clock.advance(0.4)
    bench.log.unheard = set()
    await bench.clock.advance(5)
    assert bench.log.reconnects == 0


async def test_probes_that_were_not_taken_or_are_known_to_be_lost_say_nothing(bench: Bench) -> None:
    bench.log.down = {0}
    await bench.clock.advance(20)
    assert (bench.prober.is_answered, bench.log.reconnects) == (False, 0)
    bench.log.down = set()
    await bench.clock.advance(1)
    assert (bench.prober.is_answered, bench.answered, bench.log.reconnects) == (True, 2, 0)
    for _ in range(5):
        bench.log.silent = {0, 1}
        await bench.clock.advance(4)
        bench.log.silent = set()
        bench.prober.forget()
    assert bench.log.reconnects == 0


async def test_stopping_while_a_probe_is_on_its_way_leaves_nothing(bench: Bench) -> None:
    """What the fixture looks for."""
    bench.log.hangs = True
    await bench.clock.advance(1.1)


async def test_how_long_a_probe_takes_is_known(bench: Bench) -> None:
    bench.log.silent = {0, 1}
    await bench.clock.advance(1.2)
    bench.prober.heard(1, "of somebody else")
    assert bench.prober.lag == 0
    bench.prober.heard(0, "3")
    assert bench.prober.lag == pytest.approx(0.2)


async def test_a_fault_in_probing_is_logged_and_got_over(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.log.meanwhile = lambda: 1 / 0
    await bench.clock.advance(1.1)
    bench.log.meanwhile = lambda: None
    await bench.clock.advance(1.1)
    assert "failed in itself" in caplog.text and bench.prober.is_answered


async def test_a_probe_that_does_not_come_back_counts_for_as_long_as_it_is_away(bench: Bench) -> None:
    await bench.prober.probe()
    assert bench.prober.delay == 0.0
    bench.log.silent.add(1)
    await bench.prober.probe()
    await bench.clock.advance(3.0)
    assert bench.prober.lag == 0.0 and bench.prober.delay == pytest.approx(3.0)
    bench.log.silent.clear()
    bench.prober.forget()
    assert bench.prober.delay == 0.0
