"""Joining without a gap: what a socket missed follows the answer, by rising offset, and then what is live.

While the log is read, live events wait in `Room.joining`; what is in both is sent once. A long replay is read in pages as the outbox drains.
"""

from __future__ import annotations

from msgspec import UNSET

from ..backends.base import Broker, LoggedEvent
from ..errors import UnrecoverablePosition
from ..hub.room import Room
from ..hub.socket import Socket
from ..metrics import Metrics
from ..protocol.codec import Answer
from ..protocol.messages import Position
from .fanout import Fanout, room_frame
from .filters import Filters

PAGE = 100


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
        """Send what stands after a position, then let live events follow. `room` is None for an own stream, where live events never stop.

        Where the log is trimmed under a replay that is too slow for it, `resync` says so, and live events follow.
        """
        while True:
            if room is not None:
                if socket not in room.joining:
                    return
                self._fanout.flush_room(room_id)
                room.joining[socket] = []
            try:
                page = await self._broker.read_after(room_id, after, PAGE)
            except UnrecoverablePosition:
                await self._resync(socket, room_id)
                break
            self.send(socket, page.events)
            if page.events:
                after = Position(page.epoch, page.events[-1].offset)
            if not page.more:
                break
            if room is not None and socket.is_behind():
                room.joining[socket] = None
                await socket.drained()
        if room is not None and socket in room.joining:
            self._fanout.flush_room(room_id)
            waiting = room.joining[socket] or ()
            self.send(socket, [event for event in waiting if event.epoch != after.epoch or event.offset > after.offset])
            room.go_live(socket)

    def send(self, socket: Socket, events: list[LoggedEvent]) -> None:
        """Write events to one socket, those that are for its user."""
        encoding = socket.encoding
        chosen = [event for event in events if self._filters.admits(event.audience, socket.user)]
        if chosen:
            socket.write(b"".join(encoding.frame(room_frame(event, encoding.codec)) for event in chosen))

    async def _resync(self, socket: Socket, room_id: str) -> None:
        top = await self._broker.position(room_id)
        self._metrics.resyncs += 1
        data = {"roomId": room_id, "epoch": top.epoch, "offset": top.offset}
        socket.write(socket.encoding.frame(Answer("resync", UNSET, data)))
