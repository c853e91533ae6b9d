"""What operators may ask and do, on all nodes together. The HTTP API, the dashboard and nothing else call it; each call says who calls.

An operator may everything. Anybody else may what concerns one room, where he holds `manage` on it. Who may not is told `PermissionDenied`, whether
there is such a room or not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from ..audit import Audit
from ..auth.authentication import WebSocketAuth
from ..auth.operators import Caller
from ..auth.user import User
from ..backends.base import Broker, LoggedEvent, Receipt
from ..backends.bus import Bus
from ..errors import PermissionDenied, RealtimeError, ValidationError
from ..hub.room import RoomInfo
from ..hub.rooms import RoomManager
from ..pipeline.authorization import MANAGE, WebSocketAuthorization
from ..pipeline.broadcaster import Broadcast, EventBroadcaster
from ..pipeline.filters import Filters
from ..pipeline.history import read_visible
from ..protocol.limits import check_name
from ..protocol.messages import HistoryRequest, Member, Position
from ..protocol.publishing import check_room
from ..protocol.timestamps import rfc3339
from ..storage.queue import DeadLetter, MessageQueue
from .reports import (
    ActReport,
    ConnectionLife,
    ConnectionPage,
    ConnectionReport,
    DeadLetterReport,
    EventReport,
    HistoryReport,
    MemberReport,
    NodeReport,
    PresenceReport,
    QueueReport,
    ReceiptReport,
    RoomPage,
    RoomReport,
)  # fmt: skip
from .requests import DescribeNode, ListActs, ListConnections

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
        audit: Audit,
    ) -> None:
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
        self._audit = audit

    # — publishing —

    async def publish(self, caller: Caller, item: Mapping[str, Any] | Broadcast) -> ReceiptReport:
        """Publish one event: the members of `Broadcast`, exactly one of `room`, `user` and `all` among them.

        Raises `ValidationError`, `MessageTooLarge`, `IdempotencyConflict`, `Overloaded`.
        """
        broadcast = _broadcast(item)
        await self._require_target(caller, broadcast)
        (receipt,) = await self._broadcaster.broadcast_many([broadcast])
        return _receipt(receipt)

    async def publish_many(self, caller: Caller, items: Sequence[Mapping[str, Any] | Broadcast]) -> list[ReceiptReport | RealtimeError]:
        """Publish several, in order: what became of each. One that is refused does not keep the others back."""
        results: list[ReceiptReport | RealtimeError] = []
        for item in items:
            try:
                results.append(await self.publish(caller, item))
            except RealtimeError as error:
                results.append(error)
        return results

    # — rooms —

    async def rooms(self, caller: Caller, *, prefix: str = "", limit: int = 100, cursor: str | None = None) -> RoomPage:
        """Rooms by rising id; of others than operators those that they manage."""
        found, after = await self._rooms.list_rooms(prefix=prefix, limit=limit, cursor=cursor)
        mine = [room for room in found if caller.is_operator or await self._may_manage(caller, room.id)]
        return RoomPage(rooms=[_room(room) for room in mine], cursor=after)

    async def room(self, caller: Caller, room_id: str) -> RoomReport:
        """A room, and where its log stands. Raises `RoomNotFound`."""
        await self._require_manage(caller, room_id)
        info = await self._rooms.get_room_info(room_id)
        position = await self._broker.position(room_id)
        return _room(info, {"epoch": position.epoch, "offset": position.offset})

    async def presence(self, caller: Caller, room_id: str) -> PresenceReport:
        """Who is in a room, longest first; nobody where there is none."""
        await self._require_manage(caller, room_id)
        members = [_member(member) for member in await self._rooms.find_members(room_id)]
        return PresenceReport(room_id=room_id, members=members, count=len(members))

    async def history(
        self, caller: Caller, room_id: str, *, limit: int = 50, before: Position | None = None, after: Position | None = None
    ) -> HistoryReport:
        """A page of a room's events, or of a stream's (`user:<id>`, `all`), by rising offset: those that the caller himself would get.

        Raises `UnrecoverablePosition`, `ValidationError` (both `before` and `after`).
        """
        await self._require_manage(caller, room_id)
        if before is not None and after is not None:
            raise ValidationError("Give `before` or `after`, not both.")
        epoch, found, more = await read_visible(self._broker, self._filters, HistoryRequest(room_id, limit, before, after), caller.user)
        return HistoryReport(room_id=room_id, epoch=epoch, events=[_event(event) for event in found], more=more)

    async def destroy_room(self, caller: Caller, room_id: str) -> None:
        """End a room: its members are told. Raises `RoomNotFound`."""
        await self._require_manage(caller, room_id)
        await self._rooms.destroy_room(room_id)
        self._audit.note("destroy", room_id=room_id, by=caller.name)

    async def kick(self, caller: Caller, room_id: str, user_id: str) -> None:
        """Take a user out of a room. Raises `RoomNotFound`, `NotInRoom`."""
        await self._require_manage(caller, room_id)
        await self._rooms.kick(room_id, user_id)
        self._audit.note("kick", room_id=room_id, user_id=user_id, by=caller.name)

    # — people —

    async def connections(self, caller: Caller, request: ListConnections) -> ConnectionPage:
        """Connections of all nodes, the newest first."""
        _require_operator(caller)
        answers = [answer for answer in await self._bus.ask(request) if isinstance(answer, dict)]
        found = [ConnectionReport.model_validate(one) for answer in answers for one in answer["connections"]]
        found.sort(key=lambda one: one.connected_at, reverse=True)
        total, matching = (sum(answer[name] for answer in answers) for name in ("total", "matching"))
        return ConnectionPage(connections=found[: request.limit], total=total, matching=matching)

    async def connection(self, caller: Caller, socket_id: str) -> ConnectionLife:
        """One connection, and what is known of its life; neither where it was never heard of, or is forgotten."""
        page = await self.connections(caller, ListConnections(limit=1, socket_id=socket_id))
        acts = await self.acts(caller, ListActs(limit=100, socket_id=socket_id))
        return ConnectionLife(connection=page.connections[0] if page.connections else None, acts=acts[::-1])

    async def disconnect(self, caller: Caller, *, user_id: str | None = None, socket_id: str | None = None, code: int = 4503) -> int:
        """Close the connections of a user, or one connection; returns how many."""
        _require_operator(caller)
        if (user_id is None) == (socket_id is None):
            raise ValidationError("Give exactly one of `userId` and `socketId`.")
        count = await self._disconnect(user_id, socket_id, code)
        self._audit.note("disconnect", user_id=user_id, socket_id=socket_id, code=code, by=caller.name)
        return count

    async def revoke(self, caller: Caller, *, user_id: str | None = None, token_id: str | None = None) -> None:
        """Refuse every token of a user that was issued until now, or one token, on all nodes; their connections are closed."""
        _require_operator(caller)
        if (user_id is None) == (token_id is None):
            raise ValidationError("Give exactly one of `userId` and `tokenId`.")
        await self._auth.revoke(user_id=user_id, token_id=token_id)
        self._audit.note("revoke", user_id=user_id, reason=f"token {token_id}" if token_id else None, by=caller.name)

    async def set_role(self, caller: Caller, user_id: str, role: str) -> int:
        """Change a user's role on his live connections; returns how many."""
        _require_operator(caller)
        count = await self._set_role(user_id, role)
        self._audit.note("role", user_id=user_id, reason=role, by=caller.name)
        return count

    # — queues —

    async def queues(self, caller: Caller) -> list[QueueReport]:
        """Every queue that is declared, has a handler, or has anything in the store, by name."""
        _require_operator(caller)
        names = sorted({*self._queue.names, *await self._queue.stored_names()})
        return [QueueReport(name=name, **msgspec.structs.asdict(await self._queue.stats(name))) for name in names]

    async def dead_letters(self, caller: Caller, name: str, *, limit: int = 50, before: str | None = None) -> list[DeadLetterReport]:
        """Messages that were given up, the latest first. Raises `QueueError`."""
        _require_operator(caller)
        return [_letter(letter) for letter in await self._queue.dead_letters(name, limit, before=before)]

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
        """Every server that lives, by name, with its latest samples."""
        _require_operator(caller)
        answers = await self._bus.ask(DescribeNode(samples, since))
        return sorted((NodeReport.model_validate(answer) for answer in answers if isinstance(answer, dict)), key=lambda node: (node.name, node.id))

    async def acts(self, caller: Caller, request: ListActs) -> list[ActReport]:
        """The audit log of all nodes, the newest first, as far as it is kept in memory."""
        _require_operator(caller)
        found = [ActReport.model_validate(one) for answer in await self._bus.ask(request) if isinstance(answer, list) for one in answer]
        return sorted(found, key=lambda act: act.time, reverse=True)[: request.limit]

    # — rights —

    async def _may_manage(self, caller: Caller, room_id: str) -> bool:
        return caller.is_operator or await self._authorization.check_permission(caller.user, room_id, MANAGE)

    async def _require_manage(self, caller: Caller, room_id: str) -> None:
        check_room(room_id)
        if not await self._may_manage(caller, room_id):
            raise PermissionDenied(resource=room_id, action=MANAGE)

    async def _require_target(self, caller: Caller, broadcast: Broadcast) -> None:
        if broadcast.room is None:
            _require_operator(caller)
        else:
            check_name("room", broadcast.room)
            await self._require_manage(caller, broadcast.room)


