"""Peers that take their time, hundreds at once: with the handshake, with TLS, with a body, with a token, and with reading answers.

Whoever comes in earnest meanwhile is let in at once, and all of them are gone a second after their time is over.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest

from tests.attacks.arena import Arena, Field
from tests.attacks.peers import LONG, at_most, crowd, ended
from tests.network.raw import request

COUNT = 500
SECONDS = 10.0 if LONG else 1.0
"""The deadline that is tried."""
BUSY = 4.0
"""By so much may everything take longer while other tests run beside."""
HTTP = b"POST /api/v1/rooms/tenant_1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


async def let_in(field: Field) -> float:
    """Seconds that a good client takes to be welcomed."""
    begin = time.perf_counter()
    async with field.member("good") as good:
        assert (await good.ask("ping"))["event"] == "pong"
    return time.perf_counter() - begin


async def besiege(field: Field, members: list[socket.socket], act: Callable[[socket.socket, int], None], seconds: float) -> None:
    """Have each do something every now and then for so long; a good client connects all the while."""
    took: list[float] = []
    begin = time.perf_counter()
    step = 0
    while time.perf_counter() - begin < seconds - 0.3:
        for member in members:
            act(member, step)
        took.append(await let_in(field))
        step += 1
    field.figures["good client ms"] = round(1000 * max(took))
    assert max(took) < 0.2 * BUSY * field.starvation()


def nothing(member: socket.socket, step: int) -> None: ...


def a_byte(data: bytes) -> Callable[[socket.socket, int], None]:
    def act(member: socket.socket, step: int) -> None:
        try:
            member.send(data[step % len(data) : step % len(data) + 1])
        except OSError:
            pass

    return act


HANDSHAKES: dict[str, tuple[bytes, Callable[[socket.socket, int], None], bytes]] = {
    "say nothing": (b"", nothing, b""),
    "stop in the middle": (request()[:80], nothing, b" 408 "),
    "send a byte now and then": (request()[:20], a_byte(b"Host: localhost\r\nX: " + b"y" * 1000), b" 408 "),
    "send an empty line now and then": (b"\r\n", a_byte(b"\r\n"), b""),
    "begin HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", nothing, b" 400 "),
}


@pytest.mark.parametrize("what", HANDSHAKES)
async def test_slow_handshakes(arena: Arena, what: str) -> None:
    first, act, told = HANDSHAKES[what]
    limits = {} if LONG else {"handshake_seconds": SECONDS}
    async with arena(f"500 that {what}", attackers=COUNT, limits=limits) as field:
        begin = time.perf_counter()
        with crowd(field.port, COUNT, first) as members:
            await besiege(field, members, act, SECONDS)
            answers = await ended(members, 1 + BUSY)
        field.figures["gone after"] = round(time.perf_counter() - begin, 1)
        assert all(told in answer for answer in answers)


@pytest.mark.parametrize(
    "first", [b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 100, request()], ids=["nothing", "half a hello", "no TLS"]
)
async def test_tls_that_does_not_come_to_an_end(arena: Arena, first: bytes) -> None:
    """The deadline of the handshake holds before there is a handshake."""
    limits = {} if LONG else {"handshake_seconds": SECONDS}
    async with arena("500 that stall in TLS", attackers=COUNT, limits=limits, tls=True) as field:
        with crowd(field.port, COUNT, first) as members:
            begin = time.perf_counter()
            await besiege(field, members, nothing, SECONDS)
            await ended(members, 1 + BUSY)
            field.figures["gone after"] = round(time.perf_counter() - begin, 1)


async def test_500_that_never_authenticate(arena: Arena) -> None:
    limits = {} if LONG else {"authentication_seconds": SECONDS}
    async with arena("500 that never authenticate", attackers=COUNT, limits=limits) as field:
        with crowd(field.port, COUNT, request()) as members:
            begin = time.perf_counter()
            await besiege(field, members, nothing, SECONDS)
            answers = await ended(members, 2 + BUSY)
            field.figures["gone after"] = round(time.perf_counter() - begin, 1)
        assert all((4502).to_bytes(2, "big") in answer for answer in answers)


async def test_bodies_that_do_not_come(arena: Arena) -> None:
    """Whoever is known may send a body, and has 10 s for it; whoever is not is told so before."""
    async with arena("500 bodies that do not come", attackers=COUNT) as field, AsyncExitStack() as stack:
        unknown = stack.enter_context(crowd(field.port, COUNT - 20, HTTP + b"Content-Length: 1000\r\n\r\n{"))
        fields = f"Authorization: Bearer {field.token('writer')}\r\nContent-Length: 1000\r\n\r\n{{".encode()
        known = stack.enter_context(crowd(field.port, 20, HTTP + fields)) if LONG else []
        await let_in(field)
        assert all(b" 401 " in answer for answer in await ended(unknown, 11))
        assert all(b" 408 " in answer for answer in await ended(known, 12))


READERS = {
    "and keep the connection": b"GET /client.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 30,
    "and close the connection": b"GET /api/docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    "and send on": b"GET /client.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000,
}


@pytest.mark.parametrize("how", READERS)
async def test_answers_that_are_never_read(arena: Arena, how: str) -> None:
    """A connection that was closed with an unread answer was kept for ever, with its descriptor; 9,700 requests in a segment cost 338 MB."""
    limits = {} if LONG else {"answer_seconds": SECONDS}
    async with arena(f"unread answers, {how}", attackers=100, limits=limits) as field:
        before = field.descriptors()
        with crowd(field.port, 100, receive_bytes=4096) as members:
            for member in members:
                member.setblocking(False)
                try:
                    member.send(READERS[how])
                except BlockingIOError:
                    pass
            await let_in(field)
            await field.until_descriptors(before, 5 + (30 if LONG else SECONDS) + BUSY)


async def test_an_answer_that_is_read_slowly_is_read_whole(arena: Arena) -> None:
    """Slow is not stalled: 64 KiB within the time are enough."""
    async with arena("none: an answer that is read slowly", limits={"answer_seconds": 0.5}) as field:
        with crowd(field.port, 1, receive_bytes=4096) as [member]:
            member.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            async with at_most(5.0):
                [answer] = await ended([member], 5)
            assert answer.endswith(b'{"status":"ok"}')


async def test_a_thousand_requests_ahead_of_their_answers(arena: Arena) -> None:
    """One connection with 9,700 requests in a segment cost 338 MB, and the canary waited 2.7 s. A few may be sent ahead, as RFC 9112 allows."""
    plain = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with arena("10,000 requests in a segment") as field:
        async with field.raw() as client:
            client.write(plain * 30)
            assert [(await client.response()).status for _ in range(30)] == [200] * 30
        async with field.raw() as attacker:
            attacker.write(plain * 10_000)
            statuses = [(await attacker.response()).status for _ in range(34)]
            assert statuses == [200] * 33 + [429]
            await attacker.ended()
        await asyncio.gather(*(let_in(field) for _ in range(5)))
