"""The source document's client snippets in Chromium: what stands in `source_document.md`, with another import and a token.

They connect to `ws://localhost:3001`, which in this browser is a server of the test.
"""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import ConsoleMessage, Page
from playwright.async_api import TimeoutError as PlaywrightTimeout

from aibos_realtime import RealtimeServer, Socket
from tests.browser.chromium import DOCUMENTED, Faults
from tests.browser.conftest import MakeServer, Mint

PATIENCE = 10.0
SNIPPETS: dict[str, str] = dict(
    re.findall(r"^## (.*?)\n+```typescript\n(.*?)^```", (Path(__file__).parent / "source_document.md").read_text(), re.MULTILINE | re.DOTALL)
)
CLIENT_NAMES = {"RealtimeClient", "RealtimeError", "ConnectionError", "AuthenticationError"}
INVOICE = {"invoiceId": "inv_001", "amount": 1000, "currency": "USD"}


class Snippet:
    """A page that has run snippets, one after the other as one module, and what they wrote to the console."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.lines: list[str] = []
        self._printed = asyncio.Event()
        page.on("console", self._note)

    def _note(self, message: ConsoleMessage) -> None:
        self.lines.append(message.text)
        self._printed.set()

    async def run(self, *names: str, token: str, first: str = "", then: str = "") -> None:
        """Open a page at the documented address with these snippets, `first` before and `then` after them, and wait until all of it has run."""
        code = "\n".join(adapt(SNIPPETS[name], token) for name in names)
        imports = "\n".join(re.findall(r"^import .*", code, re.MULTILINE))
        body = re.sub(r"^import .*\n", "", code, flags=re.MULTILINE)
        await self.open(f"{imports}\n{first}\n{body}\n{then}\ndocument.title = 'Done';")

    async def open(self, module: str) -> None:
        await self.page.goto(f"http://{DOCUMENTED}/health")  # any page of the server's will do
        await self.page.add_script_tag(content=module, type="module")
        try:
            await self.page.wait_for_function("document.title === 'Done'", timeout=PATIENCE * 1000)
        except PlaywrightTimeout:
            raise AssertionError(f"the snippet did not come to its end; its console: {self.lines}") from None

    async def until(self, *lines: str) -> None:
        """Wait until the console has these, in this order, and nothing else."""
        try:
            async with asyncio.timeout(PATIENCE):
                while len(self.lines) < len(lines):
                    self._printed.clear()
                    await self._printed.wait()
        except TimeoutError:
            pass
        assert self.lines == list(lines)


def adapt(snippet: str, token: str) -> str:
    """The import changed to what the server serves, and to what is the client's. The placeholder gets a token."""

    def change(found: re.Match[str]) -> str:
        names = [name for name in re.findall(r"\w+", found[1]) if name in CLIENT_NAMES]
        return f'import {{ {", ".join(names)} }} from "/client.js";'

    adapted, count = re.subn(r'import \{([^}]*)\} from "@aibos/realtime";', change, snippet)
    assert count == snippet.count("import ")
    return adapted.replace("your_jwt_token", token)


def logged(text: str, data: Any) -> str:
    """As Chromium's console shows a text and an object."""
    return f"{text} {{" + ", ".join(f"{name}: {value}" for name, value in data.items()) + "}"


@pytest_asyncio.fixture(loop_scope="session")
async def realtime_server(start_server: MakeServer, documented_port: int) -> RealtimeServer:
    """At the documented address, as far as the browser can see."""

    def prepare(server: RealtimeServer) -> None:
        @server.event("invoice.created")
        async def created(socket: Socket, data: Any) -> Any:
            return {"received": data["invoiceId"]}

    return await start_server(port=documented_port, prepare=prepare)


@pytest.fixture
def token(mint: Mint) -> str:
    return mint("user_123", tenant_id="123")


@pytest_asyncio.fixture(loop_scope="session")
async def snippet(page: Page) -> Snippet:
    return Snippet(page)


