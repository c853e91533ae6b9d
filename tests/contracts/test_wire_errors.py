"""The protocol, "Error codes": what is wrong costs its sender an answer, and nobody else anything."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest

from aibos_realtime import (
    BrokerUnavailable,
    Overloaded,
    PermissionDenied,
    QueueFull,
    RateLimitExceeded,
    RealtimeError,
    RealtimeServer,
    RequestTimeout,
    RoomNotFound,
    Socket,
)
from aibos_realtime.backends.base import Draft, Receipt
from aibos_realtime.backends.memory.broker import MemoryBroker
from aibos_realtime.testing.clock import ManualClock
from tests.contracts.peer import PATIENCE, PROTOCOL, Peer, connecting, joined, open_by_hand, read_frame, serving

BASE = {"code", "message", "retryable"}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# — bad_request —

NOT_ONE_OF_OURS = {
    "not JSON": "hello",
    "empty": "",
    "half of one": '{"event": "x"',
    "two": '{"event": "x"}{"event": "x"}',
    "a list": "[]",
    "a number": "1",
    "null": "null",
    "no event": '{"data": {}}',
    "event of a wrong type": '{"event": 5}',
    "event empty": '{"event": ""}',
    "event with a space": '{"event": "a b"}',
    "event not ASCII": '{"event": "ü"}',
    "event too long": json.dumps({"event": "x" * 129}),
    "room of a wrong type": '{"event": "x", "room": 5}',
    "room empty": '{"event": "x", "room": ""}',
    "room with a space": '{"event": "x", "room": "a b"}',
    "room too long": json.dumps({"event": "x", "room": "x" * 129}),
    "ref too long": json.dumps({"event": "x", "room": "tenant_1", "ref": "x" * 65}),
    "ref of a wrong type": '{"event": "x", "room": "tenant_1", "ref": {}}',
    "ref a fraction": '{"event": "x", "room": "tenant_1", "ref": 1.5}',
    "ref true": '{"event": "x", "room": "tenant_1", "ref": true}',
    "id too long": json.dumps({"event": "x", "room": "tenant_1", "id": "x" * 129}),
    "id of a wrong type": '{"event": "x", "room": "tenant_1", "id": 5}',
    "too deep": json.dumps({"event": "x", "room": "tenant_1", "data": nested(33)}),
    "far too deep": '{"event": "x", "room": "tenant_1", "data": ' + "[" * 20_000 + "]" * 20_000 + "}",
    "an integer too large": '{"event": "x", "room": "tenant_1", "data": 9007199254740993}',
    "an integer too small": '{"event": "x", "room": "tenant_1", "data": [-9007199254740993]}',
    "a huge integer": '{"event": "x", "room": "tenant_1", "data": ' + "9" * 400 + "}",
    "NaN": '{"event": "x", "room": "tenant_1", "data": NaN}',
    "beyond the numbers": '{"event": "x", "room": "tenant_1", "data": 1e999}',
    "NUL": '{"event": "x", "room": "tenant_1", "data": "a\\u0000b"}',
    "NUL in a key": '{"event": "x", "room": "tenant_1", "data": {"a\\u0000": 1}}',
    "half a surrogate pair": '{"event": "x", "room": "tenant_1", "data": "\\ud800"}',
    "the other half": '{"event": "x", "room": "tenant_1", "data": ["\\udc00"]}',
    "join without a room": '{"event": "join-room"}',
    "join of a number": '{"event": "join-room", "data": 5}',
    "join of a bad name": '{"event": "join-room", "data": "a b"}',
    "recover of a wrong shape": '{"event": "join-room", "data": {"roomId": "tenant_1", "recover": 5}}',
    "rewind of a wrong type": '{"event": "join-room", "data": {"roomId": "tenant_1", "rewind": "all"}}',
    "leave without a room": '{"event": "leave-room"}',
    "presence without a room": '{"event": "presence"}',
}


@pytest.mark.parametrize("text", NOT_ONE_OF_OURS.values(), ids=NOT_ONE_OF_OURS.keys())
async def test_bad_request(server: RealtimeServer, text: str) -> None:
    async with joined(server, "tenant_1", user_id="other") as other, joined(server) as peer:
        await peer.send_text(text)
        answer = await peer.next("error")
        assert set(answer) == {"event", "data"}
        assert set(answer["data"]) == BASE
        assert answer["data"]["code"] == "bad_request" and answer["data"]["retryable"] is False and answer["data"]["message"]
        assert await other.heard() == []
        assert (await peer.ask("ping"))["event"] == "pong"


WITH_A_REF = {
    "room with a space": '{"event": "x", "room": "a b", "ref": 7}',
    "event with a space": '{"event": "a b", "ref": 7}',
    "event of a wrong type": '{"event": 5, "ref": 7}',
    "id too long": json.dumps({"event": "x", "room": "tenant_1", "id": "x" * 129, "ref": 7}),
    "id of a wrong type": '{"event": "x", "room": "tenant_1", "id": 5, "ref": 7}',
    "too deep": json.dumps({"event": "x", "room": "tenant_1", "data": nested(33), "ref": 7}),
    "NUL": '{"event": "x", "room": "tenant_1", "data": "\\u0000", "ref": 7}',
    "join of a number": '{"event": "join-room", "data": 5, "ref": 7}',
}


@pytest.mark.parametrize("text", WITH_A_REF.values(), ids=WITH_A_REF.keys())
async def test_every_request_with_a_ref_gets_its_error(server: RealtimeServer, text: str) -> None:
    async with joined(server) as peer:
        await peer.send_text(text)
        answer = await peer.next("error")
        assert answer.get("ref") == 7 and answer["data"]["code"] == "bad_request"


GOOD = {
    "names of every character": {"event": "aZ09_.:@/-", "room": "tenant_1", "ref": 1},
    "names of every length": {"event": "x" * 128, "room": "tenant_1", "ref": 1},
    "ref of 64": {"event": "x", "room": "tenant_1", "ref": "x" * 64},
    "ref 0": {"event": "x", "room": "tenant_1", "ref": 0},
    "ref negative": {"event": "x", "room": "tenant_1", "ref": -5},
    "id of 128": {"event": "x", "room": "tenant_1", "ref": 1, "id": "x" * 128},
    "32 levels": {"event": "x", "room": "tenant_1", "ref": 1, "data": nested(32)},
    "large integers": {"event": "x", "room": "tenant_1", "ref": 1, "data": [2**53, -(2**53)]},
    "null": {"event": "x", "room": "tenant_1", "ref": 1, "data": None},
    "a pair of surrogates": {"event": "x", "room": "tenant_1", "ref": 1, "data": "𝄞"},
}


@pytest.mark.parametrize("message", GOOD.values(), ids=GOOD.keys())
async def test_what_just_fits(server: RealtimeServer, message: dict[str, Any]) -> None:
    async with joined(server, "tenant_1") as peer:
        await peer.send_text(json.dumps(message))
        answer = await peer.answer(message["ref"])
        assert answer["event"] == "ack", answer
        assert (await peer.next()).get("data") == message.get("data")


async def test_twenty_bad_requests_in_ten_seconds_are_4509(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1", user_id="other") as other, joined(server) as peer:
        for _ in range(19):
            await peer.send_text("bad")
            await peer.next("error")
        await peer.ask("ping")
        await peer.send_text("bad")
        assert await peer.closed() == 4509
        await other.data("x", room="tenant_1")


async def test_bad_requests_are_forgiven_with_time() -> None:
    clock = ManualClock()
    async with serving(clock=clock) as server, joined(server) as peer:
        for _ in range(3):
            for _ in range(19):
                await peer.send_text("bad")
                await peer.next("error")
            await clock.advance(10.5)
        await peer.ask("ping")


# — what ends a connection at once —


async def test_binary_under_json_is_4501(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        await peer.send_text(b'{"event": "ping"}')
        assert await peer.closed() == 4501


async def test_text_under_messagepack_is_4501(server: RealtimeServer) -> None:
    async with connecting(server, server.auth.issue(user_id="u"), protocols=[f"{PROTOCOL}.msgpack"]) as peer:
        await peer.connection.recv()
        await peer.send_text('{"event": "ping"}')
        async with asyncio.timeout(5):
            await peer.connection.wait_closed()
        assert peer.connection.close_code == 4501


async def test_over_the_size_limit_is_1009(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1", user_id="other") as other, joined(server) as peer:
        await peer.send_text(json.dumps({"event": "x", "room": "tenant_1", "data": "x" * 65_000}))
        assert len((await other.next("x"))["data"]) == 65_000
        await peer.send_text(json.dumps({"event": "x", "room": "tenant_1", "data": "x" * 65_536}))
        assert await peer.closed() == 1009
        assert await other.heard() == []


async def test_a_megabyte_on_its_way_does_not_eat_the_close_frame(server: RealtimeServer) -> None:
    """A peer that goes on sending gets the close frame whole: what comes in after it is read and thrown away."""
    reader, writer = await open_by_hand(server)
    try:
        async with asyncio.timeout(PATIENCE):
            assert (await read_frame(reader))[0] == 0x1
            writer.write(b"\x81\xff" + (50_000_000).to_bytes(8, "big") + bytes(4))
            for _ in range(20):
                writer.write(bytes(100_000))
                await writer.drain()
            opcode, payload = await read_frame(reader)
        assert opcode == 0x8 and int.from_bytes(payload[:2], "big") == 1009
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_over_the_size_limit_in_fragments_is_1009(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        await peer.connection.send("x" * 1000 for _ in range(100))
        assert await peer.closed() == 1009


async def test_too_many_fragments(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        await peer.connection.send("x" for _ in range(300))
        assert await peer.closed() in (1008, 1009, 4501)


async def test_text_that_is_not_utf_8_is_1007(server: RealtimeServer) -> None:
    async with joined(server) as peer:
        await peer.connection.send(b'{"event": "\xff"}', text=True)
        assert await peer.closed() == 1007


# — rates —


async def test_fifty_messages_a_second_with_a_burst_of_a_hundred() -> None:
    clock = ManualClock()
    async with serving(clock=clock) as server, joined(server) as peer:
        await clock.advance(10)
        for _ in range(100):
            await peer.send("presence", {"roomId": "tenant_1"})
        data = await peer.refusal("presence", {"roomId": "tenant_1"})
        assert set(data) == BASE | {"retryAfter"}
        assert data["code"] == "rate_limited" and data["retryable"] is True and 0 < data["retryAfter"] <= 0.1
        assert len([message for message in await heard_without_asking(peer) if message["event"] == "presence"]) == 100
        await clock.advance(1)
        for _ in range(50):
            await peer.data("presence", {"roomId": "tenant_1"})
        assert (await peer.refusal("presence", {"roomId": "tenant_1"}))["code"] == "rate_limited"


@pytest.mark.parametrize(
    ("limits", "message"),
    [({"messages_burst": 1}, ("presence", {"roomId": "tenant_1"}, {})), ({"publishes_burst": 1}, ("x", {}, {"room": "tenant_1"}))],
    ids=["messages", "publishes"],
)
async def test_whoever_waits_as_long_as_he_is_told_is_let_through(limits: dict[str, Any], message: tuple[str, Any, dict[str, Any]]) -> None:
    """`retryAfter` is a promise: nobody who keeps to it is refused twice in a row, let alone closed."""
    event, data, members = message
    clock = ManualClock()
    async with serving(clock=clock, limits=limits) as server, joined(server) as peer:
        await clock.advance(10)
        refused_twice = 0
        for _ in range(30):
            answer = await peer.ask(event, data, **members)
            if answer["event"] == "error":
                await clock.advance(answer["data"]["retryAfter"] + 0.001)
                refused_twice += (await peer.ask(event, data, **members))["event"] == "error"
        assert refused_twice == 0


async def heard_without_asking(peer: Peer) -> list[dict[str, Any]]:
    """`heard` asks for a pong, which a rate limit would refuse."""
    waiting = list(peer._waiting)
    peer._waiting.clear()
    return waiting


async def test_ten_publishes_a_second_with_a_burst_of_twenty() -> None:
    clock = ManualClock()
    async with serving(clock=clock) as server, joined(server) as peer, joined(server) as other:
        await clock.advance(10)
        for _ in range(20):
            await peer.data("x", room="tenant_1")
        data = await peer.refusal("x", room="tenant_1")
        assert set(data) == BASE | {"retryAfter"}
        assert data["code"] == "rate_limited" and data["retryable"] is True and 0 < data["retryAfter"] <= 0.2
        await peer.data("presence", {"roomId": "tenant_1"})
        await other.data("x", room="tenant_1")
        await clock.advance(1)
        for _ in range(10):
            await peer.data("x", room="tenant_1")
        assert (await peer.refusal("x", room="tenant_1"))["code"] == "rate_limited"


async def test_a_service_publishes_without_a_limit(server: RealtimeServer) -> None:
    async with joined(server, role="service") as peer:
        for _ in range(40):
            await peer.data("x", room="tenant_1")


async def test_rates_can_be_switched_off() -> None:
    async with serving(limits={"messages_per_second": None, "publishes_per_second": None}) as server, joined(server) as peer:
        for _ in range(150):
            await peer.send("x", room="tenant_1")
        await peer.data("x", room="tenant_1")
        assert await peer.heard() == []


# — handlers —


class Invoice(msgspec.Struct):
    number: str
    amount: int


@dataclass
class Bill:
    number: str
    amount: int


class Payment(pydantic.BaseModel):
    number: str
    amount: int


@pytest.mark.parametrize("payload", [Invoice, Bill, Payment], ids=["msgspec", "dataclass", "pydantic"])
async def test_validation_failed(server: RealtimeServer, payload: Any) -> None:
    seen = []

    @server.event("create", payload=payload)
    async def create(socket: Socket, given: Any) -> Any:
        seen.append(given)
        return {"number": given.number}

    async with joined(server) as peer:
        assert await peer.data("create", {"number": "a", "amount": 1}) == {"number": "a"}
        assert isinstance(seen[0], payload)
        for bad in ({"number": "PAYLOAD", "amount": "many"}, {"number": "PAYLOAD"}, "PAYLOAD", None):
            for members in ({}, {"room": "tenant_1"}):
                data = await peer.refusal("create", bad, **members)
                assert set(data) == BASE | {"errors"} and data["code"] == "validation_failed" and data["retryable"] is False
                assert data["errors"] and all(set(error) == {"path", "message"} for error in data["errors"])
        assert "amount" in (await peer.refusal("create", {"number": "a", "amount": "many"}))["errors"][0]["path"]
        assert len(seen) == 1


async def test_internal_has_an_id_that_the_log_has_and_nothing_else(server: RealtimeServer, caplog: pytest.LogCaptureFixture) -> None:
    @server.event("fail")
    async def fail(socket: Socket, data: Any) -> None:
        raise ValueError("the password is swordfish, see /etc/shadow")

    async with joined(server, "tenant_1") as peer, joined(server, "tenant_1", user_id="other") as other:
        data = await peer.refusal("fail", {"PAYLOAD": 1})
        assert data["code"] == "internal" and data["retryable"] is True
        assert set(data) - BASE <= {"id"}
        assert "swordfish" not in json.dumps(data) and "shadow" not in json.dumps(data) and "ValueError" not in json.dumps(data)
        words = {word.strip(".,:;()[]") for word in f"{data['message']} {data.get('id', '')}".split()}
        shared = {word for word in words if any(character.isdigit() for character in word) and word in caplog.text}
        assert shared, "the id of the error is in the log"
        errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(errors) == 1
        await peer.data("x", room="tenant_1")
        await other.next("x")
        assert (await peer.refusal("fail"))["message"] != data["message"] or "id" in data


async def test_a_handler_that_waits_for_something_cancelled_has_failed(server: RealtimeServer, caplog: pytest.LogCaptureFixture) -> None:
    """The server goes on: so it is a failure of the handler like any other, with an id, and in the log."""

    @server.event("fail")
    async def fail(socket: Socket, data: Any) -> None:
        task = asyncio.ensure_future(asyncio.Event().wait())
        task.cancel()
        await task

    async with joined(server) as peer:
        data = await peer.refusal("fail")
        assert data["code"] == "internal" and data["retryable"] is True
        assert [record for record in caplog.records if record.levelno >= logging.ERROR]
        await peer.ask("ping")


async def test_a_failing_handler_without_a_ref_is_told_too(server: RealtimeServer) -> None:
    @server.event("fail")
    def fail(socket: Socket, data: Any) -> None:
        raise KeyError("x")

    async with joined(server) as peer:
        await peer.send("fail")
        answer = await peer.next("error")
        assert answer["data"]["code"] == "internal" and "ref" not in answer


ERRORS: list[tuple[RealtimeError, str, bool, dict[str, Any]]] = [
    (RateLimitExceeded(retry_after=2.5), "rate_limited", True, {"retryAfter": 2.5}),
    (Overloaded(), "overloaded", True, {}),
    (QueueFull(), "overloaded", True, {}),
    (BrokerUnavailable(), "unavailable", True, {}),
    (RequestTimeout(), "timeout", True, {}),
    (RoomNotFound(), "room_not_found", False, {}),
    (RealtimeError("Not today.", code="closed_on_sundays"), "closed_on_sundays", False, {}),
]


@pytest.mark.parametrize(("error", "code", "retryable", "more"), ERRORS, ids=[type(error).__name__ for error, *_ in ERRORS])
async def test_an_error_of_ours_reaches_the_peer_as_it_is(
    server: RealtimeServer, error: RealtimeError, code: str, retryable: bool, more: Any
) -> None:
    @server.event("fail")
    async def fail(socket: Socket, data: Any) -> None:
        raise error

    async with joined(server) as peer:
        assert await peer.refusal("fail") == {"code": code, "message": str(error), "retryable": retryable, **more}


async def test_permission_denied_by_a_handler(server: RealtimeServer) -> None:
    @server.event("fail")
    async def fail(socket: Socket, data: Any) -> None:
        raise PermissionDenied(resource="invoice_1", action="approve")

    async with joined(server) as peer:
        answer = await peer.ask("fail")
        assert answer["event"] == "permission_denied"
        assert set(answer["data"]) == BASE | {"resource", "action"} and answer["data"]["action"] == "approve"


class DownBroker(MemoryBroker):
    """A broker that lost its server."""

    def publish(self, draft: Draft) -> asyncio.Future[Receipt]:
        lost: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        error = BrokerUnavailable()
        error.__cause__ = OSError("connection refused by 10.0.0.1")
        lost.set_exception(error)
        return lost


async def test_unavailable() -> None:
    async with serving(broker=DownBroker()) as server, joined(server) as peer:
        data = await peer.refusal("x", room="tenant_1")
        assert set(data) == BASE and data["code"] == "unavailable" and data["retryable"] is True and "10.0.0.1" not in data["message"]
        await peer.ask("ping")


async def test_a_failing_connection_handler_costs_its_own_connection(server: RealtimeServer) -> None:
    async with joined(server, "tenant_1") as other:

        @server.on("connection")
        def connection(socket: Socket) -> None:
            raise ValueError("no")

        async with connecting(server, server.auth.issue(user_id="u")) as peer:
            assert await peer.closed() == 4004
        await other.data("x", room="tenant_1")


async def test_a_failing_disconnect_handler_costs_nothing(server: RealtimeServer) -> None:
    called = asyncio.Event()

    @server.on("disconnect")
    def gone(socket: Socket, reason: str) -> None:
        called.set()
        raise ValueError("no")

    async with joined(server, "tenant_1") as other:
        async with joined(server, "tenant_1", user_id="u"):
            pass
        await asyncio.wait_for(called.wait(), 5)
        assert [member.user_id for member in await server.rooms.get_room_users("tenant_1")] == ["user_1"]
        await other.data("x", room="tenant_1")
