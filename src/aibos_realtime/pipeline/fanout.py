"""From an event in a room's log to the members' transports, on this node.

Events of one loop turn wait together: each member gets them in one write, and each frame is built once per encoding. Publishing never waits for a
member: a socket that is behind has an outbox, one that is gone drops the bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager

from msgspec import UNSET

from ..backends.base import LoggedEvent
from ..clock import Clock
from ..hub.connections import ConnectionPool
from ..hub.rooms import RoomManager
from ..hub.socket import Socket
from ..metrics import Metrics
from ..protocol.codec import Answer, Codec, Encoding, RoomFrame
from ..protocol.limits import ALL, is_own_stream
from ..protocol.messages import Position
from ..protocol.timestamps import rfc3339
from .filters import Filters

Groups = Mapping[Encoding, Collection[Socket]]


def room_frame(event: LoggedEvent, codec: Codec) -> RoomFrame:
    """An event of a room as its members get it; a volatile one has no offset."""
    user_id = UNSET if event.user_id is None else event.user_id
    return RoomFrame(event.event, event.room, event.offset or UNSET, event.id, codec.from_json(event.data), user_id, rfc3339(event.timestamp))


RESYNC = ""
"""In place of an event's name: not an event, but the notice that continuity was lost here."""


def resync_frame(notice: LoggedEvent, encoding: Encoding) -> bytes:
    """What tells a member that continuity was lost."""
    return encoding.frame(Answer("resync", UNSET, {"roomId": notice.room, "epoch": notice.epoch, "offset": notice.offset}))


class Fanout:
    """Holds the events of the present loop turn, by room, and writes them out at its end."""

    def __init__(self, *, rooms: RoomManager, pool: ConnectionPool, filters: Filters, metrics: Metrics, clock: Clock) -> None:
        self._rooms = rooms
        self._pool = pool
        self._filters = filters
        self._metrics = metrics
        self._clock = clock
        self._waiting: dict[str, list[LoggedEvent]] = {}
        self._catching_up: dict[str, dict[Socket, list[LoggedEvent] | None]] = {}
        self._since = 0.0

    def deliver(self, event: LoggedEvent) -> None:
        """Take an event that has its position. Events of one room come here by rising offset."""
        self._metrics.events += 1
        waiting = self._waiting.get(event.room)
        if waiting is not None:
            waiting.append(event)
            return
        if not self._waiting:
            self._since = self._clock.monotonic()
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting[event.room] = [event]

    def flush(self) -> None:
        """Write out everything that waits."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        published = next(iter(waiting.values()))[0].timestamp
        for room_id, events in waiting.items():
            self._send(room_id, events)
        self._metrics.note_fanout(self._clock.monotonic() - self._since, max(0.0, self._clock.now() - published / 1000))

    def flush_room(self, room_id: str) -> None:
        """Write out what waits for one room: before its membership changes, so that each event goes to those who were in when it was published."""
        events = self._waiting.pop(room_id, None)
        if events is not None:
            self._send(room_id, events)

    def deliver_volatile(self, event: LoggedEvent) -> None:
        """Send an event that takes no place in the log (offset 0), now, to the members who keep up."""
        self.flush_room(event.room)
        for encoding, sockets in self._groups(event.room).items():
            frame = encoding.frame(room_frame(event, encoding.codec))
            for socket in sockets:
                if not self._filters.admits(event.audience, socket.user):
                    continue
                if socket.can_take_volatile():
                    self._write(socket, frame, 1)
                else:
                    self._metrics.volatile_dropped += 1

    def resync(self, room_id: str, position: Position) -> None:
        """Tell the members of a room that they may have missed something, and that what follows comes right after `position`."""
        self.flush_room(room_id)
        notice = LoggedEvent(room_id, RESYNC, b"", "", position.epoch, position.offset, 0)
        for buffer in self._waiting_for(room_id):
            if buffer is not None:
                buffer.append(notice)
        for encoding, sockets in self._groups(room_id).items():
            frame = resync_frame(notice, encoding)
            for socket in sockets:
                self._write(socket, frame, 0)
            self._metrics.resyncs += len(sockets)

    def is_watched(self, room_id: str) -> bool:
        """Whether anybody on this node may hold a position of a room or an own stream."""
        if not is_own_stream(room_id):
            return self._rooms.get(room_id) is not None
        return len(self._pool) > 0 if room_id == ALL else self._pool.count_user_connections(room_id.partition(":")[2]) > 0

    def catching_up(self, stream: str) -> dict[Socket, list[LoggedEvent] | None]:
        """The sockets that read the log of an own stream, and for which its live events wait: as `Room.joining` is for rooms."""
        return self._catching_up.setdefault(stream, {})

    def caught_up(self, stream: str) -> None:
        """One of them has finished."""
        if not self._catching_up.get(stream, True):
            del self._catching_up[stream]

    @contextmanager
    def withholding(self, streams: Iterable[str], socket: Socket) -> Iterator[None]:
        """Keep the live events of own streams from a socket: it will be told a position that they are before."""
        try:
            for stream in streams:
                self.catching_up(stream)[socket] = None
            yield
        finally:
            for stream in streams:
                self.catching_up(stream).pop(socket, None)
                self.caught_up(stream)

    def _waiting_for(self, room_id: str) -> Iterable[list[LoggedEvent] | None]:
        room = self._rooms.get(room_id)
        waiting = room.joining if room is not None else self._catching_up.get(room_id)
        return waiting.values() if waiting else ()

    def _groups(self, room_id: str) -> Groups:
        room = self._rooms.get(room_id)
        if room is not None:
            return room.groups
        if not is_own_stream(room_id):
            return {}
        sockets = self._pool if room_id == ALL else self._pool.get_user_connections(room_id.partition(":")[2])
        catching_up = self._catching_up.get(room_id, ())
        groups: dict[Encoding, list[Socket]] = {}
        for socket in sockets:
            if socket.ready and socket.authenticated and socket not in catching_up:
                groups.setdefault(socket.encoding, []).append(socket)
        return groups

    def _send(self, room_id: str, events: list[LoggedEvent]) -> None:
        for buffer in self._waiting_for(room_id):
            if buffer is not None:
                buffer.extend(events)
        plain = all(event.audience is None for event in events)
        metrics = self._metrics
        for encoding, sockets in self._groups(room_id).items():
            frames = [encoding.frame(room_frame(event, encoding.codec)) for event in events]
            if plain:
                data = frames[0] if len(frames) == 1 else b"".join(frames)
                for socket in sockets:
                    write = socket.write  # two steps: the interpreter specialises loading a slot, but not calling one
                    write(data)
                count = len(sockets)
                metrics.deliveries += count * len(frames)
                metrics.messages_out += count * len(frames)
                metrics.bytes_out += count * len(data)
            else:
                self._send_chosen(events, frames, sockets)

    def _send_chosen(self, events: list[LoggedEvent], frames: list[bytes], sockets: Iterable[Socket]) -> None:
        admits = self._filters.admits
        for socket in sockets:
            chosen = [frame for event, frame in zip(events, frames, strict=True) if admits(event.audience, socket.user)]
            if chosen:
                self._write(socket, b"".join(chosen), len(chosen))

    def _write(self, socket: Socket, data: bytes, count: int) -> None:
        socket.write(data)
        self._metrics.deliveries += count
        self._metrics.messages_out += count
        self._metrics.bytes_out += len(data)
