"""What the dashboard costs a server while it is open: 10,000 silent connections in 1,000 rooms and one of 3,000, and a Chromium on each view.

    python -m benchmarks.dashboard

Needs Chromium (`scripts/browser find`). Shown is the CPU of the server's process, share of a core, beside that of the same server with no page open.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from contextlib import suppress
from typing import Any

from playwright.async_api import WebSocket, async_playwright

from aibos_realtime import RealtimeServer
from aibos_realtime.server.loop import new_event_loop
from aibos_realtime.testing.server import MemoryServer
from tests.browser.chromium import FLAGS, find_chromium
from tests.browser.dashboard import Dashboard

CONNECTIONS, ROOMS, LARGE = 10_000, 1_000, 3_000
SECRET = "0123456789abcdef" * 4
VIEWS = (
    "overview",
    "nodes",
    "rooms",
    "rooms/room_0001",
    "rooms/large",
    "connections",
    "connections?order=outbox",
    "connections?search=user99",
    "audit",
)


async def serve() -> None:
    """The server; it prints its port and a token."""
    off = dict.fromkeys(("handshakes_per_second", "handshakes_per_second_per_address", "connections_per_address"))
    server = RealtimeServer(
        host="127.0.0.1", port=0, authentication={"jwt_secret": SECRET}, authorization={"permissions": {"*": ["read", "write"]}},
        persistence={"database": {"url": "memory://"}}, connections={"max_connections": CONNECTIONS + 100},
        rooms={"max_rooms": ROOMS + 100, "max_users_per_room": CONNECTIONS}, heartbeat={"interval": None, "timeout": None}, limits=off,
    )  # fmt: skip
    await server.start()
    clients = MemoryServer(server)
    for number in range(CONNECTIONS):
        client = await clients.connect(f"user{number}", tenant_id=f"t{number % 50}", address=f"192.0.2.{number % 250}")
        await client.request("join-room", f"room_{number % ROOMS:04}")
        if number < LARGE:
            await client.request("join-room", "large")
    print(server.port, server.auth.issue(user_id="operator", role="operator"), flush=True)
    await asyncio.Event().wait()


class Meter:
    """CPU seconds of a process."""

    def __init__(self, pid: int) -> None:
        self._path = f"/proc/{pid}/stat"

    def read(self) -> float:
        with open(self._path) as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    async def share(self, seconds: float) -> float:
        """Percent of a core, over so many seconds."""
        before, began = self.read(), time.monotonic()
        await asyncio.sleep(seconds)
        return 100 * (self.read() - before) / (time.monotonic() - began)


async def measure(seconds: float) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "benchmarks.dashboard", "--serve", stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        port, token = (await process.stdout.readline()).decode().split()
        meter = Meter(process.pid)
        print(f"{'no page open':28} {await meter.share(seconds):5.2f} %")
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS, chromium_sandbox=False)
            page = await browser.new_page()
            received = [0]

            def count(frame: Any) -> None:
                received[0] += len(frame)

            def listen(socket: WebSocket) -> None:
                socket.on("framereceived", count)

            page.on("websocket", listen)
            board = await Dashboard.open(page, f"http://127.0.0.1:{port}", token)
            for view in VIEWS:
                await board.go(view)
                await asyncio.sleep(1)
                received[0] = 0
                share = await meter.share(seconds)
                print(f"{view:28} {share:5.2f} %   {received[0] / seconds / 1000:5.1f} KB/s")
            for view in ("rooms", "connections"):
                began = time.monotonic()
                await board.go(view)
                await page.locator("tbody tr").nth(99).wait_for()
                print(f"{view} shown after {1000 * (time.monotonic() - began):.0f} ms")
            await browser.close()
        print(f"{'no page open':28} {await meter.share(seconds):5.2f} %")
    finally:
        process.kill()
        await process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12.0, help="for each view")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=new_event_loop) as runner, suppress(KeyboardInterrupt):
        runner.run(serve() if given.serve else measure(given.seconds))


if __name__ == "__main__":
    main()
