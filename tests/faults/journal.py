"""What clients write down while faults happen: every attempt, what became of it, and everything that they were told.

One line of JSON a record, one file a client. An attempt is in the file before its request is sent, so that a journal never knows less than the wire.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct, field


class Stamped(Struct, tag=True, frozen=True, kw_only=True):
    """When it was written down, in monotonic seconds of the machine."""

    at: float = field(default_factory=time.monotonic)


class Entry(Stamped, frozen=True):
    """What one client writes down of one room."""

    client: str
    room: str


class Attempt(Entry, frozen=True):
    """A publish is about to be sent. `id`: the event's, the same in every further attempt."""

    id: str


class Acknowledged(Entry, frozen=True):
    """The server says that the event has this place in the room's log."""

    id: str
    epoch: str
    offset: int


class Refused(Entry, frozen=True):
    """The server, or the client, says that the event was not published, and that trying again is no use."""

    id: str
    code: str


class Unknown(Entry, frozen=True):
    """A retryable error, a time-out, a lost connection: published or not."""

    id: str
    code: str


class Joined(Entry, frozen=True):
    """This client follows the room from this place on."""

    epoch: str
    offset: int


class Told(Entry, frozen=True):
    """The client was told that continuity is lost; the room goes on from this place. None: it was not said from where."""

    epoch: str | None
    offset: int | None


class Delivered(Entry, frozen=True):
    """The application's callback got this event."""

    epoch: str
    offset: int
    id: str


class Left(Entry, frozen=True):
    """The client follows the room no longer. Without this it followed to the end."""


Record = Attempt | Acknowledged | Refused | Unknown | Joined | Told | Delivered | Left

_decoder = msgspec.json.Decoder(Record)


class Journal:
    """The file of one client; `write` is flushed where it says so."""

    def __init__(self, folder: Path, client: str) -> None:
        self.client = client
        self._file: io.BufferedWriter = (folder / f"{client}.journal").open("ab")

    def write(self, record: Record, *, flush: bool = False) -> None:
        self._file.write(msgspec.json.encode(record) + b"\n")
        if flush:
            self._file.flush()

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_journals(folder: Path, room: str | None = None) -> Iterator[Record]:
    """Every record, or those of one room alone; those of one client in the order in which they were written."""
    wanted = b"" if room is None else b'"room":%s' % msgspec.json.encode(room)
    for path in sorted(folder.glob("*.journal")):
        with path.open("rb") as file:
            for line in file:
                if wanted in line:
                    yield _decoder.decode(line)
