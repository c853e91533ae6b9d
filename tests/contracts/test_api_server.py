"""The public API, "Server": handlers, sockets, operation, HTTP on the same port, and life in another app."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import httpx
import pytest
import websockets
from starlette.applications import Starlette
from starlette.routing import Mount

from aibos_realtime import (
    AuthenticationError,
    ConfigurationError,
    ConnectionClosed,
    NotInRoom,
    PermissionDenied,
    RealtimeError,
    RealtimeServer,
    RequestTimeout,
    Socket,
)
from aibos_realtime.types import User
from tests.contracts.peer import connecting, joined, make_server, serving, until


async def socket_of(server: RealtimeServer, user_id: str) -> Socket:
    [socket] = server.pool.get_user_connections(user_id)
    return socket


# — the program of the page —


async def test_the_program_of_the_page(server: RealtimeServer) -> None:
    reasons: list[str] = []
    gone_at = asyncio.Event()

    @server.on("connection")
    async def on_connection(socket: Socket) -> None:
        @socket.on("invoice.approve")
        async def approve(data: Any) -> Any:
            return {"approved": data["invoiceId"]}

        @socket.on("disconnect")
        def gone(reason: str) -> None:
            reasons.append(reason)
            gone_at.set()

    async with joined(server) as peer:
        assert await peer.data("invoice.approve", {"invoiceId": "inv_001"}) == {"approved": "inv_001"}
    await until(gone_at)
    assert len(reasons) == 1 and isinstance(reasons[0], str)


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_handlers_of_both_kinds(server: RealtimeServer, kind: str) -> None:
    seen: list[str] = []

    if kind == "def":

        @server.on("connection")
        def connected(socket: Socket) -> None:
            seen.append("connection")
            socket.on("own", lambda data: seen.append("own"))

        @server.event("shared")
        def shared(socket: Socket, data: Any) -> None:
            seen.append("shared")
    else:

        @server.on("connection")
        async def connected_later(socket: Socket) -> None:
            seen.append("connection")

            @socket.on("own")
            async def own(data: Any) -> None:
                seen.append("own")

        @server.event("shared")
        async def shared_later(socket: Socket, data: Any) -> None:
            seen.append("shared")

    async with joined(server) as peer:
        await peer.data("own")
        await peer.data("shared")
    assert seen == ["connection", "own", "shared"]


async def test_several_connection_handlers_all_run(server: RealtimeServer) -> None:
    seen: list[int] = []
    server.on("connection", lambda socket: seen.append(1))
    server.on("connection", lambda socket: seen.append(2))
    async with joined(server):
        assert seen == [1, 2]


def test_a_handler_for_a_name_that_is_taken_or_reserved(server_not_started: RealtimeServer) -> None:
    server_not_started.event("x")(lambda socket, data: None)
    for name in ("x", "join-room", "connected"):
        with pytest.raises(ConfigurationError):
            server_not_started.event(name)(lambda socket, data: None)
    with pytest.raises(ConfigurationError):
        server_not_started.on("conection", lambda socket: None)


@pytest.fixture
def server_not_started() -> RealtimeServer:
    return make_server()


# — the socket —


async def test_what_a_socket_knows(server: RealtimeServer) -> None:
    token = server.auth.issue(user_id="user_1", tenant_id="1", role="admin", claims={"plan": "gold"})
    async with connecting(server, token, headers={"X-Colour": "blue", "Cookie": "a=b"}) as peer:
        socket_id = (await peer.next("connected"))["data"]["socketId"]
        await peer.data("join-room", "tenant_1")
        socket = await socket_of(server, "user_1")
        assert socket.id == socket_id and socket.authenticated is True
        assert isinstance(socket.user, User)
        assert (socket.user.id, socket.user.role, socket.user.tenant_id, socket.user.claims) == ("user_1", "admin", "1", {"plan": "gold"})
        assert socket.rooms == frozenset({"tenant_1"}) and isinstance(socket.rooms, frozenset)
        assert socket.data == {}
        socket.data["a"] = 1
        assert socket.data == {"a": 1}
        assert socket.remote_address == "127.0.0.1"
        assert socket.headers["x-colour"] == "blue"
        assert token not in str(socket.headers) and token not in repr(socket)
        assert abs(socket.connected_at - time.time()) < 60, "Unix time"


async def test_a_socket_without_a_user(server: RealtimeServer) -> None:
    async with connecting(server) as peer:
        await peer.next("connected")
        [socket] = server.pool
        assert socket.user is None and socket.authenticated is False and socket.rooms == frozenset()
        for check in (True, False):
            with pytest.raises((AuthenticationError, PermissionDenied)):
                await socket.join("tenant_1", check=check)


async def test_emit(server: RealtimeServer) -> None:
    async with joined(server) as peer, joined(server, user_id="other") as other:
        socket = await socket_of(server, "user_1")
        socket.emit("notice", {"a": 1})
        socket.emit("bare")
        socket.emit("fleeting", {"b": 2}, volatile=True)
        assert await peer.next() == {"event": "notice", "data": {"a": 1}}
        assert (await peer.next("bare")).get("data") is None
        assert (await peer.next("fleeting"))["data"] == {"b": 2}
        assert await other.heard() == []


async def test_call(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        socket = await socket_of(server, "user_1")
        asking = asyncio.ensure_future(socket.call("question", {"a": 1}, timeout=5))
        question = await peer.next("question")
        await peer.send("ack", {"b": 2}, ref=question["ref"])
        assert await asyncio.wait_for(asking, 5) == {"b": 2}
        with pytest.raises(RequestTimeout):
            await socket.call("question", timeout=0.01)
        asking = asyncio.ensure_future(socket.call("question", timeout=5))
        await asyncio.sleep(0)
        socket.disconnect()
        with pytest.raises(ConnectionClosed):
            await asyncio.wait_for(asking, 5)


async def test_join_checks_and_leave_leaves(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        socket = await socket_of(server, "user_1")
        await socket.join("tenant_1")
        with pytest.raises(PermissionDenied):
            await socket.join("tenant_2")
        await socket.join("tenant_2", check=False)
        assert socket.rooms == {"tenant_1", "tenant_2"}
        await server.broadcaster.broadcast_to_room("tenant_2", "x", {})
        assert (await peer.next("x"))["room"] == "tenant_2"
        await socket.leave("tenant_2")
        assert socket.rooms == {"tenant_1"}
        with pytest.raises(NotInRoom):
            await socket.leave("tenant_2")


async def test_disconnect_with_a_code_and_a_reason(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        socket = await socket_of(server, "user_1")
        socket.disconnect(code=4503, reason="closed on sundays")
        socket.disconnect(code=4504, reason="twice")
        assert await peer.closed() == 4503 and peer.connection.close_reason == "closed on sundays"
        socket.emit("late", {})


async def test_disconnect_by_default_is_1000(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        (await socket_of(server, "user_1")).disconnect()
        assert await peer.closed() == 1000


async def test_a_reason_that_is_too_long_is_no_reason_to_fail(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        (await socket_of(server, "user_1")).disconnect(code=4503, reason="ü" * 200)
        assert await peer.closed() == 4503


async def test_emitting_what_json_cannot_express_is_the_callers_error(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        socket = await socket_of(server, "user_1")
        with pytest.raises((RealtimeError, TypeError)):
            socket.emit("x", object())
        await peer.ask("ping")


async def test_the_user_can_be_assigned(server: RealtimeServer) -> None:
    async with connecting(server) as peer:
        await peer.next("connected")
        [socket] = server.pool
        socket.user = User(id="user_9", tenant_id="1")
        socket.authenticated = True
        assert server.pool.get_user_connections("user_9") == [socket]
        await peer.data("join-room", "tenant_1")
        await server.broadcaster.broadcast_to_user("user_9", "hello", {})
        assert (await peer.next("hello"))["room"] == "user:user_9"


# — operation —


async def test_disconnect_asks_for_exactly_one(server: RealtimeServer) -> None:
    with pytest.raises((ConfigurationError, TypeError)):
        await server.disconnect()
    with pytest.raises((ConfigurationError, TypeError)):
        await server.disconnect(user_id="a", socket_id="b")
    await server.disconnect(user_id="nobody")


async def test_set_role_rechecks_what_one_is_in() -> None:
    roles = {"admin": {"vault": ["read", "write"], "hall": ["read"]}, "user": {"hall": ["read"]}}
    async with serving(authorization={"roles": roles}) as server, joined(server, "vault", "hall", role="admin") as peer:
        await server.set_role("user_1", "user")
        socket = await socket_of(server, "user_1")
        assert socket.user is not None and socket.user.role == "user" and socket.rooms == {"hall"}
        await server.broadcaster.broadcast_to_room("vault", "secret", {})
        await server.broadcaster.broadcast_to_room("hall", "public", {})
        assert [message["event"] for message in await peer.heard()] == ["room-closed", "public"]
        assert (await peer.ask("x", room="vault"))["event"] == "permission_denied"


async def test_stop_lets_running_handlers_finish(server: RealtimeServer) -> None:
    started, go = asyncio.Event(), asyncio.Event()
    done: list[bool] = []

    @server.event("slow")
    async def slow(socket: Socket, data: Any) -> Any:
        started.set()
        await until(go)
        done.append(True)
        return "done"

    async with joined(server) as peer:
        await peer.send("slow", ref=1)
        await until(started)
        stopping = asyncio.create_task(server.stop(drain=5))
        await peer.next("reconnect")
        with pytest.raises((OSError, websockets.InvalidHandshake)):
            await websockets.connect(server.url, proxy=None)
        go.set()
        assert (await peer.next())["data"] == "done"
        assert await peer.closed() == 4001
        await asyncio.wait_for(stopping, 5)
    assert done == [True]


async def test_stop_does_not_wait_longer_than_it_was_told(server: RealtimeServer, caplog: pytest.LogCaptureFixture) -> None:
    started = asyncio.Event()

    @server.event("endless")
    async def endless(socket: Socket, data: Any) -> None:
        started.set()
        await asyncio.Event().wait()

    async with joined(server) as peer:
        await peer.send("endless", ref=1)
        await until(started)
        await asyncio.wait_for(server.stop(drain=0.05), 5)
        assert await peer.closed() == 4001
    assert [record.getMessage() for record in caplog.records if record.exc_info] == [], "being stopped is no failure of a handler"


# — HTTP —


@pytest.mark.parametrize("path", ["/health", "/ready", "/status"])
async def test_http(server: RealtimeServer, path: str) -> None:
    async with httpx.AsyncClient(base_url=server.url.replace("ws://", "http://"), trust_env=False) as http:
        response = await http.get(path)
        assert response.status_code == 200
        assert set(response.json()) == {"status"} and isinstance(response.json()["status"], str)
        assert (await http.head(path)).status_code == 200
        assert (await http.post(path)).status_code == 405
        assert (await http.get("/elsewhere")).status_code == 404


async def test_draining_is_not_ready(server: RealtimeServer) -> None:
    started, go = asyncio.Event(), asyncio.Event()

    @server.event("slow")
    async def slow(socket: Socket, data: Any) -> None:
        started.set()
        await until(go)

    async with httpx.AsyncClient(base_url=server.url.replace("ws://", "http://"), trust_env=False) as http, joined(server) as peer:
        assert (await http.get("/ready")).status_code == 200
        await peer.send("slow")
        await until(started)
        stopping = asyncio.create_task(server.stop(drain=5))
        await peer.next("reconnect")
        assert (await http.get("/ready")).status_code == 503, "over the connection that was kept alive"
        assert (await http.get("/health")).status_code == 200
        go.set()
        await asyncio.wait_for(stopping, 5)


# — in another app —


class Lifespan:
    """The part of an ASGI server that speaks `lifespan`, and WebSocket by its events."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self._say: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()

    async def __aenter__(self) -> Lifespan:
        self._task = asyncio.create_task(self._app({"type": "lifespan", "asgi": {"version": "3.0"}}, self._say.get, self._heard.put))
        await self._say.put({"type": "lifespan.startup"})
        assert (await asyncio.wait_for(self._heard.get(), 5))["type"] == "lifespan.startup.complete"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._say.put({"type": "lifespan.shutdown"})
        assert (await asyncio.wait_for(self._heard.get(), 5))["type"] == "lifespan.shutdown.complete"
        await asyncio.wait_for(self._task, 5)


