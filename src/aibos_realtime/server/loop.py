"""What a process that serves runs on: the event loop, the signals that end it, and how often garbage is collected."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any, Protocol

from ..logs import get_logger

logger = get_logger("aibos_realtime")


class Serving(Protocol):
    """A server, as far as running it needs."""

    async def start(self) -> None: ...

    async def stop(self, drain: float) -> None: ...

    async def wait_stopped(self) -> None: ...


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop where there is one, else the standard library's."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


@contextmanager
def rare_garbage_collection() -> Iterator[None]:
    """Collect cycles by the ten thousand, and never again what was loaded before.

    A fan-out makes one short-lived list per member: at the default threshold of 700 that is a collection for every 700 deliveries, which
    finds nothing.
    """
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


async def run_until_signalled(server: Serving, drain: float, on_started: Callable[[], object] | None) -> None:
    """Start, serve until SIGINT or SIGTERM, and stop; a second signal ends it at once."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_note_error)
    asked = asyncio.Event()
    main = asyncio.current_task()

    def ask() -> None:
        if asked.is_set() and main is not None:
            main.cancel()
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ask)
    await server.start()
    stopped = asyncio.ensure_future(server.wait_stopped())
    asking = asyncio.ensure_future(asked.wait())
    try:
        if on_started is not None and isawaitable(told := on_started()):
            await told
        await asyncio.wait((stopped, asking), return_when=asyncio.FIRST_COMPLETED)
        await server.stop(drain)
    except asyncio.CancelledError:
        logger.warning("stopped by a second signal")
    finally:
        stopped.cancel()
        asking.cancel()


def _note_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What the loop has to tell: as ever, but for a lack of descriptors, which asyncio's own tells with a trace for each connection that waits."""
    error = context.get("exception")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
        logger.warning("connections wait, and cannot be accepted: %s", error.strerror)
    else:
        loop.default_exception_handler(context)
