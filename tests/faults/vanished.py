"""A client that is gone without a word: its cable is pulled (a network namespace whose link goes down), or its process stands still.

The program of that client, too: `python -m tests.faults.vanished URL TOKEN` joins the room, says so, and waits.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aibos_realtime import RealtimeClient
from tests.faults.processes import ROOT
from tests.network.processes import clean_environment

ROOM = "lobby"
ADDRESS, FAR = "10.213.7.1", "10.213.7.2"
"""Of both ends of the cable; nothing else knows them."""


def has_cables() -> bool:
    """Whether this process may make network namespaces."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        return False
    try:
        with cable():
            return True
    except subprocess.CalledProcessError:
        return False


class Victim:
    """One that has joined. `vanish`: from then on nothing comes from it, and nothing arrives there."""

    def __init__(self, process: subprocess.Popen[bytes], vanish: Callable[[], None]) -> None:
        self.process = process
        self.vanish = vanish

    async def until_joined(self) -> None:
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        assert line == b"joined\n", line


@contextmanager
def cable() -> Iterator[str]:
    """A namespace with a cable to this one: its name. Both go at the end."""
    name = f"rt-{os.getpid()}"
    near, far = f"rtn{os.getpid()}", f"rtf{os.getpid()}"
    try:
        _run("netns", "add", name)
        _run("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        _run("addr", "add", f"{ADDRESS}/30", "dev", near)
        _run("link", "set", near, "up")
        _run("-n", name, "addr", "add", f"{FAR}/30", "dev", far)
        _run("-n", name, "link", "set", far, "up")
        yield name
    finally:
        _try("link", "del", near)
        _try("netns", "del", name)


@contextmanager
def victim(url: str, token: str, namespace: str | None) -> Iterator[Victim]:
    """Start one, in a namespace or here. It ends with the block."""
    words = [sys.executable, "-m", "tests.faults.vanished", url, token]
    environment = clean_environment(PYTHONPATH=f"{ROOT / 'src'}{os.pathsep}{ROOT}")
    before = ["ip", "netns", "exec", namespace] if namespace is not None else []
    process = subprocess.Popen([*before, *words], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)

    def pull() -> None:
        _run("link", "set", f"rtn{os.getpid()}", "down")

    try:
        yield Victim(process, pull if namespace is not None else lambda: process.send_signal(signal.SIGSTOP))
    finally:
        process.kill()
        process.communicate()


def _run(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=10)


def _try(*words: str) -> bool:
    return subprocess.run(["ip", *words], check=False, capture_output=True, timeout=10).returncode == 0


async def join_and_wait(url: str, token: str) -> None:
    """The victim's program."""
    async with RealtimeClient(url, token=token, heartbeat={"interval": 60, "timeout": 120}) as client:
        await client.join_room(ROOM)
        print("joined", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(join_and_wait(*sys.argv[1:]))
