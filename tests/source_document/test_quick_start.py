"""The source document, "Installation" and "Quick Start"."""

from __future__ import annotations

import os
from importlib.metadata import distribution
from importlib.resources import files

from aibos_realtime import RealtimeClient, RealtimeServer


def test_installation() -> None:
    """`pip install aibos-realtime` gives the package, with its types."""
    assert distribution("aibos-realtime").metadata["License-Expression"] == "MIT"
    assert files("aibos_realtime").joinpath("py.typed").is_file()


async def test_quick_start() -> None:
    # Initialize server
    realtime_server = RealtimeServer(
        host="127.0.0.1",
        port=0,  # the document: 3001
        cors={"origin": ["https://app.aibos.com"], "credentials": True},
        authentication={"jwt_secret": os.environ["JWT_SECRET"]},
    )

    # Start server
    await realtime_server.start()

    # Initialize client
    realtime_client = RealtimeClient(url=realtime_server.url, token=realtime_server.auth.issue(user_id="user_123"))

    # Connect client
    await realtime_client.connect()

    assert realtime_client.state == "connected"
    assert realtime_client.user is not None and realtime_client.user["id"] == "user_123"
    assert [socket.user.id for socket in realtime_server.pool if socket.user] == ["user_123"]

    await realtime_client.close()
    await realtime_server.stop()


async def test_quick_start_is_safe_to_repeat() -> None:
    """start, connect, close and stop twice each: what a reader does who tries it in a notebook."""
    server = RealtimeServer(host="127.0.0.1", port=0, authentication={"jwt_secret": os.environ["JWT_SECRET"]})
    await server.start()
    await server.start()
    client = RealtimeClient(url=server.url, token=server.auth.issue(user_id="user_123"))
    await client.connect()
    await client.connect()
    assert len(server.pool) == 1
    await client.close()
    await client.close()
    await server.stop()
    await server.stop()
