"""From an event in a room's log to the members' transports, on this node.

Events of one loop turn wait together: each member gets them in one write, and each frame is built once per encoding. Publishing never waits for a
member: a socket that is behind has an outbox, one that is gone drops the bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import reduce
from operator import or_

from msgspec import UNSET

from ..backends.base import LoggedEvent
from ..clock import Clock
from ..hub.connections import ConnectionPool
from ..hub.room import Room
from ..hub.rooms import RoomManager
from ..hub.socket import Socket
from ..logs import get_logger
from ..metrics import Metrics
from ..protocol.codec import Answer, Codec, Encoding, RoomFrame
from ..protocol.limits import ALL, is_own_stream
from ..protocol.messages import Position
from ..protocol.timestamps import rfc3339
from ..transport.batch import Sender
from .filters import Filters
from .selection import Groups, select

logger = get_logger("aibos_realtime.fanout")


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

    def __init__(
        self, *, rooms: RoomManager, pool: ConnectionPool, filters: Filters, metrics: Metrics, clock: Clock, sender: Sender | None = None
    ) -> None:
        self._rooms = rooms
        self._pool = pool
        self._filters = filters
        self._metrics = metrics
        self._sender = sender if sender is not None else Sender("python")
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
            try:
                self._send(room_id, events)
            except Exception:  # an event that cannot be written, which should not have come this far: it costs no other room anything
                logger.exception("events of a room could not be sent, and its members are told so")
                self.resync(room_id, Position(events[-1].epoch, events[-1].offset))
        self._metrics.note_fanout(self._clock.monotonic() - self._since, max(0.0, self._clock.now() - published / 1000))

    def flush_room(self, room_id: str) -> None:
        """Write out what waits for one room: before its membership changes, so that each event goes to those who were in when it was published."""
        events = self._waiting.pop(room_id, None)
        if events is not None:
            self._send(room_id, events)

    def deliver_volatile(self, event: LoggedEvent) -> None:
        """Send an event that takes no place in the log (offset 0), now, to the members who keep up."""
        self.flush_room(event.room)
        room = self._rooms.get(event.room)
        groups = self._groups(event.room, room)
        if event.audience is not None and groups:
            selected = select([event], groups, room, pool=self._pool, filters=self._filters)
            groups = {encoding: sockets for encoding, by_mask in selected.items() for sockets in by_mask.values()}
        for encoding, sockets in groups.items():
            takers = [socket for socket in sockets if socket.can_take_volatile()]
            self._write(takers, encoding.frame(room_frame(event, encoding.codec)), 1)
            self._metrics.volatile_dropped += len(sockets) - len(takers)

    def resync(self, room_id: str, position: Position) -> None:
        """Tell the members of a room that they may have missed something, and that what follows comes right after `position`."""
        self.flush_room(room_id)
        notice = LoggedEvent(room_id, RESYNC, b"", "", position.epoch, position.offset, 0)
        room = self._rooms.get(room_id)
        for buffer in self._buffers(room_id, room):
            buffer.append(notice)
        for encoding, sockets in self._groups(room_id, room).items():
            self._write(sockets, resync_frame(notice, encoding), 0)
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

    def _buffers(self, room_id: str, room: Room | None) -> Iterable[list[LoggedEvent]]:
        """Where live events wait for sockets that are not live yet."""
        waiting = room.joining if room is not None else self._catching_up.get(room_id)
        return [buffer for buffer in waiting.values() if buffer is not None] if waiting else ()

    def _groups(self, room_id: str, room: Room | None) -> Groups:
        """The sockets that live events go to."""
        if room is not None:
            return room.groups
        if not is_own_stream(room_id):
            return {}
        sockets = self._pool if room_id == ALL else self._pool.get_user_connections(room_id.partition(":")[2])
        live = [socket for socket in sockets if socket.ready and socket.authenticated]
        if catching_up := self._catching_up.get(room_id):
            live = [socket for socket in live if socket not in catching_up]
        encodings = {socket.encoding for socket in live}
        if len(encodings) == 1:
            return {encodings.pop(): live}
        return {encoding: [socket for socket in live if socket.encoding is encoding] for encoding in encodings}

    def _send(self, room_id: str, events: list[LoggedEvent]) -> None:
        room = self._rooms.get(room_id)
        for buffer in self._buffers(room_id, room):
            buffer.extend(events)
        groups = self._groups(room_id, room)
        if not groups:
            return
        for event in events:
            if event.audience is not None:
                self._send_chosen(events, groups, room)
                return
        for encoding, sockets in groups.items():
            frame, codec = encoding.frame, encoding.codec
            if len(events) == 1:
                data = frame(room_frame(events[0], codec))
            else:
                data = b"".join([frame(room_frame(event, codec)) for event in events])
            self._write(sockets, data, len(events))

    def _send_chosen(self, events: list[LoggedEvent], groups: Groups, room: Room | None) -> None:
        """To each the events that are for him: who gets the same gets the same bytes."""
        for encoding, by_mask in select(events, groups, room, pool=self._pool, filters=self._filters).items():
            wanted = reduce(or_, by_mask)
            frames = [encoding.frame(room_frame(event, encoding.codec)) if wanted >> number & 1 else b"" for number, event in enumerate(events)]
            for mask, sockets in by_mask.items():
                data = b"".join([frame for number, frame in enumerate(frames) if mask >> number & 1])
                self._write(sockets, data, mask.bit_count())

    def _write(self, sockets: Collection[Socket], data: bytes, events: int) -> None:
        """Give the frames of so many events to sockets, and count them."""
        self._sender.send(sockets, data)
        count = len(sockets)
        metrics = self._metrics
        metrics.deliveries += count * events
        metrics.messages_out += count * events
        metrics.bytes_out += count * len(data)
