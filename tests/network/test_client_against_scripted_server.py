"""The client against a server that misbehaves by script: what it says, when it comes back, and that nothing is lost, doubled or out of
order."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import socket
import ssl
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any

import pytest
import trustme

from aibos_realtime import errors
from aibos_realtime.protocol.messages import Event, Position
from aibos_realtime.testing.clock import ManualClock, settle

from .clients import Record, make_client
from .scripted_server import Peer, ScriptedServer, Step

ROOM = "tenant_123"


async def serve(peer: Peer) -> None:
    """Be a good server: a room that is empty, and acknowledgements with rising offsets."""
    await peer.accept()
    offset = 0
    while True:
        message = await peer.receive()
        match message:
            case {"event": "join-room", "data": data}:
                answer = {"roomId": data["roomId"], "epoch": "e1", "offset": offset, "recovered": True if "recover" in data else None}
                await peer.answer(message, "joined-room", answer)
            case {"event": "leave-room", "data": data}:
                await peer.answer(message, "left-room", data)
            case {"ref": _}:
                offset += 1
                await peer.acknowledge(message, offset)


def refuse(status: int, **headers: str) -> Step:
    return lambda peer: peer.refuse(status, {name.replace("_", "-"): value for name, value in headers.items()})


def close(code: int) -> Step:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.close(code, "why")

    return step


def close_early(code: int) -> Step:
    async def step(peer: Peer) -> None:
        await peer.upgrade()
        await peer.close(code, "why")

    return step


async def hang_before_the_upgrade(peer: Peer) -> None:
    await peer.stall()


async def hang_before_connected(peer: Peer) -> None:
    await peer.upgrade()
    await peer.stall()


async def cut_before_the_upgrade(peer: Peer) -> None:
    await peer.read_request()
    peer.cut()


async def speak_something_else(peer: Peer) -> None:
    await peer.read_request()
    await peer.write(b"220 mail ready\r\n")
    peer.cut()


async def say_nonsense(peer: Peer) -> None:
    await peer.upgrade()
    await peer.send_text("nonsense")
    await peer.hang()


async def speak_version_2(peer: Peer) -> None:
    await peer.accept(protocol=2)
    await peer.hang()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


# The first attempt.


async def test_connecting_offers_the_protocol_and_the_token() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        assert peer.request.headers["Authorization"] == "Bearer token_of_user_123"
        assert peer.request.headers["Sec-WebSocket-Protocol"] == "aibos.realtime.v1"
        assert "Sec-WebSocket-Extensions" not in peer.request.headers
        await peer.hang()
        assert peer.close_code == 1000

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        assert (client.state, client.user) == ("disconnected", None)
        await client.connect()
        await client.connect()
        assert (client.state, client.socket_id, client.user) == ("connected", "socket_1", {"id": "user_123", "role": "user"})
        await client.close()
        await client.close()
        assert client.state == "closed"
        assert server.attempts == 1


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (refuse(401), errors.AuthenticationError),
        (refuse(403), errors.PermissionDenied),
        (refuse(404), errors.ConnectionError),
        (close_early(4500), errors.AuthenticationError),
        (close_early(4502), errors.AuthenticationError),
        (close_early(4503), errors.ConnectionClosed),
        (close_early(4504), errors.ConnectionLimitExceeded),
        (close_early(4506), errors.ProtocolError),
        (close_early(4507), errors.PermissionDenied),
        (speak_version_2, errors.ProtocolError),
    ],
)
async def test_what_no_further_attempt_would_mend_ends_at_once(step: Step, kind: type[errors.RealtimeError]) -> None:
    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client)
        with pytest.raises(kind) as caught:
            await client.connect()
        assert not caught.value.retryable
        assert "token_of_user_123" not in str(caught.value)
        assert (client.state, server.attempts) == ("disconnected", 1)
        assert await record.until("error") is caught.value
        await client.close()


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        (refuse(429), errors.ConnectionLimitExceeded),
        (refuse(500), errors.ConnectionError),
        (refuse(503), errors.ConnectionLimitExceeded),
        (cut_before_the_upgrade, errors.ConnectionError),
        (speak_something_else, errors.ConnectionError),
        (say_nonsense, errors.ProtocolError),
    ],
)
async def test_what_another_attempt_may_mend_is_tried_again_as_often_as_allowed(step: Step, kind: type[errors.RealtimeError]) -> None:
    async with ScriptedServer(step) as server:
        client = make_client(server.url, reconnect_attempts=2)
        record = Record(client)
        with pytest.raises(kind) as caught:
            await client.connect()
        assert caught.value.retryable
        assert f"127.0.0.1:{server.port}" in str(caught.value)
        assert server.attempts == 3
        await record.until("error", 3)
        await client.close()


async def test_without_reconnect_there_is_one_attempt() -> None:
    async with ScriptedServer(refuse(503)) as server:
        client = make_client(server.url, reconnect=False)
        with pytest.raises(errors.ConnectionLimitExceeded):
            await client.connect()
        assert server.attempts == 1
        await client.close()


async def test_the_first_good_attempt_counts() -> None:
    async with ScriptedServer(refuse(503), cut_before_the_upgrade, say_nonsense, serve) as server:
        async with make_client(server.url) as client:
            assert client.state == "connected"
        assert server.attempts == 4


async def test_a_server_that_is_not_there_yet() -> None:
    port = free_port()
    client = make_client(f"ws://127.0.0.1:{port}", random=lambda: 0.002)
    record = Record(client)
    connecting = asyncio.create_task(client.connect())
    error = await record.until("error")
    assert isinstance(error, errors.ConnectionError) and "Nothing listens" in str(error) and f"127.0.0.1:{port}" in str(error)
    assert client.state == "connecting"
    async with ScriptedServer(serve, port=port):
        await connecting
        await client.close()


@pytest.mark.parametrize("step", [hang_before_the_upgrade, hang_before_connected])
async def test_a_server_that_says_nothing_is_left_after_the_connect_timeout(step: Step) -> None:
    clock = ManualClock()
    async with ScriptedServer(step) as server:
        client = make_client(server.url, clock=clock, reconnect=False, connect_timeout=7)
        connecting = asyncio.create_task(client.connect())
        await server.until_attempts(1)
        await clock.advance(6.9)
        assert not connecting.done()
        await clock.advance(0.1)
        with pytest.raises(errors.ConnectTimeout, match="7 seconds"):
            await connecting
        await client.close()


@pytest.mark.parametrize(("status", "value"), [(503, "30"), (429, "30")])
async def test_retry_after_is_honoured(status: int, value: str) -> None:
    clock = ManualClock()
    async with ScriptedServer(refuse(status, Retry_After=value), serve) as server:
        client = make_client(server.url, clock=clock, random=lambda: 0.5)
        connecting = asyncio.create_task(client.connect())
        await clock.until_planned(32.5)
        await clock.advance(32.4)
        assert server.attempts == 1
        await clock.advance(0.1)
        await connecting
        await client.close()


async def test_cancelling_connect_leaves_the_client_usable() -> None:
    async with ScriptedServer(hang_before_connected, serve) as server:
        client = make_client(server.url)
        connecting = asyncio.create_task(client.connect())
        await server.until_attempts(1)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        assert client.state == "disconnected"
        async with client:
            await client.send_message("tick", room=ROOM)
        await client.close()


async def test_two_callers_share_one_attempt_and_one_may_go() -> None:
    async def step(peer: Peer) -> None:
        await peer.upgrade()
        await go.wait()
        await peer.tell("connected", {"protocol": 1})
        await peer.hang()

    go = asyncio.Event()
    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        first, second = asyncio.create_task(client.connect()), asyncio.create_task(client.connect())
        await server.until_attempts(1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        go.set()
        await second
        assert server.attempts == 1
        await client.close()


async def test_closing_while_connecting_ends_connect() -> None:
    async with ScriptedServer(hang_before_connected) as server:
        client = make_client(server.url)
        connecting = asyncio.create_task(client.connect())
        await server.until_attempts(1)
        await client.close()
        with pytest.raises(errors.ConnectionError, match="closed"):
            await connecting
        assert client.state == "closed"


async def test_a_closed_client_can_begin_anew() -> None:
    async with ScriptedServer(serve) as server:
        client = make_client(server.url)
        async with client:
            await client.join_room(ROOM)
        with pytest.raises(errors.ConnectionError, match="connect\\(\\) first"):
            await client.join_room(ROOM)
        async with client:
            assert client.position(ROOM) is None
            await client.join_room(ROOM)


async def test_nothing_can_be_sent_before_connect() -> None:
    client = make_client("ws://127.0.0.1:9")
    with pytest.raises(errors.ConnectionError, match="connect\\(\\) first"):
        await client.send_message("tick", room=ROOM)
    with pytest.raises(errors.ConnectionError):
        client.emit("tick")
    await client.close()


async def test_messages_before_connected_are_not_lost() -> None:
    async def step(peer: Peer) -> None:
        await peer.upgrade()
        await peer.tell("welcome", "early")
        await peer.tell("connected", {"protocol": 1})
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client, "welcome")
        async with client:
            await record.until("welcome")
        assert record.names[:2] == ["connect", "welcome"]


# Tokens.


async def test_a_token_function_is_asked_before_every_attempt_and_once_more_after_a_refusal() -> None:
    async def step(peer: Peer) -> None:
        await peer.read_request()
        seen.append(peer.request.headers["Authorization"])
        await peer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        peer.cut()

    seen, tokens = list[str](), iter("abcdef")
    async with ScriptedServer(step) as server:
        client = make_client(server.url, token=lambda: next(tokens))
        with pytest.raises(errors.AuthenticationError):
            await client.connect()
        assert seen == ["Bearer a", "Bearer b"]
        await client.close()


async def test_after_4500_a_new_token_may_help() -> None:
    async def again(peer: Peer) -> None:
        await serve(peer)

    tokens = iter("ab")
    async with ScriptedServer(close(4500), again) as server:
        client = make_client(server.url, token=lambda: next(tokens))
        record = Record(client)
        await client.connect()
        await record.until("connect", 2)
        assert client.state == "connected"
        await client.close()


async def test_a_token_function_that_fails_is_asked_again_later() -> None:
    def ask() -> str:
        calls.append(1)
        if len(calls) < 3:
            raise OSError("endpoint down: secret")
        return "good"

    calls: list[int] = []
    async with ScriptedServer(serve) as server:
        client = make_client(server.url, token=ask)
        record = Record(client)
        async with client:
            assert len(calls) == 3
        assert ["secret" in str(error) for error in record.of("error")] == [False, False]


async def test_an_expiring_token_is_renewed_on_the_connection() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.tell("token-expiring", {"expiresAt": "2025-09-17T12:00:00Z"})
        message = await peer.expect("authenticate")
        assert message["data"] == {"token": "b"}
        await peer.answer(message, "authenticated", {"success": True, "user": {"id": "user_123", "role": "admin"}})
        await peer.tell("done")
        await peer.hang()

    async def ask() -> str:
        return next(tokens)

    tokens = iter("ab")
    async with ScriptedServer(step) as server:
        client = make_client(server.url, token=ask)
        record = Record(client, "done")
        async with client:
            await record.until("done")
            assert client.user == {"id": "user_123", "role": "admin"}
        assert record.of("token-expiring") == [{"expiresAt": "2025-09-17T12:00:00Z"}]


async def test_a_renewal_that_hangs_does_not_hold_up_the_end_of_the_connection() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.tell("token-expiring", {})
        await asked.wait()
        await peer.close(4005)

    async def ask() -> str:
        if next(calls) == 1:
            asked.set()
            await asyncio.Event().wait()
        return "good"

    asked, calls = asyncio.Event(), iter(range(9))
    async with ScriptedServer(step, serve) as server:
        client = make_client(server.url, token=ask)
        record = Record(client)
        async with client:
            await record.until("connect", 2)


async def test_authenticating_by_hand_is_kept_for_the_next_connection() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept(user=None)
        assert "Authorization" not in peer.request.headers
        message = await peer.expect("authenticate")
        await peer.answer(message, "authenticated", {"success": True, "user": {"id": "u"}})
        await peer.close(4014)

    async def second(peer: Peer) -> None:
        await peer.accept()
        assert peer.request.headers["Authorization"] == "Bearer by-hand"
        await peer.hang()

    async with ScriptedServer(first, second) as server:
        client = make_client(server.url, token=None)
        record = Record(client)
        async with client:
            await client.authenticate("by-hand")
            await record.until("connect", 2)


async def test_the_token_gets_into_no_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        async with ScriptedServer(refuse(503), close(4001), serve) as server:
            async with make_client(server.url) as client:
                await client.send_message("tick", {"secret": "payload"}, room=ROOM)
    assert "token_of_user_123" not in caplog.text
    assert "payload" not in caplog.text


# Losing the connection.


@pytest.mark.parametrize("code", [1000, 1001, 1011, 1012, 4001, 4004, 4005, 4008, 4010, 4011, 4012, 4013, 4014, 4015, 4321])
async def test_codes_after_which_the_client_comes_back(code: int) -> None:
    async with ScriptedServer(close(code), serve) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            assert await record.until("reconnect") == 1
            assert record.names == ["connect", "disconnect", "connect", "reconnect"]
            assert str(code) in record.of("disconnect")[0]


@pytest.mark.parametrize(
    ("code", "kind"),
    [(4500, errors.AuthenticationError), (4501, errors.ProtocolError), (4502, errors.AuthenticationError), (4503, errors.ConnectionClosed),
     (4504, errors.ConnectionLimitExceeded), (4506, errors.ProtocolError), (4507, errors.PermissionDenied), (4509, errors.ProtocolError),
     (4999, errors.ConnectionClosed)],
)  # fmt: skip
async def test_codes_after_which_the_client_stops_and_tells(code: int, kind: type[errors.RealtimeError]) -> None:
    async with ScriptedServer(close(code)) as server:
        client = make_client(server.url)
        record = Record(client)
        await client.connect()
        error = await record.until("error")
        assert type(error) is kind
        assert record.names == ["connect", "disconnect", "error"]
        assert (client.state, server.attempts) == ("disconnected", 1)
        with pytest.raises(errors.ConnectionError, match=str(code)):
            await client.send_message("tick", room=ROOM)
        await client.close()


async def test_a_frame_that_breaks_off_in_the_middle() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.join()
        await peer.write(b'\x81\x7e\x01\x00{"event": "tick", "room": "tenant_123", "off')
        peer.cut()

    async def next_step(peer: Peer) -> None:
        await peer.accept()
        assert (await peer.join(recovered=True))["recover"] == {"epoch": "e1", "offset": 0}
        await peer.publish(ROOM, 1)
        await peer.hang()

    async with ScriptedServer(step, next_step) as server:
        client = make_client(server.url)
        record = Record(client, "tick")
        async with client:
            await client.join_room(ROOM)
            await record.until("tick")
        assert record.of("tick") == [{"n": 1}]


@pytest.mark.parametrize("garbage", ["nonsense", "[]", "{}", "\ud800", '{"event": "tick", "room": "tenant_123", "offset": "x"}', b"\x00"])
async def test_garbage_may_have_been_an_event_so_the_client_recovers(garbage: Any) -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.join(offset=5)
        if isinstance(garbage, bytes):
            await peer.send_binary(garbage)
        else:
            await peer.send_text(garbage)
        await peer.hang()

    async def next_step(peer: Peer) -> None:
        await peer.accept()
        assert (await peer.join(recovered=True))["recover"] == {"epoch": "e1", "offset": 5}
        await peer.publish(ROOM, 6)
        await peer.hang()

    async with ScriptedServer(step, next_step) as server:
        client = make_client(server.url)
        record = Record(client, "tick")
        async with client:
            await client.join_room(ROOM)
            await record.until("tick")
        assert record.names.count("disconnect") == 2


async def test_bytes_of_chance_never_break_the_client() -> None:
    """They end with the connection: some of them begin a frame, and a client that waits for its rest is right."""

    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.write(Random(peer.attempt).randbytes(200))
        await peer.end()

    async with ScriptedServer(*[step] * 20, serve) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            await record.until("reconnect", 20)
            await client.send_message("tick", room=ROOM)


async def test_a_message_beyond_the_limit_ends_the_connection_and_no_more() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.tell("big", "x" * 5000)
        await peer.hang()

    async with ScriptedServer(step, serve) as server:
        client = make_client(server.url, max_message_bytes=2000)
        record = Record(client)
        async with client:
            await record.until("reconnect")
        assert "1009" in record.of("disconnect")[0]


async def test_delays_are_jittered_and_double() -> None:
    clock = ManualClock()
    async with ScriptedServer(refuse(500)) as server:
        client = make_client(server.url, clock=clock, random=lambda: 0.5, reconnect_attempts=4)
        connecting = asyncio.create_task(client.connect())
        for attempt, delay in enumerate((2.5, 5.0, 10.0, 10.0), start=1):
            await clock.until_planned(delay)
            assert server.attempts == attempt
            await clock.advance(delay)
        with pytest.raises(errors.ConnectionError):
            await connecting
        await client.close()


async def test_a_handshake_and_a_close_at_once_do_not_reset_the_delays() -> None:
    clock = ManualClock()
    async with ScriptedServer(close(4015)) as server:
        client = make_client(server.url, clock=clock, random=lambda: 0.5)
        record = Record(client)
        await client.connect()
        for count, delay in enumerate((2.5, 5.0, 10.0, 10.0), start=1):
            await record.until("disconnect", count)
            await clock.until_planned(delay)
            await clock.advance(delay)
        assert record.of("reconnect")[:3] == [1, 2, 3]
        await client.close()


async def test_five_seconds_of_stability_do() -> None:
    async def stable(peer: Peer) -> None:
        await peer.accept()
        await go.wait()
        await peer.close(4001)

    go, clock = asyncio.Event(), ManualClock()
    async with ScriptedServer(close(4001), stable, close(4001)) as server:
        client = make_client(server.url, clock=clock, random=lambda: 0.5)
        record = Record(client)
        await client.connect()
        await record.until("disconnect")
        await clock.until_planned(2.5)
        await clock.advance(2.5)
        await record.until("connect", 2)
        await clock.advance(5.0)
        go.set()
        await record.until("disconnect", 2)
        await clock.until_planned(2.5)
        await client.close()


async def test_a_planned_close_says_when_to_come_back_and_where() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        url = f"ws://127.0.0.1:{other.port}"
        await peer.tell("reconnect", {"delayMin": 100, "delayMax": 200, "reason": "draining", "url": url})
        await peer.close(4001)

    clock = ManualClock()
    async with ScriptedServer(serve) as other, ScriptedServer(step) as server:
        client = make_client(server.url, clock=clock, random=lambda: 0.25)
        record = Record(client)
        await client.connect()
        await record.until("disconnect")
        await clock.until_planned(125.0)
        await clock.advance(125.0)
        await record.until("connect", 2)
        assert (server.attempts, other.attempts) == (1, 1)
        await client.close()


async def test_a_silent_server_is_left_after_the_heartbeat_timeout() -> None:
    async def silent(peer: Peer) -> None:
        await peer.accept()
        await peer.stall()

    clock = ManualClock()
    async with ScriptedServer(silent, serve) as server:
        client = make_client(server.url, clock=clock, heartbeat={"interval": 30, "timeout": 60})
        record = Record(client)
        await client.connect()
        await clock.advance(30.0)
        await clock.advance(59.0)
        assert record.of("disconnect") == []
        await clock.advance(1.0)
        await record.until("reconnect")
        await client.close()


async def test_a_server_that_answers_pings_is_kept() -> None:
    clock = ManualClock()
    async with ScriptedServer(serve) as server:
        client = make_client(server.url, clock=clock, heartbeat={"interval": 1, "timeout": 2})
        record = Record(client)
        await client.connect()
        for _ in range(5):
            await clock.until_planned(1.0)
            await clock.advance(1.0)
            await client.send_message("tick", room=ROOM)
        assert record.of("disconnect") == []
        await client.close()


async def test_a_list_of_servers_is_taken_in_turn() -> None:
    async with ScriptedServer(refuse(500)) as first, ScriptedServer(close(4011)) as second, ScriptedServer(serve) as third:
        client = make_client([first.url, second.url, third.url])
        record = Record(client)
        async with client:
            await record.until("connect", 2)
        assert (first.attempts, second.attempts, third.attempts) == (1, 1, 1)


async def test_a_balancer_hears_of_a_server_that_is_down() -> None:
    class Balancer:
        def __init__(self) -> None:
            self.down: list[str] = []

        async def get_next_instance(self) -> str:
            return server.url if self.down else f"ws://127.0.0.1:{port}"

        async def mark_down(self, instance: str) -> None:
            self.down.append(instance)
            raise RuntimeError("a balancer's own trouble is not the client's")

    port, balancer = free_port(), Balancer()
    async with ScriptedServer(serve) as server:
        async with make_client(balancer) as client:
            assert client.state == "connected"
    assert balancer.down == [f"ws://127.0.0.1:{port}"]


async def test_when_the_attempts_are_spent_every_waiter_is_told() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.join()
        await peer.expect("tick")
        peer.cut()

    async with ScriptedServer(step, refuse(500)) as server:
        client = make_client(server.url, reconnect_attempts=2)
        record = Record(client)
        await client.connect()
        await client.join_room(ROOM)
        events = client.events(ROOM)
        sent = asyncio.create_task(client.send_message("tick", room=ROOM))
        with pytest.raises(errors.ConnectionError, match="Gave up after 2 attempts"):
            await sent
        with pytest.raises(errors.ConnectionError):
            await anext(events)
        await record.until("error", 3)
        assert (client.state, server.attempts) == ("disconnected", 3)
        await client.close()


async def test_connecting_again_after_giving_up_recovers_the_rooms() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept()
        await peer.join(offset=3)
        await peer.close(4503)

    async def second(peer: Peer) -> None:
        await peer.accept()
        assert (await peer.join(recovered=True))["recover"] == {"epoch": "e1", "offset": 3}
        await peer.publish(ROOM, 4)
        await peer.hang()

    async with ScriptedServer(first, second) as server:
        client = make_client(server.url)
        record = Record(client, "tick")
        await client.connect()
        await client.join_room(ROOM)
        await record.until("error")
        await client.connect()
        await record.until("tick")
        await client.close()


# Rooms and events.


async def test_over_many_losses_every_event_reaches_the_callback_once_and_in_order() -> None:
    """At each step the server repeats some events, cuts, and goes on from the position that the client gives."""
    last, total = 0, 60

    async def step(peer: Peer) -> None:
        nonlocal last
        await peer.accept()
        asked = await peer.join(offset=0, recovered=True if peer.attempt > 1 else None)
        start = asked.get("recover", {"offset": 0})["offset"]
        for offset in range(max(1, start - 2), min(start + 8, total + 1)):
            await peer.publish(ROOM, offset)
            last = max(last, offset)
        if last < total:
            peer.cut()
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client, "tick")
        async with client:
            await client.join_room(ROOM)
            await record.until("tick", total)
        assert [data["n"] for data in record.of("tick")] == list(range(1, total + 1))
        assert record.of("resync") == []
        assert server.attempts > 5


async def test_own_streams_are_recovered_and_their_live_events_wait_for_the_answer() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept(streams={"user:user_123": {"epoch": "e1", "offset": 4}})
        await peer.publish("user:user_123", 5)
        await peer.close(4001)

    async def second(peer: Peer) -> None:
        await peer.accept(streams={"user:user_123": {"epoch": "e1", "offset": 7}})
        await peer.publish("user:user_123", 8)
        message = await peer.expect("join-room")
        assert message["data"] == {"roomId": "user:user_123", "recover": {"epoch": "e1", "offset": 5}}
        await peer.answer(message, "joined-room", {"roomId": "user:user_123", "epoch": "e1", "offset": 8, "recovered": True})
        for offset in (6, 7, 8):
            await peer.publish("user:user_123", offset)
        await peer.hang()

    async with ScriptedServer(first, second) as server:
        client = make_client(server.url)
        record = Record(client, "tick")
        async with client:
            await record.until("tick", 4)
        assert record.of("tick") == [{"n": 5}, {"n": 6}, {"n": 7}, {"n": 8}]


async def test_what_cannot_be_recovered_is_said_before_any_later_event() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept()
        await peer.join(offset=3)
        await peer.close(4001)

    async def second(peer: Peer) -> None:
        await peer.accept()
        await peer.join(offset=2, epoch="e2", recovered=False)
        await peer.publish(ROOM, 3)
        await peer.tell("resync", {"roomId": ROOM, "epoch": "e3", "offset": 0})
        await peer.publish(ROOM, 1, id="other")
        await peer.hang()

    async with ScriptedServer(first, second) as server:
        client = make_client(server.url)
        record = Record(client, "tick")
        async with client:
            await client.join_room(ROOM)
            await record.until("tick", 2)
            await settle()
            assert client.position(ROOM) == Position("e3", 1)
        assert [name for name in record.names if name in ("tick", "resync")] == ["resync", "tick", "resync", "tick"]
        assert [(info.room, info.position, info.last) for info in record.of("resync")] == [
            (ROOM, Position("e2", 2), Position("e1", 3)),
            (ROOM, Position("e3", 0), Position("e2", 3)),
        ]


async def test_an_event_counts_as_delivered_when_its_callback_has_returned_or_raised() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.join()
        await peer.publish(ROOM, 1)
        await peer.publish(ROOM, 2)
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client)
        calls, gate = list[int](), asyncio.Event()

        @client.on("tick")
        async def fail(data: Any, event: Event) -> None:
            assert (event.room, event.user_id, event.id) == (ROOM, "user_9", f"id-{data['n']}")
            calls.append(data["n"])
            if data["n"] == 2:
                await gate.wait()
            raise ValueError(data["n"])

        async with client:
            await client.join_room(ROOM)
            await record.until("error")
            await settle()
            assert client.position(ROOM) == Position("e1", 1)
            gate.set()
            await record.until("error", 2)
            await settle()
            assert client.position(ROOM) == Position("e1", 2)
        assert calls == [1, 2]


async def test_a_callback_may_await_the_client() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.join()
        await peer.publish(ROOM, 1)
        await peer.acknowledge(await peer.expect("reply"), 2)
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def reply(data: Any) -> None:
            answered.set_result(await client.send_message("reply", data, room=ROOM))

        client.on("tick", reply)
        async with client:
            await client.join_room(ROOM)
            assert (await answered).position == Position("e1", 2)


async def test_a_callback_may_close_the_client() -> None:
    async with ScriptedServer(serve) as server:
        client = make_client(server.url)
        record = Record(client)
        client.on("connect", client.close)
        await client.connect()
        await record.until("disconnect")
        assert client.state == "closed"
        await client.close()
        assert record.of("error") == []


async def test_closing_does_not_wait_for_ever_for_a_callback() -> None:
    clock, inside = ManualClock(), asyncio.Event()

    async def hang() -> None:
        inside.set()
        await asyncio.Event().wait()

    async with ScriptedServer(serve) as server:
        client = make_client(server.url, clock=clock)
        client.on("connect", hang)
        await client.connect()
        await inside.wait()
        closing = asyncio.create_task(client.close())
        await clock.until_planned(2.0)
        assert not closing.done()
        await clock.advance(2.0)
        await closing


async def test_a_call_of_the_server_is_answered_with_what_the_callback_returns() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.tell("confirm", {"n": 20}, ref="call_1")
        assert await peer.expect("ack") == {"event": "ack", "ref": "call_1", "data": {"ok": 21}}
        await peer.tell("unheard", None, ref="call_2")
        await peer.tell("done")
        await peer.expect("goodbye")

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client, "done")

        @client.on("confirm")
        async def confirm(data: Any) -> Any:
            return {"ok": data["n"] + 1}

        async with client:
            await record.until("done")
            client.emit("goodbye")


async def test_the_iterator_ends_when_the_room_is_left() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.join()
        for offset in (1, 2, 3):
            await peer.publish(ROOM, offset)
        message = await peer.expect("leave-room")
        await peer.answer(message, "left-room", {"roomId": ROOM})
        await peer.hang()

    async with ScriptedServer(step) as server:
        async with make_client(server.url) as client:
            events = client.events(ROOM)
            await client.join_room(ROOM)
            seen = []
            async for event in events:
                seen.append(event.offset)
                if event.offset == 3:
                    assert client.position(ROOM) == Position("e1", 2)
                    await client.leave_room(ROOM)
            assert seen == [1, 2, 3]


async def test_iterators_end_when_the_server_closes_the_room_and_when_the_client_closes() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.join()
        await peer.tell("room-closed", {"roomId": ROOM, "reason": "kicked"})
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            await client.join_room(ROOM)
            assert [event async for event in client.events(ROOM)] == []
            other = client.events("other")
        assert record.of("room-closed") == [{"roomId": ROOM, "reason": "kicked"}]
        assert [event async for event in other] == []


async def test_a_slow_consumer_costs_the_callbacks_nothing() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.join()
        for offset in range(1, 21):
            await peer.publish(ROOM, offset)
        while True:
            message = await peer.expect("history")
            after = message["data"]["after"]["offset"]
            page = [{"event": "tick", "room": ROOM, "offset": n, "id": f"id-{n}", "data": {"n": n}} for n in range(after + 1, min(after + 9, 21))]
            await peer.answer(message, "history", {"roomId": ROOM, "epoch": "e1", "events": page, "more": after + 9 < 21})

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client, "tick")
        async with client:
            events = client.events(ROOM, size=5)
            await client.join_room(ROOM)
            await record.until("tick", 20)
            assert [(await anext(events)).offset for _ in range(20)] == list(range(1, 21))


async def test_a_full_inbox_is_emptied_and_recovered() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.join()
        for offset in range(1, 41):
            await peer.publish(ROOM, offset, data={"n": offset, "fill": "x" * 100})
        await peer.tell("all-sent")
        while True:
            message = await peer.expect("join-room")
            start = message["data"]["recover"]["offset"]
            starts.append(start)
            await peer.answer(message, "joined-room", {"roomId": ROOM, "epoch": "e1", "offset": 40, "recovered": True})
            for offset in range(start + 1, 41):
                await peer.publish(ROOM, offset, data={"n": offset, "fill": "x" * 100})

    starts: list[int] = []
    async with ScriptedServer(step) as server:
        client = make_client(server.url, inbox_bytes=3000)
        record = Record(client, "tick")
        gate = asyncio.Event()
        client.on("tick", gate.wait)
        async with client:
            await client.join_room(ROOM)
            await record.until("tick")
            gate.set()
            await record.until("tick", 40)
        assert [data["n"] for data in record.of("tick")] == list(range(1, 41))
        assert starts and starts == sorted(starts)


# Messages.


async def test_unacknowledged_publishes_are_sent_again_in_order_under_their_first_ids() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept()
        ids = [(await peer.receive())["id"] for _ in range(5)]
        seen.append(ids)
        await peer.tell("half", ids)
        peer.cut()

    async def second(peer: Peer) -> None:
        await peer.accept()
        messages = [await peer.receive() for _ in range(5)]
        seen.append([message["id"] for message in messages])
        for offset, message in enumerate(messages, start=1):
            await peer.acknowledge(message, offset, duplicate=offset < 3)
        await peer.hang()

    seen: list[list[str]] = []
    async with ScriptedServer(first, second) as server:
        async with make_client(server.url) as client:
            receipts = await asyncio.gather(*[client.send_message("tick", n, room=ROOM) for n in range(5)])
            assert [receipt.position.offset for receipt in receipts] == [1, 2, 3, 4, 5]
            assert [receipt.duplicate for receipt in receipts] == [True, True, False, False, False]
    assert seen[0] == seen[1] and len(set(seen[0])) == 5


async def test_an_unanswered_request_ends_with_the_outcome_unknown() -> None:
    async def first(peer: Peer) -> None:
        await peer.accept()
        await peer.expect("invoice.approve")
        peer.cut()

    async with ScriptedServer(first, serve) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            with pytest.raises(errors.ConnectionError):
                await client.send_message("invoice.approve", {"invoiceId": "inv_001"})
            await record.until("reconnect")


async def test_without_a_room_the_server_decides_what_it_is() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.join()
        message = await peer.expect("invoice.approve")
        await peer.answer(message, "ack", {"approved": "inv_001"})
        message = await peer.expect("invoice.created")
        assert "room" not in message
        await peer.acknowledge(message, 7)
        await peer.fail(await peer.expect("other"), "room_required")
        await peer.hang()

    async with ScriptedServer(step) as server:
        async with make_client(server.url) as client:
            await client.join_room(ROOM)
            assert await client.send_message("invoice.approve") == {"approved": "inv_001"}
            receipt = await client.send_message("invoice.created", id="inv_001")
            assert (receipt.id, receipt.room, receipt.position) == ("inv_001", ROOM, Position("e1", 7))
            with pytest.raises(errors.RoomRequired):
                await client.send_message("other")


async def test_late_double_and_unknown_answers() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        late = await peer.expect("late")
        second = await peer.expect("second")
        await peer.acknowledge(second, 2)
        await peer.acknowledge(second, 3)
        await peer.answer(second | {"ref": 4711}, "ack", None)
        await peer.acknowledge(late, 1)
        await peer.fail(await peer.expect("third"), "of_tomorrow", message="New.")
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            late = asyncio.create_task(client.send_message("late", room=ROOM))
            await asyncio.sleep(0)
            assert (await client.send_message("second", room=ROOM)).position.offset == 2
            assert (await late).position.offset == 1
            with pytest.raises(errors.RealtimeError) as caught:
                await client.send_message("third", room=ROOM)
            assert (caught.value.code, str(caught.value)) == ("of_tomorrow", "New.")
        assert record.of("error") == []


async def test_no_answer_in_time() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.expect("tick")
        await peer.tell("seen")
        await peer.hang()

    clock = ManualClock()
    async with ScriptedServer(step) as server:
        client = make_client(server.url, clock=clock, request_timeout=10)
        record = Record(client, "seen")
        async with client:
            sent = asyncio.create_task(client.send_message("tick", room=ROOM))
            await record.until("seen")
            await clock.advance(9.9)
            assert not sent.done()
            await clock.advance(0.1)
            with pytest.raises(errors.RequestTimeout):
                await sent
            assert client.state == "connected"


async def test_cancelling_a_call_leaves_the_client_usable() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.expect("first")
        await peer.tell("seen")
        await peer.acknowledge(await peer.expect("second"), 2)
        assert (await peer.receive())["data"]["roomId"] == "slow"
        await peer.tell("seen")
        await peer.expect("leave-room")
        await peer.tell("seen")
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client, "seen")
        async with client:
            calls: list[Callable[[], Coroutine[Any, Any, object]]]
            calls = [lambda: client.send_message("first", room=ROOM), lambda: client.join_room("slow")]
            for count, call in enumerate(calls, start=1):
                waiting = asyncio.create_task(call())
                await record.until("seen", count)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                if count == 1:
                    assert (await client.send_message("second", room=ROOM)).position.offset == 2
            await record.until("seen", 3)


async def test_a_cancelled_call_that_waits_offline_is_never_sent() -> None:
    async def second(peer: Peer) -> None:
        await peer.accept()
        await peer.acknowledge(await peer.expect("kept"), 1)
        await peer.hang()

    clock = ManualClock()
    async with ScriptedServer(close(4001), second) as server:
        client = make_client(server.url, clock=clock, random=lambda: 1.0)
        record = Record(client)
        await client.connect()
        await record.until("disconnect")
        given_up = asyncio.create_task(client.send_message("given-up", room=ROOM))
        kept = asyncio.create_task(client.send_message("kept", room=ROOM))
        await settle()
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        await clock.until_planned(5.0)
        await clock.advance(5.0)
        assert (await kept).position.offset == 1
        await client.close()


async def test_messages_of_an_offline_client_wait_in_a_bounded_buffer_in_order() -> None:
    async def second(peer: Peer) -> None:
        await peer.accept()
        await peer.join(recovered=True)
        for offset in (1, 2, 3):
            message = await peer.expect("tick")
            seen.append(message["data"])
            await peer.acknowledge(message, offset)
        await peer.hang()

    async def first(peer: Peer) -> None:
        await peer.accept()
        await peer.join()
        await peer.close(4001)

    clock, seen = ManualClock(), list[int]()
    async with ScriptedServer(first, second) as server:
        client = make_client(server.url, clock=clock, random=lambda: 1.0, buffer_size=3)
        record = Record(client)
        await client.connect()
        await client.join_room(ROOM)
        await record.until("disconnect")
        assert client.state == "reconnecting"
        waiting = [asyncio.create_task(client.send_message("tick", n, room=ROOM)) for n in (1, 2, 3)]
        await asyncio.sleep(0)
        with pytest.raises(errors.Overloaded):
            await client.send_message("tick", 4, room=ROOM)
        with pytest.raises(errors.ConnectionError):
            client.emit("typing")
        await clock.until_planned(5.0)
        await clock.advance(5.0)
        receipts = await asyncio.gather(*waiting)
        assert [receipt.position.offset for receipt in receipts] == seen == [1, 2, 3]
        await client.close()


async def test_a_message_beyond_the_servers_limit_is_not_sent() -> None:
    async with ScriptedServer(serve) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            with pytest.raises(errors.MessageTooLarge, match="65536"):
                await client.send_message("tick", "x" * 70_000, room=ROOM)
            client.emit("tick", "x" * 70_000, room=ROOM)
            assert isinstance(await record.until("error"), errors.MessageTooLarge)
            await client.send_message("tick", "small", room=ROOM)
            assert record.of("disconnect") == []


async def test_a_message_that_the_server_closed_for_is_not_sent_again() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        await peer.expect("tick")
        await peer.close(1009)

    async with ScriptedServer(step, serve) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            with pytest.raises(errors.ConnectionClosed) as caught:
                await client.send_message("tick", room=ROOM)
            assert caught.value.close_code == 1009
            await record.until("reconnect")
            assert (await client.send_message("tock", room=ROOM)).position.offset == 1


@pytest.mark.parametrize("event", ["join-room", "ack", "resync", "connect ion", "", "x" * 129])
async def test_names_that_no_message_may_have(event: str) -> None:
    async with ScriptedServer(serve) as server:
        async with make_client(server.url) as client:
            with pytest.raises(errors.ProtocolError):
                await client.send_message(event, room=ROOM)


async def test_refusals_reach_the_caller_in_their_classes() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        message = await peer.receive()
        denied = {"code": "permission_denied", "resource": "tenant_9", "action": "read", "message": "No.", "retryable": False}
        await peer.answer(message, "permission_denied", denied)
        await peer.fail(await peer.receive(), "room_full")
        await peer.fail(await peer.receive(), "validation_failed", errors=[{"path": "$.amount", "message": "Expected int"}])
        await peer.fail(await peer.receive(), "rate_limited", retryable=True, retryAfter=0.5)
        await peer.tell("error", {"code": "bad_request", "message": "What?", "retryable": False})
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url)
        record = Record(client)
        async with client:
            with pytest.raises(errors.PermissionDenied) as denied:
                await client.join_room("tenant_9")
            assert (denied.value.resource, denied.value.action) == ("tenant_9", "read")
            with pytest.raises(errors.RoomFull):
                await client.join_room(ROOM)
            with pytest.raises(errors.ValidationError) as invalid:
                await client.send_message("invoice.create", {})
            assert invalid.value.errors[0]["path"] == "$.amount"
            with pytest.raises(errors.RateLimitExceeded) as limited:
                await client.send_message("tick", room=ROOM)
            assert limited.value.retry_after == 0.5
            assert (await record.until("error")).code == "bad_request"


async def test_history_and_presence() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        message = await peer.expect("history")
        assert message["data"] == {"roomId": ROOM, "limit": 2, "before": {"epoch": "e1", "offset": 9}}
        peer.cut()

    async def again(peer: Peer) -> None:
        await peer.accept()
        event = {"event": "tick", "room": ROOM, "offset": 8, "id": "i", "data": 1, "userId": "u", "timestamp": "2025-09-17T12:00:00Z"}
        await peer.answer(await peer.expect("history"), "history", {"roomId": ROOM, "epoch": "e1", "events": [event], "more": True})
        members = [{"userId": "u", "role": "user", "since": "2025-09-17T12:00:00Z"}]
        await peer.answer(await peer.expect("presence"), "presence", {"roomId": ROOM, "members": members, "count": 1})
        await peer.hang()

    async with ScriptedServer(step, again) as server:
        async with make_client(server.url) as client:
            page = await client.history(ROOM, limit=2, before=Position("e1", 9))
            assert (page.more, page.events[0].position) == (True, Position("e1", 8))
            (member,) = await client.presence(ROOM)
            assert (member.user_id, member.role) == ("u", "user")


@pytest.mark.parametrize("taken", ["aibos.realtime.v1.msgpack", "aibos.realtime.v1"])
async def test_messagepack_where_the_server_takes_it(taken: str) -> None:
    async def step(peer: Peer) -> None:
        await peer.upgrade(taken)
        assert peer.request.headers["Sec-WebSocket-Protocol"] == "aibos.realtime.v1.msgpack, aibos.realtime.v1"
        await peer.tell("connected", {"protocol": 1, "user": {"id": "u"}})
        await peer.join()
        message = await peer.expect("tick")
        assert message["data"] == {"n": 1}
        await peer.acknowledge(message, 1)
        await peer.publish(ROOM, 1)
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url, codec="msgpack")
        record = Record(client, "tick")
        async with client:
            await client.join_room(ROOM)
            assert (await client.send_message("tick", {"n": 1}, room=ROOM)).position == Position("e1", 1)
            assert await record.until("tick") == {"n": 1}


async def test_compression_is_offered_where_it_is_switched_on() -> None:
    async def step(peer: Peer) -> None:
        await peer.accept()
        assert "permessage-deflate" in peer.request.headers["Sec-WebSocket-Extensions"]
        await peer.hang()

    async with ScriptedServer(step) as server:
        async with make_client(server.url, compression="deflate") as client:
            assert client.state == "connected"


async def test_an_upgrade_to_an_extension_nobody_offered_is_no_connection() -> None:
    async def step(peer: Peer) -> None:
        request = await peer.read_request()
        key = request.headers["Sec-WebSocket-Key"]
        accept = base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()).decode()
        lines = ["HTTP/1.1 101 Switching Protocols", "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
        await peer.write(("\r\n".join([*lines, "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=99"]) + "\r\n\r\n").encode())
        await peer.hang()

    async with ScriptedServer(step) as server:
        client = make_client(server.url, reconnect=False)
        with pytest.raises(errors.ConnectionError, match="did not answer as a WebSocket server"):
            await client.connect()
        await client.close()


async def test_tls_with_a_context_that_trusts_the_server_and_without() -> None:
    authority = trustme.CA()
    theirs, ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("localhost").configure_cert(theirs)
    authority.configure_trust(ours)
    async with ScriptedServer(serve, tls=theirs) as server:
        url = f"wss://localhost:{server.port}"
        async with make_client(url, ssl=ours) as client:
            assert (await client.send_message("tick", room=ROOM)).position.offset == 1
        client = make_client(url)
        with pytest.raises(errors.ConnectionError, match="not trusted") as caught:
            await client.connect()
        assert not caught.value.retryable
        await client.close()
