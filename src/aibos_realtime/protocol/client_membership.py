"""The rooms of one client over many connections: joining, joining again, recovering, and what to say where continuity is lost.

It opens requests in the ledger and writes notices; it sees no frame and no event.
"""

from __future__ import annotations

import msgspec

from ..errors import NotInRoom, ProtocolError, RateLimitExceeded, RealtimeError
from .client_notices import Answered, Departed, Faulted, Notice, Refused, Resynced
from .client_readings import JoinedRoom, RoomPlace, read_text
from .client_requests import Request, RequestLedger
from .client_rooms import ClientRoom
from .messages import Position

MOST_ROOMS = 10_000
"""Rooms of one client before it takes no more from a server that puts it into rooms by itself."""
LONGEST_ROOM = 512
"""Characters in the name of such a room."""
REJOIN_DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds until a rejoin that was refused for now is tried again, where the server does not say."""


class Membership:
    """`rooms` by name, own streams among them. `rejoining`: refs of the joins for which everything else waits."""

    def __init__(self, ledger: RequestLedger, notices: list[Notice]) -> None:
        self.rooms: dict[str, ClientRoom] = {}
        self.rejoining: set[int] = set()
        self._ledger = ledger
        self._notices = notices
        self._is_connected = False

    def join(self, name: str, now: float, recover: Position | None, rewind: int | None, presence: bool) -> int:
        room = self.rooms.get(name)
        if room is None or room.phase == "leaving" or not room.is_known:
            room = self.rooms[name] = ClientRoom(name, "asked", recover=recover, rewind=rewind, presence=presence)
        elif room.origin == "given":
            room.origin = "asked"
        room.presence = room.presence or presence
        # In a room that is live only the answer is new: asking to recover would make us discard events until it came.
        data = room.join_data() if room.phase == "away" else room.plain_data()
        if self._is_connected and room.phase == "away":
            room.phase, room.retry_at = "joining", None
        frame = {"event": "join-room", "data": data}
        return self._ledger.open("join", frame, now=now, room=name, is_held=not self._is_connected).ref

    def leave(self, name: str, now: float) -> int:
        room = self.rooms.get(name)
        frame = {"event": "leave-room", "data": {"roomId": name}}
        request = self._ledger.open("leave", frame, now=now, room=name, is_held=not self._is_connected)
        if self._is_connected:
            if room is not None:
                room.phase = "leaving"
            return request.ref
        self._ledger.close(request.ref)
        if room is None:
            self._notices.append(Refused(request.ref, NotInRoom()))
            return request.ref
        self.remove(name)
        for waiting in [one for one in self._ledger if one.kind == "join" and one.room == name]:
            self._ledger.close(waiting.ref)
            self._notices.append(Refused(waiting.ref, NotInRoom("The room was left before the join was answered.")))
        self._notices += (Departed(name), Answered(request.ref, None))
        return request.ref

    def remove(self, name: str) -> None:
        self.rooms.pop(name, None)

    def forget_unjoined(self) -> None:
        """Drop the rooms whose first join was never answered."""
        for name in [room.name for room in self.rooms.values() if not room.is_known]:
            self.remove(name)

    # Connections come and go.

    def connect(self, streams: dict[str, Position], has_user: bool, now: float) -> None:
        self._is_connected = True
        if has_user:
            for name in [room.name for room in self.rooms.values() if room.origin == "stream" and room.name not in streams]:
                self.remove(name)
        self.attach(streams, now)
        if has_user:
            self.resume(now)

    def detach(self) -> None:
        self._is_connected = False
        self.rejoining.clear()
        for room in list(self.rooms.values()):
            if room.phase == "leaving":
                self.remove(room.name)
            room.phase, room.retry_at = "away", None

    def attach(self, streams: dict[str, Position], now: float) -> None:
        """Take over the own streams of a connection."""
        for name, position in streams.items():
            room = self.rooms.get(name)
            if room is None:
                room = self.rooms[name] = ClientRoom(name, "stream", recover=position)
                room.phase, room.is_known = "live", True
            elif room.phase == "away":
                room.announced = position
                if room.position == position:
                    # Nothing was logged since: no recovery is needed, and a thousand clients that come back ask for none.
                    room.phase = "live"
                elif room.origin == "stream":
                    self._rejoin(room, now)

    def resume(self, now: float) -> None:
        """Join again what was joined, and send the joins that waited."""
        for room in self.rooms.values():
            if room.phase != "away":
                continue
            if room.origin == "asked" or room.epoch is not None:
                self._rejoin(room, now)
            else:
                # The server put us there and never said where the log stood: what was missed cannot be known.
                room.phase = "live"
                room.place(None)
                self._notices.append(Resynced(room.name, None, None))

    def resume_behind(self, now: float) -> None:
        """There is room in the inbox again: recover what was discarded."""
        for room in self.rooms.values():
            if room.phase == "behind":
                self._rejoin(room, now)

    def tick(self, now: float) -> None:
        """Try again the rejoins that are due."""
        for room in self.rooms.values():
            if self._is_connected and room.phase == "away" and room.retry_at is not None and room.retry_at <= now:
                self._rejoin(room, now)

    def _rejoin(self, room: ClientRoom, now: float) -> None:
        room.phase, room.retry_at = "joining", None
        waiting = [one for one in self._ledger if one.kind == "join" and one.room == room.name and not one.is_sent]
        for request in waiting:
            self._ledger.repeat(request, room.join_data())
        if not waiting:
            waiting = [self._ledger.open("join", {"event": "join-room", "data": room.join_data()}, now=now, room=room.name)]
        self.rejoining.add(waiting[0].ref)

    # Answers to joins and leaves.

    def take_join(self, request: Request, data: object, now: float) -> None:
        try:
            answer = msgspec.convert(data, JoinedRoom)
        except msgspec.ValidationError:
            self.refuse_join(request, ProtocolError("The server's answer to a join is not of the protocol."), now)
            return
        self.rejoining.discard(request.ref)
        room = self.rooms.get(request.room or "")
        if room is not None and room.phase == "joining":
            last = room.position
            if room.settle(answer):
                self._notices.append(Resynced(room.name, room.position, last))
        self._notices.append(Answered(request.ref, answer))

    def refuse_join(self, request: Request, error: RealtimeError, now: float) -> None:
        """A join failed: the first one for good, a rejoin only if its error says so."""
        self.rejoining.discard(request.ref)
        self._notices.append(Refused(request.ref, error))
        room = self.rooms.get(request.room or "")
        if room is None or room.phase != "joining":
            return
        if not room.is_known:
            self.remove(room.name)
        elif error.retryable:
            delay = error.retry_after if isinstance(error, RateLimitExceeded) else REJOIN_DELAYS[min(room.refusals, len(REJOIN_DELAYS) - 1)]
            room.refusals += 1
            room.phase, room.retry_at = "away", now + delay
            self._ledger.remind(room.retry_at)
        elif room.origin == "asked":
            self.remove(room.name)
            self._notices += (Departed(room.name, error.code), Faulted(error))
        else:
            last = room.position
            room.phase = "live"
            room.place(room.announced)
            self._notices.append(Resynced(room.name, room.position, last))

    def is_known(self, join: Request) -> bool:
        """Whether the room of a join was joined before."""
        room = self.rooms.get(join.room or "")
        return room is not None and room.is_known

    def abandon_join(self, request: Request, now: float) -> None:
        """Nobody waits for this join any more. A first one that was sent may yet succeed, so leave again."""
        name = request.room or ""
        room = self.rooms.get(name)
        self.rejoining.discard(request.ref)
        if room is None or any(one.kind == "join" and one.room == name for one in self._ledger):
            return
        if self._is_connected and request.is_sent:
            self.leave(name, now)
        else:
            self.remove(name)

    def expire_join(self, request: Request, error: RealtimeError, now: float) -> None:
        """A join got no answer in time."""
        if self.is_known(request):
            self.refuse_join(request, error, now)
        else:
            self.abandon_join(request, now)
            self._notices.append(Refused(request.ref, error))

    def take_leave(self, request: Request, error: RealtimeError | None = None) -> None:
        """A leave was answered, refused, or overtaken by the end of the connection."""
        name = request.room or ""
        room = self.rooms.get(name)
        if room is not None and room.phase == "leaving":
            self.remove(name)
        if name not in self.rooms:
            self._notices.append(Departed(name))
        self._notices.append(Answered(request.ref, None) if error is None else Refused(request.ref, error))

    # What the server does by itself.

    def give(self, name: str) -> ClientRoom:
        """The server put this socket into a room. Raises `ProtocolError` for more rooms, or a longer name, than a server can mean."""
        if len(self.rooms) >= MOST_ROOMS or len(name) > LONGEST_ROOM:
            raise ProtocolError(f"The server puts this client into more than {MOST_ROOMS} rooms.", retryable=True)
        room = self.rooms[name] = ClientRoom(name, "given")
        room.phase, room.is_known = "live", True
        return room

    def take_gift(self, data: object) -> None:
        """A `joined-room` that nobody asked for. An application's own message of that name may hold anything."""
        try:
            answer = msgspec.convert(data, JoinedRoom)
        except msgspec.ValidationError:
            return
        room = self.rooms.get(answer.room_id)
        if room is None or (room.origin == "given" and room.epoch is None):
            (room or self.give(answer.room_id)).settle(answer)

    def take_resync(self, data: object) -> None:
        try:
            place = msgspec.convert(data, RoomPlace)
        except msgspec.ValidationError:
            self._notices.append(Faulted(ProtocolError("The server sent a resync that is not of the protocol.")))
            return
        room = self.rooms.get(place.room_id)
        last = room.position if room is not None else None
        if room is not None:
            room.place(place.position)
            room.is_rewinding = False
            if room.phase == "behind":
                room.phase = "live"
        self._notices.append(Resynced(place.room_id, place.position, last))

    def take_closing(self, data: object) -> None:
        """`room-closed`: the server ended a membership."""
        values = data if isinstance(data, dict) else {}
        name = values.get("roomId")
        if isinstance(name, str):
            room = self.rooms.get(name)
            if room is not None and room.phase in ("leaving", "joining", "away"):
                return  # it speaks of the membership before: the answer that is awaited, or will be, says what holds
            self.remove(name)
            self._notices.append(Departed(name, read_text(values.get("reason"), "closed")))

    def joined(self) -> list[str]:
        """Names of the rooms in which this client is, own streams left out."""
        return [room.name for room in self.rooms.values() if room.origin != "stream" and room.phase in ("live", "behind")]
