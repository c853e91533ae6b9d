"""Compressed messages that are much larger than they look, in all the ways that DEFLATE allows; and many small ones."""

from __future__ import annotations

import asyncio
import secrets
import zlib

import pytest

from aibos_realtime.protocol.deflate import compress
from aibos_realtime.protocol.frames import BINARY, CONTINUATION, TEXT
from tests.attacks.arena import MEGABYTE, Arena
from tests.attacks.peers import DEFLATE, close_code, flood
from tests.network.raw import frame, smallest, text, upgraded

ON = {"enabled": True}
LAG = 0.1
"""Seconds that the loop may be late, on a machine that is busy with other tests; alone it is below 0.02."""
QUESTION = b'{"event":"ping","data":"' + b"0" * 65_000 + b'"}'


def in_pieces(payload: bytes, size: int, opcode: int = BINARY) -> bytes:
    """One compressed message in fragments of so many bytes."""
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    last = len(pieces) - 1
    return b"".join(frame(CONTINUATION if n else opcode, piece, fin=n == last, rsv1=n == 0) for n, piece in enumerate(pieces))


def bomb(size: int) -> bytes:
    """So many zeros."""
    deflater = zlib.compressobj(9, wbits=-15)
    return b"".join(deflater.compress(bytes(MEGABYTE)) for _ in range(size // MEGABYTE)) + deflater.flush(zlib.Z_SYNC_FLUSH)[:-4]


BOMBS = {
    "204 KB that inflate to 200 MB": frame(BINARY, bomb(200 * MEGABYTE), rsv1=True),
    "64 KB that inflate to 60 MB": frame(BINARY, bomb(60 * MEGABYTE), rsv1=True),
    "the same in 250 fragments": in_pieces(bomb(60 * MEGABYTE), 240),
    "16 ended streams, and one more bomb": frame(BINARY, b"\x03\x00" * 15 + bomb(60 * MEGABYTE), rsv1=True),
    "30,000 ended streams": frame(BINARY, b"\x03\x00" * 30_000, rsv1=True),
    "13,000 empty blocks": frame(BINARY, b"\x00\x00\x00\xff\xff" * 13_000, rsv1=True),
    "a bomb of a bomb": frame(TEXT, smallest(smallest(bytes(MEGABYTE)) * 1000), rsv1=True),
    "what refers to the message before": frame(TEXT, compress(QUESTION), rsv1=True) + frame(TEXT, b"\xaa\x85\xff\xff", rsv1=True),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
async def test_a_bomb(arena: Arena, data: bytes, request: pytest.FixtureRequest) -> None:
    async with arena(request.node.callspec.id, compression=ON) as field, field.upgraded(DEFLATE) as attacker:
        await attacker.message("connected")
        sending = asyncio.ensure_future(flood(attacker, data, 1))
        assert await close_code(attacker) in (1007, 1009, 4501)
        await attacker.ended()
        await sending
        await field.report()
        assert field.worst_lag <= LAG * field.starvation()


@pytest.mark.parametrize("message", [QUESTION, b'{"event":"ping"}', b"0" * 60_000], ids=["bombs", "messages", "rubbish"])
async def test_10_000_small_ones(arena: Arena, message: bytes) -> None:
    """A segment of 256 KiB with 2,200 bombs held the loop for 180 ms and 37 MB; with 11,000 small messages as long."""
    small = frame(TEXT, compress(message), rsv1=True)
    async with arena(f"10,000 compressed messages of {len(small)} bytes", memory=2 * MEGABYTE, compression=ON) as field:
        async with field.upgraded(DEFLATE) as attacker:
            await attacker.message("connected")
            sending = asyncio.ensure_future(flood(attacker, small * 2500, 4 * 2500 * len(small)))
            assert await close_code(attacker) in (4013, 4509, None)
            await attacker.ended()
            await sending
        await field.report()
        assert field.worst_lag <= LAG * field.starvation()


async def test_20_attackers_with_small_bombs(arena: Arena) -> None:
    small = frame(TEXT, compress(QUESTION), rsv1=True) * 2200

    async def attack(port: int) -> None:
        async with upgraded(port, DEFLATE) as attacker:
            await attacker.message("connected")
            sending = asyncio.ensure_future(flood(attacker, small, len(small)))
            assert await close_code(attacker) in (4013, None)
            await attacker.ended()
            await sending

    async with arena("2,200 small bombs in a segment", attackers=20, compression=ON) as field:
        await asyncio.gather(*(attack(field.port) for _ in range(20)))


async def test_a_member_whose_answers_are_compressed_and_never_read(arena: Arena) -> None:
    """What is asked for is small, what is answered is large, and every answer has to be compressed for itself."""
    async with (
        arena("large answers, compressed, unread", compression=ON, limits={"outbox_seconds": 2.0}) as field,
        field.member("user", "tenant_1") as writer,
    ):
        for _ in range(8):
            answer = await writer.ask("grow", secrets.token_urlsafe(36_000), room="tenant_1")
            assert answer["event"] == "ack", answer
        async with field.upgraded(f"Authorization: Bearer {field.token('reader')}", DEFLATE, receive_bytes=4096) as attacker:
            attacker.stop_reading()
            question = text({"event": "history", "ref": 1, "data": {"roomId": "tenant_1", "limit": 300}})
            sending = asyncio.ensure_future(flood(attacker, question * 50, 50 * len(question)))
            await field.until(lambda figures: figures["slowCloses"] == 1)
            await field.until(lambda figures: figures["connections"] == 2)
            await sending
