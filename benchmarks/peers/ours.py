"""This project, alone or as a node: a token for each client, rooms and rights as in an application; limits that would slow the load down are raised.

Rooms called live:… keep no events, all others do. Settings come by the environment: PORT, JWT_SECRET, DATABASE_URL; REDIS_URL and NODE for one of
several nodes, ACK for another acknowledgement than by default.
"""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from aibos_realtime import RealtimeServer, Socket

EVENT = "bench.event"
MANY = 1_000_000
UNLIMITED = (
    "messages_per_second",
    "publishes_per_second",
    "handshakes_per_second",
    "handshakes_per_second_per_address",
    "connections_per_user",
    "connections_per_address",
)


def make_server(environment: dict[str, str]) -> RealtimeServer:
    """The node that the environment describes, with the one handler that the load asks for."""
    persistence: dict[str, Any] = {"database": {"url": environment["DATABASE_URL"]}}
    if ack := environment.get("ACK"):
        persistence["ack"] = ack
    scaling: dict[str, Any] = {}
    if redis := environment.get("REDIS_URL"):
        scaling = {"enabled": True, "redis": {"url": redis}, "instance_id": environment["NODE"]}
    server = RealtimeServer(
        host="127.0.0.1",
        port=int(environment["PORT"]),
        authentication={"jwt_secret": environment["JWT_SECRET"]},
        authorization={"permissions": {"bench:*": ["read", "write"], "live:*": ["read", "write"]}},
        rooms={"max_rooms": MANY, "max_users_per_room": MANY, "patterns": {"live:*": {"ephemeral": True, "max_users": MANY}}},
        connections={"max_connections": MANY},
        limits={name: None for name in UNLIMITED} | {"message_bytes": 1 << 20},
        persistence=persistence,
        scaling=scaling,
    )

    @server.event("echo")
    async def echo(socket: Socket, data: str) -> str:
        return data

    @server.event("broadcast")
    async def broadcast(socket: Socket, wanted: dict[str, Any]) -> None:
        """`count` events from the server itself, `window` on the way, each worker in a room of its own."""
        data = json.loads(wanted["data"])

        async def publish(room: str) -> None:
            for _ in range(wanted["count"] // wanted["window"]):
                await server.broadcaster.broadcast_to_room(room, EVENT, data)

        await asyncio.gather(*(publish(f"bench:{worker}") for worker in range(wanted["window"])))

    return server


if __name__ == "__main__":
    make_server(dict(os.environ)).run(drain=0)
