"""What is done to people's connections: by user, by socket, and to those whom a revoked token let in."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from aibos_realtime import ConfigurationError
from aibos_realtime.testing.server import MemoryServer, memory_server


@pytest.fixture
async def net() -> AsyncIterator[MemoryServer]:
    async with memory_server(authorization={"roles": {"admin": {"*": ["read"]}}}) as net:
        yield net


async def test_disconnecting(net: MemoryServer) -> None:
    first, second, other = await net.connect("ann"), await net.connect("ann"), await net.connect("bob")
    assert await net.server.disconnect(user_id="ann") == 2 and await first.closed() == await second.closed() == 4503
    assert await net.server.disconnect(socket_id=other.socket.id, code=4001) == 1 and await other.closed() == 4001
    assert await net.server.disconnect(user_id="ann") == 0 == await net.server.disconnect(socket_id="nobody")
    for call in (net.server.disconnect(), net.server.disconnect(user_id="a", socket_id="b")):
        with pytest.raises(ConfigurationError):
            await call


async def test_another_role_ends_what_it_does_not_allow(net: MemoryServer) -> None:
    ann = await net.connect("ann", role="admin")
    await ann.request("join-room", "a")
    assert await net.server.set_role("ann", "user") == 1
    assert (await ann.receive("room-closed"))["data"]["reason"] == "permission" and ann.socket.rooms == frozenset()
    assert await net.server.set_role("nobody", "user") == 0


async def test_a_revocation_closes_connections(net: MemoryServer) -> None:
    ann, bob, eve = await net.connect("ann"), await net.connect("bob"), await net.connect("eve")
    bob.socket.token_id = "t1"
    await net.server.auth.revoke(user_id="ann")
    await net.server.auth.revoke(token_id="t1")
    assert await ann.closed() == await bob.closed() == 4503 and not eve.socket.closing


async def test_revocations_that_come_late_close_only_what_they_mean(net: MemoryServer) -> None:
    clock, auth = net.server._clock, net.server.auth
    old, young, own = await net.connect("ann"), await net.connect("ann"), await net.connect("ann")
    nobody = await net.connect(None)
    now = clock.now()
    old.socket.token_issued_at, young.socket.token_issued_at = now - 10, now + 1
    own.socket.expires_at, own.socket.connected_at = None, now + 1  # by an application's own check
    auth.note_revoked(user_id="ann", at=now)
    for callback in auth._load_listeners:
        callback()
    assert await old.closed() == 4503
    assert not young.socket.closing and not own.socket.closing and not nobody.socket.closing
