"""The browser client in Chromium against a real server: what it promises over kills, restarts, sleep, and the other things that happen to a page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio
from playwright.async_api import Page

from aibos_realtime import RealtimeClient, RealtimeServer
from tests.browser.chromium import PlainBrowser
from tests.browser.conftest import MakePage, MakeProcess, Mint, address_of
from tests.browser.listening import Listener, Publisher
from tests.faults.processes import Server

MakePublisher = Callable[[Server, str], Awaitable[Publisher]]


@pytest_asyncio.fixture(loop_scope="session")
async def publisher_for(mint: Mint) -> AsyncIterator[MakePublisher]:
    async with AsyncExitStack() as clients:

        async def make(server: Server, room: str) -> Publisher:
            client = RealtimeClient(server.url, token=mint("publisher", role="service"), random=lambda: 0.0)
            return Publisher(await clients.enter_async_context(client), room)

        yield make


@pytest.mark.timeout(90)
async def test_a_server_that_is_killed_and_comes_back_costs_no_event(
    new_page: MakePage, start_process: MakeProcess, mint: Mint, publisher_for: MakePublisher
) -> None:
    """Two people in one room, one of them in another one too; the publisher goes on while the server is away."""
    server = await start_process()
    both = await Listener.open(await new_page(), address_of(server), mint("ann"), "tenant_1", "tenant_2")
    one = await Listener.open(await new_page(), address_of(server), mint("ben"), "tenant_1")
    first, second = await publisher_for(server, "tenant_1"), await publisher_for(server, "tenant_2")
    for _ in range(3):
        for listener in (both, one):
            await listener.until("client.state === 'connected'")
        await first.publish(10)
        await second.publish(5)
        going_on = asyncio.gather(first.publish(20), second.publish(10))
        await server.kill()
        await server.start()
        await going_on
    await both.hear_all(first.receipts, "tenant_1")
    await both.hear_all(second.receipts, "tenant_2")
    await one.hear_all(first.receipts, "tenant_1")
    assert (await one.seen())["life"].count("disconnect") == 3


async def test_a_server_that_stops_well_costs_no_event(page: Page, start_process: MakeProcess, mint: Mint, publisher_for: MakePublisher) -> None:
    """SIGTERM: the clients are told to come back, and the close code says so."""
    server = await start_process()
    listener = await Listener.open(page, address_of(server), mint("ann"), "tenant_1")
    publisher = await publisher_for(server, "tenant_1")
    await publisher.publish(10)
    await server.stop()
    await server.start()
    await publisher.publish(10)
    await listener.hear_all(publisher.receipts, "tenant_1")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def plain_browser() -> AsyncIterator[PlainBrowser]:
    async with PlainBrowser.run() as browser:
        yield browser


@pytest.mark.timeout(90)
async def test_an_hour_of_sleep_offline_and_restarts(
    plain_browser: PlainBrowser, start_process: MakeProcess, mint: Mint, publisher_for: MakePublisher
) -> None:
    """A page that is open all day: put away by the browser, behind a closed lid, without a network, and its server restarts the while.

    Each time, far more is published than the hot log of the room keeps: it comes from the database.
    """
    server = await start_process(pattern={"history_size": 20})
    page = await plain_browser.context.new_page()
    await page.clock.install()
    listener = await Listener.open(page, address_of(server), mint("ann"), "tenant_1", heartbeat={"interval": 2000, "timeout": 4000})
    publisher = await publisher_for(server, "tenant_1")
    lifecycle = await page.context.new_cdp_session(page)

    async def count() -> int:
        return len((await listener.seen())["events"])

    async def go_on() -> None:
        await publisher.publish(60)
        await server.kill()
        await server.start()
        await publisher.publish(60)

    await publisher.publish(10)
    await lifecycle.send("Page.setWebLifecycleState", {"state": "frozen"})
    before = await count()
    await go_on()
    assert await count() == before, "it was not frozen"
    await lifecycle.send("Page.setWebLifecycleState", {"state": "active"})
    await page.clock.fast_forward("15:00")
    await listener.hear_all(publisher.receipts, "tenant_1")

    plain_browser.close_lid()
    await go_on()
    plain_browser.open_lid()
    await page.clock.fast_forward("15:00")
    await listener.hear_all(publisher.receipts, "tenant_1")

    await page.context.set_offline(True)
    await go_on()
    assert await count() < len(publisher.receipts), "it was not offline"
    await page.clock.fast_forward("15:00")
    await page.context.set_offline(False)
    await listener.hear_all(publisher.receipts, "tenant_1")

    await page.clock.fast_forward("15:00")  # awake, and its timers were held back
    await go_on()
    await listener.hear_all(publisher.receipts, "tenant_1")
    await page.close()


async def test_back_and_forward(plain_browser: PlainBrowser, start_process: MakeProcess, mint: Mint, publisher_for: MakePublisher) -> None:
    """A page that was left and is gone back to comes out of the back/forward cache as it was, and catches up."""
    server = await start_process()
    page = await plain_browser.context.new_page()
    await skip_without_cache(page, address_of(server))
    listener = await Listener.open(page, address_of(server), mint("ann"), "tenant_1")
    publisher = await publisher_for(server, "tenant_1")
    await publisher.publish(5)
    await listener.hear_all(publisher.receipts, "tenant_1")
    await page.goto(f"{address_of(server)}/health")
    await publisher.publish(20)
    await page.go_back(wait_until="commit")
    assert (await listener.seen()).get("events"), "it was loaded anew: something keeps it out of the cache"
    await publisher.publish(5)
    await listener.hear_all(publisher.receipts, "tenant_1")
    await page.close()


async def skip_without_cache(page: Page, address: str) -> None:
    """Chromium's headless shell keeps no page that was left."""
    await page.goto(f"{address}/client.js")
    await page.evaluate("() => { window.isKept = true; }")
    await page.goto(f"{address}/health")
    await page.go_back(wait_until="commit")
    if not await page.evaluate("() => window.isKept"):
        pytest.skip("needs a Chromium with a back/forward cache")


