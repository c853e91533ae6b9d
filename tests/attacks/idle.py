"""Many clients that say nothing but pongs: what each costs, whether all are pinged, and whether one of them is dropped that should not be.

python -m tests.attacks.idle --connections 10000 --seconds 600
"""

from __future__ import annotations

import argparse
import asyncio
import os
import selectors
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aibos_realtime.protocol.frames import CLOSE, PING, PONG
from tests.arguments import amount, count
from tests.attacks.arena import Field, Toll, fought
from tests.faults.processes import Zygote
from tests.network.raw import frame, request

PATIENCE = 30.0
SOURCES = 4
"""Addresses of this machine from which they come: one has 28,000 ports."""


@dataclass
class Found:
    """`bytes_each`: resident, of the server; `core`: its share while they were silent."""

    opened_a_second: float = 0.0
    bytes_each: float = 0.0
    core: float = 0.0
    pings: int = 0
    dropped: int = 0


class Crowd:
    """The clients, in a thread of their own."""

    def __init__(self, field: Field, connections: int) -> None:
        self._field = field
        self._connections = connections
        self._selector = selectors.DefaultSelector()
        self._end = threading.Event()
        self.pings = self.dropped = 0

    def open(self) -> None:
        """One after the other; each is a user of his own."""
        for number in range(self._connections):
            source = f"127.0.0.{1 + number % SOURCES}"
            one = socket.create_connection(("127.0.0.1", self._field.port), timeout=PATIENCE, source_address=(source, 0))
            one.sendall(request(f"Authorization: Bearer {self._field.token(f'user_{number}')}"))
            while b'"connected"' not in (said := one.recv(65536)):
                assert said, "the server turned a client away"
            self._selector.register(one, selectors.EVENT_READ)

    def answer(self) -> None:
        """Answer pings, until `stop`."""
        while not self._end.is_set():
            for key, _ in self._selector.select(0.1):
                self._hear(key.fileobj)

    def stop(self) -> None:
        self._end.set()

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _hear(self, one: Any) -> None:
        data = one.recv(4096)
        if not data or data[0] & 15 == CLOSE:
            self.dropped += 1
            self._selector.unregister(one)
            one.close()
        elif data[0] & 15 == PING:
            self.pings += 1
            one.sendall(frame(PONG))


async def hold(field: Field, connections: int, seconds: float) -> Found:
    """Have so many silent for so long."""
    found, crowd = Found(), Crowd(field, connections)
    before, begin = field.memory(), time.perf_counter()
    await asyncio.to_thread(crowd.open)
    found.opened_a_second = round(connections / (time.perf_counter() - begin))
    found.bytes_each = round((field.memory() - before) / connections)
    answering = asyncio.ensure_future(asyncio.to_thread(crowd.answer))
    used, begin = cpu_seconds(field), time.perf_counter()
    await asyncio.wait((asyncio.get_running_loop().create_future(),), timeout=seconds)
    found.core = round((cpu_seconds(field) - used) / (time.perf_counter() - begin), 3)
    report = await field.report()
    crowd.stop()
    await answering
    found.pings, found.dropped = crowd.pings, connections + 1 - report["connections"]
    crowd.close()
    return found


def cpu_seconds(field: Field) -> float:
    """Of the server, since it began."""
    fields = Path(f"/proc/{field.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def run(connections: int, seconds: float) -> None:
    zygote = Zygote()
    options: dict[str, Any] = {"connections": {"max_connections": connections + 10}, "heartbeat": {"interval": 25.0, "timeout": 35.0}}
    try:
        tolls: list[Toll] = []
        async with fought(zygote, tolls, "idle", attackers=connections, p99=PATIENCE, **options) as field:
            print(await hold(field, connections, seconds))
        print(*tolls, *(line for line in field.process.lines if "event loop" in line or "garbage" in line), sep="\n")
    finally:
        zygote.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=count, default=10_000)
    parser.add_argument("--seconds", type=amount, default=60.0)
    given = parser.parse_args()
    asyncio.run(run(given.connections, given.seconds))


if __name__ == "__main__":
    main()
