"""The real browser: which one, how it is started, and pages that remember what went wrong in them. It knows nothing of what a page shows."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

ROOT = Path(__file__).parents[2]

# Without these it looks for updates, and for hosts of its maker's, at every start.
FLAGS = [
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-quic", "--disable-gpu", "--no-first-run",
    "--disable-default-apps", "--disable-domain-reliability", "--no-pings", "--disable-dev-shm-usage",
]  # fmt: skip

DOCUMENTED = "localhost:3001"
"""Where the source document's snippets connect to. In this browser it is the port that `documented_port` gives."""

EXPECTED = ("Failed to load resource", "WebSocket connection to", "net::ERR_")
"""What Chromium writes to the console of a page whose server is away; no page can keep it from doing so."""


@cache
def find_chromium() -> str:
    """The path of the program; skips where there is none."""
    found = subprocess.run([ROOT / "scripts" / "browser", "find"], capture_output=True, text=True, timeout=20)
    if found.returncode != 0:
        pytest.skip("needs Chromium: `scripts/browser install` gets one, CHROMIUM=/path/to/chromium names one")
    return found.stdout.strip()


@asynccontextmanager
async def running_browser(documented_port: int) -> AsyncIterator[Browser]:
    """One Chromium without a window, as Playwright runs it: every page is visible, and has the focus."""
    flags = [*FLAGS, f"--host-resolver-rules=MAP {DOCUMENTED} 127.0.0.1:{documented_port}"]
    environment: dict[str, str | float | bool] = {**clean_environment()}
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=find_chromium(), args=flags, env=environment, chromium_sandbox=False)
        try:
            yield browser
        finally:
            await browser.close()


class PlainBrowser:
    """One Chromium as people run it: pages go to sleep and into the back/forward cache. It can be stopped in its tracks, as by a closed lid."""

    def __init__(self, context: BrowserContext, pid: int) -> None:
        self.context = context
        self._pid = pid

    @classmethod
    @asynccontextmanager
    async def run(cls) -> AsyncIterator[PlainBrowser]:
        program = find_chromium()
        with TemporaryDirectory(prefix="realtime-chromium-", ignore_cleanup_errors=True) as folder:
            words = [program, "--headless", "--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={folder}", *FLAGS, "about:blank"]
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(*words, stdin=asyncio.subprocess.DEVNULL, stderr=pipe, env=clean_environment())
            assert process.stderr is not None
            draining = None
            try:
                async with asyncio.timeout(20):
                    while (found := re.search(rb"listening on (ws://\S+)", await process.stderr.readline())) is None:
                        assert not process.stderr.at_eof(), "Chromium ended"
                draining = asyncio.ensure_future(process.stderr.read())
                async with async_playwright() as playwright:
                    browser = await playwright.chromium.connect_over_cdp(found[1].decode(), no_defaults=True)
                    yield cls(browser.contexts[0], process.pid)
                    await browser.close()
            finally:
                for pid in find_descendants(process.pid):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                await process.wait()
                if draining is not None:
                    await draining

    def close_lid(self) -> None:
        """Stop every process of it; its sockets stay open."""
        for pid in find_descendants(self._pid):
            os.kill(pid, signal.SIGSTOP)

    def open_lid(self) -> None:
        for pid in find_descendants(self._pid):
            os.kill(pid, signal.SIGCONT)


def find_descendants(ancestor: int) -> list[int]:
    """A process, and all that it and they have started."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = [ancestor]
    for pid in found:  # grows while it is gone through
        found += [child for child, parent in parents.items() if parent == pid]
    return found


def clean_environment() -> dict[str, str]:
    """This process's environment without proxies: all that is visited is on this machine."""
    return {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}


class Faults(list[str]):
    """What went wrong in a page: exceptions that nobody caught, errors on the console, violations of the content security policy."""

    def watch(self, page: Page) -> None:
        page.on("pageerror", lambda error: self.append(f"uncaught: {error}"))
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(EXPECTED):
            self.append(f"console: {message.text}")
