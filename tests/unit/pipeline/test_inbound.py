"""The road of a message: limits, order, what is told to whom, and that nothing a client sends gets past it."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aibos_realtime import ConnectionClosed, PermissionDenied, RealtimeError, RealtimeServer, Socket, ValidationError
from aibos_realtime.protocol.messages import RESERVED
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.testing.server import MemoryClient, memory_server

OPEN: dict[str, Any] = {"authorization": {"permissions": {"*": ["read", "write"]}}}
KEY: dict[str, Any] = {"authentication": {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}, "persistence": {"database": {"url": "memory://"}}}
NO_PACE: dict[str, Any] = {"limits": {"messages_per_second": None, "publishes_per_second": None}}


@dataclass
class Invoice:
    amount: int


class Gates:
    """A server with handlers of every kind; `gate` holds the slow ones back, `began` says in which order they began."""

    def __init__(self, **options: Any) -> None:
        self.gate = asyncio.Event()
        self.began: list[Any] = []
        self.server = server = RealtimeServer(**KEY | OPEN | options)

        @server.event("quick")
        def quick(socket: Socket, data: Any) -> Any:
            self.began.append(data)
            return data

        @server.event("slow")
        async def slow(socket: Socket, data: Any) -> Any:
            self.began.append(data)
            await self.gate.wait()
            return data

        @server.event("fail")
        def fail(socket: Socket, data: Any) -> Any:
            raise {"plain": RuntimeError("the password is hunter2"), "ours": PermissionDenied(resource="r", action="a")}.get(
                str(data), RealtimeError("No.", details={"when": object()})
            )

        @server.event("fail-later")
        async def fail_later(socket: Socket, data: Any) -> Any:
            await asyncio.sleep(0)
            fail(socket, data)

        @server.event("odd")
        def odd(socket: Socket, data: Any) -> Any:
            return object()

        @server.event("invoice", payload=Invoice)
        def invoice(socket: Socket, invoice: Invoice) -> int:
            return invoice.amount


@pytest.fixture
async def gates() -> Gates:
    return Gates(**NO_PACE)


@pytest.fixture
async def client(gates: Gates) -> AsyncIterator[MemoryClient]:
    async with memory_server(gates.server) as net:
        yield await net.connect("ann")


# — routes —


async def test_who_takes_a_message(client: MemoryClient) -> None:
    assert await client.request("quick", {"a": 1}) == {"a": 1}
    client.socket.on("quick", lambda data: "own")
    assert await client.request("quick") == "own", "a socket's own handler comes first"
    assert (await client.request("quick", 5, room="lobby"))["offset"] == 1, "with a room it is always a publish"
    with pytest.raises(RealtimeError) as caught:
        await client.request("note", 1)
    assert caught.value.code == "unknown_event"
    await client.request("join-room", "a")
    assert (await client.request("note", 1))["offset"] == 1 and (await client.receive("note"))["room"] == "a"
    await client.request("join-room", "b")
    with pytest.raises(RealtimeError) as caught:
        await client.request("note", 1)
    assert caught.value.code == "room_required"


@pytest.mark.parametrize("event", sorted(RESERVED - {"authenticate", "join-room", "leave-room", "history", "presence", "ping", "ack"}))
async def test_nobody_speaks_with_the_servers_voice(client: MemoryClient, event: str) -> None:
    rooms: list[dict[str, Any]] = [{}, {"room": "lobby"}]
    for room in rooms:
        with pytest.raises(RealtimeError) as caught:
            await client.request(event, {}, **room)
        assert caught.value.code == "bad_request"


async def test_without_a_user_nothing_but_authenticate_and_ping(gates: Gates) -> None:
    async with memory_server(gates.server) as net:
        nobody = await net.connect()
        assert await nobody.request("ping") is None
        for event in ("quick", "join-room", "history", "presence", "leave-room", "note"):
            with pytest.raises(RealtimeError) as caught:
                await nobody.request(event, {"roomId": "a"})
            assert caught.value.code == "not_authenticated"
        assert gates.began == []


async def test_payloads_are_checked_for_handlers_and_for_rooms(client: MemoryClient) -> None:
    assert await client.request("invoice", {"amount": 5}) == 5
    ways: list[dict[str, Any]] = [{}, {"room": "lobby"}]
    for more in ways:
        with pytest.raises(ValidationError) as caught:
            await client.request("invoice", {"amount": "x"}, **more)
        assert caught.value.errors[0]["path"] == "$.amount"


# — order —


async def test_answers_come_in_the_order_of_the_requests(gates: Gates, client: MemoryClient) -> None:
    for ref, event in enumerate(["slow", "quick", "slow", "note"], 1):
        client.send(event, ref, ref=ref, **({"room": "lobby"} if event == "note" else {}))
    client.send("ping", ref="p")
    assert [message["ref"] for message in await client.take_all()] == ["p"] and gates.began == [1]
    gates.gate.set()
    assert [message["ref"] for message in await client.take_all()] == [1, 2, 3, 4]


async def test_one_sockets_wait_holds_up_no_other(gates: Gates) -> None:
    async with memory_server(gates.server) as net:
        first, second = await net.connect("ann"), await net.connect("bob")
        first.send("slow", 1, ref=1)
        await settle()
        assert await second.request("quick", 2) == 2
        gates.gate.set()
        assert (await first.receive("ack"))["ref"] == 1


@pytest.mark.parametrize("waiting", [255, 256, 257, 300])
async def test_behind_256_waiting_requests_reading_stops_and_goes_on(gates: Gates, client: MemoryClient, waiting: int) -> None:
    client.send("slow", 0, ref="first")
    await settle()
    for number in range(waiting):
        client.send("slow" if number % 3 else "quick", number + 1, ref=number)
    client.send("quick", "last", ref="last")
    await settle()
    assert (client.end._near._reading is False) is (waiting >= 255)
    gates.gate.set()
    async with asyncio.timeout(10):
        while (await client.receive())["ref"] != "last":
            pass
    assert gates.began == [*range(waiting + 1), "last"] and client.end._near._reading is True


async def test_a_backlog_of_slow_requests_alone_lets_reading_go_on_at_its_end(gates: Gates, client: MemoryClient) -> None:
    for number in range(257):
        client.send("slow", number)
    await settle()
    assert client.end._near._reading is False
    gates.gate.set()
    await settle(2000)
    assert await client.request("quick", "on") == "on"


async def test_what_waits_for_a_socket_that_went_is_not_begun(gates: Gates, client: MemoryClient) -> None:
    client.send("slow", 1)
    client.send("quick", 2)
    await settle()
    client.cut()
    await client.closed()
    gates.gate.set()
    await settle()
    assert gates.began == [1]


# — errors —


@pytest.mark.parametrize("event", ["fail", "fail-later"])
async def test_a_handler_that_fails_costs_its_request_and_shows_a_number(client: MemoryClient, event: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    with pytest.raises(RealtimeError) as caught:
        await client.request(event, "plain")
    error = caught.value
    assert (error.code, error.retryable) == ("internal", True) and error.details["id"] in error.message and error.details["id"] in caplog.text
    assert "hunter2" not in json.dumps([error.message, error.details])
    with pytest.raises(PermissionDenied):
        await client.request(event, "ours")
    with pytest.raises(RealtimeError):
        await client.request("odd")
    assert await client.request("quick", 1) == 1


@pytest.mark.parametrize("event", ["fail", "fail-later"])
async def test_an_error_whose_details_cannot_be_written_is_answered_too(client: MemoryClient, event: str) -> None:
    with pytest.raises(RealtimeError) as caught:
        await client.request(event, "details", timeout=1)
    assert caught.value.code == "internal"
    assert await client.request("quick", 1, timeout=1) == 1


async def test_without_a_ref_only_errors_are_told(client: MemoryClient) -> None:
    client.send("quick", 1)
    client.send("join-room", "a")
    client.send("note", 1, room="b")
    assert await client.take_all() == []
    client.send("leave-room", "b")
    (message,) = await client.take_all()
    assert message["event"] == "error" and "ref" not in message and message["data"]["code"] == "not_in_room"
    client.send("ping")
    assert [message["event"] for message in await client.take_all()] == ["pong"]


async def test_an_answer_that_is_refused_is_no_answer_to_a_request(client: MemoryClient) -> None:
    """The ref of an `ack` is the server's: an error that carried it would look like the answer to the client's own request of that ref."""
    client.end.send('{"event": "ack", "ref": 1, "data": 99999999999999999999}')
    for message in await client.take_all():
        assert "ref" not in message


# — limits —


async def test_twenty_bad_messages_close_the_connection(client: MemoryClient) -> None:
    for _ in range(19):
        client.end.send("nonsense")
    assert [message["data"]["code"] for message in await client.take_all()] == ["bad_request"] * 19 and client.socket.is_open
    client.end.send("nonsense")
    assert await client.closed() == 4509


async def test_the_wrong_kind_of_frame() -> None:
    async with memory_server(**OPEN) as net:
        text, binary = await net.connect("ann"), await net.connect("bob", codec="msgpack")
        text.end.send(b"{}")
        binary.end.send("{}")
        assert [await text.closed(), await binary.closed()] == [4501, 4501]


async def test_messages_per_second() -> None:
    clock = ManualClock()
    async with memory_server(**OPEN, clock=clock) as net:
        client = await net.connect("ann")
        for number in range(101):
            client.send("ping", ref=number)
        messages = await client.take_all()
        assert [message["event"] for message in messages] == ["pong"] * 100 + ["error"]
        data = messages[-1]["data"]
        assert (data["code"], data["retryable"], messages[-1]["ref"]) == ("rate_limited", True, 100) and 0 < data["retryAfter"] <= 0.021
        assert net.server.metrics.rate_limited == 1
        await clock.advance(1)
        for number in range(51):
            client.send("ping", ref=number)
        assert [message["event"] for message in await client.take_all()] == ["pong"] * 50 + ["error"]
        for _ in range(48):
            client.send("ping")
        assert await client.closed() == 4013


async def test_publishes_per_second_and_who_is_free_of_it() -> None:
    async with memory_server(**OPEN, clock=ManualClock()) as net:
        user, service = await net.connect("ann"), await net.connect("robot", role="service")
        for client, refusals in ((user, 5), (service, 0)):
            for number in range(25):
                client.send("note", number, room="lobby", ref=number)
            events = [message["event"] for message in await client.take_all()]
            assert (events.count("ack"), events.count("error")) == (25 - refusals, refusals)
        assert net.server.metrics.events == 45


async def test_control_frames_per_second() -> None:
    async with memory_server(**OPEN, clock=ManualClock()) as net:
        client = await net.connect("ann")
        for _ in range(20):
            client.socket.received(10, b"")
        assert client.socket.is_open
        client.socket.received(9, b"")
        assert await client.closed() == 4013 and net.server.metrics.close_codes[4013] == 1


async def test_limits_that_are_off() -> None:
    limits = {"messages_per_second": None, "publishes_per_second": None, "control_frames_per_second": None}
    async with memory_server(**OPEN, limits=limits) as net:
        client = await net.connect("ann")
        for number in range(300):
            client.send("note", number, room="lobby", ref=number)
            client.socket.received(10, b"")
        assert [message["event"] for message in await client.take_all()] == ["ack"] * 300


async def test_nothing_is_taken_from_a_socket_that_is_closing(gates: Gates, client: MemoryClient) -> None:
    client.socket.disconnect()
    client.socket.received(1, b'{"event": "quick", "data": 5}')
    assert gates.began == []
    with pytest.raises(ConnectionClosed):
        client.send("quick")


# — anything at all —

NAMES = st.sampled_from([*sorted(RESERVED), "quick", "slow", "note", "invoice", "", "a b", "odd", "fail"])
KEYS = st.sampled_from(["roomId", "token", "limit", "recover", "epoch", "offset", "after"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.sampled_from(["lobby", "all", "user:ann", "user:bob"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(), inner),
    max_leaves=8,
)
MESSAGES = st.dictionaries(st.sampled_from(["event", "data", "room", "ref", "id", "x"]), VALUES) | st.fixed_dictionaries(
    {"event": NAMES}, optional={"data": VALUES, "room": VALUES, "ref": VALUES, "id": VALUES}
)


@given(messages=st.lists(MESSAGES | st.binary(max_size=40) | VALUES, max_size=15), binary=st.booleans())
@settings(max_examples=150, deadline=None)
def test_whatever_a_client_sends_the_server_lives_and_answers_once(messages: list[Any], binary: bool) -> None:
    asyncio.run(_send_all(messages, binary))


async def _send_all(messages: list[Any], binary: bool) -> None:
    gates = Gates(**NO_PACE)
    gates.gate.set()
    async with memory_server(gates.server) as net:
        client = await net.connect("ann", codec="msgpack" if binary else "json")
        for message in messages:
            try:
                if isinstance(message, bytes):
                    payload = message
                else:
                    payload = msgspec.msgpack.encode(message) if binary else json.dumps(message).encode()
            except (UnicodeEncodeError, OverflowError):
                continue
            if client.socket.is_open:
                client.socket.received(2 if binary else 1, payload)
        answers = await client.take_all()
        refs = [json.dumps(answer["ref"]) for answer in answers if "ref" in answer]
        sent = [json.dumps(message["ref"]) for message in messages if isinstance(message, dict) and message.get("ref") is not None]
        assert all(refs.count(ref) <= sent.count(ref) for ref in refs), "answered twice"
        other = await net.connect("bob")
        assert await other.request("quick", 1) == 1
