"""One Chromium for all tests of this folder, pages in it, and servers for them: in this process, or in one of their own that a test may kill.

Playwright's objects belong to one event loop, so tests and async fixtures of this folder run on the loop of the session: write a fixture of your
own as `@pytest_asyncio.fixture(loop_scope="session")`. Tests need no mark.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from aibos_realtime import RealtimeServer, WebSocketAuth
from tests.browser.chromium import Faults, running_browser
from tests.faults.conftest import zygote as zygote
from tests.faults.processes import Server, Zygote, find_free_port
from tests.faults.server_program import SECRET, UNLIMITED

MakePage = Callable[..., Awaitable[Page]]
MakeServer = Callable[..., Awaitable[RealtimeServer]]
MakeProcess = Callable[..., Awaitable[Server]]
Mint = Callable[..., str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest_asyncio.fixture(loop_scope="session")
async def _no_task_left() -> AsyncIterator[None]:
    """As for every other test, but for the tasks in which Playwright talks to its browser."""
    before = asyncio.all_tasks()
    yield
    left = {task for task in asyncio.all_tasks() - before - {asyncio.current_task()} if "playwright" not in repr(task.get_coro())}
    if left:
        _, left = await asyncio.wait(left, timeout=0.5)
    assert not left, f"the test left {len(left)} task(s) running: " + ", ".join(sorted(repr(task) for task in left))


@pytest.fixture(scope="session")
def documented_port() -> int:
    """The port that the browser goes to for `ws://localhost:3001`, the address in the source document."""
    return find_free_port()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser(documented_port: int) -> AsyncIterator[Browser]:
    async with running_browser(documented_port) as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def faults() -> Faults:
    """What went wrong in the pages of this test. The test fails where something is left in it; take out what was wanted."""
    return Faults()


@pytest_asyncio.fixture(loop_scope="session")
async def new_page(browser: Browser, faults: Faults) -> AsyncIterator[MakePage]:
    """`await new_page(**options)`: a page in a context of its own (another person's browser). `options`: of Playwright's `new_context`."""
    async with AsyncExitStack() as contexts:

        async def make(**options: Any) -> Page:
            context = await browser.new_context(**options)
            contexts.push_async_callback(context.close)
            context.set_default_timeout(10_000)
            page = await context.new_page()
            faults.watch(page)
            return page

        yield make
    assert faults == []


@pytest_asyncio.fixture(loop_scope="session")
async def page(new_page: MakePage) -> Page:
    return await new_page()


@pytest.fixture(scope="session")
def mint() -> Mint:
    """`mint("ann", role="operator", tenant_id="123")`: a token for every server of these fixtures."""
    auth = WebSocketAuth(jwt_secret=SECRET)

    def issue(user_id: str, **claims: Any) -> str:
        return auth.issue(user_id=user_id, **claims)

    return issue


@pytest_asyncio.fixture(loop_scope="session")
async def start_server() -> AsyncIterator[MakeServer]:
    """`await start_server(**options)`: a server in this process, for tests that speak as the application. No limits, its events in memory."""
    async with AsyncExitStack() as servers:

        async def start(*, prepare: Callable[[RealtimeServer], object] | None = None, **options: Any) -> RealtimeServer:
            given: dict[str, Any] = {
                "host": "127.0.0.1", "port": 0, "authentication": {"jwt_secret": SECRET}, "limits": UNLIMITED,
                "persistence": {"database": {"url": "memory://"}}, "connections": {"max_connections": 20_000},
            }  # fmt: skip
            server = RealtimeServer(**(given | options))
            if prepare is not None:
                prepare(server)
            await server.start()
            servers.push_async_callback(server.stop, 0.5)
            return server

        yield start


@pytest_asyncio.fixture(loop_scope="session")
async def server(start_server: MakeServer) -> RealtimeServer:
    """A server in this process; its pages are at `address_of(server)`."""
    return await start_server()


@pytest_asyncio.fixture(loop_scope="session")
async def start_process(zygote: Zygote, tmp_path: Path) -> AsyncIterator[MakeProcess]:
    """`await start_process(**options)`: a server with an SQLite file in a process of its own, to `kill` (-9), `stop` and `start` again on its port.

    `options`: of `tests.faults.server_program`, or of the `program=` that is named.
    """
    async with AsyncExitStack() as processes:

        async def start(**options: Any) -> Server:
            return await processes.enter_async_context(Server(zygote, **({"database": f"sqlite:///{tmp_path}/events.db"} | options)))

        yield start


def address_of(server: RealtimeServer | Server) -> str:
    """`http://127.0.0.1:PORT`, where a server's own pages are."""
    return f"http://127.0.0.1:{server.port}"