async def test_mounted_in_an_asgi_app() -> None:
    server = make_server()
    mounted: Any = server.asgi()
    app: Any = Starlette(routes=[Mount("/realtime", app=mounted)], lifespan=server.lifespan)
    token = server.auth.issue(user_id="user_1", tenant_id="1")
    async with Lifespan(app):
        say: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {token}".encode())]
        scope: dict[str, Any] = {"type": "websocket", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "ws"}
        scope |= {"path": "/realtime/", "raw_path": b"/realtime/", "root_path": "", "query_string": b"", "headers": headers}
        scope |= {"subprotocols": [], "client": ("127.0.0.1", 5), "server": ("localhost", 80)}
        task = asyncio.create_task(app(scope, say.get, heard.put))
        await say.put({"type": "websocket.connect"})
        assert (await asyncio.wait_for(heard.get(), 5))["type"] == "websocket.accept"

        async def receive() -> Any:
            return json.loads((await asyncio.wait_for(heard.get(), 5))["text"])

        assert (await receive())["data"]["user"]["id"] == "user_1"
        await say.put({"type": "websocket.receive", "text": '{"event": "join-room", "data": "tenant_1", "ref": 1}'})
        assert (await receive())["data"]["roomId"] == "tenant_1"
        await server.broadcaster.broadcast_to_room("tenant_1", "x", {"a": 1})
        assert (await receive())["data"] == {"a": 1}
        await say.put({"type": "websocket.disconnect", "code": 1000})
        await asyncio.wait_for(task, 5)
        assert len(server.pool) == 0
