"""The source document, "Message Queuing": "Message Persistence"."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

from aibos_realtime import Message, MessagePersistence


async def test_message_persistence(monkeypatch: pytest.MonkeyPatch, store_url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", store_url)
    message_persistence = MessagePersistence(
        database={
            "url": os.environ["DATABASE_URL"],
        },
        retention={
            "duration": 7 * 24 * 60 * 60,  # 7 days
            "max_messages": 100_000,
        },
    )

    # Store message
    await message_persistence.store_message(
        Message(
            id="msg_001",
            room_id="tenant_123",
            user_id="user_123",
            type="invoice.created",
            data={"invoiceId": "inv_001"},
            timestamp=datetime.now(UTC),
        )
    )

    # Retrieve messages
    messages = await message_persistence.get_messages("tenant_123", limit=50, offset=0)
    assert [(one.id, one.user_id, one.type, one.data) for one in messages] == [("msg_001", "user_123", "invoice.created", {"invoiceId": "inv_001"})]
    await message_persistence.stop()
