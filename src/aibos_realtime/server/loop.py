"""What a process that serves runs on: the event loop, and how often garbage is collected."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator
from contextlib import contextmanager


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
