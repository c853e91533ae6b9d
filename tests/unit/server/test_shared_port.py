"""An address for several processes of one server, and for nobody else."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import Any

import pytest

from aibos_realtime import ConfigurationError
from aibos_realtime.clock import SYSTEM_CLOCK
from aibos_realtime.server.port import Port
from aibos_realtime.server.shared_port import SharedPort
from aibos_realtime.transport.http import HttpLimits


class Gate:
    http_limits = HttpLimits()

    def is_ours(self, path: str) -> bool:
        return False

    def decide(self, request: object) -> Any:
        raise AssertionError("no handshake is made")

    def refused(self, status: int) -> None: ...


def make_port(name: str) -> Port:
    """A port that answers its name."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})
        await send({"type": "http.response.body", "body": name.encode()})

    return Port(gate=Gate(), app=app, has_app=False, clock=SYSTEM_CLOCK, tls=None)


async def ask(port: int, host: str = "127.0.0.1") -> str:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(5):
            return (await reader.read())[-1:].decode()
    finally:
        writer.transport.abort()


async def test_processes_share_it_evenly_and_one_that_ends_costs_the_others_nothing() -> None:
    with SharedPort("127.0.0.1", 0) as shared:
        ports = [make_port(name) for name in "abc"]
        for port in ports:
            await port.bind("127.0.0.1", shared.number, shared=True)
            await port.open()
        answers = Counter([await ask(shared.number) for _ in range(300)])
        assert set(answers) == set("abc") and min(answers.values()) > 50
        await ports[0].close(1)
        assert set([await ask(shared.number) for _ in range(50)]) == set("bc")
        again = make_port("d")
        await again.bind("127.0.0.1", shared.number, shared=True)
        await again.open()
        assert "d" in set([await ask(shared.number) for _ in range(100)])
        for port in (*ports[1:], again):
            await port.close(1)


@pytest.mark.parametrize("is_listening", [False, True])
async def test_another_server_started_by_mistake_is_told_so(is_listening: bool) -> None:
    with SharedPort("127.0.0.1", 0) as shared:
        worker = make_port("a")
        if is_listening:
            await worker.bind("127.0.0.1", shared.number, shared=True)
            await worker.open()
        with pytest.raises(ConfigurationError, match=f"^port: 127.0.0.1:{shared.number} cannot be listened on"):
            SharedPort("127.0.0.1", shared.number)
        other = make_port("b")
        with pytest.raises(ConfigurationError, match=f"^port: 127.0.0.1:{shared.number} cannot be listened on"):
            await other.bind("127.0.0.1", shared.number)
        await worker.close(0)


async def test_where_a_server_listens_it_cannot_be_had() -> None:
    port = make_port("a")
    await port.bind("127.0.0.1", 0)
    await port.open()
    with pytest.raises(ConfigurationError, match="cannot be listened on"):
        SharedPort("127.0.0.1", port.number)
    await port.close(0)


async def test_connections_of_an_earlier_run_that_wind_up_are_not_in_the_way() -> None:
    port = make_port("a")
    await port.bind("127.0.0.1", 0)
    await port.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", port.number)
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")  # the server closes first, and has to wait
    await reader.read()
    writer.close()
    await writer.wait_closed()
    await port.close(0)
    with SharedPort("127.0.0.1", port.number) as shared:
        assert shared.number == port.number


def test_every_address_of_a_host_has_the_same_number() -> None:
    with SharedPort("", 0) as shared:
        numbers = {taken.getsockname()[1] for taken in shared._sockets}
        assert numbers == {shared.number} and shared.number > 0
    shared.close()
    with socket.socket() as free:
        free.bind(("127.0.0.1", shared.number))


@pytest.mark.parametrize("host", ["203.0.113.7", "nobody.invalid"])
def test_a_host_that_is_not_ours(host: str) -> None:
    with pytest.raises(ConfigurationError, match=f"port: {host}:0 cannot be listened on"):
        SharedPort(host, 0)