async def test_a_bad_token_is_told_once_and_not_tried_again(page: Page, server: RealtimeServer, mint: Mint) -> None:
    token = mint("ann")[:-4] + "AAAA"
    await page.clock.install()
    listener = await Listener.open(page, address_of(server), token, "tenant_1", wait=False)
    await listener.until("document.title.startsWith('Failed')")
    await page.clock.fast_forward("01:00:00")
    await page.evaluate("() => fetch('/health')")  # an attempt that was due would have been made before
    seen = await listener.seen()
    assert await page.title() == "Failed: AuthenticationError not_authenticated"
    assert ([error["name"] for error in seen["errors"]], seen["life"], seen["state"]) == (["AuthenticationError"], [], "disconnected")
    assert server.metrics.authentications_failed == 1
    assert token not in str(seen["errors"])


async def test_close_codes_after_which_it_comes_back(page: Page, server: RealtimeServer, mint: Mint) -> None:
    listener = await Listener.open(page, address_of(server), mint("ann", tenant_id="1"), "tenant_1")
    for number, code in enumerate([4001, 4004, 4008, 4011, 4015, 1001, 1011], 1):
        await server.disconnect(user_id="ann", code=code)
        await listener.until("seen.life.filter((word) => word === 'reconnect').length === wanted && client.state === 'connected'", number)
        await server.broadcaster.broadcast_to_room("tenant_1", "tick", {"n": code})
        await listener.until("seen.events.at(-1)?.n === wanted", code)
    assert len((await listener.seen())["events"]) == number


@pytest.mark.parametrize("code", [4500, 4503, 4507, 4509])
async def test_close_codes_after_which_it_stays_away(code: int, page: Page, server: RealtimeServer, mint: Mint) -> None:
    listener = await Listener.open(page, address_of(server), mint("ann", tenant_id="1"), "tenant_1")
    await server.disconnect(user_id="ann", code=code)
    await listener.until("client.state === 'disconnected'")
    seen = await listener.seen()
    assert seen["life"].count("disconnect") == 1 and len(seen["errors"]) == 1 and len(server.pool) == 0


async def test_a_network_that_comes_back_is_noticed_at_once(page: Page, start_process: MakeProcess, mint: Mint, publisher_for: MakePublisher) -> None:
    """The next attempt would be a minute away; the word of the browser that it is online again brings it forward."""
    server = await start_process()
    listener = await Listener.open(page, address_of(server), mint("ann"), "tenant_1", reconnectInterval=60_000)
    publisher = await publisher_for(server, "tenant_1")
    await page.context.set_offline(True)
    await server.kill()
    await listener.until("client.state === 'reconnecting'")
    await server.start()
    await publisher.publish(5)
    await page.context.set_offline(False)
    await listener.hear_all(publisher.receipts, "tenant_1")
