"""The compiled part of `batch`, from `native/`. It may be missing."""

import asyncio
from collections.abc import Iterable
from typing import Literal

from .batch import Receiver

class Writer:
    """One connection's way out: calling it with bytes is calling `stream.write`, and a `Sender` can go past it."""

    fd: int
    """The file descriptor; -1 once closed."""

    def __init__(self, stream: asyncio.Transport, fd: int) -> None: ...
    def __call__(self, data: bytes) -> None: ...
    def close(self) -> None:
        """The file descriptor is about to go: from now on everything is the stream's."""

class Sender:
    """Sends the same bytes to many. Belongs to the thread that made it. Raises `OSError` where the kernel has no io_uring for us."""

    engine: Literal["io_uring", "send"]

    def __init__(self, engine: Literal["io_uring", "send"]) -> None: ...
    def send(self, receivers: Iterable[Receiver], data: bytes, /) -> None:
        """Give the same bytes to the `write` of each. Never waits."""

    def close(self) -> None:
        """Give the ring back; from now on the engine is `send`. Idempotent."""
