from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.faults.proxy import Blackhole, CutAfter, CutBeforeReply, Delay, Mode, Pass, Proxy, Rate, Reset

PATIENCE = 5.0


class Echo:
    """A server that answers each line with the same line. `taken`: what it has read."""

    def __init__(self) -> None:
        self.taken = b""
        self._news = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.taken += line
                self._news.set()
                writer.write(line)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def until_taken(self, text: bytes) -> None:
        async with asyncio.timeout(PATIENCE):
            while text not in self.taken:
                self._news.clear()
                await self._news.wait()


class Caller:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def ask(self, line: bytes) -> bytes:
        self.writer.write(line)
        return await self.read(len(line))

    async def read(self, size: int = -1) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await (self.reader.read() if size < 0 else self.reader.readexactly(size))

    async def hear_nothing(self) -> None:
        """For a twentieth of a second."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await self.reader.read(1)


class Line:
    """A proxy before an echo server."""

    def __init__(self, proxy: Proxy, echo: Echo) -> None:
        self.proxy = proxy
        self.echo = echo
        self._callers: list[Caller] = []

    async def call(self) -> Caller:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.proxy.port))
        self._callers.append(caller)
        return caller

    def hang_up(self) -> None:
        for caller in self._callers:
            caller.writer.close()


@asynccontextmanager
async def a_line(mode: Mode | None = None) -> AsyncIterator[Line]:
    echo = Echo()
    server = await asyncio.start_server(echo.serve, "127.0.0.1", 0)
    async with server, Proxy(server.sockets[0].getsockname()[:2]) as proxy:
        proxy.mode = mode or Pass()
        line = Line(proxy, echo)
        try:
            yield line
        finally:
            line.hang_up()


async def test_bytes_pass_both_ways_and_an_end_is_passed_on() -> None:
    async with a_line() as line:
        caller = await line.call()
        lines = b"hello\n" * 50_000  # more than all buffers on the way hold
        echoed = asyncio.ensure_future(caller.read())
        caller.writer.write(lines)
        caller.writer.write_eof()
        assert await echoed == lines


async def test_to_a_unix_socket(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = str(tmp_path_factory.mktemp("u") / "s")
    echo = Echo()
    server = await asyncio.start_unix_server(echo.serve, path)
    async with server, Proxy(path) as proxy:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", proxy.port))
        assert await caller.ask(b"hello\n") == b"hello\n"
        caller.writer.close()


async def test_delay_keeps_the_order_and_does_not_add_up() -> None:
    async with a_line(Delay(0.1, jitter=0.02)) as line:
        caller = await line.call()
        began = time.monotonic()
        for number in range(10):
            caller.writer.write(b"%d\n" % number)
            await caller.writer.drain()
        assert await caller.read(20) == b"".join(b"%d\n" % number for number in range(10))
        assert 0.15 < time.monotonic() - began < 1.0


async def test_rate() -> None:
    async with a_line(Rate(50_000)) as line:
        caller = await line.call()
        began = time.monotonic()
        await caller.ask(b"x" * 9_999 + b"\n")
        assert time.monotonic() - began > 0.15


async def test_a_blackhole_keeps_sockets_and_what_it_holds_goes_on_afterwards() -> None:
    async with a_line() as line:
        caller = await line.call()
        assert await caller.ask(b"one\n") == b"one\n"
        line.proxy.mode = Blackhole()
        late = await line.call()  # accepted all the same
        caller.writer.write(b"two\n")
        late.writer.write(b"three\n")
        await caller.hear_nothing()
        assert line.echo.taken == b"one\n"
        line.proxy.mode = Pass()
        assert await caller.read(4) == b"two\n"
        assert await late.read(6) == b"three\n"


async def test_half_open_the_server_hears_and_the_client_does_not() -> None:
    async with a_line() as line:
        caller = await line.call()
        assert await caller.ask(b"one\n") == b"one\n"
        line.proxy.mode = Blackhole("down")
        caller.writer.write(b"two\n")
        await line.echo.until_taken(b"two\n")
        await caller.hear_nothing()
        line.proxy.mode = Pass()
        assert await caller.read(4) == b"two\n"


async def test_half_open_the_client_hears_and_the_server_does_not() -> None:
    async with a_line(Delay(0.1)) as line:
        caller = await line.call()
        caller.writer.write(b"one\n")
        await line.echo.until_taken(b"one\n")
        line.proxy.mode = Blackhole("up")
        assert await caller.read(4) == b"one\n"
        caller.writer.write(b"two\n")
        await caller.hear_nothing()
        assert line.echo.taken == b"one\n"


async def test_reset_ends_open_and_new_connections() -> None:
    async with a_line() as line:
        caller = await line.call()
        assert await caller.ask(b"one\n") == b"one\n"
        line.proxy.mode = Reset()
        with pytest.raises(ConnectionResetError):
            await caller.read()
        late = await line.call()
        with pytest.raises(ConnectionResetError):
            await late.read()
        line.proxy.mode = Pass()
        assert await (await line.call()).ask(b"two\n") == b"two\n"


async def test_reset_once() -> None:
    async with a_line() as line:
        caller = await line.call()
        assert await caller.ask(b"one\n") == b"one\n"
        line.proxy.reset()
        with pytest.raises(ConnectionResetError):
            await caller.read()
        assert await (await line.call()).ask(b"two\n") == b"two\n"


async def test_a_target_that_is_away_is_a_reset() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
    address = server.sockets[0].getsockname()[:2]
    server.close()
    await server.wait_closed()
    async with Proxy(address) as proxy:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", proxy.port))
        with pytest.raises(ConnectionResetError):
            await caller.read()
        caller.writer.close()


async def test_cut_after_bytes_lets_exactly_those_through() -> None:
    async with a_line(CutAfter(9, times=1)) as line:
        caller = await line.call()
        caller.writer.write(b"hello\n")  # 6 up, so 3 of the answer come down
        assert await caller.read() == b"hel"
        await line.proxy.until_cut()
        assert await (await line.call()).ask(b"hello\n") == b"hello\n"
        assert line.proxy.cuts == 1


async def test_cut_after_bytes_cuts_every_connection_unless_told_how_many() -> None:
    async with a_line(CutAfter(6)) as line:
        for _ in range(3):
            caller = await line.call()
            caller.writer.write(b"hello\n")
            assert await caller.read() == b""
        assert line.proxy.cuts == 3


@pytest.mark.parametrize("number", [1, 3])
async def test_cut_before_a_reply_the_server_has_acted(number: int) -> None:
    async with a_line(CutBeforeReply(number)) as line:
        caller = await line.call()
        for _ in range(number - 1):
            assert await caller.ask(b"again\n") == b"again\n"
        caller.writer.write(b"last\n")
        assert await caller.read() == b""
        assert line.echo.taken.endswith(b"last\n")
        assert await (await line.call()).ask(b"new\n") == b"new\n"


async def test_cut_before_the_reply_to_something() -> None:
    async with a_line(CutBeforeReply(to=b"COMMIT", times=2)) as line:
        for _ in range(2):
            caller = await line.call()
            assert await caller.ask(b"INSERT\n") == b"INSERT\n"
            caller.writer.write(b"COMMIT\n")
            assert await caller.read() == b""
        assert await (await line.call()).ask(b"COMMIT\n") == b"COMMIT\n"
        assert line.proxy.cuts == 2


async def test_a_blackhole_for_those_alone_that_said_something() -> None:
    async with a_line() as line:
        deaf, well = await line.call(), await line.call()
        assert await deaf.ask(b"subscribe\n") == b"subscribe\n"
        assert await well.ask(b"publish\n") == b"publish\n"
        links = line.proxy.find(b"subscribe")
        assert len(links) == 1 and len(line.proxy) == 2
        line.proxy.mode = Blackhole("down", links)
        deaf.writer.write(b"lost?\n")
        await line.echo.until_taken(b"lost?\n")
        await deaf.hear_nothing()
        assert await well.ask(b"hello\n") == b"hello\n"
        again = await line.call()
        assert await again.ask(b"subscribe\n") == b"subscribe\n"
        line.proxy.mode = Pass()
        assert await deaf.read(6) == b"lost?\n"
