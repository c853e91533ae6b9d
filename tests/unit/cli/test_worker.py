"""The line between a worker and the process that began it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket

from aibos_realtime.cli.worker import READY, Link


async def test_it_tells_that_it_serves_and_ends_like_by_sigterm_when_the_parent_does() -> None:
    loop = asyncio.get_running_loop()
    parent, child = socket.socketpair()
    link = Link(child.detach())
    asked = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    try:
        link.tell_ready()
        parent.settimeout(5)
        assert parent.recv(8) == READY and not asked.is_set()
        parent.close()
        async with asyncio.timeout(5):
            await asked.wait()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        link.close()


async def test_a_parent_that_ended_before_is_noticed() -> None:
    loop = asyncio.get_running_loop()
    parent, child = socket.socketpair()
    link = Link(child.detach())
    parent.close()
    asked = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, asked.set)
    try:
        link.tell_ready()
        async with asyncio.timeout(5):
            await asked.wait()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        link.close()


def test_no_process_of_the_worker_inherits_it() -> None:
    parent, child = socket.socketpair()
    descriptor = child.detach()
    os.set_inheritable(descriptor, True)
    link = Link(descriptor)
    assert not os.get_inheritable(descriptor)
    link.close()
    parent.close()
