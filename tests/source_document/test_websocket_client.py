"""The source document, "WebSocket Client": "Client Configuration" and "Event Handling"."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import ConnectionError, RealtimeClient, RealtimeServer, Socket, UnknownEvent
from tests.contracts.peer import until
from tests.source_document.conftest import Connect

INVOICE = {"invoiceId": "inv_001", "amount": 1000, "currency": "USD"}


class Console:
    """Where the snippets print to. `reached` waits for a line."""

    def __init__(self) -> None:
        self.lines: list[Any] = []
        self._printed = asyncio.Event()

    def log(self, *words: Any) -> None:
        self.lines.append(words if len(words) > 1 else words[0])
        self._printed.set()

    async def reached(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.lines) < count:
                self._printed.clear()
                await self._printed.wait()


async def test_client_configuration(realtime_server: RealtimeServer) -> None:
    console = Console()
    realtime_client = RealtimeClient(
        url=realtime_server.url,
        token=realtime_server.auth.issue(user_id="user_123"),
        reconnect=True,
        reconnect_attempts=5,
        reconnect_interval=5,
        heartbeat={"interval": 30, "timeout": 60},
        random=lambda: 0.0,
    )

    # Connect client
    await realtime_client.connect()

    # Handle connection events
    realtime_client.on("connect", lambda: console.log("Connected to realtime server"))
    realtime_client.on("disconnect", lambda: console.log("Disconnected from realtime server"))
    realtime_client.on("error", lambda error: console.log("Realtime error:", error))

    try:
        await console.reached(1)
        assert console.lines == ["Connected to realtime server"], "although it was connected before anybody listened"
        await realtime_server.disconnect(user_id="user_123", code=4011)
        await console.reached(3)
        assert console.lines[1:] == ["Disconnected from realtime server", "Connected to realtime server"]
        assert realtime_client.state == "connected"

        failure = ValueError("a callback that fails")

        @realtime_client.on("fail")
        def fail(data: Any) -> None:
            raise failure

        await realtime_server.broadcaster.broadcast_to_user("user_123", "fail", {})
        await console.reached(4)
        what, error = console.lines[3]
        assert what == "Realtime error:" and (error is failure or error.__cause__ is failure)
    finally:
        await realtime_client.close()


async def test_reconnect_false_stays_away(realtime_server: RealtimeServer) -> None:
    client = RealtimeClient(realtime_server.url, token=realtime_server.auth.issue(user_id="user_123"), reconnect=False)
    gone = asyncio.Event()
    client.on("disconnect", gone.set)
    async with client:
        await realtime_server.disconnect(user_id="user_123", code=4011)
        await until(gone)
        assert realtime_server.pool.get_user_connections("user_123") == []


async def test_five_attempts_are_five() -> None:
    """A dead port; the delays are drawn as zero."""
    errors: list[Exception] = []
    listener = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    listener.close()
    await listener.wait_closed()
    client = RealtimeClient(f"ws://127.0.0.1:{port}", reconnect=True, reconnect_attempts=5, reconnect_interval=5, random=lambda: 0.0)
    client.on("error", errors.append)
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(client.connect(), 10)
    await client.close()
    assert 5 <= len(errors) <= 6, "the first attempt, and the five that follow"


async def test_event_handling(realtime_server: RealtimeServer, connect: Connect) -> None:
    console = Console()
    async with connect() as realtime_client, connect("user_456") as other:
        # Join room
        state = await realtime_client.join_room("tenant_123")
        assert {member.user_id for member in state.members} == {"user_123"}

        # Leave room
        await realtime_client.leave_room("tenant_123")

        await realtime_client.join_room("tenant_123")
        await other.join_room("tenant_123")

        # Listen for events
        realtime_client.on("invoice.created", lambda data: console.log("Invoice created:", data))
        realtime_client.on("bill.updated", lambda data: console.log("Bill updated:", data))
        realtime_client.on("payment.processed", lambda data: console.log("Payment processed:", data))

        # Send message
        receipt = await realtime_client.send_message("invoice.created", INVOICE)
        assert receipt.room == "tenant_123" and receipt.position.offset == 1, "into the only room"

        await other.send_message("bill.updated", {"billId": "bill_001"}, room="tenant_123")
        await realtime_server.broadcaster.broadcast_to_room("tenant_123", "payment.processed", {"paymentId": "pay_001"})
        await console.reached(3)
        assert console.lines == [
            ("Invoice created:", INVOICE),
            ("Bill updated:", {"billId": "bill_001"}),
            ("Payment processed:", {"paymentId": "pay_001"}),
        ]


async def test_event_handling_line_by_line_with_a_handler_on_the_server(realtime_server: RealtimeServer, connect: Connect) -> None:
    """In the snippet's own order the room is left before the message is sent: then it is the server's handler that takes it."""

    @realtime_server.event("invoice.created")
    async def created(socket: Socket, data: Any) -> Any:
        return {"received": data["invoiceId"]}

    async with connect() as realtime_client:
        # Join room
        await realtime_client.join_room("tenant_123")

        # Leave room
        await realtime_client.leave_room("tenant_123")

        # Send message
        answer = await realtime_client.send_message("invoice.created", INVOICE)
        assert answer == {"received": "inv_001"}


async def test_event_handling_line_by_line_without_one(connect: Connect) -> None:
    async with connect() as realtime_client:
        await realtime_client.join_room("tenant_123")
        await realtime_client.leave_room("tenant_123")
        with pytest.raises(UnknownEvent):
            await realtime_client.send_message("invoice.created", INVOICE)


async def test_who_left_hears_nothing(realtime_server: RealtimeServer, connect: Connect) -> None:
    console = Console()
    async with connect() as realtime_client:
        realtime_client.on("invoice.created", lambda data: console.log(data))
        await realtime_client.join_room("tenant_123")
        await realtime_client.leave_room("tenant_123")
        await realtime_server.broadcaster.broadcast_to_room("tenant_123", "invoice.created", {"n": 1})
        await realtime_client.join_room("tenant_123")
        await realtime_server.broadcaster.broadcast_to_room("tenant_123", "invoice.created", {"n": 2})
        await console.reached(1)
        assert console.lines == [{"n": 2}]
