"""Joining without a gap: what a socket missed follows the answer, by rising offset, and then what is live.

While the log is read, live events wait in `Room.joining`; what is in both is sent once. A long replay is read in pages as the outbox drains.
"""

from __future__ import annotations

from ..backends.base import Broker, LoggedEvent
from ..errors import UnrecoverablePosition
from ..hub.room import Room
from ..hub.socket import Socket
from ..logs import get_logger
from ..metrics import Metrics
from ..protocol.close_codes import CloseCode, default_reason
from ..protocol.messages import Position
from ..transport.turns import running_turns
from .fanout import RESYNC, Fanout, resync_frame, room_frame
from .filters import Filters

logger = get_logger("aibos_realtime")

PAGE = 100
CHUNK_BYTES = 64 * 1024
"""Bytes of a replay that are written at once, before looking whether the socket keeps up."""

Waiting = dict[Socket, list[LoggedEvent] | None]


class Recovery:
    """Brings one socket's view of one room up to date."""

    def __init__(self, *, broker: Broker, fanout: Fanout, filters: Filters, metrics: Metrics) -> None:
        self._broker = broker
        self._fanout = fanout
        self._filters = filters
        self._metrics = metrics

    async def can_recover(self, room_id: str, position: Position) -> bool:
        """Whether everything after the position is still there, without a gap."""
        try:
            await self._broker.read_after(room_id, position, 1)
        except UnrecoverablePosition:
            self._metrics.recoveries_failed += 1
            return False
        self._metrics.recoveries += 1
        return True

    async def start_of_rewind(self, room_id: str, count: int) -> Position | None:
        """The position right before the last `count` events that are there; None where there are none."""
        page = await self._broker.read_before(room_id, None, count)
        return Position(page.epoch, page.events[0].offset - 1) if page.events else None

    async def replay(self, socket: Socket, room_id: str, after: Position, room: Room | None) -> None:
        """Send what stands after a position, then let live events follow. `room` is None for an own stream.

        Where the log is trimmed under a replay that is too slow for it, `resync` says so, and live events follow. Where the log cannot be read, the
        socket is closed (4015), since it was told that it recovers: it comes back, and goes on from where it is.
        """
        waiting = room.joining if room is not None else self._fanout.catching_up(room_id)
        waiting[socket] = []
        try:
            try:
                after = await self._read_up(socket, room_id, after, waiting)
            except Exception as error:
                logger.warning("socket %s was closed in the middle of a recovery: the log cannot be read (%s)", socket.id, type(error).__name__)
                socket.disconnect(CloseCode.OVERLOADED, default_reason(CloseCode.OVERLOADED))
                return
            if socket in waiting and not socket.closing:
                self._fanout.flush_room(room_id)
                rest = _beyond(after, waiting[socket] or [])
                while rest:
                    rest = rest[self._send(socket, rest) :]
                if room is not None:
                    room.go_live(socket)
        finally:
            waiting.pop(socket, None)
            self._fanout.caught_up(room_id)

    async def _read_up(self, socket: Socket, room_id: str, after: Position, waiting: Waiting) -> Position:
        """Send pages of the log as the socket takes them; returns the position that it has reached."""
        while True:
            await running_turns().come()
            if socket.closing or socket not in waiting:
                return after
            self._fanout.flush_room(room_id)
            waiting[socket] = []
            try:
                page = await self._broker.read_after(room_id, after, PAGE)
            except UnrecoverablePosition:
                return await self._resync(socket, room_id)
            if socket.closing or socket not in waiting:
                return after  # taken out of the room meanwhile
            sent = self._send(socket, page.events)
            if sent < len(page.events):
                after = Position(page.epoch, page.events[sent - 1].offset)
            else:
                after = Position(page.epoch, page.last)
                if not page.more:
                    return after
            if socket.is_behind():
                waiting[socket] = None
                await socket.drained()
            if socket.closing or socket not in waiting:
                return after

    def _send(self, socket: Socket, events: list[LoggedEvent]) -> int:
        """Write events to one socket, those that are for its user, until it falls behind; returns how many were dealt with."""
        encoding = socket.encoding
        frames: list[bytes] = []
        size = 0
        for number, event in enumerate(events, 1):
            if event.event == RESYNC:
                self._metrics.resyncs += 1
                frames.append(resync_frame(event, encoding))
            elif self._filters.admits(event.audience, socket.user):
                frames.append(encoding.frame(room_frame(event, encoding.codec)))
                size += len(frames[-1])
            if size >= CHUNK_BYTES or number == len(events):
                if frames:
                    data = b"".join(frames)
                    self._metrics.messages_out += len(frames)
                    self._metrics.bytes_out += len(data)
                    socket.write(data)
                frames, size = [], 0
                if socket.is_behind():
                    return number
        return len(events)

    async def _resync(self, socket: Socket, room_id: str) -> Position:
        top = await self._broker.position(room_id)
        self._send(socket, [LoggedEvent(room_id, RESYNC, b"", "", top.epoch, top.offset, 0)])
        return top


def _beyond(reached: Position, waiting: list[LoggedEvent]) -> list[LoggedEvent]:
    """What has waited, without what was sent already: up to a position, and before a loss of continuity that this position is after."""
    for number in range(len(waiting) - 1, -1, -1):
        notice = waiting[number]
        if notice.event == RESYNC and notice.epoch == reached.epoch and notice.offset <= reached.offset:
            waiting = waiting[number + 1 :]
            break
    return [event for event in waiting if event.epoch != reached.epoch or event.offset > reached.offset]
