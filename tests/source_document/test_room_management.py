"""The source document, "Room Management": "Room Operations" and "Room Events"."""

from __future__ import annotations

import pytest

from aibos_realtime import GuestsNotAllowed, RealtimeServer, RoomFull, RoomManager, RoomNotFound
from aibos_realtime.testing.clock import ManualClock, settle
from tests.source_document.conftest import Connect


async def test_room_operations() -> None:
    clock = ManualClock()
    room_manager = RoomManager(max_rooms=1000, max_users_per_room=100, room_timeout=300, clock=clock)  # 5 minutes

    # Create room
    room = await room_manager.create_room("tenant_123", name="Tenant 123", type="tenant", settings={"max_users": 50, "allow_guests": False})
    assert (room.id, room.name, room.type) == ("tenant_123", "Tenant 123", "tenant")

    # Join room
    await room_manager.join_room("tenant_123", "user_123")
    assert [user.user_id for user in await room_manager.get_room_users("tenant_123")] == ["user_123"]

    # Leave room
    await room_manager.leave_room("tenant_123", "user_123")

    # Get room info
    room_info = await room_manager.get_room_info("tenant_123")
    assert (room_info.id, room_info.name, room_info.type, room_info.user_count) == ("tenant_123", "Tenant 123", "tenant", 0)
    assert (room_info.settings.max_users, room_info.settings.allow_guests) == (50, False)

    # List room users
    users = await room_manager.get_room_users("tenant_123")
    assert users == []

    # What the options promise.
    for number in range(50):
        await room_manager.join_room("tenant_123", f"user_{number}")
    with pytest.raises(RoomFull):
        await room_manager.join_room("tenant_123", "user_50")
    for number in range(50):
        await room_manager.leave_room("tenant_123", f"user_{number}")
    await clock.advance(299)
    await room_manager.get_room_info("tenant_123")
    await clock.advance(2)
    with pytest.raises(RoomNotFound):
        await room_manager.get_room_info("tenant_123")


async def test_room_settings_hold_for_clients(realtime_server: RealtimeServer, connect: Connect) -> None:
    await realtime_server.rooms.create_room("tenant_123", name="Tenant 123", type="tenant", settings={"max_users": 1, "allow_guests": False})
    async with connect("guest_1", role="guest") as guest, connect() as client, connect("user_456") as other:
        with pytest.raises(GuestsNotAllowed):
            await guest.join_room("tenant_123")
        await client.join_room("tenant_123")
        with pytest.raises(RoomFull):
            await other.join_room("tenant_123")


async def test_room_events() -> None:
    room_manager = RoomManager()
    printed: list[str] = []

    # Room event handlers
    room_manager.on("room.created", lambda room: printed.append(f"Room created: {room.id}"))
    room_manager.on("user.joined", lambda room_id, user_id: printed.append(f"User {user_id} joined room {room_id}"))
    room_manager.on("user.left", lambda room_id, user_id: printed.append(f"User {user_id} left room {room_id}"))
    room_manager.on("room.destroyed", lambda room_id: printed.append(f"Room destroyed: {room_id}"))

    await room_manager.create_room("tenant_123")
    await room_manager.join_room("tenant_123", "user_123")
    await room_manager.leave_room("tenant_123", "user_123")
    await room_manager.destroy_room("tenant_123")
    await settle()
    assert printed == [
        "Room created: tenant_123",
        "User user_123 joined room tenant_123",
        "User user_123 left room tenant_123",
        "Room destroyed: tenant_123",
    ]


async def test_room_events_of_clients(realtime_server: RealtimeServer, connect: Connect) -> None:
    printed: list[str] = []
    room_manager = realtime_server.rooms
    room_manager.on("user.joined", lambda room_id, user_id: printed.append(f"User {user_id} joined room {room_id}"))
    room_manager.on("user.left", lambda room_id, user_id: printed.append(f"User {user_id} left room {room_id}"))
    async with connect() as client:
        await client.join_room("tenant_123")
        await client.leave_room("tenant_123")
        await settle()
    assert printed == ["User user_123 joined room tenant_123", "User user_123 left room tenant_123"]
