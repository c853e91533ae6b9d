"""python-socketio on uvicorn alone or as a node; with REDIS_URL, its AsyncRedisManager joins the nodes."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import socketio
import uvicorn

EVENT = "bench.event"

url = os.environ.get("REDIS_URL")
manager = socketio.AsyncRedisManager(url) if url else None
sio = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], client_manager=manager)


async def join(sid: str, room: str) -> bool:
    await sio.enter_room(sid, room)
    return True


async def publish(sid: str, room: str, data: Any) -> bool:
    await sio.emit(EVENT, data, room=room)
    return True


async def echo(sid: str, data: Any) -> Any:
    return data


async def broadcast(sid: str, wanted: dict[str, Any]) -> bool:
    """`count` events from the server itself, `window` on the way, each worker in a room of its own."""
    data = json.loads(wanted["data"])

    async def emit(room: str) -> None:
        for _ in range(wanted["count"] // wanted["window"]):
            await sio.emit(EVENT, data, room=room)

    await asyncio.gather(*(emit(f"bench:{worker}") for worker in range(wanted["window"])))
    return True


for handler in (join, publish, echo, broadcast):
    sio.on(handler.__name__, handler)

if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(sio),
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        log_level="error",
        loop="uvloop",
        ws="websockets-sansio",
        ws_per_message_deflate=False,
    )
