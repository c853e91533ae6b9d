"""What other implementations of WebSocket fell to, tried against the server. Each test names the public report whose class it is.

The same classes against the Python client are in `test_hostile_handshakes` and `test_hostile_server`; bombs and fragments by the hundred thousand
in `tests/network/test_hostile.py`. Nothing of Redis, tokens or keys is here.
"""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest

from aibos_realtime.protocol.frames import BINARY, CONTINUATION, PING, PONG, TEXT, parse_close
from tests.network.raw import KEY, Response, frame, member, raw, request, serving, smallest, upgraded

pytestmark = pytest.mark.usefixtures("clean_log")

SOON = 0.1
"""Seconds for the answer to a head, the best of a few tries: a busy machine is slow now and then, a head that costs much always."""
TRIES = 5
FILLERS = {
    "spaces": "b" + " " * 7000,
    "spaces and a fault": "b" + " " * 7000 + "@",
    "spaces and tabs": "b" + " \t" * 3500 + "@",
    "commas": "," * 7000,
    "commas and spaces": ", " * 3500 + "@",
    "semicolons": "permessage-deflate" + ";" * 7000,
    "parameters": "permessage-deflate" + "; a=b" * 1400,
    "offers": ", ".join(["permessage-deflate"] * 350),
    "an open quote": 'permessage-deflate; a="' + "b" * 7000,
    "backslashes": 'permessage-deflate; a="' + "\\" * 7000 + '"',
    "pairs": 'permessage-deflate; a="' + "\\b" * 3500 + '"',
    "equals": "permessage-deflate; a" + "=" * 7000,
    "a long name": "b" * 7000,
    "dots": "b." * 3500,
}
FIELDS = (
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Connection",
    "Upgrade",
    "Origin",
    "Authorization",
    "Cookie",
    "Sec-WebSocket-Key",
    "Host",
)


async def ask(port: int, head: bytes) -> tuple[Response, float]:
    async with raw(port) as connection:
        begin = time.perf_counter()
        await connection.send(head)
        response = await connection.response()
        return response, time.perf_counter() - begin


@pytest.mark.parametrize("field", FIELDS)
async def test_a_field_that_took_others_seconds_to_read(field: str) -> None:
    """CVE-2021-32640: a crafted Sec-WebSocket-Protocol kept `ws` busy. Here it is every field that is taken apart, filled in every such way."""
    async with (
        serving(compression={"enabled": True}, limits={"failed_authentications_per_minute": None}) as server,
        member(server, "canary") as canary,
    ):
        for name, filler in FILLERS.items():
            head = request(fields={field: filler})
            for _ in range(TRIES):
                response, seconds = await ask(server.port, head)
                if seconds < SOON:
                    break
            assert seconds < SOON, (name, seconds)
            assert response.status in (101, 400, 401, 403, 404, 426), (name, response)
        assert (await canary.ask("ping"))["event"] == "pong"


@pytest.mark.parametrize(("count", "statuses"), [(50, {101}), (128, {101, 431}), (2_000, {431}), (20_000, {431})])
async def test_more_fields_than_others_could_hold(count: int, statuses: set[int]) -> None:
    """CVE-2024-37890: a request with more fields than the parser's limit made the `ws` process end."""
    async with serving() as server:
        response, _ = await ask(server.port, request(*[f"X-{number}: y" for number in range(count)]))
        assert response.status in statuses
        async with member(server, "canary") as canary:
            assert (await canary.ask("ping"))["event"] == "pong"


@pytest.mark.parametrize("parameter", ["server_max_window_bits", "client_max_window_bits"])
async def test_windows_that_are_none(parameter: str) -> None:
    """undici, and others before: a number of window bits that the compressor cannot take was given to it, and threw where nobody caught it."""
    values = ("0", "7", "8", "08", "16", "99", "-1", "+9", "9.0", "1e1", "9" * 5000, "NaN", '"9"', '"99"', "٩", "")
    async with serving(compression={"enabled": True}) as server:
        for value in values:
            offer = f"permessage-deflate; {parameter}={value}".encode().decode("latin-1")
            async with raw(server.port) as connection:
                await connection.send(request(f"Sec-WebSocket-Extensions: {offer}"))
                response = await connection.response()
                assert response.status in (101, 400), (value, response)
                agreed = response.fields.get("sec-websocket-extensions", "")
                bits = [part.partition("=")[2] for part in agreed.split("; ") if part.startswith("server_max_window_bits")]
                assert bits in ([], ["9"]), (value, agreed)
                if response.status == 101:
                    await connection.send(frame(TEXT, b'{"event": "ping", "ref": "alive"}'))
                    assert (await connection.whole_frame())[1] == TEXT  # the welcome
                    assert (await connection.whole_frame())[1] == TEXT


