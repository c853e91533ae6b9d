"""One connection to Redis: replies go to whom they belong, what is late fails, and what is pushed is told from what was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from aibos_realtime.backends.redis.connection import READ_FIRST, Connection, ConnectionLost, Endpoint, Login, ReplyError
from aibos_realtime.testing.clock import ManualClock
from tests.loops import BOTH
from tests.servers.redis import RedisServer, running_redis

PLAIN = Login()


@pytest.fixture
def own() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


def at(server: RedisServer) -> Endpoint:
    return Endpoint("", 0, str(server.path))


@pytest.fixture
async def connection(redis_server: RedisServer) -> AsyncIterator[Connection]:
    connection = Connection()
    await connection.open(at(redis_server), PLAIN, 2)
    yield connection
    connection.close()
    await asyncio.sleep(0)


async def test_calls_share_it_and_each_gets_its_own_reply(connection: Connection) -> None:
    replies = [connection.call(("ECHO", f"{number}"), 2) for number in range(200)]
    for number in range(0, 200, 3):
        replies[number].cancel()
    wrong = connection.call(("NOSUCHCOMMAND",), 2)
    last = connection.call(("ECHO", b"x" * 2**20), 2)
    assert len(await last) == 2**20
    assert [await reply for number, reply in enumerate(replies) if number % 3] == [f"{number}".encode() for number in range(200) if number % 3]
    with pytest.raises(ReplyError) as failure:
        await wrong
    assert failure.value.code == "ERR"


async def test_it_says_who_answers(connection: Connection) -> None:
    assert connection.greeting[b"role"] == b"master" and int(connection.greeting[b"version"].split(b".")[0]) >= 7
    assert await connection.call(("CLIENT", "GETNAME"), 2) == b"aibos-realtime"


async def test_it_chooses_the_database(redis_server: RedisServer) -> None:
    connection = Connection()
    await connection.open(at(redis_server), Login(db=3), 2)
    assert b" db=3 " in await connection.call(("CLIENT", "INFO"), 2)
    connection.close()
    with pytest.raises(ReplyError, match="DB index is out of range"):
        await Connection().open(at(redis_server), Login(db=99), 2)


async def test_what_comes_before_a_call_takes_no_reply_from_it(connection: Connection) -> None:
    replies = [connection.call(("ECHO", f"{number}"), 2, before=("PING",) if number % 2 else None) for number in range(20)]
    assert await asyncio.gather(*replies) == [f"{number}".encode() for number in range(20)]


async def test_what_is_late_fails_and_what_is_in_time_has_its_own_answer(own: RedisServer) -> None:
    clock, lost = ManualClock(), asyncio.Event()
    connection = Connection(clock=clock, on_lost=lost.set)
    await connection.open(at(own), PLAIN, 2)
    await clock.advance(10)
    own.pause()
    first = connection.call(("ECHO", "first"), 2)
    await clock.advance(1)
    later = connection.call(("ECHO", "later"), 2)
    await clock.advance(1 + 2 * READ_FIRST)
    with pytest.raises(ConnectionLost, match="no answer in time"):
        await first
    assert not later.done() and not connection.is_usable, "it is for no new calls"
    own.go_on()
    assert await asyncio.wait_for(later, 5) == b"later"
    await asyncio.wait_for(lost.wait(), 5)
    with pytest.raises(ConnectionLost):
        await connection.call(("PING",), 2)


async def test_a_call_is_late_by_its_own_measure(own: RedisServer) -> None:
    clock = ManualClock()
    connection = Connection(clock=clock)
    await connection.open(at(own), PLAIN, 9)
    own.pause()
    call = connection.call(("PING",), 1)
    await clock.advance(1 + 2 * READ_FIRST)
    with pytest.raises(ConnectionLost, match="no answer in time"):
        await call


async def test_a_server_that_never_answers_is_given_up(own: RedisServer) -> None:
    clock, lost = ManualClock(), asyncio.Event()
    connection = Connection(clock=clock, on_lost=lost.set)
    await connection.open(at(own), PLAIN, 2)
    own.pause()
    calls = [connection.call(("ECHO", "never"), 2) for _ in range(3)]
    calls[1].cancel()
    await clock.advance(2 + 2 * READ_FIRST)
    await asyncio.wait_for(lost.wait(), 5)
    assert [type(error) for error in await asyncio.gather(*calls, return_exceptions=True)] == [
        ConnectionLost,
        asyncio.CancelledError,
        ConnectionLost,
    ]


@pytest.mark.parametrize("make_loop", BOTH.values(), ids=BOTH)
def test_a_loop_that_was_busy_reads_before_it_gives_up(own: RedisServer, make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        calls: list[asyncio.Future[bytes]] = []

        def be_busy(push: list[Any]) -> None:
            if push[0] == b"smessage":
                calls.append(opened.call(("ECHO", "in time"), 0.05))
                until = time.monotonic() + 0.15
                while time.monotonic() < until:
                    pass

        opened = Connection(on_push=be_busy)
        await opened.open(at(own), PLAIN, 2)
        await opened.call_pushed(("SSUBSCRIBE", "a"), 2)
        await opened.call(("SPUBLISH", "a", "news"), 2)
        assert await calls[0] == b"in time" and opened.is_usable
        opened.close()

    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())


async def test_a_lost_connection_fails_what_waits(own: RedisServer) -> None:
    lost = asyncio.Event()
    connection = Connection(on_lost=lost.set)
    await connection.open(at(own), PLAIN, 2)
    waiting = connection.call(("BLPOP", "nothing", 0), 60)
    own.stop()
    with pytest.raises(ConnectionLost):
        await asyncio.wait_for(waiting, 5)
    await asyncio.wait_for(lost.wait(), 5)
    assert not connection.is_usable
    connection.close()


async def test_closing_fails_what_waits_and_is_idempotent(connection: Connection) -> None:
    waiting = connection.call(("BLPOP", "nothing", 0), 60)
    connection.close()
    connection.close()
    with pytest.raises(ConnectionLost):
        await waiting


async def test_retiring_lets_what_waits_have_its_answer(connection: Connection) -> None:
    waiting = connection.call(("ECHO", "last"), 2)
    connection.retire()
    assert not connection.is_usable and await waiting == b"last"
    with pytest.raises(ConnectionLost):
        await connection.call(("PING",), 2)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", b"%1\r\n+version\r\n+7\r\n?\r\n"])
async def test_what_is_not_redis_is_a_lost_connection(answer: bytes) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        if not answer:
            writer.close()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        connection = Connection()
        with pytest.raises(ConnectionLost):
            await connection.open(Endpoint("127.0.0.1", server.sockets[0].getsockname()[1]), PLAIN, 2)
            await connection.call(("PING",), 2)


async def test_cancelling_the_opening_leaves_nothing_open(redis_server: RedisServer) -> None:
    for turns in range(12):
        connection = Connection()
        opening = asyncio.create_task(connection.open(at(redis_server), PLAIN, 2))
        for _ in range(turns):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        if opening.cancelled():
            with pytest.raises(ConnectionLost):
                await connection.call(("PING",), 2)
        connection.close()
        await asyncio.sleep(0)


async def test_pushes_are_told_from_replies(redis_server: RedisServer) -> None:
    pushes: list[list[Any]] = []
    connection, other = Connection(on_push=pushes.append), Connection()
    await connection.open(at(redis_server), PLAIN, 2)
    await other.open(at(redis_server), PLAIN, 2)
    before = connection.call(("ECHO", "before"), 2)
    done = connection.call_pushed(("SSUBSCRIBE", "{push}a", "{push}b"), 2)
    behind = connection.call(("ECHO", "behind"), 2)
    await done
    assert [await before, await behind] == [b"before", b"behind"]
    assert pushes == [[b"ssubscribe", b"{push}a", 1], [b"ssubscribe", b"{push}b", 2]]
    await other.call(("SPUBLISH", "{push}b", "news"), 2)
    assert await connection.call(("PING",), 2) == b"PONG" and pushes[-1] == [b"smessage", b"{push}b", b"news"]
    for one in (connection, other):
        one.close()


async def test_an_error_in_place_of_pushes_fails_that_call_alone(own: RedisServer) -> None:
    own.execute("ACL", "SETUSER", "default", "resetchannels", "&allowed")
    pushes: list[list[Any]] = []
    connection = Connection(on_push=pushes.append)
    await connection.open(at(own), PLAIN, 2)
    refused, done = connection.call_pushed(("SSUBSCRIBE", "other"), 2), connection.call_pushed(("SSUBSCRIBE", "allowed"), 2)
    behind = connection.call(("ECHO", "behind"), 2)
    with pytest.raises(ReplyError) as failure:
        await refused
    await done
    assert failure.value.code == "NOPERM" and await behind == b"behind"
    assert pushes == [[b"ssubscribe", b"allowed", 1]]
    connection.close()
