"""A server that speaks as much of the protocol as load needs, and is wrong where a test wants it. It shares no code with the real one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import defaultdict
from collections.abc import Callable
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from aibos_realtime.load.plan import Place

Route = Callable[[int, dict[str, Any]], list[dict[str, Any]]]
"""(number of the connection, from 0; an event for it) → what it gets in its place."""

_quiet = logging.getLogger("tests.faulty_server")
_quiet.setLevel(logging.CRITICAL)


class FaultyServer:
    """`refuse(n)`: the HTTP answer to the n-th attempt, None to let it in. `answer(message)`: what a client's message gets in place of the right
    answer; None for the right one, {} for none at all. Events that are on the log are recovered unless `recovers` is False."""

    def __init__(
        self,
        route: Route = lambda _, event: [event],
        refuse: Callable[[int], tuple[int, dict[str, str], str] | None] = lambda _: None,
        answer: Callable[[dict[str, Any]], dict[str, Any] | None] = lambda _: None,
        *,
        recovers: bool = True,
    ) -> None:
        self._route = route
        self._refuse = refuse
        self._answer = answer
        self._recovers = recovers
        self._server: Server | None = None
        self.attempts = 0
        self.connections: list[ServerConnection] = []
        self.tokens: list[str | None] = []
        self.members: dict[str, dict[int, ServerConnection]] = defaultdict(dict)
        self.log: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.received: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        self._server = await serve(
            self._serve, "127.0.0.1", 0, process_request=self._process_request, subprotocols=["aibos.realtime.v1"],  # type: ignore[list-item]
            logger=_quiet, ping_interval=None, close_timeout=1,
        )  # fmt: skip
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()

    @property
    def place(self) -> Place:
        assert self._server is not None
        port = next(iter(self._server.sockets)).getsockname()[1]
        return Place("127.0.0.1", port, "/", False, ["127.0.0.1"])

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        self.attempts += 1
        refusal = self._refuse(self.attempts)
        if refusal is None:
            self.tokens.append(request.headers.get("Authorization"))
            return None
        status, fields, message = refusal
        body = json.dumps({"code": "no", "message": message}).encode()
        headers = Headers({"Content-Length": str(len(body)), "Connection": "close", **fields})
        return Response(status, HTTPStatus(status).phrase, headers, body)

    async def _serve(self, connection: ServerConnection) -> None:
        number = len(self.connections)
        self.connections.append(connection)
        await self._tell(connection, {"event": "connected", "data": {"socketId": str(number)}})
        try:
            async for text in connection:
                message = json.loads(text)
                self.received.append(message)
                await self._handle(number, connection, message)
        except ConnectionClosed:
            pass
        finally:
            for members in self.members.values():
                members.pop(number, None)

    async def _handle(self, number: int, connection: ServerConnection, message: dict[str, Any]) -> None:
        wrong = self._answer(message)
        if wrong is not None:
            if wrong:
                await self._tell(connection, {**wrong, "ref": message["ref"]})
        elif message["event"] == "join-room":
            await self._join(number, connection, message)
        elif "room" in message:
            await self._publish(connection, message)
        else:
            await self._tell(connection, {"event": "pong" if message["event"] == "ping" else "ack", "ref": message["ref"]})

    async def _join(self, number: int, connection: ServerConnection, message: dict[str, Any]) -> None:
        room, recover = message["data"]["roomId"], message["data"].get("recover")
        log = self.log[room]
        recovered = None if recover is None else self._recovers and recover["epoch"] == "epoch"
        offset = recover["offset"] if recovered else len(log)
        data = {"roomId": room, "epoch": "epoch", "offset": offset, "recovered": recovered}
        await self._tell(connection, {"event": "joined-room", "ref": message["ref"], "data": data})
        for event in log[offset:]:
            await self._tell(connection, event)
        self.members[room][number] = connection

    async def _publish(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        room = message["room"]
        log = self.log[room]
        event = {"event": message["event"], "room": room, "offset": len(log) + 1, "id": str(len(log)), "data": message["data"]}
        log.append(event)
        data = {"id": event["id"], "offset": event["offset"], "epoch": "epoch", "duplicate": False}
        await self._tell(connection, {"event": "ack", "ref": message["ref"], "data": data})
        for number, member in list(self.members[room].items()):
            for one in self._route(number, event):
                await self._tell(member, one)

    async def _tell(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        try:
            await connection.send(json.dumps(message))
        except ConnectionClosed:
            await asyncio.sleep(0)