@pytest.mark.parametrize("payload", [b"", b"x"], ids=["empty", "1 byte"])
async def test_tiny_fragments_count_even_where_they_are_empty(payload: bytes) -> None:
    """`ws` 8.21.0 and 8.21.1: fragments cost memory beside their bytes, and empty ones escaped the limit of the size."""
    async with serving(limits={"messages_per_second": None}) as server, member(server, "ann") as connection:
        # As many as may be are one message; of the next one, the last fragment is one too many.
        good = [frame(TEXT, b'{"event": "ping", "ref": "1"}', fin=False), *[frame(CONTINUATION, fin=False)] * 254, frame(CONTINUATION)]
        await connection.send(b"".join(good))
        assert (await connection.message("pong"))["ref"] == "1"
        await connection.send(frame(BINARY, payload, fin=False) + frame(CONTINUATION, payload, fin=False) * 255)
        await connection.send(frame(CONTINUATION, payload))
        assert await connection.close_code() == 1009


@pytest.mark.parametrize("opcode", [PONG, PING])
async def test_control_frames_before_a_token_begin_nothing(opcode: int) -> None:
    """CVE-2026-48802: each PONG of a peer that had not authenticated began a heartbeat task."""
    async with serving(limits={"control_frames_per_second": None}) as server:
        async with upgraded(server.port) as connection:
            await connection.frame()
            before = len(asyncio.all_tasks())
            for _ in range(20):
                connection.write(frame(opcode, b"p" * 100) * 100)
            await connection.send(frame(TEXT, b'{"event": "ping", "ref": "1"}'))
            while (found := await connection.frame())[0] != TEXT:
                assert found[0] == PONG
            assert b'"ref":"1"' in found[1].replace(b" ", b"")
            assert len(asyncio.all_tasks()) <= before + 1


@pytest.mark.parametrize("bomb", [2**20, 2**24], ids=["1 MiB", "16 MiB"])
async def test_a_bomb_in_every_wrapping(bomb: int) -> None:
    """CVE-2026-39804 and GHSA-hxp9-w8x3-p566: the limit of a message held for its compressed size alone."""
    packed = smallest(b" " * bomb)
    wrappings = {
        "whole": frame(TEXT, packed, rsv1=True),
        "in two": frame(TEXT, packed[:5], fin=False, rsv1=True) + frame(CONTINUATION, packed[5:]),
        "behind empty fragments": frame(TEXT, fin=False, rsv1=True) + frame(CONTINUATION, fin=False) * 9 + frame(CONTINUATION, packed),
        "behind a stored block": frame(TEXT, b"\x00\x01\x00\xfe\xff " + packed, rsv1=True),
        "as a stream that ends, and another": frame(TEXT, b"\x03\x00" + packed, rsv1=True),
    }
    async with serving(compression={"enabled": True}) as server:
        for name, data in wrappings.items():
            async with upgraded(server.port, "Sec-WebSocket-Extensions: permessage-deflate") as connection:
                await connection.frame()
                await connection.send(data)
                opcode, payload = await connection.frame()
                assert parse_close(payload)[0] == 1009, (name, opcode, payload)


async def test_packets_that_ended_others_processes() -> None:
    """CVE-2022-21676, CVE-2023-32695, CVE-2024-38355: one packet of an odd shape was an exception that nobody caught, and the process ended."""
    choose = Random(38355)
    packets = [b"null", b"[]", b"0", b'""', b"{}", b'{"event": null}', b'{"event": {}}', b'{"event": []}', b'{"event": "ping", "ref": {}}']
    packets += [b'{"event": "toString"}', b'{"event": "__proto__", "data": {"__proto__": {}}}', b'{"event": "error"}', b'{"event": "connected"}']
    packets += [b'{"event": "ack", "ref": 1}', b'{"event": "join-room", "data": null}', b'{"event": "join-room", "data": {"roomId": []}}']
    packets += [b"4{}", b"2", b"40", b'42["hello"]', b'51-["x",{"_placeholder":true,"num":10}]', b"\x00", bytes((KEY.encode()[0],))]
    packets += [choose.randbytes(choose.randint(1, 60)).decode("latin-1").encode() for _ in range(60)]
    limits = {"messages_per_second": None, "failed_authentications_per_minute": None}
    async with serving(limits=limits) as server, member(server, "canary") as canary:
        for packet in packets:
            for opcode in (TEXT, BINARY):
                async with upgraded(server.port) as connection:
                    await connection.frame()
                    await connection.send(frame(opcode, packet) + frame(PING))
                    await connection.frame()  # an answer, a close, or a pong where there is nothing to answer
        assert (await canary.ask("ping"))["event"] == "pong"
