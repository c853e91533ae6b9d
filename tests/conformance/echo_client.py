"""The client's own WebSocket against the Autobahn testsuite as a server: every case is a connection on which all messages are sent back.

    python -m tests.conformance.echo_client ws://127.0.0.1:23000

It dials as `RealtimeClient` does (`client.link.open_socket`), with compression, and with its limit raised to the suite's 32 MiB. The library's limit
of fragments is in the environment: WEBSOCKETS_MAX_FRAGMENTS=100000. Exit: 1 where a case ended in anything but the end of its connection.
"""

from __future__ import annotations

import asyncio
import sys

from websockets.exceptions import ConnectionClosed

from aibos_realtime.client.link import open_socket
from aibos_realtime.client.options import ClientOptions
from aibos_realtime.server.loop import new_event_loop

AGENT = "peer"
OPTIONS = ClientOptions(compression="deflate", max_message_bytes=32 * 1024 * 1024)


async def echo(url: str) -> None:
    """One connection, to its end."""
    socket = await open_socket(url, None, OPTIONS, None)
    try:
        while True:
            await socket.send(await socket.recv())
    except ConnectionClosed:
        pass
    finally:
        await socket.close()


async def count(url: str) -> int:
    socket = await open_socket(f"{url}/getCaseCount", None, OPTIONS, None)
    try:
        return int(await socket.recv())
    finally:
        await socket.close()


async def run(url: str) -> int:
    """Take every case. Returns how many ended in an exception that is none of a connection's end."""
    faults = 0
    for case in range(1, await count(url) + 1):
        try:
            await echo(f"{url}/runCase?case={case}&agent={AGENT}")
        except Exception as error:
            faults += 1
            print(f"case number {case}: {type(error).__name__}: {error}", file=sys.stderr)
    try:
        await echo(f"{url}/updateReports?agent={AGENT}&shutdownOnComplete=true")
    except Exception:
        pass  # the suite ends at once, without a goodbye
    return faults


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        sys.exit(min(1, runner.run(run(sys.argv[1]))))
