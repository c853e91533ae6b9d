from __future__ import annotations

import asyncio
import errno
import os
import signal
from pathlib import Path

import pytest

from aibos_realtime import RealtimeClient
from tests.faults import program_for_tests
from tests.faults.processes import Process, Server, Zygote

PROGRAM = program_for_tests.__name__


async def test_a_program_runs_and_its_output_and_status_are_kept(zygote: Zygote) -> None:
    process = await Process.start(zygote, PROGRAM, {"do": "speak", "words": "hello"})
    assert await process.until("hello") == "hello"
    assert await process.ended() == 0
    assert process.lines == ["hello", "to stderr"]


async def test_a_program_that_fails_leaves_a_traceback(zygote: Zygote) -> None:
    process = await Process.start(zygote, PROGRAM, {"do": "fail"})
    assert await process.ended() == 1
    with pytest.raises(AssertionError, match="RuntimeError: on purpose"):
        await process.until("never said")


async def test_kill(zygote: Zygote) -> None:
    process = await Process.start(zygote, PROGRAM, {"do": "count"})
    await process.until("5")
    assert await process.kill() == -signal.SIGKILL
    assert process.has_ended
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


async def test_pause_and_resume(zygote: Zygote) -> None:
    process = await Process.start(zygote, PROGRAM, {"do": "count"})
    await process.until("5")
    process.pause()
    said = len(process.lines)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await process.until(str(said + 100_000))
    process.resume()
    await process.until(str(said + 50))
    await process.kill()


async def test_a_full_disk_that_has_room_again(zygote: Zygote, tmp_path: Path) -> None:
    file = tmp_path / "file"
    process = await Process.start(zygote, PROGRAM, {"do": "write", "file": str(file)})
    await process.until("written")
    process.limit_files(file.stat().st_size)
    await process.until(f"failed {errno.EFBIG}")
    said = len(process.lines)
    process.limit_files(None)
    await process.until(lambda line: line == "written" and "written" in process.lines[said:])
    await process.kill()


async def test_processes_end_with_their_zygote() -> None:
    zygote = Zygote()
    process = await Process.start(zygote, PROGRAM, {"do": "count"})
    await process.until("5")
    await asyncio.to_thread(zygote.close)
    await process.until_ended()


async def test_a_server_is_killed_and_comes_back_on_its_port(zygote: Zygote, tmp_path: Path) -> None:
    async with Server(zygote, f"sqlite:///{tmp_path}/realtime.db") as server:
        url = server.url
        await server.kill()
        await server.start()
        client = RealtimeClient(server.url, reconnect=False)
        await client.connect()
        await client.close()
        await server.stop()
        assert server.url == url and len(server.lives) == 2


async def test_a_server_that_wrote_a_traceback_is_found_out(zygote: Zygote, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="life 1 of the server wrote a traceback"):
        async with Server(zygote, f"sqlite:///{tmp_path}/realtime.db") as server:
            server.process.lines.append("Traceback (most recent call last):")
