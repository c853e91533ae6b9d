"""The same bytes to many peers, in one call.

In Python each peer's `write` is called in turn. Where the compiled part was built (`native/`), a connection on plain TCP has a `Writer` as its
`write`, and all sends of an event go to the kernel together (io_uring, Linux 6.1 or newer) or in a loop without the interpreter (`send()`), past the
stream of a connection that has nothing queued. All else goes the ordinary way: TLS, a stream that is behind, what the kernel did not take at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Literal, Protocol

from ..errors import ConfigurationError
from ..logs import get_logger

if TYPE_CHECKING:
    from . import compiled as Compiled

compiled: ModuleType | None
try:
    from . import compiled
except ImportError:  # pure Python: no compiler was there, or none was wanted
    compiled = None

logger = get_logger("aibos_realtime")

Write = Callable[[bytes], None]
Engine = Literal["auto", "io_uring", "send", "python"]


class Receiver(Protocol):
    """Something to write to."""

    write: Write


class Sender:
    """Gives the same bytes to many. Never waits and refuses nothing: what a peer's network does not take at once, its stream keeps.

    `wanted`: `io_uring` or `send` (both compiled), `python`, or `auto`: the first of the three that there is. Belongs to the thread of one event
    loop; works in Python until `open`.
    """

    def __init__(self, wanted: Engine = "auto") -> None:
        self.wanted = wanted
        self._compiled: Compiled.Sender | None = None
        self.send: Callable[[Iterable[Receiver], bytes], None] = send_in_turn
        """Call `send(receivers, data)` to give `data` to the `write` of each."""

    @property
    def engine(self) -> str:
        """What it sends with: `io_uring`, `send` or `python`."""
        return "python" if self._compiled is None else self._compiled.engine

    def open(self) -> None:
        """Choose what to send with; from the loop's thread. Raises `ConfigurationError` where what was named is not to be had."""
        if self.wanted == "python" or (compiled is None and self.wanted == "auto"):
            return
        if compiled is None:
            raise ConfigurationError(f"sender: {self.wanted!r} was given, and the compiled part is not installed; allowed here: auto, python")
        try:
            self._compiled = compiled.Sender("send" if self.wanted == "send" else "io_uring")
        except OSError as error:
            if self.wanted == "io_uring":
                why = f"'io_uring' was given, and the kernel refuses it ({error.strerror})"
                raise ConfigurationError(f"sender: {why}; allowed here: auto, send, python") from None
            logger.debug("no io_uring: %s", error.strerror)
            self._compiled = compiled.Sender("send")
        self.send = self._compiled.send

    def writer(self, stream: asyncio.Transport) -> Write:
        """The `write` of a stream; one that `send` can go past, if it leads straight to a socket. `release` it when the stream is lost."""
        if compiled is None or self._compiled is None or stream.get_extra_info("sslcontext") is not None:
            return stream.write
        socket = stream.get_extra_info("socket")
        return stream.write if socket is None else compiled.Writer(stream, socket.fileno())

    def close(self) -> None:
        """Give the kernel's queues back, and work in Python again. Idempotent."""
        if self._compiled is not None:
            self._compiled.close()
        self._compiled, self.send = None, send_in_turn


def release(write: Write) -> None:
    """The stream of a `writer` is lost, and its file descriptor will soon be somebody else's."""
    if compiled is not None and isinstance(write, compiled.Writer):
        write.close()


def send_in_turn(receivers: Iterable[Receiver], data: bytes) -> None:
    """Call each `write`, whatever goes wrong with another; the first error is raised at the end."""
    failure: Exception | None = None
    for receiver in receivers:
        write = receiver.write  # two steps: the interpreter specialises loading a slot, but not calling one
        try:
            write(data)
        except Exception as error:
            failure = failure or error
    if failure is not None:
        raise failure
