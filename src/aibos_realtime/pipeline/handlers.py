"""What the server answers by itself: authenticating, joining, leaving, history, presence, and publishing to a room.

Each returns an `Answer` without its `ref`, or raises a `RealtimeError`; the road (`inbound`) does the rest. None of them waits for anything but the
broker and the authorization. A publish returns the broker's future: the next one need not wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from inspect import isawaitable
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct

from ..auth.authentication import WebSocketAuth
from ..auth.user import Identity, User
from ..backends.base import Broker, Draft, Receipt
from ..clock import Clock
from ..errors import AuthenticationError, BackendError, MessageTooLarge, NotInRoom, PermissionDenied, ProtocolError, RoomLimitExceeded
from ..hub.connections import ConnectionPool
from ..hub.keeper import Place
from ..hub.openings import once_open
from ..hub.room import Room
from ..hub.rooms import RoomManager, is_member
from ..hub.socket import Socket
from ..metrics import Metrics
from ..protocol.close_codes import CloseCode, default_reason
from ..protocol.codec import Answer
from ..protocol.limits import ALL, check_name, is_own_stream, user_stream
from ..protocol.messages import ClientMessage, HistoryRequest, JoinRoom, Position, Ref, RoomRequest, TokenRequest
from .authorization import READ, WRITE, WebSocketAuthorization
from .broadcaster import Sending, new_id
from .eager import start
from .fanout import Fanout, room_frame
from .history import HISTORY_LIMIT, read_visible
from .recovery import Recovery
from .throttle import LimitOptions

T = TypeVar("T", bound=Struct)

MEMBERS_UNASKED = 100
"""A join's answer lists the members of a room up to this many users; of a larger one only for `presence: true`."""
EXPIRY_NOTICE = 60.0
"""Seconds ahead of a token's expiry at which the client is told."""


