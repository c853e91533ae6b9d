"""The load in C, against the floor in C and servers that do wrong: it counts what arrives, and believes nothing else."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.contestants import floor
from benchmarks.processes import Node, compile_program, running_nodes

UPGRADED = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("needs a C compiler")
    folder = tmp_path_factory.mktemp("programs")
    for name in ("load", "floor"):
        compile_program(name, folder)
    return folder


@pytest.fixture(scope="module")
def server(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with running_nodes(floor(programs / "floor"), [None], None, tmp_path_factory.mktemp("server")) as (node,):
        yield node


def run(programs: Path, port: int, pid: int, *words: str) -> subprocess.CompletedProcess[str]:
    given = [f"ports={port}", f"pids={pid}", "warm=0", "seconds=0.05", "early=2", *words]
    return subprocess.run([programs / "load", *given], capture_output=True, text=True, timeout=30)


def measure(programs: Path, server: Node, *words: str) -> dict[str, float]:
    done = run(programs, server.port, server.pid, *words)
    assert done.returncode == 0, done.stderr
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(("payload", "frame"), [(9, 19), (117, 127), (118, 130), (65_527, 65_539), (65_528, 65_546), (65_536, 65_554)])
def test_a_fan_out_reaches_every_member_whatever_its_size(programs: Path, server: Node, payload: int, frame: int) -> None:
    found = measure(programs, server, "clients=20", f"payload={payload}", "window=4")
    assert found["clients"] == 20 and found["events"] >= 3 and found["deliveries"] == 20 * found["events"] and found["behind"] == 0
    assert found["bytes"] == frame  # head, "bench:0 ", data
    assert 0 < found["cpu_us"] < 10_000 and found["event_cpu_us"] == pytest.approx(20 * found["cpu_us"], rel=1e-3)
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_every_client_gets_its_own_answer(programs: Path, server: Node) -> None:
    found = measure(programs, server, "work=request", "clients=5", "window=2")
    assert found["deliveries"] == found["events"] >= 10 and found["bytes"] == 159


def test_a_paced_load_is_paced(programs: Path, server: Node) -> None:
    found = measure(programs, server, "clients=3", "rate=100", "seconds=0.3")
    assert 30 <= found["events"] <= 31 and found["deliveries"] == 3 * found["events"]


def test_silent_clients_are_opened_and_counted(programs: Path, server: Node) -> None:
    found = measure(programs, server, "work=idle", "clients=30", "opening=4")
    assert "events" not in found and found["open_cpu_us"] > 0 and found["opened_per_s"] > 0 and found["base_mb"] > 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["clients"], "KEY=VALUE, not clients"),
        (["members=3"], "there is no members"),
        (["work=nothing"], "not nothing but fanout, request or idle"),
        (["clients=10", "rooms=3"], "every room needs as many members as any other"),
        (["clients=10", "rooms=2", "joins=3"], "every room needs as many members as any other"),
        (["payload=8"], "payload: 9 to"),
        (["publishers=3", "clients=2"], "fewer members than publishers"),
        (["dialect=aibos", "tokens=/nowhere"], "0 tokens for"),
        (["pids=999999999"], "process 999999999 is gone"),
        (["clients=4", "rooms=2"], "came more often than its room has members"),  # the floor knows one room
    ],
)
def test_what_is_wrong_is_said(programs: Path, server: Node, words: list[str], reason: str) -> None:
    done = run(programs, server.port, server.pid, *words)
    assert done.returncode == 1 and reason in done.stderr and done.stderr.count("\n") == 1


@contextmanager
def answering(answer: bytes) -> Iterator[int]:
    """A server that sends this to each client and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            try:
                while True:
                    client, _ = listener.accept()
                    with client:
                        client.recv(65_536)
                        client.sendall(answer)
            except OSError:
                return

        thread = Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "refused: HTTP/1.1 503"),
        (b"", "closed the connection while it opened"),
        (UPGRADED + b"\x88\x06\x11\x98slow", "closed by the server: 4504 slow"),
        (UPGRADED + b"\x01\x01a", "a fragment, or a masked frame"),
        (UPGRADED + b"\x81\x05hello", "the server says hello"),
    ],
)
def test_a_server_that_does_wrong_ends_it(programs: Path, server: Node, answer: bytes, reason: str) -> None:
    with answering(answer) as port:
        done = run(programs, port, server.pid, "early=0", "clients=1")
    assert done.returncode == 1 and reason in done.stderr, done


def test_a_source_that_does_not_compile_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "false")
    with pytest.raises(RuntimeError, match=r"load\.c does not compile"):
        compile_program("load", tmp_path)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="needs a C compiler"):
        compile_program("load", tmp_path)
