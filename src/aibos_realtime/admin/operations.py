"""What operators may ask and do, on all nodes together. The HTTP API, the dashboard and nothing else call it; each call says who calls.

An operator may everything. Anybody else may what concerns one room, where he holds `manage` on it; never `all` or somebody's own stream.
Who may not is told `PermissionDenied`, whether there is such a room or not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import pydantic

from ..audit import Audit, acting
from ..auth.authentication import WebSocketAuth
from ..auth.operators import Caller
from ..auth.user import User
from ..backends.base import Broker
from ..backends.bus import Bus
from ..backends.foreign import Foreign
from ..errors import BrokerUnavailable, ConfigurationError, PermissionDenied, QueueError, RealtimeError, ValidationError
from ..hub.rooms import RoomManager
from ..pipeline.authorization import MANAGE, WebSocketAuthorization
from ..pipeline.broadcaster import Broadcast, EventBroadcaster
from ..pipeline.filters import Filters
from ..pipeline.history import HISTORY_LIMIT, read_visible
from ..protocol.limits import is_own_stream
from ..protocol.messages import HistoryRequest, Position
from ..protocol.publishing import check_room
from ..storage.queue import MessageQueue
from .checks import check_close_code, check_limit, check_place, check_prefix, check_request, check_role, check_user, read_broadcast
from .reports import (
    ActReport,
    ConnectionLife,
    ConnectionPage,
    ConnectionReport,
    DeadLetterReport,
    HistoryReport,
    NodeReport,
    PresenceReport,
    QueueReport,
    ReceiptReport,
    Report,
    RoomPage,
    RoomReport,
)  # fmt: skip
from .requests import DescribeNode, ListActs, ListConnections
from .shapes import event_report, letter_report, member_report, receipt_report, room_report

R = TypeVar("R", bound=Report)

ROOMS_AT_ONCE = 1000
"""Of one page of rooms; and of those looked at to find the few that somebody manages, `LOOKS` times as many."""
LOOKS = 2

Disconnect = Callable[[str | None, str | None, int], Awaitable[int]]
"""(user_id, socket_id, close code) → how many connections."""


class Operations:
    """Coroutines raise `PermissionDenied`, `ProtocolError` (names), `BackendError`, and what each says. Cancelling leaves an act's outcome open."""

    def __init__(
        self,
        *,
        broadcaster: EventBroadcaster,
        broker: Broker,
        filters: Filters,
        rooms: RoomManager,
        queue: MessageQueue,
        auth: WebSocketAuth,
        authorization: WebSocketAuthorization,
        disconnect: Disconnect,
        set_role: Callable[[str, str], Awaitable[int]],
        bus: Bus,
        node: Callable[[msgspec.Struct], Any],
        audit: Audit,
        foreign: Foreign,
    ) -> None:
        """`node`: what this node itself answers to a request for the bus."""
        self._broadcaster = broadcaster
        self._broker = broker
        self._filters = filters
        self._rooms = rooms
        self._queue = queue
        self._auth = auth
        self._authorization = authorization
        self._disconnect = disconnect
        self._set_role = set_role
        self._bus = bus
        self._node = node
        self._audit = audit
        self._foreign = foreign

    # — publishing —

    async def publish(self, caller: Caller, item: Mapping[str, Any] | Broadcast) -> ReceiptReport:
        """Publish one event: the members of `Broadcast`, exactly one of `room`, `user` and `all` among them; a mapping as `filter` is `where(**it)`.

        Raises `ValidationError`, `MessageTooLarge`, `IdempotencyConflict`, `Overloaded`.
        """
        return await self._send(await self._admit(caller, item))

    async def publish_many(self, caller: Caller, items: Sequence[Mapping[str, Any] | Broadcast]) -> list[ReceiptReport | RealtimeError]:
        """Publish several, in order: what became of each. One that is refused does not keep the others back."""
        admitted: list[Broadcast | RealtimeError] = []
        for item in items:
            try:
                admitted.append(await self._admit(caller, item))
            except RealtimeError as error:
                admitted.append(error)
        # Tasks begin in order, and each comes to the room's log before it waits for anything: the events of one room keep their order.
        return await asyncio.gather(*(self._send_if(one) for one in admitted))

    async def _admit(self, caller: Caller, item: Mapping[str, Any] | Broadcast) -> Broadcast:
        broadcast = read_broadcast(item)
        if broadcast.room is None:
            _require_operator(caller)
        else:
            await self._require_manage(caller, broadcast.room)
        return broadcast

    async def _send(self, broadcast: Broadcast) -> ReceiptReport:
        try:
            (receipt,) = await self._broadcaster.broadcast_many([broadcast])
        except ConfigurationError as error:  # there is no filter of that name
            raise ValidationError(error.message) from None
        return receipt_report(receipt, broadcast.room or "")

    async def _send_if(self, one: Broadcast | RealtimeError) -> ReceiptReport | RealtimeError:
        if isinstance(one, RealtimeError):
            return one
        try:
            return await self._send(one)
        except RealtimeError as error:
            return error

    # — rooms —

    async def rooms(self, caller: Caller, *, prefix: str = "", limit: int = 100, cursor: str | None = None) -> RoomPage:
        """Rooms by rising id; of others than operators those that they manage."""
        check_prefix("prefix", prefix)
        check_prefix("cursor", cursor)
        check_limit(limit, ROOMS_AT_ONCE)
        if not caller.is_operator:
            return await self._managed_rooms(caller, prefix, limit, cursor)
        found, after = await self._rooms.list_rooms(prefix=prefix, limit=limit, cursor=cursor)
        return RoomPage(rooms=[room_report(room) for room in found], cursor=after)

    async def _managed_rooms(self, caller: Caller, prefix: str, limit: int, cursor: str | None) -> RoomPage:
        """A page ends with a room of his own: a cursor would tell of somebody else's."""
        mine: list[RoomReport] = []
        if not self._authorization.may_hold(caller.user, MANAGE):
            return RoomPage(rooms=mine, cursor=None)
        for _ in range(LOOKS):
            found, cursor = await self._rooms.list_rooms(prefix=prefix, limit=ROOMS_AT_ONCE, cursor=cursor)
            for room in found:
                if not await self._may_manage(caller, room.id):
                    continue
                if len(mine) == limit:
                    return RoomPage(rooms=mine, cursor=mine[-1].id)
                mine.append(room_report(room))
            if cursor is None:
                return RoomPage(rooms=mine, cursor=None)
        if not mine:
            raise ValidationError("There are too many rooms to look for yours among them: give a longer `prefix`.")
        return RoomPage(rooms=mine, cursor=mine[-1].id)

    async def room(self, caller: Caller, room_id: str) -> RoomReport:
        """A room, and where its log stands. Raises `RoomNotFound`."""
        await self._require_manage(caller, room_id)
        info = await self._rooms.get_room_info(room_id)
        return room_report(info, await self._broker.position(room_id))

    async def presence(self, caller: Caller, room_id: str) -> PresenceReport:
        """Who is in a room, longest first; nobody where there is none."""
        await self._require_manage(caller, room_id)
        members = [member_report(member) for member in await self._rooms.find_members(room_id)]
        return PresenceReport(room_id=room_id, members=members, count=len(members))

    async def history(
        self, caller: Caller, room_id: str, *, limit: int = 50, before: Position | None = None, after: Position | None = None
    ) -> HistoryReport:
        """A page of a room's events, or of a stream's (`user:<id>`, `all`), by rising offset. Addressed events (`filter`, `exclude`) get
        only those whom they are for, operators too.

        Raises `UnrecoverablePosition`, `ValidationError` (`limit`, both `before` and `after`).
        """
        await self._require_manage(caller, room_id)
        check_limit(limit, HISTORY_LIMIT)
        if before is not None and after is not None:
            raise ValidationError("Give `before` or `after`, not both.")
        epoch, found, more = await read_visible(self._broker, self._filters, HistoryRequest(room_id, limit, before, after), caller.user)
        return HistoryReport(room_id=room_id, epoch=epoch, events=[event_report(event) for event in found], more=more)

    async def destroy_room(self, caller: Caller, room_id: str) -> None:
        """End a room: its members are told. Raises `RoomNotFound`."""
        await self._require_manage(caller, room_id)
        await self._rooms.destroy_room(room_id)
        self._audit.note("destroy", room_id=room_id, by=caller.name)

    async def kick(self, caller: Caller, room_id: str, user_id: str) -> None:
        """Take a user out of a room. Raises `RoomNotFound`, `NotInRoom`."""
        await self._require_manage(caller, room_id)
        check_user(user_id)
        with acting(caller.name):
            await self._rooms.kick(room_id, user_id)

    # — people —

    async def connections(self, caller: Caller, request: ListConnections) -> ConnectionPage:
        """Connections of all nodes, in the order asked for. Raises `ValidationError`."""
        _require_operator(caller)
        answers = [answer for answer in await self._look(request) if isinstance(answer, dict)]
        found = [report for answer in answers for report in self._reports(ConnectionReport, answer.get("connections"))]
        found.sort(key=lambda one: one.outbox_bytes if request.order == "outbox" else one.connected_at, reverse=True)
        return ConnectionPage(connections=found[: request.limit], total=_sum(answers, "total"), matching=_sum(answers, "matching"))

    async def connection(self, caller: Caller, socket_id: str) -> ConnectionLife:
        """One connection, and what is known of its life; neither where it was never heard of, or is forgotten."""
        page = await self.connections(caller, ListConnections(limit=1, socket_id=socket_id))
        acts = await self.acts(caller, ListActs(limit=100, socket_id=socket_id))
        return ConnectionLife(connection=page.connections[0] if page.connections else None, acts=acts[::-1])

    async def disconnect(self, caller: Caller, *, user_id: str | None = None, socket_id: str | None = None, code: int = 4503) -> int:
        """Close the connections of a user, or one connection; returns how many. `code`: 1000, or 4000–4999."""
        _require_operator(caller)
        if (user_id is None) == (socket_id is None):
            raise ValidationError("Give exactly one of `userId` and `socketId`.")
        if user_id is not None:
            check_user(user_id)
        check_close_code(code)
        with acting(caller.name):
            return await self._disconnect(user_id, socket_id, code)

    async def revoke(self, caller: Caller, *, user_id: str | None = None, token_id: str | None = None) -> None:
        """Refuse every token of a user that was issued until now, or one token, on all nodes; their connections are closed."""
        _require_operator(caller)
        if (user_id is None) == (token_id is None):
            raise ValidationError("Give exactly one of `userId` and `tokenId`.")
        with acting(caller.name):
            await self._auth.revoke(user_id=user_id, token_id=token_id)

    async def set_role(self, caller: Caller, user_id: str, role: str) -> int:
        """Change a user's role on his live connections; returns how many."""
        _require_operator(caller)
        check_user(user_id)
        check_role(role)
        with acting(caller.name):
            return await self._set_role(user_id, role)

    # — queues —

    async def queues(self, caller: Caller) -> list[QueueReport]:
        """Every queue that has a handler or is declared, or, where none is declared, has anything in the store; by name."""
        _require_operator(caller)
        found = []
        for name in sorted({*self._queue.names, *await self._queue.stored_names()}):
            try:
                found.append(QueueReport(name=name, **msgspec.structs.asdict(await self._queue.stats(name))))
            except QueueError:
                continue  # left in the store from before, by a name that is not declared any more
        return found

    async def dead_letters(self, caller: Caller, name: str, *, limit: int = 50, before: str | None = None) -> list[DeadLetterReport]:
        """Messages that were given up, the latest first. Raises `QueueError`, `ValidationError`."""
        _require_operator(caller)
        check_place(before)
        return [letter_report(letter) for letter in await self._queue.dead_letters(name, limit, before=before)]

    async def requeue(self, caller: Caller, name: str, ids: Sequence[str] | None = None) -> int:
        """Send dead letters again, all or these; how many. Raises `QueueError`."""
        _require_operator(caller)
        count = await self._queue.requeue(name, ids)
        self._audit.note("requeue", reason=f"{name}: {count}", by=caller.name)
        return count

    async def purge(self, caller: Caller, name: str, *, dead: bool = False) -> int:
        """Remove every unfinished message, or every dead letter, for good; how many. Raises `QueueError`."""
        _require_operator(caller)
        count = await self._queue.purge(name, dead=dead)
        self._audit.note("purge", reason=f"{name}: {count}", by=caller.name)
        return count

    # — nodes —

    async def nodes(self, caller: Caller, *, samples: int = 0, since: float = 0.0) -> list[NodeReport]:
        """Every server that lives, by name, with its latest samples. Raises `ValidationError`."""
        _require_operator(caller)
        found = self._reports(NodeReport, await self._look(DescribeNode(samples, since)))
        return sorted(found, key=lambda node: (node.name, node.id))

    async def acts(self, caller: Caller, request: ListActs) -> list[ActReport]:
        """The audit log of all nodes, the newest first, as far as it is kept in memory. Raises `ValidationError`."""
        _require_operator(caller)
        found = [report for answer in await self._look(request) for report in self._reports(ActReport, answer)]
        return sorted(found, key=lambda act: act.time, reverse=True)[: request.limit]

    async def _look(self, request: msgspec.Struct) -> list[Any]:
        """What the nodes answer; where they cannot be reached, this one alone: what an operator looks for is often why. Raises `ValidationError`."""
        request = check_request(request)
        try:
            return await self._bus.ask(request)
        except BrokerUnavailable:
            return [self._node(request)]

    def _reports(self, kind: type[R], answers: object) -> list[R]:
        """Those that are reports of this kind. A process without sockets answers None, and another version perhaps what we do not know."""
        found = []
        for answer in answers if isinstance(answers, list) else []:
            try:
                found.append(kind.model_validate(answer))
            except pydantic.ValidationError:
                if answer is not None:
                    self._foreign.note("what a node told of itself")
        return found

    # — rights —

    async def _may_manage(self, caller: Caller, room_id: str) -> bool:
        if caller.is_operator:
            return True
        return not is_own_stream(room_id) and await self._authorization.check_permission(caller.user, room_id, MANAGE)

    async def _require_manage(self, caller: Caller, room_id: str) -> None:
        check_room(room_id)
        if not await self._may_manage(caller, room_id):
            raise PermissionDenied(resource=room_id, action=MANAGE)


def _require_operator(caller: Caller) -> None:
    if not caller.is_operator:
        raise PermissionDenied("This is for operators.", resource="*", action=MANAGE)


def _sum(answers: list[dict[str, Any]], name: str) -> int:
    counts = [answer.get(name) for answer in answers]
    return sum(count for count in counts if type(count) is int)


def as_caller(user: User | None, *, is_operator: bool) -> Caller:
    """The user of a connection, as the one who asks."""
    return Caller(f"user:{user.id}" if user else "nobody", user, is_operator)