def _require_operator(caller: Caller) -> None:
    if not caller.is_operator:
        raise PermissionDenied("This is for operators.", resource="*", action=MANAGE)


def _broadcast(item: Mapping[str, Any] | Broadcast) -> Broadcast:
    if isinstance(item, Broadcast):
        return item
    try:
        return Broadcast(**item)
    except TypeError:
        raise ValidationError(f"An event has the members {', '.join(Broadcast.__struct_fields__)}; `event` is needed.") from None


def _receipt(receipt: Receipt) -> ReceiptReport:
    at = receipt.position
    return ReceiptReport(
        id=receipt.id, room=receipt.room, epoch=at.epoch if at else None, offset=at.offset if at else None, duplicate=receipt.duplicate
    )


def _room(info: RoomInfo, position: dict[str, Any] | None = None) -> RoomReport:
    return RoomReport(
        id=info.id, name=info.name, type=info.type, user_count=info.user_count, connection_count=info.connection_count,
        max_users=info.settings.max_users, allow_guests=info.settings.allow_guests, created_at=info.created_at, position=position,
    )  # fmt: skip


def _member(member: Member) -> MemberReport:
    return MemberReport(user_id=member.user_id, role=member.role, since=member.since or "")


def _event(event: LoggedEvent) -> EventReport:
    return EventReport(
        event=event.event, room=event.room, offset=event.offset, id=event.id, data=msgspec.json.decode(event.data), user_id=event.user_id,
        timestamp=rfc3339(event.timestamp),
    )  # fmt: skip


def _letter(letter: DeadLetter) -> DeadLetterReport:
    return DeadLetterReport(
        id=letter.id, data=letter.data, attempts=letter.attempts, reason=letter.reason, enqueued_at=letter.enqueued_at.isoformat(),
        buried_at=letter.buried_at.isoformat(), key=letter.key, place=letter.place,
    )  # fmt: skip


def as_caller(user: User | None, *, is_operator: bool) -> Caller:
    """The user of a connection, as the one who asks."""
    return Caller(f"user:{user.id}" if user else "nobody", user, is_operator)
