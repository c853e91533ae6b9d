"""One client of a load process: it opens, joins, sends when it is told to, and hands what comes to those who judge it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from ..protocol.client_readings import JoinedRoom, RoomPlace, read_error
from ..protocol.close_codes import is_reconnectable
from ..protocol.messages import ServerMessage
from .connection import EVENT, Connection, Delivery, Inbox, Refused, dial
from .judge import Reception
from .plan import ClientPlan, Place
from .tally import Presence, Tally

PATIENCE = 10.0
"""Seconds for an attempt to open, and for each answer meanwhile."""
ANSWERS = frozenset({"ack", "pong", "error", "permission_denied", "joined-room"})
_MAY_HAVE_HAPPENED = frozenset({"timeout", "unavailable", "internal"})


class _Asked(Struct, frozen=True, gc=False):
    """A message that waits for its answer. `due`: microseconds. `number`: of an event, in its publisher's count. `room`: None for a request."""

    due: int
    number: int = 0
    room: str | None = None


class Content:
    """What is sent: of our own, filled up to `payload` bytes of JSON; or, with a request, `data`, unless that is None."""

    def __init__(self, run: str, payload: int, data: Any = None) -> None:
        self.run = run
        self.data = data
        self._left = payload - len('{"p":,"n":,"t":,"run":"","x":""}') - len(run)

    def fill(self, publisher: int, number: int, due: int) -> dict[str, Any]:
        missing = self._left - len(f"{publisher}{number}{due}")
        return {"p": publisher, "n": number, "t": due, "run": self.run, "x": "x" * missing}