class BuiltIns:
    """The built-in requests of one server."""

    def __init__(
        self, *, auth: WebSocketAuth, authorization: WebSocketAuthorization, sending: Sending, limits: LimitOptions, metrics: Metrics, clock: Clock
    ) -> None:
        assert sending.rooms is not None and sending.pool is not None and sending.fanout is not None
        self._auth = auth
        self._authorization = authorization
        self._sending = sending
        self._broker: Broker = sending.broker
        self._rooms: RoomManager = sending.rooms
        self._pool: ConnectionPool = sending.pool
        self._fanout: Fanout = sending.fanout
        self._filters = sending.filters
        self._limits = limits
        self._clock = clock
        self._recovery = Recovery(broker=self._broker, fanout=self._fanout, filters=self._filters, metrics=metrics)
        self.penalty: Callable[[str], float] = lambda address: 0.0
        """Seconds for which the answer to one more bad token from an address is held back."""

    # — authenticate —

    async def authenticate(self, socket: Socket, message: ClientMessage) -> Answer:
        """A first token, or a fresh one for the same user. A bad first token closes the connection (4500) after the answer."""
        token = _parse(socket, message, TokenRequest).token
        is_good = False
        try:
            identity = await self._auth.identify(token)
            is_good = True
            if socket.user is not None and identity.user.id != socket.user.id:
                raise AuthenticationError("A connection cannot change its user.")
            if socket.user is None and self.has_too_many(identity):
                raise AuthenticationError("This user has as many connections as allowed.", code="overloaded")
        except AuthenticationError as error:
            failed = Answer("authenticated", data={"success": False, "error": error.message})
            if not is_good and (penalty := self.penalty(socket.remote_address)):
                await self._clock.sleep(penalty)
            if socket.user is not None:
                return failed
            code = CloseCode.CONNECTION_LIMIT if error.code == "overloaded" else CloseCode.TOKEN_INVALID
            socket.write(socket.encoding.frame(_with_ref(failed, message)))
            socket.disconnect(code, error.message)
            return ANSWERED
        is_first = socket.user is None
        await self.admit(socket, identity)
        return await self._welcome(socket, message, is_first)

    async def _welcome(self, socket: Socket, message: ClientMessage, is_first: bool) -> Answer:
        """Answer who has just been authenticated. `is_first`: he gets no event of his own streams before he knows where they stand, or is closed."""
        user = socket.user
        streams = (user_stream(user.id), ALL) if user is not None and is_first else ()
        with self._fanout.withholding(streams, socket):
            try:
                data = {"success": True, **await self.introduce(socket)}
            except BackendError:
                if is_first:
                    socket.disconnect(CloseCode.OVERLOADED, default_reason(CloseCode.OVERLOADED))
                raise
            socket.write(socket.encoding.frame(_with_ref(Answer("authenticated", data=data), message)))
        return ANSWERED

    async def admit(self, socket: Socket, identity: Identity) -> None:
        """Bind a verified identity to a socket; a changed role or tenant has the memberships checked again."""
        before = socket.user
        self.identify(socket, identity)
        if before is not None and before != identity.user:
            await self.recheck(socket)

    def identify(self, socket: Socket, identity: Identity) -> None:
        """Bind a verified identity to a socket, as of now."""
        clock = self._clock
        socket.identify(identity, now=clock.now(), monotonic=clock.monotonic(), notice=EXPIRY_NOTICE, grace=self._auth.expiry_grace)

    def has_too_many(self, identity: Identity) -> bool:
        """Whether the user has as many connections on this node as allowed."""
        limit = self._limits.connections_per_user
        return limit is not None and self._pool.count_user_connections(identity.user.id) >= limit

    async def introduce(self, socket: Socket) -> dict[str, Any]:
        """What `connected` and `authenticated` say of the user: who, until when, and where the own streams stand.

        Until then their live events must not reach the socket; from the moment that this returns, they may.
        """
        user = socket.user
        if user is None:
            return {"user": None, "expiresAt": None}
        streams, has_waited = {}, False
        for name in (user_stream(user.id), ALL):
            streams[name], rest = start(self._broker.position(name))
            if rest is not None:
                await rest
                has_waited = True
        # Now that the broker follows them it answers at once, so that nothing comes between these positions and the answer.
        for name in streams:
            self._fanout.flush_room(name)
        if has_waited:
            streams = {name: await self._broker.position(name) for name in streams}
        return {"user": user.to_wire(), "expiresAt": socket.expires_at, "streams": streams}

    async def recheck(self, socket: Socket) -> None:
        """End the memberships for which the user has no right any more; he is told `room-closed`."""
        for room_id in socket.rooms:
            if not await self._authorization.check_permission(socket.user, room_id, READ):
                if socket.memberships and room_id in socket.memberships:
                    self._rooms.exit(socket, room_id)
                    socket.write(socket.encoding.frame(Answer("room-closed", data={"roomId": room_id, "reason": "permission"})))

    # — rooms —

    async def join_room(self, socket: Socket, message: ClientMessage) -> Answer:
        """Join, or join again to recover. Missed events follow the answer, which this therefore sends by itself."""
        request = _parse(socket, message, JoinRoom)
        self._require_user(socket)
        if is_own_stream(request.room_id):
            return await self._recover_stream(socket, message, request)
        await self.check_join(socket, request.room_id)
        was_member = request.room_id in (socket.memberships or ())
        room, place = await self._enter(socket, request.room_id)
        if request.presence:
            room.watchers[socket] = None
        try:
            await self._answer_join(socket, message, request, room, place)
        except BaseException:
            if is_member(socket, room):
                self._rooms.exit(socket, request.room_id)
                if was_member:
                    socket.write(socket.encoding.frame(Answer("room-closed", data={"roomId": room.id, "reason": "unavailable"})))
            raise
        return ANSWERED

    async def check_join(self, socket: Socket, room_id: str) -> None:
        """Raises unless the socket may join: the right to read, and the number of its rooms."""
        check_name("room", room_id)
        self._require_user(socket)
        await self._authorization.require(socket.user, room_id, READ)
        limit, joined = self._limits.rooms_per_connection, socket.memberships or {}
        if limit is not None and room_id not in joined and len(joined) >= limit:
            raise RoomLimitExceeded(f"A connection is in at most {limit} rooms.")

    async def _enter(self, socket: Socket, room_id: str) -> tuple[Room, Place]:
        """Make a socket a member that is on its way in."""
        with await self._rooms.admit(socket, room_id, partial(self.check_join, socket, room_id)) as place:
            room: Room | None = (socket.memberships or {}).get(room_id)
            if room is None:
                return self._rooms.enter(socket, room_id), place
            self._fanout.flush_room(room_id)
            room.hold(socket)
            return room, place

    async def _answer_join(self, socket: Socket, message: ClientMessage, request: JoinRoom, room: Room, place: Place) -> None:
        top = await self._broker.position(room.id)
        recovered, after = await self._start(request, room.id, top)
        is_current = request.recover is None and not request.rewind  # else the log was read meanwhile, and something may have come
        data: dict[str, Any] = {"roomId": room.id, "epoch": top.epoch, "offset": top.offset, "recovered": recovered}
        if request.presence or (place.members is None and (place.user_count or len(room.users)) <= MEMBERS_UNASKED):
            # Now that this node hears the room's notices: nobody comes or goes unnoticed between this list and them.
            data["members"], rest = start(self._rooms.find_members(room.id))
            if rest is not None:
                data["members"], is_current = await rest, False
        elif place.members is not None:
            data["members"] = place.members
        if not is_member(socket, room):
            raise NotInRoom("You were taken out of the room while you joined it.")
        self._fanout.flush_room(room.id)
        if message.ref is not None:
            socket.write(socket.encoding.frame(Answer("joined-room", message.ref, data)))
        if not is_current or socket.closing:
            await self._recovery.replay(socket, room.id, after, room)
        elif socket in room.joining:  # nothing has happened since `top` was asked for, so that nothing was missed
            room.go_live(socket)

    async def _start(self, request: JoinRoom, room_id: str, top: Position) -> tuple[bool | None, Position]:
        """Whether a position that was asked for can be recovered, and after which position events are to follow the answer."""
        if request.recover is not None:
            recovered = await self._recovery.can_recover(room_id, request.recover)
            return recovered, request.recover if recovered else top
        if request.rewind:
            return None, await self._recovery.start_of_rewind(room_id, min(request.rewind, HISTORY_LIMIT)) or top
        return None, top

    async def _recover_stream(self, socket: Socket, message: ClientMessage, request: JoinRoom) -> Answer:
        self._require_read_of_stream(socket, request.room_id)
        self._fanout.flush_room(request.room_id)
        top = await self._broker.position(request.room_id)
        recovered, after = await self._start(request, request.room_id, top)
        if message.ref is not None:
            data = {"roomId": request.room_id, "epoch": top.epoch, "offset": top.offset, "recovered": recovered}
            socket.write(socket.encoding.frame(Answer("joined-room", message.ref, data)))
        await self._recovery.replay(socket, request.room_id, after, None)
        return ANSWERED

    async def leave_room(self, socket: Socket, message: ClientMessage) -> Answer:
        room_id = _parse(socket, message, RoomRequest).room_id
        self._require_user(socket)
        if room_id not in (socket.memberships or ()):
            raise NotInRoom()
        self._rooms.exit(socket, room_id)
        return Answer("left-room", data={"roomId": room_id})

    async def presence(self, socket: Socket, message: ClientMessage) -> Answer:
        room_id = _parse(socket, message, RoomRequest).room_id
        await self._require_read(socket, room_id)
        members = await self._rooms.find_members(room_id)
        return Answer("presence", data={"roomId": room_id, "members": members, "count": len(members)})

    async def history(self, socket: Socket, message: ClientMessage) -> Answer:
        """A page of what can still be read: before a position (default: the end), or after one."""
        request = _parse(socket, message, HistoryRequest)
        await self._require_read(socket, request.room_id)
        if request.before is not None and request.after is not None:
            raise ProtocolError("history: give `before` or `after`, not both.")
        if not 1 <= request.limit <= HISTORY_LIMIT:
            raise ProtocolError(f"history: `limit` is 1–{HISTORY_LIMIT}.")
        epoch, found, more = await read_visible(self._broker, self._filters, request, socket.user)
        codec = socket.encoding.codec
        events = [room_frame(event, codec) for event in found]
        return Answer("history", data={"roomId": request.room_id, "epoch": epoch, "events": events, "more": more})

    # — publish —

    def publish(self, socket: Socket, message: ClientMessage) -> asyncio.Future[Receipt]:
        """A client's event, to the room that it names. Needs `write`, not membership; creates the room where that is allowed."""
        user, room_id = self._publisher(socket, message)
        if not self._authorization.allows(user, room_id, WRITE):
            raise PermissionDenied(resource=room_id, action=WRITE)
        return self._submit(socket, message, user, room_id)

    async def publish_checked(self, socket: Socket, message: ClientMessage) -> Answer:
        """The same, where the application's own `check` has to be asked."""
        user, room_id = self._publisher(socket, message)
        await self._authorization.require(user, room_id, WRITE)
        return acknowledgement(await self._submit(socket, message, *self._publisher(socket, message)))

    def _publisher(self, socket: Socket, message: ClientMessage) -> tuple[User, str]:
        """Who publishes, and to which room."""
        user, room_id = socket.user, message.room
        if user is None or not socket.authenticated:
            raise AuthenticationError("Authenticate first.")
        assert room_id is not None
        if is_own_stream(room_id):
            raise PermissionDenied(resource=room_id, action=WRITE)
        return user, room_id

    def _submit(self, socket: Socket, message: ClientMessage, user: User, room_id: str) -> asyncio.Future[Receipt]:
        data = socket.encoding.codec.to_json(message.data)
        limit = self._limits.broadcast_bytes
        if limit is not None and len(data) > limit:
            raise MessageTooLarge(f"The data has {len(data)} bytes; at most {limit} are sent to a room.")
        opening = self._rooms.opening(room_id)
        pattern = self._rooms.pattern(room_id)
        draft = Draft(
            room_id,
            message.event,
            data,
            message.id or new_id(),
            user_id=user.id,
            keyed=message.id is not None,
            ephemeral=pattern.ephemeral,
            ack=pattern.ack,
            history_size=pattern.history_size,
            history_ttl=pattern.history_ttl,
        )
        return self._broker.publish(draft) if opening is None else once_open(opening, partial(self._broker.publish, draft))

    # — taken over by the application —

    async def override(self, socket: Socket, message: ClientMessage, handler: Callable[[Any], Any]) -> Answer:
        """Run a socket's own handler in place of a built-in act, with the bare token or room id; then give the built-in answer to what it did."""
        value = socket.encoding.codec.value(message.data)
        bare = _BARE.get(message.event)
        is_first = socket.user is None
        result = handler(value.get(bare) if bare is not None and isinstance(value, dict) else value)
        if isawaitable(result):
            result = await result
        if message.ref is None:
            return ANSWERED
        if message.event == "authenticate":
            if not socket.authenticated:
                return Answer("authenticated", data={"success": False, "error": AuthenticationError.default_message})
            return await self._welcome(socket, message, is_first)
        if message.event == "join-room":
            return await self._answer_overridden_join(socket, message)
        if message.event == "leave-room":
            return Answer("left-room", data={"roomId": _parse(socket, message, RoomRequest).room_id})
        return Answer(message.event, data=result)

    async def _answer_overridden_join(self, socket: Socket, message: ClientMessage) -> Answer:
        request = _parse(socket, message, JoinRoom)
        if request.room_id not in socket.rooms:
            raise PermissionDenied(resource=request.room_id, action=READ)
        top = await self._broker.position(request.room_id)
        recovered = None if request.recover is None else False
        return Answer("joined-room", data={"roomId": request.room_id, "epoch": top.epoch, "offset": top.offset, "recovered": recovered})

    # — inside —

    def _require_user(self, socket: Socket) -> None:
        if not socket.authenticated or socket.user is None:
            raise AuthenticationError("Authenticate first.")

    async def _require_read(self, socket: Socket, room_id: str) -> None:
        self._require_user(socket)
        if is_own_stream(room_id):
            self._require_read_of_stream(socket, room_id)
        else:
            check_name("room", room_id)
            await self._authorization.require(socket.user, room_id, READ)

    def _require_read_of_stream(self, socket: Socket, room_id: str) -> None:
        assert socket.user is not None
        if room_id not in (ALL, user_stream(socket.user.id)):
            raise PermissionDenied(resource=room_id, action=READ)


