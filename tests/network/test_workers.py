"""`serve --workers` as its users have it: several processes on one port, which die, are replaced and end, while clients come."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import websockets

from aibos_realtime import WebSocketAuth
from aibos_realtime.cli.exits import ExitCode
from tests.faults.processes import find_free_port
from tests.network.processes import DEADLINE, Process, Server, run
from tests.servers.redis import RedisServer, running_redis

SECRET = "only-for-the-tests-of-the-workers-32-bytes"
PASSWORD = "hunter2-hunter2"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with running_redis() as server:
        server.execute("CONFIG", "SET", "requirepass", PASSWORD)
        yield server


@pytest.fixture
def variables(redis: RedisServer, tmp_path: Path) -> dict[str, str]:
    url = redis.url.replace("unix://", f"unix://:{PASSWORD}@")
    return {"JWT_SECRET": SECRET, "ENABLE_SCALING": "true", "REDIS_URL": url, "INSTANCE_ID": "web", "DATABASE_URL": "memory://"}


def begin(folder: Path, count: int, variables: dict[str, str], *arguments: str) -> Server:
    port = str(find_free_port())
    return Server(folder, *arguments, "--workers", str(count), "--host", "127.0.0.1", "--port", port, **variables)


def workers_of(parent: int) -> dict[int, int]:
    """The process of each worker, by its number."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
            status = (path.parent / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        if b"aibos_realtime.cli.worker" in words and int(status[1]) == parent and status[0] != "Z":
            found[json.loads(words[-2])["number"]] = int(path.parent.name)
    return found


async def connect(stack: AsyncExitStack, url: str) -> tuple[str, websockets.ClientConnection]:
    """A client, and the name of the worker that it came to."""
    token = WebSocketAuth(jwt_secret=SECRET).issue(user_id=f"user_{os.urandom(4).hex()}", tenant_id="1")
    headers = {"Authorization": f"Bearer {token}"}
    connection = await stack.enter_async_context(websockets.connect(url, additional_headers=headers, proxy=None, close_timeout=DEADLINE))
    return json.loads(await connection.recv())["data"]["node"], connection


def connect_some(url: str, count: int) -> Counter[str]:
    async def work() -> Counter[str]:
        async with AsyncExitStack() as stack:
            return Counter([(await connect(stack, url))[0] for _ in range(count)])

    return asyncio.run(work())


def test_they_share_the_port_and_one_that_dies_is_replaced(tmp_path: Path, variables: dict[str, str]) -> None:
    with begin(tmp_path, 3, variables) as server:
        assert server.output.count("listening on") == 1
        assert set(connect_some(server.url, 40)) == {"web-1", "web-2", "web-3"}
        before = workers_of(server.pid)
        assert sorted(before) == [1, 2, 3]
        os.kill(before[2], signal.SIGKILL)
        assert f"worker 2 (process {before[2]}) ended by itself: SIGKILL" in server.wait_for("ended by itself")
        assert "web-2" not in connect_some(server.url, 20)
        server.wait_for("worker=2", count=len([line for line in server.error_lines if "worker=2" in line]) + 1)
        after = workers_of(server.pid)
        assert (after[1], after[3]) == (before[1], before[3]) and after[2] != before[2]
        assert server.end(signal.SIGTERM) == 0
        assert server.lines == []


def test_a_second_server_on_the_port_is_refused(tmp_path: Path, variables: dict[str, str]) -> None:
    with begin(tmp_path, 2, variables) as server:
        port = server.url.rpartition(":")[2]
        for words in (["--workers", "2"], []):
            done = run(tmp_path, "serve", "--host", "127.0.0.1", "--port", port, *words, **variables)
            assert done.returncode == ExitCode.FAILED and "is taken, perhaps by a server that runs already" in done.stderr
        assert len(connect_some(server.url, 20)) == 2
        assert server.end() == 0


def test_no_secret_is_in_an_argument(tmp_path: Path, variables: dict[str, str]) -> None:
    url = variables.pop("REDIS_URL")
    with begin(tmp_path, 2, variables, "--redis-url", url) as server:
        for pid in workers_of(server.pid).values():
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            assert PASSWORD.encode() not in words and SECRET.encode() not in words
        assert server.end() == 0
        assert PASSWORD not in server.output and SECRET not in server.output


def test_they_are_replaced_by_sighup_while_clients_come(tmp_path: Path, variables: dict[str, str]) -> None:
    """Who was there is told to come back. The port is open all the time: only who is just connecting to one that ends has to try again."""
    again = 0

    async def work(server: Server) -> list[int | None]:
        nonlocal again
        async with AsyncExitStack() as stack:
            old = [connection for _, connection in [await connect(stack, server.url) for _ in range(12)]]
            os.kill(server.pid, signal.SIGHUP)
            replaced = asyncio.ensure_future(asyncio.to_thread(server.wait_for, "all workers were replaced"))
            while not replaced.done():
                try:
                    async with AsyncExitStack() as visit:
                        await connect(visit, server.url)
                except (websockets.InvalidStatus, websockets.ConnectionClosed, ConnectionResetError):
                    again += 1
            await replaced
            async with asyncio.timeout(DEADLINE):
                return [await _close_code(connection) for connection in old]

    names = ("handshakes_per_second", "handshakes_per_second_per_address", "handshakes_burst_per_address", "connections_per_address")
    (tmp_path / "realtime.toml").write_text("[limits]\n" + "".join(f"{name} = 100000\n" for name in names))
    with begin(tmp_path, 2, variables, "--config", "realtime.toml") as server:
        before = workers_of(server.pid)
        assert asyncio.run(work(server)) == [4001] * 12 and again <= 2
        assert not set(before.values()) & set(workers_of(server.pid).values())
        assert "ended by itself" not in server.output
        assert server.end() == 0


async def _close_code(connection: websockets.ClientConnection) -> int | None:
    try:
        while True:
            await connection.recv()
    except websockets.ConnectionClosed:
        return connection.close_code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_all_are_drained_by_one_signal(tmp_path: Path, variables: dict[str, str], number: signal.Signals) -> None:
    async def work(server: Server) -> set[int | None]:
        async with AsyncExitStack() as stack:
            connections = [connection for _, connection in [await connect(stack, server.url) for _ in range(10)]]
            os.kill(server.pid, number)
            async with asyncio.timeout(DEADLINE):
                return {await _close_code(connection) for connection in connections}

    with begin(tmp_path, 2, variables) as server:
        workers = workers_of(server.pid)
        assert asyncio.run(work(server)) == {4001}
        assert server.end(None) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in workers.values())


