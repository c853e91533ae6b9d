"""The source document, "Event Broadcasting": "Broadcast Events" and "Event Filtering"."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime import Event, EventBroadcaster, RealtimeClient, RealtimeServer, RoomManager
from tests.source_document.conftest import Connect

INVOICE = {"invoiceId": "inv_001", "amount": 1000, "currency": "USD"}
NOTIFICATION = {"type": "info", "message": "Invoice created successfully"}
MAINTENANCE = {"message": "System maintenance scheduled", "startTime": "2024-01-01T00:00:00Z", "duration": "2 hours"}


class Listener:
    """What a client's callbacks were given, up to the event `end`."""

    def __init__(self, client: RealtimeClient) -> None:
        self.heard: list[tuple[str, Any]] = []
        self._ended = asyncio.Event()
        for name in ("invoice.created", "notification", "system.maintenance"):
            client.on(name, self._note)
        client.on("end", self._ended.set)

    def _note(self, data: Any, event: Event) -> None:
        self.heard.append((event.event, data))

    async def end(self) -> list[tuple[str, Any]]:
        await asyncio.wait_for(self._ended.wait(), 5)
        return self.heard


@pytest.fixture
def room_manager() -> RoomManager:
    return RoomManager(max_rooms=1000, max_users_per_room=100, room_timeout=300)


@pytest.fixture
def event_broadcaster(realtime_server: RealtimeServer, room_manager: RoomManager) -> EventBroadcaster:
    return EventBroadcaster(server=realtime_server, rooms=room_manager)


async def test_broadcast_events(event_broadcaster: EventBroadcaster, connect: Connect) -> None:
    async with connect() as member, connect("user_456") as other_member, connect("user_789") as outside:
        listeners = [Listener(client) for client in (member, other_member, outside)]
        await member.join_room("tenant_123")
        await other_member.join_room("tenant_123")

        # Broadcast to room
        receipt = await event_broadcaster.broadcast_to_room("tenant_123", "invoice.created", INVOICE)
        assert receipt.id and receipt.position is not None and receipt.position.offset == 1

        # Broadcast to user
        await event_broadcaster.broadcast_to_user("user_123", "notification", NOTIFICATION)

        # Broadcast to all users
        await event_broadcaster.broadcast_to_all("system.maintenance", MAINTENANCE)

        await event_broadcaster.broadcast_to_all("end")
        invoice, notification, maintenance = ("invoice.created", INVOICE), ("notification", NOTIFICATION), ("system.maintenance", MAINTENANCE)
        heard = [await listener.end() for listener in listeners]
        assert sorted(heard[0], key=str) == sorted([invoice, notification, maintenance], key=str)
        assert sorted(heard[1], key=str) == sorted([invoice, maintenance], key=str)
        assert heard[2] == [maintenance]


async def test_broadcast_events_reach_the_rooms_of_the_manager(
    event_broadcaster: EventBroadcaster, room_manager: RoomManager, connect: Connect
) -> None:
    """The room manager of the snippet is the server's from then on: what either does, both know."""
    await room_manager.create_room("tenant_123", name="Tenant 123")
    async with connect() as member:
        listener = Listener(member)
        await member.join_room("tenant_123")
        assert [user.user_id for user in await room_manager.get_room_users("tenant_123")] == ["user_123"]
        await event_broadcaster.broadcast_to_room("tenant_123", "invoice.created", INVOICE)
        await event_broadcaster.broadcast_to_room("tenant_123", "end")
        assert await listener.end() == [("invoice.created", INVOICE)]


async def test_event_filtering(event_broadcaster: EventBroadcaster, connect: Connect) -> None:
    async with (
        connect("admin_1", role="admin") as admin,
        connect("user_123", role="user") as user,
        connect("auditor_1", role="auditor") as auditor,
        connect("user_456", role="user") as excluded,
    ):
        listeners = [Listener(client) for client in (admin, user, auditor, excluded)]
        for client in (admin, user, auditor, excluded):
            await client.join_room("tenant_123")

        # Filtered broadcasting
        await event_broadcaster.broadcast_to_room(
            "tenant_123",
            "invoice.created",
            INVOICE,
            filter=lambda user: user.role == "admin" or user.role == "user",
            exclude=["user_456"],
        )

        await event_broadcaster.broadcast_to_room("tenant_123", "end")
        heard = [await listener.end() for listener in listeners]
        assert heard == [[("invoice.created", INVOICE)], [("invoice.created", INVOICE)], [], []]