class Published(Struct, frozen=True, gc=False):
    """`data` of the `ack` of a publish."""

    id: str
    offset: int
    epoch: str
    duplicate: bool


def acknowledgement(receipt: Receipt, ref: Ref | None = None) -> Answer:
    """The answer to a publish that has its position."""
    position = receipt.position
    assert position is not None
    return Answer("ack", UNSET if ref is None else ref, Published(receipt.id, position.offset, position.epoch, receipt.duplicate))


_BARE = {"authenticate": "token", "join-room": "roomId", "leave-room": "roomId", "presence": "roomId"}
"""The one member of a request's data for which a bare text may stand."""

ANSWERED = Answer("")
"""Returned by a built-in that has answered by itself: no event, nothing is sent."""


def _with_ref(answer: Answer, message: ClientMessage) -> Answer:
    return answer if message.ref is None else Answer(answer.event, message.ref, answer.data)


def _parse(socket: Socket, message: ClientMessage, kind: type[T]) -> T:
    """`data` of a built-in request as its struct; a bare text stands for its one member."""
    value = socket.encoding.codec.value(message.data)
    if isinstance(value, str) and message.event in _BARE:
        value = {_BARE[message.event]: value}
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"{message.event}: the data does not fit: {str(error).replace('`', '')}.") from None
