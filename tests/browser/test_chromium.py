"""The fixtures of this folder: which browser it is, that what goes wrong in a page fails its test, and that pages share nothing."""

from __future__ import annotations

import os
import subprocess

import pytest
from playwright.async_api import Page

from aibos_realtime import RealtimeServer
from tests.browser.chromium import ROOT, Faults, find_chromium
from tests.browser.conftest import MakePage, address_of


def ask_script(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / "scripts" / "browser", *words], env={**os.environ, **variables}, capture_output=True, text=True, timeout=20)


def test_the_browser_that_is_named_is_taken_or_refused() -> None:
    program = find_chromium()
    assert ask_script("find", CHROMIUM=program).stdout == f"{program}\n"
    for word in ("find", "install"):
        refused = ask_script(word, CHROMIUM="/bin/true")
        assert (refused.returncode, refused.stdout) == (1, "") and "CHROMIUM=/bin/true is no Chromium that runs" in refused.stderr
    assert "usage" in ask_script().stderr


async def test_pages_share_nothing(new_page: MakePage, server: RealtimeServer) -> None:
    one, other = await new_page(), await new_page()
    for page in (one, other):
        await page.goto(f"{address_of(server)}/health")
    await one.evaluate("localStorage.setItem('token', 'x')")
    assert await other.evaluate("localStorage.getItem('token')") is None


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("console.error('on purpose')", "console: on purpose"),
        ("setTimeout(() => { throw new Error('on purpose'); })", "uncaught: on purpose"),
        ("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = true'}))", "Content Security Policy"),
    ],
    ids=["console", "exception", "policy"],
)
async def test_what_goes_wrong_in_a_page_is_remembered(script: str, fault: str, page: Page, faults: Faults) -> None:
    policy = '<meta http-equiv="content-security-policy" content="script-src \'none\'">'
    await page.set_content(f"<!doctype html><head>{policy}</head><body></body>")
    async with page.expect_event("console" if "uncaught" not in fault else "pageerror"):
        await page.evaluate(script)
    assert len(faults) == 1 and fault in faults.pop()