async def test_quick_start(snippet: Snippet, realtime_server: RealtimeServer, token: str) -> None:
    await snippet.run("Quick Start", token=token)
    assert [socket.user.id for socket in realtime_server.pool if socket.user] == ["user_123"]


async def test_client_configuration(snippet: Snippet, realtime_server: RealtimeServer, token: str, faults: Faults) -> None:
    await snippet.page.clock.install()
    await snippet.run("Client Configuration", token=token, then="realtimeClient.on('fail', () => { throw new Error('a callback that fails'); });")
    await snippet.until("Connected to realtime server")
    await realtime_server.disconnect(user_id="user_123", code=4011)
    await snippet.until("Connected to realtime server", "Disconnected from realtime server")
    await snippet.page.clock.fast_forward(5000)  # the snippet's `reconnectInterval`
    await snippet.until("Connected to realtime server", "Disconnected from realtime server", "Connected to realtime server")
    await realtime_server.broadcaster.broadcast_to_user("user_123", "fail", {})
    while len(snippet.lines) < 4:
        await snippet.page.wait_for_event("console")
    assert snippet.lines[3].startswith("Realtime error: Error: a callback that fails")
    assert len(faults) == 1 and faults.pop().startswith("console: Realtime error:")


async def test_event_handling(snippet: Snippet, realtime_server: RealtimeServer, token: str) -> None:
    """In the snippet's own order the room is left before the message is sent: the server's handler takes it. To hear, one joins again."""
    await snippet.run("Quick Start", "Event Handling", token=token, then="await realtimeClient.joinRoom('tenant_123');")
    said = realtime_server.broadcaster
    await said.broadcast_to_room("tenant_123", "invoice.created", INVOICE)
    await said.broadcast_to_room("tenant_123", "bill.updated", {"billId": "bill_001"})
    await said.broadcast_to_room("tenant_123", "payment.processed", {"paymentId": "pay_001"})
    await snippet.until(
        logged("Invoice created:", INVOICE), logged("Bill updated:", {"billId": "bill_001"}), logged("Payment processed:", {"paymentId": "pay_001"})
    )


async def test_event_handling_in_the_only_room(snippet: Snippet, realtime_server: RealtimeServer, token: str) -> None:
    """The snippet's `sendMessage` names no room. From a member of one room, an event without a handler goes to that room."""
    await snippet.run("Quick Start", token=token, then="""
        realtimeClient.on('bill.updated', (data) => console.log('Bill updated:', data));
        await realtimeClient.joinRoom('tenant_123');
        await realtimeClient.sendMessage('bill.updated', { billId: 'bill_001' });
    """)  # fmt: skip
    await snippet.until(logged("Bill updated:", {"billId": "bill_001"}))


@pytest.mark.parametrize(
    ("before", "beginning"),
    [
        ("", "Realtime error: "),
        ("await realtimeClient.close();", "Connection failed: "),
        ("realtimeClient = new RealtimeClient({ url: 'ws://localhost:3001' }); await realtimeClient.connect();", "Authentication failed: "),
    ],
    ids=["no such event", "closed", "no token"],
)
async def test_error_handling(before: str, beginning: str, snippet: Snippet, realtime_server: RealtimeServer, token: str, faults: Faults) -> None:
    first = f"let realtimeClient = new RealtimeClient({{ url: 'ws://localhost:3001', token: {json.dumps(token)} }}); await realtimeClient.connect();"
    imported = 'import { RealtimeClient } from "/client.js";'
    await snippet.run("Error Handling", token=token, first=f"{imported}\n{first}\n{before}")
    assert len(snippet.lines) == 1 and snippet.lines[0].startswith(beginning)
    assert len(faults) == 1 and token not in faults.pop()


def test_every_snippet_of_the_client_is_here() -> None:
    assert list(SNIPPETS) == ["Quick Start", "Client Configuration", "Event Handling", "Error Handling"]
