"""One connection as its client sees it, speaking the protocol by hand: it believes what it is told, and complains of what breaks a promise."""

from __future__ import annotations

from itertools import count
from typing import Any

import msgspec
from msgspec import Struct

from aibos_realtime.hub.socket import Socket
from aibos_realtime.protocol.limits import ALL, is_own_stream, user_stream
from aibos_realtime.protocol.messages import Position
from aibos_realtime.transport.memory import MemoryEnd
from tests.model.cluster import CAN, Node
from tests.model.ledger import Fault, Ledger

DENIALS = ("permission_denied", "not_authenticated")


class Asked(Struct):
    """A request without an answer yet. `roles`: those that the user had since it was sent."""

    event: str
    room: str
    how: Any
    roles: set[str]
    losses: int


class Presented(Struct, frozen=True):
    """A token on its way to the server: what it says."""

    user: str
    tenant: str
    role: str
    issued_at: float
    closes_at: float


class View:
    """`user`, `tenant`, `role`: as the model knows them; None before authentication."""

    def __init__(self, name: str, node: Node, end: MemoryEnd, socket: Socket, ledger: Ledger, *, is_binary: bool, lossless: set[str]) -> None:
        self.name = name
        self.node = node
        self.end = end
        self.socket = socket
        self.user: str | None = None
        self.tenant: str | None = None
        self.role = "none"
        self.closes_at = 0.0
        """By the monotonic clock: when the token and its grace are over."""
        self.issued_at = 0.0
        self.rooms: dict[str, Position | None] = {}
        """Where it stands in each; None: it begins with the next event."""
        self.late_roles: set[str] = set()
        """Those that it was given by a node that this one did not hear: it may do so at any time."""
        self.brought: set[str] = set()
        """Rooms into which the server may have put it, of which it is told nothing. Also after it was taken out: the one may overtake the other."""
        self.streams: dict[str, Position] = {}
        self.asked: dict[str, Asked] = {}
        self.answers: list[tuple[Asked, dict[str, Any]]] = []
        self.is_stalled = False
        self.resyncs = 0
        self.saw: list[Position] = []
        """Positions that it could recover from, of whatever room was told last."""
        self.resynced: list[str] = []
        self._ledger = ledger
        self._lossless = lossless
        self._is_binary = is_binary
        self._refs = count(1)

    @property
    def is_closed(self) -> bool:
        return self.end.close_code is not None

    def fault(self, what: str) -> Fault:
        return Fault(f"{self.name} ({self.user}, at {self.node.id}) {what}")

    # — speaking —

    def send(self, event: str, data: Any, about: str, how: Any = None, **members: Any) -> None:
        """`about`: the room that it is about; `how`: what the answer is judged by."""
        if self.is_closed:
            return
        ref = f"r{next(self._refs)}"
        self.asked[ref] = Asked(event, about, how, self.possible_roles, self._ledger.losses)
        message = {"event": event, "data": data, "ref": ref} | members
        self.end.send(msgspec.msgpack.encode(message) if self._is_binary else msgspec.json.encode(message).decode())

    def present(self, token: str, content: Presented) -> None:
        """Send a token: a first one, or another."""
        self.note_role(content.role)
        self.send("authenticate", {"token": token}, "", content)

    def identify(self, content: Presented) -> None:
        """The token was taken."""
        self.user, self.tenant, self.role = content.user, content.tenant, content.role
        self.issued_at, self.closes_at = content.issued_at, content.closes_at
        self.note_role(content.role)

    @property
    def presented(self) -> list[Presented]:
        """Tokens of which it is not known whether they were taken."""
        return [asked.how for asked in self.asked.values() if asked.event == "authenticate"]

    @property
    def possible_roles(self) -> set[str]:
        return {self.role, *self.late_roles, *(content.role for content in self.presented)}

    def note_role(self, role: str) -> None:
        """From now on it may have this role: what is asked for may be answered by it."""
        for asked in self.asked.values():
            asked.roles.add(role)

    # — hearing —

    def hear(self) -> None:
        """Read everything that has come."""
        while self.end._messages:
            raw, size = self.end._messages.popleft()
            self.end._near.has_read(size)
            self._take(msgspec.msgpack.decode(raw) if isinstance(raw, bytes) else msgspec.json.decode(raw))

    def _take(self, message: dict[str, Any]) -> None:
        event, ref = message["event"], message.get("ref")
        data: Any = message.get("data")
        if ref is not None:
            asked = self.asked.pop(ref, None)
            if asked is None:
                raise self.fault(f"got a second answer: {message}")
            self._take_answer(asked, message)
        elif event == "connected":
            self._take_streams(data)
        elif event == "resync":
            self._take_resync(data)
        elif event == "room-closed":
            self._drop(data["roomId"])
        elif "room" in message:
            self._take_event(message)
        elif event not in ("token-expiring", "reconnect", "error"):
            raise self.fault(f"got what nobody sent: {message}")

    def _take_streams(self, data: dict[str, Any]) -> None:
        for name, at in (data.get("streams") or {}).items():
            if name not in (ALL, user_stream(str(self.user))):
                raise self.fault(f"was told of the stream {name}")
            self.streams[name] = Position(at["epoch"], at["offset"])

    def _drop(self, room: str) -> None:
        self.rooms.pop(room, None)

    def may(self, roles: set[str], room: str, action: str) -> bool:
        if is_own_stream(room):
            return action == "read" and room in (ALL, user_stream(str(self.user)))
        return self.tenant is not None and room.startswith(f"tenant_{self.tenant}:") and any(action in CAN[role] for role in roles)

    def _take_answer(self, asked: Asked, message: dict[str, Any]) -> None:
        event: str = message["event"]
        data: Any = message.get("data")
        is_error = event in ("error", "permission_denied")
        if is_error and data["code"] == "internal":
            raise self.fault(f"was told of an internal error after {asked.event}")
        action = "write" if event == "ack" else "read"
        if not is_error and asked.event not in ("leave-room", "authenticate") and not self.may(asked.roles, asked.room, action):
            raise self.fault(f"was given {event} of {asked.room} without the right to {action}")
        if event == "joined-room":
            self._joined(asked, data)
        elif event == "left-room":
            self._drop(asked.room)
        elif event == "history":
            self._check_history(asked, data)
        elif event == "authenticated":
            self._authenticated(asked.how, data)
        self.answers.append((asked, message))

    def _authenticated(self, content: Presented, data: dict[str, Any]) -> None:
        if data["success"] and self.user not in (None, content.user):
            raise self.fault(f"became {content.user}")
        if data["success"]:
            self.identify(content)
            self._take_streams(data)

    def _joined(self, asked: Asked, data: dict[str, Any]) -> None:
        room, recovered = asked.room, data["recovered"]
        kind, given, was_there = asked.how
        top = Position(data["epoch"], data["offset"])
        if (recovered is None) != (given is None):
            raise self.fault(f"asked for {given} of {room}, and recovered is {recovered}")
        if recovered and (given.offset < 0 or given.offset > self._ledger.tops.get((room, given.epoch), 0)):
            raise self.fault(f"recovered from {given} of {room}, where nothing ever was")
        is_whole = room in self._lossless and asked.losses == self._ledger.losses == 0
        if recovered is False and is_whole and was_there:
            raise self.fault(f"could not recover {given} of {room}, of which nothing was lost")
        start = given if recovered else None if kind == "rewind" else top
        if is_own_stream(room):
            self.streams[room] = start or top
        else:
            self.rooms[room] = start

    def _check_history(self, asked: Asked, data: dict[str, Any]) -> None:
        before = 0
        for event in data["events"]:
            place = (asked.room, data["epoch"], event["offset"])
            self._check_content(place, event)
            if event["offset"] <= before:
                raise self.fault(f"got a page of {asked.room} out of order")
            if before and any(not self._ledger.is_hidden((*place[:2], offset), self.user) for offset in range(before + 1, event["offset"])):
                if asked.room in self._lossless:
                    raise self.fault(f"got a page of {asked.room} with a gap between {before} and {event['offset']}")
            before = event["offset"]

    def _take_resync(self, data: dict[str, Any]) -> None:
        room, at = data["roomId"], Position(data["epoch"], data["offset"])
        self.resyncs += 1
        self.resynced.append(room)
        if is_own_stream(room):
            self.streams[room] = at
        elif room in self.rooms or room in self.brought:
            self.rooms[room] = at
        else:
            raise self.fault(f"was told to resync {room}, in which it is not")

    def _take_event(self, message: dict[str, Any]) -> None:
        room, offset = message["room"], message.get("offset")
        if is_own_stream(room):
            where: dict[str, Any] = self.streams
        else:
            where = self.rooms
            if room in self.brought:
                self.rooms.setdefault(room, None)
            if not room.startswith(f"tenant_{self.tenant}:"):
                raise self.fault(f"got an event of {room}, of another tenant")
        if room not in where and offset is None and any(asked.event == "join-room" and asked.room == room for asked in self.asked.values()):
            return  # it watches who comes and goes from before the answer on, so that it misses nobody
        if room not in where:
            raise self.fault(f"got {message['event']} of {room}, in which it is not")
        if offset is None:
            return
        at: Position | None = where[room]
        if at is None:
            epoch = self._epoch_of(room, offset, message)
        else:
            epoch = at.epoch
            missing = range(at.offset + 1, offset)
            if offset <= at.offset or any(not self._ledger.is_hidden((room, epoch, one), self.user) for one in missing):
                raise self.fault(f"stood at {at} of {room}, and got {offset} ({message['id']})")
        self._check_content((room, epoch, offset), message)
        where[room] = Position(epoch, offset)

    def _epoch_of(self, room: str, offset: int, message: dict[str, Any]) -> str:
        """The latest in which this event was there. Ids may be the same in several, of one person's event and another's."""
        id, user_id = message["id"], message.get("userId")
        entries = self._ledger.entries.items()
        there = [(place, written[-1]) for place, written in entries if place[0] == room and place[2] == offset and written[-1].id == id]
        if not there:
            raise self.fault(f"got {id} at {offset} of {room}, which was never there")
        found = [place for place, entry in there if entry.user_id == user_id and msgspec.json.decode(entry.data) == message["data"]]
        return (found or [place for place, _ in there])[-1][1]

    def _check_content(self, place: tuple[str, str, int], message: dict[str, Any]) -> None:
        entry = self._ledger.find(place, message["id"].partition("~")[0])
        if entry is None:
            raise self.fault(f"got {message['id']} at {place}, where it never was")
        if entry.event != message["event"] or msgspec.json.decode(entry.data) != message["data"] or entry.user_id != message.get("userId"):
            raise self.fault(f"got another content of {place} than was published")
        if entry.audience is not None and self.user in entry.audience.exclude:
            raise self.fault(f"got {place}, from which it is excluded")
        self._ledger.tell(place, entry.id, self.name)
