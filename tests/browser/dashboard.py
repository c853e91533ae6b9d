"""An operator at the dashboard, and a server on which something goes on: people in rooms, events, dead letters, ten minutes of figures."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Sequence
from typing import Any

from playwright.async_api import Locator, Page, expect

from aibos_realtime import RealtimeServer
from aibos_realtime.admin.reports import Sample
from aibos_realtime.testing.server import MemoryClient, MemoryServer

VIEWS = {
    "overview": "Overview",
    "nodes": "Nodes",
    "rooms": "Rooms",
    "connections": "Connections",
    "queues": "Queues",
    "audit": "Audit",
}


class Dashboard:
    """One operator's page."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address

    @classmethod
    async def open(cls, page: Page, address: str, token: str, view: str = "overview") -> Dashboard:
        """Log in by a link, and wait until the page is live."""
        board = cls(page, address)
        await page.goto(f"{address}/dashboard/#token={token}")
        await board.until_live()
        if view != "overview":
            await board.go(view)
        return board

    async def until_live(self) -> None:
        await expect(self.page.locator(".top .badge")).to_have_text("live")

    async def go(self, view: str) -> None:
        """To a view by its address, and until its data are there."""
        await self.page.evaluate("view => { location.hash = `#/${view}` }", view)
        await expect(self.page.locator(f".view.{view.split('/')[0].split('?')[0]} h1")).to_be_visible()

    async def look_again(self) -> None:
        """Have the page ask at once, as it does when its tab comes to the front."""
        await self.page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    @property
    def heading(self) -> Locator:
        return self.page.locator("h1")

    def panel(self, name: str) -> Locator:
        return self.page.get_by_role("region", name=name, exact=True).first

    def row(self, text: str) -> Locator:
        return self.page.locator("tbody tr", has_text=text)

    def fact(self, name: str) -> Locator:
        return self.page.locator("dl.facts > div").filter(has=self.page.get_by_text(name, exact=True)).locator("dd").first

    async def confirm(self, act: str) -> None:
        await self.page.locator("dialog").get_by_role("button", name=act, exact=True).click()

    async def events(self) -> list[int]:
        """The offsets of the events that a room's page shows, the newest first."""
        found = await self.page.locator("ol.events .offset").all_inner_texts()
        return [int(text.replace(",", "")) for text in found]


class People:
    """Users in memory on servers that run, until the end."""

    def __init__(self, *servers: RealtimeServer) -> None:
        self.servers = [MemoryServer(server) for server in servers]
        self.clients: list[MemoryClient] = []

    async def connect(self, user: str, *rooms: str, node: int = 0, **who: Any) -> MemoryClient:
        client = await self.servers[node].connect(user, **who)
        self.clients.append(client)
        for room in rooms:
            await client.request("join-room", room)
        return client


def add_queue(server: RealtimeServer) -> None:
    """A queue whose messages are given up at once."""

    @server.queue.process("receipts", max_attempts=1)
    async def send(message: Any) -> None:
        if not message.data.get("good"):
            raise ValueError(f"no mailbox for {message.data['to']}")


TENANTS = ("acme", "globex", "initech", "umbrella", "hooli")
NAMES = ("ann", "ben", "cleo", "dan", "eva", "finn", "gus", "hana", "ivo", "june", "kai", "lena")


async def populate(servers: Sequence[RealtimeServer], people: People, count: int = 36) -> None:
    """A small office day: tenants' rooms, `count` users, events with amounts; deterministic."""
    chance = random.Random(5)
    for number in range(count):
        tenant, name = TENANTS[number % len(TENANTS)], NAMES[number % len(NAMES)] + (f"{number // 60}" if number >= 60 else "")
        rooms = [f"tenant_{tenant}", *([f"invoice_{number % 7:03}"] if number % 3 == 0 else [])]
        who = {"role": "admin" if number % 9 == 0 else "accountant", "tenant_id": tenant, "address": f"192.0.2.{10 + number % 240}"}
        await people.connect(f"{name}.{tenant}", *rooms, node=number % len(servers), **who)
    for number in range(140):
        event = ("invoice.created", "payment.processed", "bill.updated")[number % 3]
        data = {"invoiceId": f"inv_{number:03}", "amount": chance.randrange(1_000, 90_000) / 100, "currency": "EUR", "status": "open"}
        await people.clients[(number % 2) + 5 * (number % 7)].request(event, data, room=f"tenant_{TENANTS[number % 2]}")
    people.clients[3].close(1001)
    people.clients[4].cut()
    await servers[0].set_role("ben.globex", "auditor")


def draw_ten_minutes(server: RealtimeServer, number: int = 0) -> None:
    """Give a node a past, and hold its figures there: what it would have sampled in ten minutes of an office day."""
    chance, figures = random.Random(number), server._operation.figures
    figures.stop()
    now, samples, people, memory = server._clock.now(), figures._samples, figures.connections, figures.report().memory
    samples.clear()
    messages = events = deliveries = bytes_in = bytes_out = 0
    for second in range(600):
        busy = 1.0 + 0.35 * math.sin(second / 70 + number) + (1.1 if 380 < second < 420 and number == 0 else 0.0) + chance.uniform(-0.12, 0.12)
        events += (added := int(42 * busy))
        messages += added + int(18 * busy)
        deliveries += added * people // 5
        bytes_in, bytes_out = bytes_in + added * 240, bytes_out + added * people // 5 * 310
        lag = 0.0012 + 0.0009 * busy + (0.021 if second in (391, 402, 403) and number == 0 else 0.0) + chance.expovariate(2500)
        there = people - int((people / 12) * (1 - second / 600) + people / 25 * math.sin(second / 90 + number) ** 2 * (1 - second / 600))
        samples.append(
            Sample(
                time=now - 600 + second,
                connections=there,
                rooms=12,
                messages_in=messages,
                events=events,
                deliveries=deliveries,
                bytes_in=bytes_in,
                bytes_out=bytes_out,
                latency_p50=0.0011 * busy,
                latency_p99=0.0039 * busy + lag,
                loop_lag=lag,
                cpu=0.11 * busy,
                memory=memory - int(9e3 * (600 - second)),
            )  # fmt: skip
        )
    figures._worst, figures._cpu = samples[-1].loop_lag, samples[-1].cpu
    server.pool.metrics.latencies.extend(chance.expovariate(700) for _ in range(200))


def be_slow(people: People, number: int = 7) -> MemoryClient:
    """One who does not read: something waits for him, and he is closed for it ten seconds later."""
    client = people.clients[number]
    for _ in range(14):
        client.socket.emit("report.page", "x" * 16_000)
    return client


async def until_dead(server: RealtimeServer, queue: str, count: int) -> None:
    """Wait until so many messages of a queue were given up. The caller bounds the time."""
    while True:
        if (await server.queue.stats(queue)).dead >= count:
            return
        await asyncio.sleep(0)
