"""The source document, "Message Queuing": "Message Queue"."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from aibos_realtime import MessageQueue, RealtimeServer
from aibos_realtime.types import QueueMessage
from tests.servers.redis import RedisServer
from tests.source_document.conftest import Connect


async def test_message_queue(
    monkeypatch: pytest.MonkeyPatch, redis_server: RedisServer, redis_prefix: str, realtime_server: RealtimeServer, connect: Connect
) -> None:
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    event_broadcaster = realtime_server.broadcaster
    message_queue = MessageQueue(
        redis={
            "url": os.environ["REDIS_URL"],
            "prefix": redis_prefix,  # the tests share one server
        },
        queues={
            "realtime.events": {
                "max_size": 10_000,
                "ttl": 3600,  # 1 hour
            },
        },
    )

    # Send message to queue
    await message_queue.send(
        "realtime.events",
        {
            "type": "invoice.created",
            "roomId": "tenant_123",
            "data": {
                "invoiceId": "inv_001",
                "amount": 1000,
            },
        },
    )

    # Process messages
    @message_queue.process("realtime.events")
    async def handle(message: QueueMessage) -> None:
        type, room_id, data = message.data["type"], message.data["roomId"], message.data["data"]

        # Broadcast to room
        await event_broadcaster.broadcast_to_room(room_id, type, data)

    heard: asyncio.Queue[Any] = asyncio.Queue()
    async with connect() as client:
        client.on("invoice.created", heard.put_nowait)
        await client.join_room("tenant_123")
        async with message_queue:  # handlers begin here
            assert await asyncio.wait_for(heard.get(), 5) == {"invoiceId": "inv_001", "amount": 1000}
        assert heard.empty()
