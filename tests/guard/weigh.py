"""What an idle client keeps in memory: one that came with a token of its own, and joined a room. In Python's objects; the event loop's are not there.

Run as `python -m tests.guard.weigh`, by `measure`. Prints bytes per client.
"""

from __future__ import annotations

import asyncio
import gc
import tracemalloc

from aibos_realtime.server.loop import new_event_loop

from .rig import Net, net

CLIENTS = 1000
WARM_UP = 50


async def weigh() -> float:
    async with net() as running:
        requests = [running.handshake(f"user-{number}") for number in range(WARM_UP + CLIENTS)]
        await come(running, requests[:WARM_UP])
        gc.collect()
        tracemalloc.start()
        streams = await come(running, requests[WARM_UP:])
        gc.collect()
        snapshot = tracemalloc.take_snapshot()
        tracemalloc.stop()
        assert len(streams) == CLIENTS and len(running.server.pool) == CLIENTS + WARM_UP
    ours = snapshot.filter_traces([tracemalloc.Filter(False, "*/tests/guard/*"), tracemalloc.Filter(False, tracemalloc.__file__)])
    return sum(trace.size for trace in ours.traces) / CLIENTS


async def come(net: Net, requests: list[bytes]) -> list[object]:
    """A client for each request, in one room and idle from then on."""
    streams: list[object] = []
    for request in requests:
        client = net.open(request)
        await asyncio.sleep(0)
        client.join("live:hall")
        await asyncio.sleep(0)
        streams.append(client.stream)
    return streams


def main() -> None:
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        print(runner.run(weigh()))


if __name__ == "__main__":
    main()
