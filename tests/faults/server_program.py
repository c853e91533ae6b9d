"""The server that the rig kills: one for any user with a token of its secret, without limits on how fast, and with a store.

Run in a process of its own by `processes.Server`; it says `listening` when it does.
"""

from __future__ import annotations

import logging
from typing import Any

from aibos_realtime import RealtimeServer

SECRET = "a secret of the faults rig alone, of 32 bytes or more"

UNLIMITED = {
    "messages_per_second": None, "publishes_per_second": None, "control_frames_per_second": None, "handshakes_per_second": None,
    "handshakes_per_second_per_address": None, "connections_per_user": None, "connections_per_address": None,
}  # fmt: skip


def main(options: dict[str, Any]) -> None:
    """`options`: those of `make_server`."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    make_server(**options).run(on_started=lambda: print("listening", flush=True))


def make_server(
    port: int,
    database: str,
    pattern: dict[str, Any] | None = None,
    database_options: dict[str, Any] | None = None,
    ack: str | None = None,
    limits: dict[str, Any] | None = None,
    **groups: Any,
) -> RealtimeServer:
    """The rig's server, not started. `pattern`: settings of every room; `limits`: those that are not off; `groups`: further option groups."""
    return RealtimeServer(
        host="127.0.0.1",
        port=port,
        authentication={"jwt_secret": SECRET},
        authorization={"permissions": {"*": ["read", "write"]}},
        rooms={"patterns": {"*": pattern or {}}, "max_users_per_room": 10_000},
        connections={"max_connections": 10_000},
        limits=UNLIMITED | (limits or {}),
        persistence={"database": {"url": database, **(database_options or {})}, "ack": ack},
        **groups,
    )