def test_they_end_when_the_parent_is_killed(tmp_path: Path, variables: dict[str, str]) -> None:
    async def work(server: Server) -> int | None:
        async with AsyncExitStack() as stack:
            _, connection = await connect(stack, server.url)
            os.kill(server.pid, signal.SIGKILL)
            async with asyncio.timeout(DEADLINE):
                return await _close_code(connection)

    with begin(tmp_path, 2, variables) as server:
        assert asyncio.run(work(server)) == 4001, "like by SIGTERM"
        server.end(None)  # and nobody holds its output any more
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", int(server.url.rpartition(":")[2])))


def test_a_server_of_ones_own(tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "ours.py").write_text("from aibos_realtime import RealtimeServer\nserver = RealtimeServer.from_env()\n")
    with begin(tmp_path, 2, variables, "ours:server") as server:
        assert set(connect_some(server.url, 30)) == {"web-1", "web-2"}
        assert server.end() == 0


@pytest.mark.parametrize(
    ("changed", "code", "says"),
    [
        ({"REDIS_URL": "unix:///nowhere/redis"}, ExitCode.FAILED, "Redis does not answer"),
        ({"ENABLE_SCALING": "false"}, ExitCode.USAGE, "Set ENABLE_SCALING=true and REDIS_URL"),
        ({"JWT_SECRET": ""}, ExitCode.USAGE, "Set JWT_SECRET"),
    ],
)
def test_what_keeps_a_worker_from_beginning_is_told_once(
    tmp_path: Path, variables: dict[str, str], changed: dict[str, Any], code: ExitCode, says: str
) -> None:
    done = run(tmp_path, "serve", "--workers", "3", "--host", "127.0.0.1", "--port", str(find_free_port()), **variables | changed)
    assert done.returncode == code and done.stderr.count(says) == 1 and "Traceback" not in done.stderr


def test_a_second_signal_ends_them_at_once(tmp_path: Path, variables: dict[str, str]) -> None:
    (tmp_path / "ours.py").write_text(
        "import asyncio\nfrom aibos_realtime import RealtimeServer\nserver = RealtimeServer.from_env()\n"
        '@server.event("hang")\nasync def hang(socket, data):\n    print("hanging", flush=True)\n    await asyncio.Event().wait()\n'
    )

    async def work(server: Process) -> None:
        async with AsyncExitStack() as stack:
            _, connection = await connect(stack, str(server.url))  # type: ignore[attr-defined]
            await connection.send('{"event": "hang", "ref": 1}')
            await asyncio.to_thread(server.wait_for, "hanging")
            os.kill(server.pid, signal.SIGTERM)
            assert "reconnect" in str(await connection.recv())
            os.kill(server.pid, signal.SIGTERM)

    with begin(tmp_path, 2, variables, "ours:server") as server:
        asyncio.run(work(server))
        assert server.end(None) == 0
