"""The source document, "WebSocket Server": "Server Configuration" and "Event Handlers"."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
import websockets

from aibos_realtime import EventHandler, RealtimeClient, RealtimeServer, RoomLimitExceeded, Socket
from aibos_realtime.types import User
from tests.contracts.peer import connecting, until


async def test_server_configuration() -> None:
    realtime_server = RealtimeServer(
        port=0,  # the document: 3001
        host="0.0.0.0",
        cors={"origin": ["https://app.aibos.com", "https://admin.aibos.com"], "credentials": True},
        authentication={"jwt_secret": os.environ["JWT_SECRET"], "token_header": "Authorization", "token_prefix": "Bearer "},
        rooms={"max_rooms": 1000, "max_users_per_room": 100},
        heartbeat={"interval": 30, "timeout": 60},
    )

    # Start server
    await realtime_server.start()

    try:
        token = realtime_server.auth.issue(user_id="user_123", tenant_id="123")
        for origin in ("https://app.aibos.com", "https://admin.aibos.com"):
            async with connecting(realtime_server, token, origin=origin) as peer:
                data = (await peer.next("connected"))["data"]
                assert data["heartbeat"] == {"interval": 30, "timeout": 60}
                assert data["user"]["id"] == "user_123", "the token came in the header, behind the prefix"
        with pytest.raises(websockets.InvalidStatus):
            async with connecting(realtime_server, token, origin="https://elsewhere.example.com"):
                pass
        for number in range(1000):
            await realtime_server.rooms.create_room(f"room_{number}")
        with pytest.raises(RoomLimitExceeded):
            await realtime_server.rooms.create_room("room_1000")
        assert (await realtime_server.rooms.get_room_info("room_0")).settings.max_users == 100
    finally:
        await realtime_server.stop()


def make_handler(printed: list[Any], gone: asyncio.Event) -> EventHandler:
    """The snippet's handler."""

    async def verify_token(token: str) -> User:
        if token != "good":
            raise ValueError("unknown token")
        return User(id="user_123", tenant_id="123")

    def connection(socket: Socket) -> None:
        printed.append(("Client connected:", socket.id))

        # Handle authentication
        @socket.on("authenticate")
        async def authenticate(token: str) -> None:
            try:
                user = await verify_token(token)
                socket.user = user
                socket.emit("authenticated", {"success": True})
            except Exception as error:
                socket.emit("authenticated", {"success": False, "error": str(error)})

        # Handle room joining
        @socket.on("join-room")
        async def join_room(room_id: str) -> None:
            await socket.join(room_id)
            socket.emit("joined-room", {"roomId": room_id})

        # Handle room leaving
        @socket.on("leave-room")
        async def leave_room(room_id: str) -> None:
            await socket.leave(room_id)
            socket.emit("left-room", {"roomId": room_id})

        # Handle disconnection
        @socket.on("disconnect")
        def disconnect(reason: str) -> None:
            printed.append(("Client disconnected:", socket.id))
            gone.set()

    return connection


async def test_event_handlers(realtime_server: RealtimeServer) -> None:
    printed: list[Any] = []
    gone = asyncio.Event()
    realtime_server.on("connection", make_handler(printed, gone))
    async with connecting(realtime_server) as peer:
        socket_id = (await peer.next("connected"))["data"]["socketId"]
        assert printed == [("Client connected:", socket_id)]

        await peer.send("authenticate", "bad")
        assert await peer.next() == {"event": "authenticated", "data": {"success": False, "error": "unknown token"}}
        await peer.send("authenticate", "good")
        assert await peer.next() == {"event": "authenticated", "data": {"success": True}}
        [socket] = realtime_server.pool.get_user_connections("user_123")
        assert socket.id == socket_id

        await peer.send("join-room", "tenant_123")
        assert await peer.next() == {"event": "joined-room", "data": {"roomId": "tenant_123"}}
        await realtime_server.broadcaster.broadcast_to_room("tenant_123", "invoice.created", {})
        await peer.next("invoice.created")

        await peer.send("leave-room", "tenant_123")
        assert await peer.next() == {"event": "left-room", "data": {"roomId": "tenant_123"}}
        await realtime_server.broadcaster.broadcast_to_room("tenant_123", "invoice.created", {})
        assert await peer.heard() == []
    await until(gone)
    assert printed == [("Client connected:", socket_id), ("Client disconnected:", socket_id)]


async def test_the_join_handler_lets_nobody_into_a_room_that_is_not_his(realtime_server: RealtimeServer) -> None:
    realtime_server.on("connection", make_handler([], asyncio.Event()))
    async with connecting(realtime_server) as peer:
        await peer.next("connected")
        await peer.send("join-room", "tenant_123")
        refused = await peer.next()
        assert refused["event"] in ("error", "permission_denied"), "nobody yet"
        await peer.data("authenticate", "good")
        await peer.send("join-room", "tenant_456")
        while (answer := await peer.next())["event"] == "authenticated":
            pass
        assert answer["event"] == "permission_denied"
        assert peer_rooms(realtime_server) == []


def peer_rooms(server: RealtimeServer) -> list[str]:
    return [room for socket in server.pool for room in socket.rooms]


async def test_the_snippets_handlers_serve_the_projects_own_client(realtime_server: RealtimeServer) -> None:
    """The client awaits an answer with its `ref`; the handlers only emit. Both must hold, or the document's two halves do not meet."""
    realtime_server.on("connection", make_handler([], asyncio.Event()))
    token = realtime_server.auth.issue(user_id="user_123", tenant_id="123")
    async with RealtimeClient(realtime_server.url, token=token) as client:
        state = await client.join_room("tenant_123")
        assert state.position is not None
        await client.leave_room("tenant_123")
        assert peer_rooms(realtime_server) == []


async def test_a_disconnect_handler_without_a_parameter(realtime_server: RealtimeServer) -> None:
    """The document's takes none: `socket.on('disconnect', () => …)`."""
    gone = asyncio.Event()

    def connection(socket: Socket) -> None:
        def disconnect() -> None:
            gone.set()

        socket.on("disconnect", disconnect)

    realtime_server.on("connection", connection)
    async with connecting(realtime_server) as peer:
        await peer.next("connected")
    await until(gone)
