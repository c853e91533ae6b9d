"""websockets, the library, with its own `broadcast()` and rooms as an application would write them. Rooms and messages as in `uws.js`."""

from __future__ import annotations

import os

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

rooms: dict[str, set[ServerConnection]] = {}


async def take(socket: ServerConnection) -> None:
    assert socket.request is not None
    joined = socket.request.path[1:].split(",")
    for room in joined:
        rooms.setdefault(room, set()).add(socket)
    try:
        async for message in socket:
            assert isinstance(message, str)
            room = message[: message.index(" ")]
            if room == "echo":
                await socket.send(message)
            else:
                broadcast(rooms[room], message)
    finally:
        for room in joined:
            rooms[room].discard(socket)
            if not rooms[room]:
                del rooms[room]


async def main() -> None:
    async with serve(take, "127.0.0.1", int(os.environ["PORT"]), ping_interval=None, compression=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
