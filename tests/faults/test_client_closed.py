"""What the rig has found out about a client that is closed while events come in."""

from __future__ import annotations

import asyncio

from tests.network.clients import make_client
from tests.network.scripted_server import Peer, ScriptedServer

ROOM = "tenant_123"


async def test_the_place_of_a_closed_client_passes_nothing_over() -> None:
    """`close` discarded what waited and went on reading during the goodbye: the place moved past what nobody had been told.

    An application that comes back with `recover=client.position(room)` then misses it, and nothing says so.
    """
    more, has_more = asyncio.Event(), asyncio.Event()
    release, busy = asyncio.Event(), asyncio.Event()
    handled: list[int | None] = []

    async def serve(peer: Peer) -> None:
        await peer.accept()
        await peer.join(ROOM)
        await peer.publish(ROOM, 1)
        await peer.publish(ROOM, 2)
        await more.wait()
        await peer.publish(ROOM, 3)
        has_more.set()
        await peer.hang()

    async with ScriptedServer(serve) as server:
        client = make_client(server.url)

        @client.on("tick")
        async def tick(data: object, event: object) -> None:
            handled.append(getattr(event, "offset", None))
            busy.set()
            await release.wait()

        await client.connect()
        await client.join_room(ROOM)
        await busy.wait()  # with event 1; event 2 is behind it
        more.set()
        await has_more.wait()  # event 3 is in the socket's buffer, and the client has not read it
        closing = asyncio.ensure_future(client.close())
        release.set()
        await closing
        place = client.position(ROOM)
        assert place is not None and handled == list(range(1, place.offset + 1))
