"""Durable publishes per second: `broadcast_to_room` with 64 on the way, nobody listening, each acknowledged once the store has it.

python -m benchmarks.publishes                                     into SQLite, in a temporary directory
python -m benchmarks.publishes --postgres                          into a PostgreSQL of its own, of the tests' wheel, with fsync
python -m benchmarks.publishes --database-url postgresql://…       into yours, whose schema must be there
python -m benchmarks.publishes --database-url memory://            without a store, for comparison
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from contextlib import ExitStack
from typing import Any

from aibos_realtime import RealtimeServer
from aibos_realtime.server.loop import new_event_loop

DATA = {"invoiceId": "inv_001", "number": "2026-0001", "amount": 1000, "currency": "USD", "customer": "Example Ltd"}


async def measure(url: str, publishes: int, on_the_way: int, rooms: int, rounds: int) -> dict[str, Any]:
    """Rounds in one server; the median is the figure."""
    server = RealtimeServer(host="127.0.0.1", port=0, authentication={"jwt_secret": "benchmark" * 8}, persistence={"database": {"url": url}})
    await server.open()
    broadcaster, seconds, cpu = server.broadcaster, [], []

    async def publish(worker: int, count: int) -> None:
        room = f"tenant_{worker % rooms}"
        for _ in range(count):
            await broadcaster.broadcast_to_room(room, "invoice.created", DATA)

    try:
        for _ in range(rounds):
            began, cpu_began = time.perf_counter(), time.process_time()
            await asyncio.gather(*(publish(worker, publishes // on_the_way) for worker in range(on_the_way)))
            seconds.append(time.perf_counter() - began)
            cpu.append(time.process_time() - cpu_began)
        done = publishes // on_the_way * on_the_way
        return {
            "publishes per second": round(done / statistics.median(seconds)),
            "µs CPU per publish": round(statistics.median(cpu) / done * 1e6, 1),
            "events per commit": round(done * rounds / max(1, server.metrics.commits), 1),
        }
    finally:
        await server.stop(drain=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database-url", default="")
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--publishes", type=int, default=40_000)
    parser.add_argument("--on-the-way", type=int, default=64)
    parser.add_argument("--rooms", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    with ExitStack() as life, asyncio.Runner(loop_factory=new_event_loop) as runner:
        url = given.database_url or f"sqlite:///{life.enter_context(tempfile.TemporaryDirectory())}/benchmark.db"
        if given.postgres:
            from tests.servers.postgres import running_postgres

            url = life.enter_context(life.enter_context(running_postgres(is_durable=True)).database())
        print(json.dumps(runner.run(measure(url, given.publishes, given.on_the_way, given.rooms, given.rounds)), ensure_ascii=False, indent=2))


if __name__ == "__main__":
    main()
