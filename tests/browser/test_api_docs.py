"""The page that shows the HTTP API, in a browser: under its strict policy, from no other host, alone and mounted, it can be tried out."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from playwright.async_api import Page

from aibos_realtime import RealtimeServer
from tests.browser.conftest import MakePage
from tests.unit.admin.api.rig import KEY, OPTIONS

PUBLISH = "#operations-publishing-publish"
HISTORY = "#operations-rooms-getHistory"


async def open_docs(page: Page, base: str) -> list[str]:
    """Go there; the hosts that are asked for anything."""
    hosts: list[str] = []
    page.on("request", lambda request: hosts.append(request.url) if not request.url.startswith(("data:", base)) else None)
    await page.goto(f"{base}/api/docs")
    await page.locator(".opblock").first.wait_for()
    return hosts


async def try_out(page: Page, operation: str) -> None:
    await page.click(f"{operation} .opblock-summary")
    await page.click(f"{operation} .try-out__btn")


async def answer_of(page: Page, operation: str) -> str:
    await page.click(f"{operation} .execute")
    return await page.locator(f"{operation} .live-responses-table").inner_text()


@pytest.mark.parametrize("prefix", ["", "/realtime"])
async def test_the_api_is_shown_and_can_be_tried_out(new_page: MakePage, prefix: str) -> None:
    server = RealtimeServer(**OPTIONS)
    if prefix:
        app = FastAPI()
        app.mount(prefix, server.asgi())
        server.host_app(app, prefix)
    async with server:
        page = await new_page()
        hosts = await open_docs(page, f"http://127.0.0.1:{server.port}{prefix}")
        assert await page.locator(".opblock").count() == 20
        await page.click(".authorize")
        await page.locator(".auth-container input").nth(1).fill(KEY)
        await page.locator(".auth-btn-wrapper .authorize").nth(1).click()
        await page.click(".close-modal")
        await try_out(page, PUBLISH)
        await page.fill(f"{PUBLISH} textarea", '{"room": "a/b", "event": "shown", "data": "<img src=x onerror=alert(1)>"}')
        assert '"offset": 1' in await answer_of(page, PUBLISH)
        await try_out(page, HISTORY)
        await page.fill(f"{HISTORY} input[placeholder=room]", "a/b")
        assert '"data": "<img src=x onerror=alert(1)>"' in await answer_of(page, HISTORY)
        assert hosts == []
        await server.stop(drain=0)
