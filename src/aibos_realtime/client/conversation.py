"""A `ClientSession` that can be awaited: it joins the session to futures, a timer, the writer of the connection, and the dispatcher.

It decides nothing: what a message means is the session's, when to connect is `reconnect`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ..clock import Clock, Timer
from ..errors import ConnectionClosed, MessageTooLarge, RealtimeError
from ..protocol.client_notices import Answered, Arrived, Departed, Expiring, Faulted, Notice, Parting, Received, Refused, Resynced
from ..protocol.client_session import ClientSession
from ..protocol.messages import Event, ServerMessage
from .dispatcher import Delivery, Dispatcher
from .link import Link
from .wire import Wire, repack


class Conversation:
    """`wire`: the one with which data is packed."""

    def __init__(self, session: ClientSession, dispatcher: Dispatcher, clock: Clock, wire: Wire) -> None:
        self.session = session
        self.on_parting: Callable[[Parting], None] = lambda parting: None
        self.on_expiring: Callable[[], None] = lambda: None
        self._dispatcher = dispatcher
        self._clock = clock
        self._wire = wire
        self._waiters: dict[int, asyncio.Future[Any]] = {}
        self._timer: Timer | None = None
        self._due: float | None = None
        self._wake: asyncio.Event | None = None
        self._written: asyncio.Event | None = None
        dispatcher.on_done = self._finish
        dispatcher.on_idle = session.told

    @property
    def now(self) -> float:
        return self._clock.monotonic()

    async def ask(self, ref: int) -> Any:
        """Wait for the answer to a request that was just opened.

        Cancelling gives it up. Raises what the server or the session refuses it with.
        """
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiters[ref] = waiter
        self.pump()
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                waiter.exception()
            self.session.forget(ref, self.now)
            self.pump()
            raise
        finally:
            self._waiters.pop(ref, None)

    def take(self, message: ServerMessage, size: int) -> None:
        """One message of the server."""
        self.session.receive(message, size, self.now)
        self.pump()

    def pump(self) -> None:
        """Pass on what the session has to say, wake the writer, set the timer. Call it after every call to the session."""
        for notice in self.session.notices():
            self._pass(notice)
        if self._wake is not None:
            self._wake.set()
        if self._written is not None:
            self._written.clear()
        self._arm()

    async def write(self, link: Link) -> None:
        """Write what is to be written, until cancelled or the connection is gone."""
        self._wake, self._written = asyncio.Event(), asyncio.Event()
        try:
            while True:
                self._wake.clear()
                while (frame := self.session.take(self.now)) is not None:
                    self._arm()
                    payload = link.wire.encode(repack(frame, self._wire, link.wire))
                    if not self._refuse_large(frame, len(payload)):
                        await link.send(payload)
                self._written.set()
                await self._wake.wait()
        except ConnectionClosed:
            return  # the reader hears of it too, and says so
        finally:
            self._written.set()
            self._wake = self._written = None

    async def flush(self) -> None:
        """Wait until what can be written now is written. Cancelling is safe."""
        if self._written is not None:
            await self._written.wait()

    def stop(self) -> None:
        """Plan nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._due = None

    def _refuse_large(self, frame: dict[str, Any], size: int) -> bool:
        limit = self.session.limits.get("messageBytes")
        if not isinstance(limit, int) or size <= limit:
            return False
        error = MessageTooLarge(f"The message has {size} bytes; the server takes {limit}.")
        if isinstance(frame.get("ref"), int) and frame["event"] != "ack":
            self.session.refuse(frame["ref"], error, self.now)
            self.pump()
        else:
            self._dispatcher.tell("error", error)
        return True

    def _pass(self, notice: Notice) -> None:
        tell = self._dispatcher.tell
        match notice:
            case Answered(ref=ref, value=value):
                self._resolve(ref, value, None)
            case Refused(ref=ref, error=error):
                self._resolve(ref, None, error)
            case Arrived(event=event, size=size):
                self._dispatcher.push(Delivery(event.event, event.data, event, event=event, size=size))
            case Received(event=name, data=data, size=size, ref=ref, connection=connection):
                event = Event(event=name, room="", data=data, id="", offset=None)
                self._dispatcher.push(Delivery(name, data, event, size=size, ref=ref, connection=connection))
            case Resynced():
                self._dispatcher.push(Delivery("resync", notice))
            case Departed(room=room, reason=reason):
                delivery = Delivery("" if reason is None else "room-closed", {"roomId": room, "reason": reason})
                delivery.ends = room
                self._dispatcher.push(delivery)
            case Parting():
                self.on_parting(notice)
            case Expiring(data=data):
                tell("token-expiring", data)
                self.on_expiring()
            case Faulted(error=error):
                tell("error", error)

    def _resolve(self, ref: int, value: Any, error: RealtimeError | None) -> None:
        waiter = self._waiters.get(ref)
        if waiter is None or waiter.done():
            return
        if error is None:
            waiter.set_result(value)
        else:
            waiter.set_exception(error)

    def _finish(self, delivery: Delivery, answer: Any, has_answer: bool) -> None:
        event = delivery.event
        if delivery.ref is not None and has_answer:
            self._answer(delivery, answer)
        if delivery.name == "resync":
            resynced: Resynced = delivery.arguments[0]
            self.session.handled(0, self.now, resynced.room, resynced.position)
        elif delivery.size:
            self.session.handled(delivery.size, self.now, event.room if event else None, event.position if event else None)
        else:
            return
        self.pump()

    def _answer(self, delivery: Delivery, answer: Any) -> None:
        assert delivery.ref is not None
        try:
            self.session.answer(delivery.ref, self._wire.pack(answer), delivery.connection)
        except RealtimeError as error:
            self._dispatcher.tell("error", error)

    def _arm(self) -> None:
        due = self.session.next_deadline
        if due is None or (self._due is not None and self._due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._due = due
        self._timer = self._clock.call_later(max(0.0, due - self.now), self._tick)

    def _tick(self) -> None:
        self._timer = self._due = None
        self.session.tick(self.now)
        self.pump()