class Client(Presence):
    """`rooms`: names, by number. `next_turn`: called when an answer has come, with the seconds to wait before the next message. `lost_by`: called
    when the connection has ended, with whether another attempt may succeed."""

    __slots__ = (
        "_asked", "_connection", "_content", "_event", "_greeted", "_inbox", "_joining", "_number", "_receptions", "_ref", "_rooms", "_tally",
        "lost_by", "next_turn", "plan",
    )  # fmt: skip

    def __init__(self, plan: ClientPlan, rooms: list[str], event: str, content: Content, inbox: Inbox, tally: Tally) -> None:
        super().__init__()
        self.plan = plan
        self._event = event
        self.next_turn: Callable[[Client, float], None] | None = None
        self.lost_by: Callable[[Client, bool], None] | None = None
        self._rooms = rooms
        self._content = content
        self._inbox = inbox
        self._tally = tally
        self._connection: Connection | None = None
        self._greeted: asyncio.Future[None] | None = None
        self._joining: dict[int, tuple[Reception, bool, asyncio.Future[None]]] = {}
        self._asked: dict[int, _Asked] = {}
        self._ref = 0
        self._number = 0
        self._receptions = {rooms[number]: Reception(rooms[number]) for number in plan.rooms}
        for room, reception in self._receptions.items():
            tally.receptions[room].append((reception, self))

    @property
    def rooms(self) -> list[Reception]:
        return list(self._receptions.values())

    @property
    def unanswered(self) -> int:
        return len(self._asked)

    # — opening and closing —

    async def open(self, place: Place, address: str, context: ssl.SSLContext | None) -> None:
        """Connect, and join all rooms; the time that it took is counted. Raises `Refused`; nothing is open then, nor when it is cancelled."""
        begun = self._tally.now()
        try:
            async with asyncio.timeout(PATIENCE):
                greeted = self._greeted = asyncio.get_running_loop().create_future()
                self._connection = await dial(self, self._inbox, place, address, self.plan.token, context)
                await greeted
            for reception in self.rooms:
                await self._join(reception)
        except TimeoutError:
            self._drop()
            raise Refused("timeout", f"{place.name} did not answer within {PATIENCE:g} s.") from None
        except BaseException:
            self._drop()
            raise
        finally:
            self._greeted = None
        self.is_open = True
        self._tally.opening.record(self._tally.now() - begun)

    async def _join(self, reception: Reception) -> None:
        """From where it was, where it was in this room before."""
        while True:
            is_again = reception.offset >= 0
            recover = {"recover": {"epoch": reception.epoch, "offset": reception.offset}} if is_again else {}
            answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._joining[self._send("join-room", {"roomId": reception.room, **recover})] = (reception, is_again, answered)
            try:
                async with asyncio.timeout(PATIENCE):
                    await answered
                return
            except Refused as refused:
                if refused.after is None:
                    raise
                await asyncio.sleep(refused.after)

    def close(self) -> None:
        self.is_open = False
        if self._connection is not None:
            self._connection.close()

    def abort(self) -> None:
        if self._connection is not None:
            self._connection.abort()

    @property
    def is_gone(self) -> bool:
        return self._connection is None or self._connection.is_gone

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            connection.abort()
        self._joining.clear()

    # — sending —

    def publish(self, due: int, senders: int) -> None:
        """The next event: to its own room, or, where there are more rooms than senders, to one after the other."""
        assert self.plan.sender is not None
        turn = self._number * senders if senders < len(self._rooms) else 0
        room = self._rooms[(self.plan.sender + turn) % len(self._rooms)]
        self._number += 1
        data = self._content.fill(self.plan.sender, self._number, due)
        self._asked[self._send(EVENT, data, room)] = _Asked(due, self._number, room)

    def request(self, due: int) -> None:
        """`event`, and an answer is waited for."""
        self._number += 1
        data = self._content.fill(self.plan.sender or 0, self._number, due) if self._content.data is None else self._content.data
        self._asked[self._send(self._event, data)] = _Asked(due)

    def _send(self, event: str, data: Any, room: str | None = None) -> int:
        self._ref += 1
        message = {"event": event, "ref": self._ref, "data": data}
        if room is not None:
            message["room"] = room
        if self._connection is not None:
            self._connection.send(self._inbox.encode(message))
        return self._ref

    # — what the connection tells —

    def deliver(self, deliveries: list[Delivery]) -> None:
        tally = self._tally
        now, record, receptions = tally.now(), tally.delivery.record, self._receptions
        for room, offset, due, mark in deliveries:
            reception = receptions.get(room)
            if reception is None:
                continue
            if offset == reception.offset + 1 and mark:
                reception.offset = offset
                reception.count += 1
                reception.sum += mark
            else:
                reception.take(offset, mark)
            if mark:
                record(now - due)

    def told(self, message: ServerMessage) -> None:
        try:
            self._take(message)
        except msgspec.ValidationError:
            self._tally.note(self._tally.errors, "bad_request", "The server sent what is not of the protocol.")

    def _take(self, message: ServerMessage) -> None:
        event, ref = message.event, message.ref
        if isinstance(ref, int) and event in ANSWERS:
            if (asked := self._asked.pop(ref, None)) is not None:
                self._take_answer(asked, message)
            elif (joining := self._joining.pop(ref, None)) is not None:
                self._take_join(*joining, message)
        elif event == "connected":
            if self._greeted is not None and not self._greeted.done():
                self._greeted.set_result(None)
        elif event == "resync":
            place = msgspec.convert(message.data, RoomPlace)
            if (reception := self._receptions.get(place.room_id)) is not None:
                self._tally.resyncs += 1
                reception.join(place.epoch, place.offset, is_continued=False)
        elif event in ("error", "permission_denied"):
            error = read_error(message)
            self._tally.note(self._tally.errors, error.code, str(error))
        elif event == "room-closed":
            self._tally.note(self._tally.errors, event, "The server removed clients from their rooms.")

    def _take_answer(self, asked: _Asked, message: ServerMessage) -> None:
        tally, after = self._tally, 0.0
        if message.event in ("error", "permission_denied"):
            error = read_error(message)
            tally.note(tally.errors, error.code, str(error))
            after = float(error.details.get("retryAfter", 0.1))
            if asked.room is not None and error.code in _MAY_HAVE_HAPPENED:
                tally.published[asked.room].unknown += 1
        else:
            tally.answered += 1
            tally.answer.record(tally.now() - asked.due)
            if asked.room is not None:
                offset = message.data.get("offset") if isinstance(message.data, dict) else None
                tally.published[asked.room].acknowledge(self.plan.sender or 0, asked.number, offset if isinstance(offset, int) else 0)
        if self.next_turn is not None:
            self.next_turn(self, after)

    def _take_join(self, reception: Reception, is_again: bool, answered: asyncio.Future[None], message: ServerMessage) -> None:
        if message.event == "joined-room":
            joined = msgspec.convert(message.data, JoinedRoom)
            if is_again and not joined.recovered:
                self._tally.resyncs += 1
            reception.join(joined.epoch, joined.offset, is_continued=is_again and bool(joined.recovered))
            if not answered.done():
                answered.set_result(None)
        elif not answered.done():
            error = read_error(message)
            after = error.details.get("retryAfter") if error.code == "rate_limited" else None
            answered.set_exception(Refused(error.code, str(error), float(after) if after is not None else None, is_final=not error.retryable))

    def lost(self, code: int, reason: str) -> None:
        self.forget_unanswered()
        refused = Refused(str(code), f"The server closed a connection: {code} {reason}".rstrip(), is_final=not is_reconnectable(code))
        waiting = [self._greeted, *(answered for _, _, answered in self._joining.values())]
        self._joining.clear()
        for one in waiting:
            if one is not None and not one.done():
                one.set_exception(refused)
        if self.is_open:
            self.is_open = False
            self._tally.note(self._tally.closes, str(code), reason or "without a word")
            if self.lost_by is not None:
                self.lost_by(self, is_reconnectable(code))

    def forget_unanswered(self) -> None:
        """No answer is waited for any more: whether these were done is unknown."""
        self._tally.unanswered += len(self._asked)
        for asked in self._asked.values():
            if asked.room is not None:
                self._tally.published[asked.room].unknown += 1
        self._asked.clear()
