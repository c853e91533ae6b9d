"""What a client knows of a room, as values; and the events of a room as an iterator."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

from ..errors import ProtocolError, RealtimeError
from ..protocol.client_readings import JoinedRoom, to_event
from ..protocol.messages import Event, Member, Position, ServerMessage
from ..protocol.messages import Receipt as AnyReceipt

T = TypeVar("T")


class RoomState(Struct, frozen=True):
    """The answer to a join. `position`: where the room's log stands. `members`: who is present, as far as the server says.

    `recovered`: None where nothing was to be recovered; True: what was missed follows, complete and in order; False: it cannot be had.
    """

    room: str
    members: list[Member]
    position: Position
    recovered: bool | None = None


class Receipt(AnyReceipt, frozen=True):
    """The receipt of a client's publish, which always has a position."""

    position: Position


class HistoryPage(Struct, frozen=True):
    """Some events of a room, all of one epoch. `more`: there are further ones in the direction that was asked."""

    room: str
    epoch: str
    events: list[Event]
    more: bool


class _History(Struct, rename="camel"):
    room_id: str
    epoch: str
    events: list[ServerMessage]
    more: bool = False


class _Presence(Struct, rename="camel"):
    room_id: str
    members: list[Member]


class _Acknowledgement(Struct):
    id: str
    offset: int
    epoch: str
    duplicate: bool


def read_joined(answer: JoinedRoom) -> RoomState:
    return RoomState(answer.room_id, answer.members or [], answer.position, answer.recovered)


def read_history(data: Any) -> HistoryPage:
    """The answer to `history`. Raises `ProtocolError`."""
    history = _convert(data, _History)
    events = [to_event(one, history.epoch, history.room_id) for one in history.events]
    return HistoryPage(history.room_id, history.epoch, events, history.more)


def read_presence(data: Any) -> list[Member]:
    """The answer to `presence`. Raises `ProtocolError`."""
    return _convert(data, _Presence).members


def read_receipt(data: Any, room: str | None) -> Receipt:
    """The acknowledgement of a publish. Raises `ProtocolError`."""
    given = _convert(data, _Acknowledgement)
    return Receipt(given.id, room, Position(given.epoch, given.offset), given.duplicate)


def is_receipt(data: Any) -> bool:
    """Whether an answer has the shape of the acknowledgement of a publish, and not that of some handler's value."""
    return isinstance(data, dict) and data.keys() == {"id", "offset", "epoch", "duplicate"}


def _convert(data: Any, type: type[T]) -> T:
    try:
        return msgspec.convert(data, type)
    except msgspec.ValidationError:
        raise ProtocolError("The server's answer is not of the protocol.") from None


class RoomEvents:
    """The events of one room, in order: `async for event in client.events("tenant_123")`.

    It ends when the room is left or the client closed, after the events that came before; it raises the client's error when the client
    gave up.
    `position`: up to where the consumer is done: an event counts as done when the next one is asked for.

    A consumer that is slow costs only itself: past `size` waiting events the rest is read from the room's history when it gets there.
    Raises then what `history` raises, `UnrecoverablePosition` for example. Cancelling a wait loses nothing. One consumer per iterator.
    """

    def __init__(self, room: str, *, position: Position | None, size: int, read_after: Callable[[Position], Awaitable[HistoryPage]]) -> None:
        self.room = room
        self.position = position
        self._last = position
        self._size = size
        self._read_after = read_after
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._is_behind = False
        self._has_ended = False
        self._error: RealtimeError | None = None

    def __aiter__(self) -> RoomEvents:
        return self

    async def __anext__(self) -> Event:
        self.position = self._last
        while True:
            while self._events:
                event = self._events.popleft()
                if not self._is_old(event):
                    self._last = event.position or self._last
                    return event
            if self._is_behind and not self._has_ended:
                await self._catch_up()
            elif self._has_ended:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                raise StopAsyncIteration
            else:
                await self._wait()

    def close(self) -> None:
        """Take no more events, and forget the waiting ones."""
        self._events.clear()
        self.end(None)

    # For the dispatcher.

    def push(self, event: Event) -> None:
        """One more event."""
        if self._has_ended or self._is_behind:
            return
        if len(self._events) >= self._size:
            # A volatile event was promised to nobody; for any other the history is asked.
            self._is_behind = event.offset is not None
            return
        self._events.append(event)
        self._wake()

    def end(self, error: RealtimeError | None) -> None:
        """Nothing more will come."""
        if not self._has_ended:
            self._has_ended, self._error = True, error
            self._wake()

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _is_old(self, event: Event) -> bool:
        last = self._last
        return last is not None and event.offset is not None and event.epoch == last.epoch and event.offset <= last.offset

    async def _catch_up(self) -> None:
        if self._last is None:
            self._is_behind = False
            return
        # Live events are taken again while the page is on its way: they close the gap behind its end.
        self._is_behind = False
        try:
            page = await self._read_after(self._last)
        except BaseException:
            self._events.clear()
            self._is_behind = True
            raise
        if page.more:
            self._events.clear()
            self._is_behind = True
        self._events.extendleft(sorted(page.events, key=lambda event: event.offset or 0, reverse=True))
