"""Thousands of the product's clients on a virtual clock, before servers that behave badly: when they come back, and how they are spread.

    python -m tests.model.crowd --clients 10000

The clients are whole but for the wire: in the place of a dialled connection stands one in memory.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import math
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

from aibos_realtime import RealtimeClient
from aibos_realtime.client import reconnect
from aibos_realtime.client.options import ClientOptions
from aibos_realtime.client.wire import JsonWire
from aibos_realtime.errors import ConnectionClosed, ConnectionError, ConnectionLimitExceeded, RealtimeError
from aibos_realtime.protocol.messages import ServerMessage
from aibos_realtime.testing.clock import ManualClock, settle
from tests.arguments import count

TICK = 0.05
"""Seconds within which what is due happens together."""
GREETING = {"socketId": "s", "protocol": 1, "node": "n", "user": None, "expiresAt": None, "heartbeat": {"interval": 30, "timeout": 60}, "limits": {}}


class CrowdClock(ManualClock):
    """A manual clock that goes on in ticks: thousands of timers of one tick are one turn."""

    async def advance(self, seconds: float) -> None:
        target = self._monotonic + seconds
        while self._monotonic < target:
            self._monotonic = min(target, self._monotonic + TICK)
            while self._timers and self._timers[0][0] <= self._monotonic:
                timer = heapq.heappop(self._timers)[2]
                if not timer.is_cancelled:
                    timer.callback(*timer.args)
            await settle(12)


class CrowdLink:
    """See `client.link.Link`. `words`: messages that come at once; then `close` says when it ends, and how."""

    wire = JsonWire()
    url, server = "ws://server.example", "server.example"

    def __init__(self, words: list[ServerMessage]) -> None:
        self.greeting: Any = GREETING
        self.early: list[tuple[ServerMessage, int]] = [(word, 1) for word in words]
        self.closed: asyncio.Future[ConnectionClosed] = asyncio.get_running_loop().create_future()

    async def receive(self) -> tuple[ServerMessage, int]:
        raise await asyncio.shield(self.closed)

    async def send(self, payload: bytes) -> None: ...

    async def ping(self) -> None: ...

    async def close(self, code: int = 1000, reason: str = "") -> None:
        self.end(code)

    def abort(self) -> None:
        self.end(1006)

    def end(self, code: int) -> None:
        if not self.closed.done():
            self.closed.set_result(ConnectionClosed(close_code=code))


class Crowd:
    """`serve(link)`: what becomes of an attempt; it raises, or returns the link. `attempts`: when each client tried, by the virtual clock."""

    def __init__(self, count: int, seed: int, *, serve: Callable[[CrowdLink], CrowdLink], token: Any = None, url: Any = None) -> None:
        self.clock = CrowdClock()
        self.serve = serve
        self.links: dict[int, CrowdLink] = {}
        self.attempts: list[list[float]] = [[] for _ in range(count)]
        self.failures: dict[int, RealtimeError] = {}
        source = random.Random(seed)
        self.clients = [
            RealtimeClient(url or "ws://server.example", token=token, clock=self.clock, random=source.random, connect_timeout=600.0 + number)
            for number in range(count)
        ]  # the time-out tells `dial` who it is for
        self._connecting: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        self._connecting = [asyncio.ensure_future(self._connect(number)) for number in range(len(self.clients))]
        await self.clock.advance(TICK)

    async def _connect(self, number: int) -> None:
        try:
            await self.clients[number].connect()
        except RealtimeError as error:
            self.failures[number] = error

    async def dial(self, url: str, token: str | None, options: ClientOptions, *_: Any) -> CrowdLink:
        number = round(options.connect_timeout - 600.0)
        self.attempts[number].append(self.clock.monotonic())
        link = self.serve(CrowdLink([]))
        self.links[number] = link
        return link

    async def stop(self) -> None:
        closing = [asyncio.ensure_future(client.close()) for client in self.clients]
        await self.clock.advance(1.0)
        await asyncio.gather(*closing, *self._connecting)

    @contextmanager
    def dialled(self) -> Iterator[None]:
        """While this holds, every client's connection is one of the crowd's."""
        module: Any = reconnect
        kept, module.dial = module.dial, self.dial
        try:
            yield
        finally:
            module.dial = kept


# — servers —


def refuse(link: CrowdLink) -> CrowdLink:
    """Nothing listens."""
    raise ConnectionError("Nothing listens.")


def ask_to_wait(seconds: float) -> Callable[[CrowdLink], CrowdLink]:
    """503 with `Retry-After`."""

    def serve(link: CrowdLink) -> CrowdLink:
        raise ConnectionLimitExceeded("full", details={"retryAfter": seconds})

    return serve


def accept(link: CrowdLink) -> CrowdLink:
    return link


def close_at_once(code: int, *, says: dict[str, Any] | None = None) -> Callable[[CrowdLink], CrowdLink]:
    """A good handshake, and a close right after it. `says`: of when to come back."""

    def serve(link: CrowdLink) -> CrowdLink:
        if says is not None:
            link.early.append((ServerMessage("reconnect", says), 1))
        link.end(code)
        return link

    return serve


# — figures —


def distance_from_uniform(values: list[float], low: float, high: float) -> float:
    """Kolmogorov-Smirnov: see `bound_of`."""
    ordered = sorted((value - low) / (high - low) for value in values)
    return max(max(abs(value - rank / len(ordered)), abs(value - (rank + 1) / len(ordered))) for rank, value in enumerate(ordered))


def bound_of(count: int, span: float) -> float:
    """For p = 0.01, and for what is seen up to two ticks late."""
    return 1.63 / math.sqrt(count) + 2 * TICK / span


def fullest_bucket(values: list[float], width: float, span: float) -> float:
    """How many times the mean the fullest bucket holds."""
    counts: dict[int, int] = {}
    for value in values:
        counts[int(value / width)] = counts.get(int(value / width), 0) + 1
    return max(counts.values()) * span / width / len(values)


def correlation(one: list[float], other: list[float]) -> float:
    means = [sum(some) / len(some) for some in (one, other)]
    spread = [sum((value - mean) ** 2 for value in some) ** 0.5 for some, mean in zip((one, other), means, strict=True)]
    covariance = sum((a - means[0]) * (b - means[1]) for a, b in zip(one, other, strict=True))
    return float(covariance / (spread[0] * spread[1]))


async def count_attempts(count: int, serve: Callable[[CrowdLink], CrowdLink], seconds: float, *, seed: int = 1, **options: Any) -> list[int]:
    """How often each client tries within a time."""
    crowd = Crowd(count, seed, serve=serve, **options)
    with crowd.dialled():
        await crowd.start()
        await crowd.clock.advance(seconds)
        found = [len(times) for times in crowd.attempts]
        await crowd.stop()
    return found


async def watch_outage(count: int, seconds: float, *, seed: int = 1) -> tuple[list[list[float]], float]:
    """All are cut off together while nothing listens for `seconds`: each one's delays, and when the last is back."""
    crowd = Crowd(count, seed, serve=accept)
    with crowd.dialled():
        await crowd.start()
        await crowd.clock.advance(10.0)
        cut_at, crowd.serve = crowd.clock.monotonic(), refuse
        for link in crowd.links.values():
            link.end(1006)
        await crowd.clock.advance(seconds)
        crowd.serve = accept
        await crowd.clock.advance(21.0)
        assert all(client.state == "connected" for client in crowd.clients)
        await crowd.stop()
    times = [[cut_at, *tries[1:]] for tries in crowd.attempts]
    return [[b - a for a, b in pairwise(tries)] for tries in times], max(tries[-1] for tries in times) - cut_at


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.model.crowd", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=count, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    delays, last = asyncio.run(watch_outage(given.clients, 30.0, seed=given.seed))
    print(f"{given.clients} clients cut off together for 30 s: the last is back {last - 30.0:.1f} s after the end")
    for wave, ceiling in enumerate((5.0, 10.0, 20.0)):
        wide = [one[wave] for one in delays if len(one) > wave]
        far, bound, fullest = distance_from_uniform(wide, 0.0, ceiling), bound_of(len(wide), ceiling), fullest_bucket(wide, 0.1, ceiling)
        print(f"  wave {wave + 1}: {len(wide)} delays, fullest 100 ms {fullest:.2f} × the mean, KS {far:.4f} (bound {bound:.4f})")
    both = [one for one in delays if len(one) > 1]
    print(f"  correlation of the first two delays: {correlation([one[0] for one in both], [one[1] for one in both]):+.3f}")
    behaviours = {
        "refused": refuse, "closed at once (4015)": close_at_once(4015), "closed at once, with no delay announced":
        close_at_once(4001, says={"delayMin": 0, "delayMax": 0, "reason": "x"}), "503 with Retry-After 7": ask_to_wait(7.0),
    }  # fmt: skip
    for name, serve in behaviours.items():
        found = asyncio.run(count_attempts(min(given.clients, 2000), serve, 120.0, seed=given.seed))
        print(f"  {name}: {sum(found) / len(found):.1f} attempts of a client in 2 minutes, {max(found)} at most")
    return 0


if __name__ == "__main__":
    sys.exit(main())
