"""The client's side of `aibos.realtime.v1` as a value: what was asked, which rooms are joined and how far, and what each message means.

It outlives connections: `connect` … `receive` … `lose`, and again. What the outside has to know it puts into `notices()`, what has to be
written
comes from `take()`. It does no I/O, reads no clock (`now`: seconds, monotonic) and draws no random number.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Raw, UnsetType

from ..errors import AuthenticationError, ConnectionError, ProtocolError, RateLimitExceeded, RealtimeError, RequestTimeout
from .client_membership import Membership
from .client_notices import Answered, Arrived, Expiring, Faulted, Notice, Received, Refused
from .client_readings import read_error, read_parting, read_positions, read_user, to_frame
from .client_requests import Request, RequestLedger
from .client_rooms import ClientRoom
from .messages import VERSION, Position, Ref, ServerMessage

ANSWERS = frozenset({"ack", "authenticated", "joined-room", "left-room", "history", "presence", "pong", "error", "permission_denied"})
OVERHEAD = 256
"""Bytes that a message in the inbox costs beside its frame."""


class ClientSession:
    """Everything that one client knows of its conversation with the server.

    `buffer_size`: messages that may wait to be sent; `timeout`: seconds from sending to the answer; `inbox_bytes`: size of what may wait
    for the
    application before rooms fall behind (they catch up by a recovery once there is room again).
    """

    def __init__(self, *, buffer_size: int = 1000, timeout: float = 10.0, inbox_bytes: int = 16 * 1024 * 1024) -> None:
        self.user: dict[str, Any] | None = None
        self.socket_id: str | None = None
        self.limits: dict[str, Any] = {}
        self.is_connected = False
        self.connection = 0
        """Number of the connection, counted from 1."""
        self.held = 0
        """Bytes that wait for the application."""
        self._untold = 0
        self._inbox_bytes = inbox_bytes
        self._notices: list[Notice] = []
        self._ledger = RequestLedger(buffer_size=buffer_size, timeout=timeout)
        self._membership = Membership(self._ledger, self._notices)

    @property
    def rooms(self) -> dict[str, ClientRoom]:
        """What is joined, or is to be joined, by name; own streams too."""
        return self._membership.rooms

    @property
    def joined(self) -> list[str]:
        """Names of the rooms in which this client is now, own streams left out."""
        return self._membership.joined()

    # What the application wants. Each returns the ref under which the answer will be told.

    def publish(self, event: str, data: Raw | UnsetType, room: str, id: str, now: float, timeout: float | None = None) -> int:
        """Publish to a room; repeated after a loss under the same id, until it is acknowledged. Raises `Overloaded`."""
        return self._ledger.open("publish", to_frame(event, data, room=room, id=id), now=now, room=room, timeout=timeout).ref

    def request(self, event: str, data: Raw | UnsetType, id: str, now: float, timeout: float | None = None) -> int:
        """Ask without naming a room: a handler's answer or a publish, as the server decides.

        Never repeated once sent. Raises `Overloaded`.
        """
        return self._ledger.open("request", to_frame(event, data, id=id), now=now, timeout=timeout).ref

    def read(self, event: str, data: dict[str, Any], now: float, timeout: float | None = None) -> int:
        """`history` or `presence`: changes nothing, so it is repeated after a loss. Raises `Overloaded`."""
        return self._ledger.open("read", {"event": event, "data": data}, now=now, timeout=timeout).ref

    def join(self, name: str, now: float, *, recover: Position | None = None, rewind: int | None = None, presence: bool = False) -> int:
        """Join, for good: after a loss the room is joined again and recovered. In a room already joined, only the answer is new."""
        return self._membership.join(name, now, recover, rewind, presence)

    def leave(self, name: str, now: float) -> int:
        """Leave a room. Without a connection there is nothing to leave: the answer comes at once."""
        return self._membership.leave(name, now)

    def authenticate(self, token: str, now: float) -> int:
        """Present a token on the live connection. Raises `ConnectionError` without one."""
        if not self.is_connected:
            raise ConnectionError()
        return self._ledger.open("authenticate", {"event": "authenticate", "data": {"token": token}}, now=now).ref

    def emit(self, event: str, data: Raw | UnsetType, room: str | None) -> None:
        """Send without an acknowledgement, at most once. Raises `ConnectionError` without a connection, `Overloaded`."""
        if not self.is_connected:
            raise ConnectionError()
        self._ledger.check_space()
        self._ledger.tell(to_frame(event, data) if room is None else to_frame(event, data, room=room))

    def answer(self, ref: Ref, data: Raw | UnsetType, connection: int) -> None:
        """Answer a server's call. An answer for a connection that is gone is dropped: its `ref` means nothing any more. Raises `Overloaded`."""
        if self.is_connected and connection == self.connection:
            self._ledger.check_space()
            self._ledger.tell(to_frame("ack", data, ref=ref))

    def forget(self, ref: int, now: float) -> None:
        """Nobody waits for this answer any more. What was not sent will not be; a first join is taken back.

        The join of a room that is joined already may be what brings it up to date: it goes on.
        """
        request = self._ledger.get(ref)
        if request is not None and request.kind == "join" and self._membership.is_known(request):
            return
        if request is not None and self._ledger.close(ref) and request.kind == "join":
            self._membership.abandon_join(request, now)
            self._check_flow()

    def refuse(self, ref: int, error: RealtimeError, now: float) -> None:
        """The frame of this request cannot be sent."""
        request = self._ledger.close(ref)
        if request is not None:
            self._take_refusal(request, error, now)

    def handled(self, size: int, now: float, room: str | None = None, position: Position | None = None) -> None:
        """The application is done with a notice of the inbox."""
        self.held = max(0, self.held - size)
        if room is not None and position is not None and room in self.rooms:
            self.rooms[room].handled = position
        if self.is_connected and self.held <= self._inbox_bytes // 2:
            self._membership.resume_behind(now)

    def told(self) -> None:
        """The application knows of every notice that has no size of its own."""
        self._untold = 0

    # What the connection brings.

    def connect(self, data: object, now: float) -> None:
        """A connection is established; `data` is that of `connected`. Raises `ProtocolError`, `retryable` unless the version is another."""
        if not isinstance(data, dict):
            raise ProtocolError(retryable=True)
        if data.get("protocol", VERSION) != VERSION:
            raise ProtocolError(f"The server speaks another version of the protocol than this client, which speaks {VERSION}.")
        try:
            streams = read_positions(data.get("streams"))
        except msgspec.ValidationError:
            raise ProtocolError(retryable=True) from None
        limits, socket_id = data.get("limits"), data.get("socketId")
        self.limits = limits if isinstance(limits, dict) else {}
        self.socket_id = socket_id if isinstance(socket_id, str) else None
        self.user = read_user(data.get("user"))
        self.is_connected = True
        self.connection += 1
        self._membership.connect(streams, self.user is not None, now)
        self._check_flow()

    def receive(self, message: ServerMessage, size: int, now: float) -> None:
        """One message of the server; `size`: bytes of its frame. Raises `ProtocolError` for what no server that means well sends."""
        if message.ref is not None and message.event in ANSWERS:
            self._take_answer(message, now)
        elif message.room is not None:
            self._take_event(message, message.room, size + OVERHEAD)
        elif message.event == "error":
            self._weigh(size)
            self._notices.append(Faulted(read_error(message)))
        elif message.event == "resync":
            self._weigh(size)
            self._membership.take_resync(message.data)
        elif message.event == "room-closed":
            self._weigh(size)
            self._membership.take_closing(message.data)
        elif message.event == "reconnect":
            self._notices.append(read_parting(message.data))
        elif message.event == "token-expiring":
            self._weigh(size)
            self._notices.append(Expiring(message.data))
        elif message.event not in ("ack", "pong", "connected"):
            self._take_other(message, size + OVERHEAD)

    def lose(self, error: RealtimeError, *, resend: bool = True) -> None:
        """The connection is gone, another one will come. `resend=False`: the peer took offence at a message, so none is repeated."""
        self.is_connected = False
        self._membership.detach()
        for request in self._ledger.lose(resend=resend):
            if request.kind == "leave":
                self._membership.take_leave(request)
            else:
                self._notices.append(Refused(request.ref, error))

    def stop(self, error: RealtimeError) -> None:
        """No other connection will come by itself: every waiter gets `error`. Joined rooms and their places are kept."""
        self.is_connected = False
        self._membership.detach()
        for request in self._ledger.give_up():
            self._notices.append(Refused(request.ref, error))
        self._membership.forget_unjoined()

    def tick(self, now: float) -> None:
        """Do what is due. Call it at `next_deadline`."""
        for request in self._ledger.expire(now):
            if request.kind == "join":
                self._membership.expire_join(request, RequestTimeout(), now)
            elif request.kind == "leave":
                self._membership.take_leave(request, RequestTimeout())
            else:
                self._notices.append(Refused(request.ref, RequestTimeout()))
        self._membership.tick(now)
        self._check_flow()

    @property
    def next_deadline(self) -> float | None:
        """When `tick` is next worth a call."""
        return self._ledger.next_deadline

    def take(self, now: float) -> dict[str, Any] | None:
        """The next message to write, None if there is none now. Whoever takes one has sent it."""
        return self._ledger.take(now) if self.is_connected else None

    def notices(self) -> list[Notice]:
        """What happened since the last call, in order."""
        taken = list(self._notices)
        self._notices.clear()
        return taken

    def _weigh(self, size: int) -> None:
        """Count a notice that must not be dropped, and so has no place in the inbox."""
        self._untold += size + OVERHEAD
        if self._untold > self._inbox_bytes:
            raise ProtocolError("The server tells more than the application takes in.", retryable=True)

    def _check_flow(self) -> None:
        if self.is_connected and not self._membership.rejoining:
            self._ledger.is_flowing = True

    def _take_answer(self, message: ServerMessage, now: float) -> None:
        request = self._ledger.close(message.ref) if isinstance(message.ref, int) else None
        if request is None:
            return  # a late or second answer
        if message.event in ("error", "permission_denied"):
            self._take_refusal(request, read_error(message), now)
        elif request.kind == "join":
            self._membership.take_join(request, message.data, now)
        elif request.kind == "leave":
            self._membership.take_leave(request)
        elif request.kind == "authenticate":
            self._take_authentication(request, message.data, now)
        else:
            self._notices.append(Answered(request.ref, message.data))
        self._check_flow()

    def _take_refusal(self, request: Request, error: RealtimeError, now: float) -> None:
        if isinstance(error, RateLimitExceeded) and self._ledger.put_back(request, error.retry_after, now):
            return
        if request.kind == "join":
            self._membership.refuse_join(request, error, now)
        elif request.kind == "leave":
            self._membership.take_leave(request, error)
        else:
            self._notices.append(Refused(request.ref, error))

    def _take_authentication(self, request: Request, data: object, now: float) -> None:
        if not isinstance(data, dict) or data.get("success") is not True:
            self._notices.append(Refused(request.ref, AuthenticationError()))
            return
        self.user = read_user(data.get("user")) or self.user
        try:
            self._membership.attach(read_positions(data.get("streams")), now)
        except msgspec.ValidationError:
            self._notices.append(Faulted(ProtocolError()))
        self._membership.resume(now)
        self._notices.append(Answered(request.ref, data))

    def _take_event(self, message: ServerMessage, name: str, size: int) -> None:
        room = self.rooms.get(name) or self._membership.give(name)
        if room.phase != "live":
            return
        if self.held >= self._inbox_bytes and room.is_new(message):
            if message.offset is None:
                return  # volatile: nothing promises it, and there is no space
            if room.epoch is not None:
                room.phase = "behind"
                return
        event = room.admit(message)
        if event is not None:
            self.held += size
            self._notices.append(Arrived(event, size))

    def _take_other(self, message: ServerMessage, size: int) -> None:
        """An event to this socket alone. Nothing can bring it back, so it gets twice the space before it is dropped."""
        if message.event == "joined-room":
            self._membership.take_gift(message.data)
        elif message.event == "permission_denied":
            self._weigh(size)
            self._notices.append(Faulted(read_error(message)))
        if self.held < 2 * self._inbox_bytes:
            self.held += size
            self._notices.append(Received(message.event, message.data, size, message.ref, self.connection))
