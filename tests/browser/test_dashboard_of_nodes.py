"""The dashboard of two nodes over one Redis; and with PICTURES=1 in the environment, the pictures of every view for the docs."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from aibos_realtime import RealtimeServer
from tests.browser.conftest import MakePage, MakeServer, Mint, address_of
from tests.browser.dashboard import Dashboard, People, add_queue, be_slow, draw_ten_minutes, populate, until_dead
from tests.servers.redis import RedisServer, running_redis

PICTURES = Path(__file__).parents[2] / "docs" / "how-to" / "pictures"
MOST_BYTES = 150 * 1024
DENSE = ("room", "connections", "audit")
Pair = tuple[RealtimeServer, RealtimeServer]


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest_asyncio.fixture(loop_scope="session")
async def nodes(start_server: MakeServer, redis: RedisServer, redis_prefix: str) -> AsyncIterator[Pair]:
    async def start(name: str) -> RealtimeServer:
        at = {"url": redis.url, "prefix": redis_prefix}
        return await start_server(
            prepare=add_queue,
            authorization={"permissions": {"*": ["read", "write"]}},
            scaling={"enabled": True, "redis": at, "instance_id": name, "instance_url": f"wss://{name}.realtime.example.com"},
            queue={"redis": at},
        )

    yield await start("one"), await start("two")


async def test_two_nodes(nodes: Pair, page: Page, mint: Mint) -> None:
    """What one node's page shows and does concerns both."""
    people = People(*nodes)
    ann, ben = await people.connect("ann", "lobby"), await people.connect("ben", "lobby", node=1)
    board = await Dashboard.open(page, address_of(nodes[0]), mint("olga", role="operator"))
    rows = board.panel("Nodes").locator("tbody tr")
    await expect(rows).to_have_count(2)
    await expect(page.locator(".heading .note")).to_contain_text("3 connections · 2 nodes")
    await rows.nth(1).locator("a").click()
    await expect(page.locator(".heading .note")).to_contain_text("wss://two.realtime.example.com")
    await board.go("rooms/lobby")
    await expect(board.panel("Members").locator("tbody tr")).to_have_count(2)
    await ben.request("note", {"n": 1}, room="lobby")
    await expect(page.locator("ol.events li:not(.empty)")).to_have_count(1)
    await page.get_by_role("button", name="Kick ben").click()
    await board.confirm("Kick")
    assert (await ben.receive("room-closed"))["data"]["roomId"] == "lobby"
    await board.go(f"connections/{ben.socket.id}")
    await expect(board.fact("Node")).to_have_text("two")
    await page.get_by_role("button", name="Disconnect").click()
    await board.confirm("Disconnect")
    assert await ben.closed() == 4503
    await expect(page.locator(".heading .badge")).to_have_text("gone")
    await expect(board.row("disconnect").first).to_contain_text("4503")
    assert not ann.socket.closing
    await nodes[1].stop(0)
    await board.go("nodes")
    await expect(board.page.locator("tbody tr")).to_have_count(1)


@pytest.mark.skipif(not os.environ.get("PICTURES"), reason="writes files of the docs: asked for by PICTURES=1")
@pytest.mark.timeout(120)
async def test_pictures(nodes: Pair, new_page: MakePage, mint: Mint) -> None:
    people = People(*nodes)
    await populate(nodes, people, 240)
    for number in range(4):
        await nodes[0].queue.send("receipts", {"to": f"user{number}@example.com", "invoiceId": f"inv_{number:03}", "amount": 99.5 + number})
    async with asyncio.timeout(20):
        await until_dead(nodes[0], "receipts", 4)
    for number, node in enumerate(nodes):
        draw_ten_minutes(node, number)
    token, socket_id = mint("olga", role="operator", expires_in=7200), people.clients[6].socket.id
    wide: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"}
    phone: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "reduced_motion": "reduce"}
    be_slow(people, 7)
    routes = {
        "overview": "overview",
        "nodes": "nodes",
        "node": f"nodes/{nodes[0]._operation.figures._id}",
        "rooms": "rooms",
        "room": "rooms/tenant_acme",
        "connections": "connections?order=outbox",
        "connection": f"connections/{socket_id}",
        "queues": "queues",
        "queue": "queues/receipts",
        "audit": "audit",
    }
    PICTURES.mkdir(exist_ok=True)
    await act(await Dashboard.open(await new_page(**wide), address_of(nodes[0]), token))
    for scheme, names in (("light", list(routes)), ("dark", ["overview", "room", "audit"])):
        page = await new_page(color_scheme=scheme, **wide)
        board = await Dashboard.open(page, address_of(nodes[0]), token)
        for name in names:
            await page.set_viewport_size({"width": 1280, "height": 560 if name in DENSE else 800})
            await take(board, routes[name], PICTURES / f"{name}-{scheme}.png")
    page = await new_page(color_scheme="dark", **phone)
    board = await Dashboard.open(page, address_of(nodes[0]), token)
    await take(board, "overview", PICTURES / "phone-dark.png")
    page = await new_page(color_scheme="light", **wide)
    await page.goto(f"{address_of(nodes[0])}/dashboard/")
    await page.screenshot(path=PICTURES / "login-light.png", clip={"x": 340, "y": 150, "width": 600, "height": 500})


async def act(board: Dashboard) -> None:
    """What an operator has done, for the audit log."""
    await board.go("rooms/tenant_hooli")
    await board.page.get_by_role("button", name=re.compile("^Kick")).first.click()
    await board.confirm("Kick")
    await board.go("connections?search=umbrella")
    await board.page.locator("tbody a").first.click()
    await board.page.get_by_role("button", name="Disconnect").click()
    await board.confirm("Disconnect")
    await expect(board.page.locator(".heading .badge")).to_have_text("gone")


async def take(board: Dashboard, route: str, path: Path) -> None:
    """A picture of a view that is at rest, as far as something is known in it."""
    await board.go(route)
    await board.page.wait_for_load_state("networkidle")
    await expect(board.page.locator("figure.chart canvas, tbody tr, ol.events li, ol.letters li").first).to_be_visible()
    await board.look_again()
    await board.page.wait_for_function("document.querySelectorAll('.heading .note:empty').length < 1 || document.querySelector('.panel dd')")
    picture = await board.page.screenshot(path=path)
    assert len(picture) <= MOST_BYTES, f"{path.name}: {len(picture)} bytes"
