"""Messages in pieces: very many, empty, never finished, and with control frames between them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from aibos_realtime.protocol.frames import CLOSE, CONTINUATION, PING, PONG, TEXT
from tests.attacks.arena import MEGABYTE, Arena
from tests.attacks.peers import LONG, NO_PACE, close_code, crowd, ended, flood
from tests.network.raw import MASK, frame, request

COUNT = 400_000


@pytest.mark.parametrize("size", [1, 0])
async def test_400_000_fragments(arena: Arena, size: int) -> None:
    piece = frame(CONTINUATION, b"x" * size, fin=False) * (COUNT // 40)
    async with arena(f"{COUNT:,} fragments of {size} bytes") as field, field.upgraded() as attacker:
        await attacker.message("connected")
        attacker.write(frame(TEXT, b"x", fin=False))
        sending = asyncio.ensure_future(flood(attacker, piece, len(piece) * 40))
        assert await close_code(attacker) == 1009
        await attacker.ended()
        await sending


@pytest.mark.parametrize("what", [frame(PING), frame(TEXT)], ids=["pings", "messages"])
async def test_a_segment_full_of_frames(arena: Arena, what: bytes) -> None:
    """One peer's 43,000 frames in one segment were all looked at before anybody else had his turn; and so again for 2 s after the close."""
    async with (
        arena(f"frames of {len(what)} bytes") as field,
        field.upgraded() as attacker,
    ):
        await attacker.message("connected")
        sending = asyncio.ensure_future(flood(attacker, what * 40_000, (50 if LONG else 5) * MEGABYTE))
        assert await close_code(attacker) in (4013, 4509, None)
        await attacker.ended()
        await sending


async def test_a_violation_and_much_behind_it(arena: Arena) -> None:
    """After the close everything is passed over, at the attacker's cost alone."""
    async with arena("200 MB behind a violation") as field, field.upgraded() as attacker:
        sending = asyncio.ensure_future(flood(attacker, b"\x83\x80" + MASK + frame(PING) * 40_000, 200 * MEGABYTE))
        assert await close_code(attacker) in (1002, None)
        await attacker.ended()
        await sending


async def test_control_frames_between_fragments(arena: Arena) -> None:
    """A message in 256 pieces with a ping before each is whole, and its pings are answered; a piece more, and it is refused."""
    pieces = [frame(TEXT, b'{"event":"ping","ref":"', fin=False), *[frame(CONTINUATION, b"a", fin=False)] * 54, frame(CONTINUATION, b'"}')]
    async with arena("a ping before every fragment", limits=NO_PACE) as field, field.upgraded() as attacker:
        await attacker.message("connected")
        await attacker.send(b"".join(frame(PING, b"x") + piece for piece in pieces))
        for _ in pieces:
            assert await attacker.frame() == (PONG, b"x")
        assert (await attacker.message("pong"))["ref"] == "a" * 54
        await attacker.send((frame(PING, b"x") + frame(TEXT, b"x", fin=False)) + (frame(PING, b"x") + frame(CONTINUATION, fin=False)) * 256)
        opcode = PONG
        while opcode == PONG:
            opcode, payload = await attacker.frame()
        assert (opcode, payload[:2]) == (CLOSE, (1009).to_bytes(2, "big"))
        await attacker.ended()


async def test_500_messages_that_are_never_finished(arena: Arena) -> None:
    """Each holds back as much as one message may have; all are gone when their time is over."""
    begun = frame(TEXT, b"x" * 32_000, fin=False) + frame(CONTINUATION, b"x" * 32_000, fin=False) + frame(CONTINUATION, b"x" * 1000)[:-1]
    limits = {"authentication_seconds": 1.0}
    async with arena("500 messages of 64 KiB, all but a byte", attackers=500, limits=limits) as field:
        with crowd(field.port, 500, request() + begun) as members:
            await field.until(lambda figures: figures["connections"] > 400)
            told = await ended(members, 8)
            assert sum((4502).to_bytes(2, "big") in words for words in told) == 500


async def test_500_messages_that_grow_by_a_byte(arena: Arena) -> None:
    """A piece of a byte every now and then prolongs nothing."""
    limits = {"authentication_seconds": 1.5}
    async with arena("500 messages that grow byte by byte", attackers=500, limits=limits) as field, AsyncExitStack() as stack:
        members = stack.enter_context(crowd(field.port, 500, request() + frame(TEXT, b"x", fin=False)))
        await field.until(lambda figures: figures["connections"] > 400)
        for _ in range(5):
            for member in members:
                member.sendall(frame(CONTINUATION, b"x", fin=False))
            await field.report()
        assert sum((4502).to_bytes(2, "big") in words for words in await ended(members, 8)) == 500
