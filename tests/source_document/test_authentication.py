"""The source document, "Authentication": "WebSocket Authentication" and "Authorization"."""

from __future__ import annotations

import os
from typing import Any

from aibos_realtime import RealtimeServer, Socket, WebSocketAuth, WebSocketAuthorization
from tests.contracts.peer import connecting


async def test_websocket_authentication(realtime_server: RealtimeServer) -> None:
    web_socket_auth = WebSocketAuth(
        jwt_secret=os.environ["JWT_SECRET"],
        token_header="Authorization",
        token_prefix="Bearer ",
        exclude_paths=["/health", "/status"],
    )

    @realtime_server.on("connection")
    def connection(socket: Socket) -> None:
        @socket.on("authenticate")
        async def authenticate(token: str) -> None:
            # Authenticate connection
            auth_result = await web_socket_auth.authenticate(socket, token)

            if auth_result.success:
                socket.user = auth_result.user
                socket.authenticated = True
            else:
                socket.emit("auth_error", {"error": auth_result.error})
                socket.disconnect()

    async with connecting(realtime_server) as peer:
        await peer.next("connected")
        token = web_socket_auth.issue(user_id="user_123", role="admin", tenant_id="123", expires_in="24h")
        data = await peer.data("authenticate", token)
        assert data["success"] is True and data["user"] == {"id": "user_123", "role": "admin", "tenantId": "123"}
        [socket] = realtime_server.pool.get_user_connections("user_123")
        assert socket.authenticated is True and socket.user is not None and socket.user.role == "admin"
        await peer.data("join-room", "tenant_123")

    async with connecting(realtime_server) as peer:
        await peer.next("connected")
        await peer.send("authenticate", "no.good.token")
        refused = await peer.next("auth_error")
        assert set(refused["data"]) == {"error"} and "no.good.token" not in refused["data"]["error"]
        assert await peer.closed() == 1000


async def test_websocket_authentication_by_itself(realtime_server: RealtimeServer) -> None:
    """Without any handler the server does the same: the token in the header, with its prefix."""
    token = realtime_server.auth.issue(user_id="user_123")
    async with connecting(realtime_server, token) as peer:
        assert (await peer.next("connected"))["data"]["user"]["id"] == "user_123"


async def test_authorization(realtime_server: RealtimeServer) -> None:
    web_socket_authz = WebSocketAuthorization(permissions={"tenant_123": ["read", "write"], "tenant_456": ["read"]})

    @realtime_server.event("write")
    async def write(socket: Socket, resource: Any) -> Any:
        # Check permission
        has_permission = await web_socket_authz.check_permission(socket.user, resource, "write")

        if not has_permission:
            socket.emit("permission_denied", {"resource": resource, "action": "write"})
            return None
        return "written"

    async with connecting(realtime_server, realtime_server.auth.issue(user_id="user_123")) as peer:
        await peer.next("connected")
        assert await peer.data("write", "tenant_123") == "written"
        assert await peer.heard() == []
        assert await peer.data("write", "tenant_456") is None
        assert await peer.next() == {"event": "permission_denied", "data": {"resource": "tenant_456", "action": "write"}}
        [socket] = realtime_server.pool.get_user_connections("user_123")
        assert await web_socket_authz.check_permission(socket.user, "tenant_456", "read") is True
        assert await web_socket_authz.check_permission(socket.user, "tenant_789", "read") is False, "deny by default"
