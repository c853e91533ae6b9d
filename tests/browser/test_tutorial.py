"""The page of the tutorial "A FastAPI service with invoices", in Chromium, against the service that the tutorial builds."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from aibos_realtime import RealtimeServer
from tests.browser.conftest import address_of
from tests.test_docs import ROOT, select

TUTORIAL = ROOT / "docs" / "tutorials" / "fastapi-invoices.md"


@pytest_asyncio.fixture(loop_scope="session")
async def tutorial(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[dict[str, Any]]:
    """What the tutorial's names stand for once its server runs: `server`, `http`, …"""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JWT_SECRET", "only-for-the-examples-in-the-docs")
    module = sys.modules["tutorial"] = ModuleType("tutorial")
    names: dict[str, Any] = module.__dict__
    try:
        for block in select(TUTORIAL, "python"):
            code = compile(block.code, str(TUTORIAL), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            if code.co_flags & inspect.CO_COROUTINE:
                await eval(code, names)
            else:
                exec(code, names)
            if "server.start()" in block.code:
                break
        yield names
    finally:
        del sys.modules["tutorial"]
        if "http" in names:
            await names["http"].aclose()
            await names["server"].stop(0.5)


async def test_the_page_shows_what_others_do_and_comes_back_by_itself(page: Page, tutorial: dict[str, Any]) -> None:
    server: RealtimeServer = tutorial["server"]
    await page.clock.install()
    await page.goto(f"{address_of(server)}/?user=ann")
    await expect(page.locator("#state")).to_have_text("connected")
    await server.disconnect(user_id="ann", code=4011)
    await expect(page.locator("#state")).to_have_text("reconnecting")
    token = (await tutorial["http"].post("/login/ben")).json()["token"]
    answer = await tutorial["http"].post("/invoices", json={"amount": 1000}, headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 201
    await page.clock.fast_forward(5000)  # the client's longest first delay
    await expect(page.locator("#invoices li")).to_have_text(["inv_001: 1000"])
    await expect(page.locator("#state")).to_have_text("connected")
