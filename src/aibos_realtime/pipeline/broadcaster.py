"""Publishing: from what the application says to an event with a position. Which sockets get it is `fanout`'s business."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from ..auth.user import User
from ..backends.base import Audience, Broker, Draft, LoggedEvent, Receipt
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import ConfigurationError, ValidationError
from ..hub.connections import RECOVERY_WINDOW, ConnectionPool
from ..hub.rooms import RoomManager, RoomPattern
from ..metrics import Metrics
from ..protocol.conditions import Where
from ..protocol.limits import ALL, BROADCAST_BYTES, check_name, is_own_stream, user_stream
from ..protocol.publishing import check_audience, check_event, check_id, check_room, encode_data, excluded
from .fanout import Fanout
from .filters import Filters, Predicate, decide

Filter = Where | str | Predicate

P = TypeVar("P", bound=Predicate)

_DEFAULTS = RoomPattern()
_prefix = ""
_numbers = count(1)


def new_id() -> str:
    """An id for an event, unique among all nodes."""
    return f"{_prefix}-{next(_numbers):x}"


def _renew_prefix() -> None:
    global _prefix
    _prefix = secrets.token_urlsafe(8)


_renew_prefix()
os.register_at_fork(after_in_child=_renew_prefix)  # a process that forks would count twice


class Broadcast(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One item of `broadcast_many`. Exactly one of `room`, `user` (an id) and `all` (True) says to whom."""

    event: str
    data: Any = None
    room: str | None = None
    user: str | None = None
    all: bool = False
    filter: Any = None
    exclude: list[str] = []
    idempotency_key: str | None = None
    volatile: bool = False
    persist: bool = True


class Sending:
    """What a broadcaster works with; a server has one, and every broadcaster made for that server shares it."""

    def __init__(
        self,
        *,
        broker: Broker,
        rooms: RoomManager | None = None,
        pool: ConnectionPool | None = None,
        fanout: Fanout | None = None,
        filters: Filters | None = None,
        metrics: Metrics | None = None,
        clock: Clock = SYSTEM_CLOCK,
        max_bytes: int | None = BROADCAST_BYTES,
    ) -> None:
        self.broker = broker
        self.rooms = rooms
        self.pool = pool
        self.fanout = fanout
        self.filters = filters or Filters()
        self.metrics = metrics or Metrics()
        self.clock = clock
        self.max_bytes = max_bytes


class HasSending(Protocol):
    """A server, as far as a broadcaster knows it."""

    @property
    def sending(self) -> Sending: ...


class EventBroadcaster:
    """Sends events to rooms, users and everybody.

    Made for a server (`server=`, and `rooms=`, which then are the server's rooms too), or for a broker alone (`broker=`) in a process without
    sockets.

    Every broadcast returns once the event has its position in the room's log; delivery does not wait for any member. Cancelling leaves the outcome
    unknown: repeat it with the same `idempotency_key`.
    """

    def __init__(self, *, server: HasSending | None = None, rooms: RoomManager | None = None, broker: Broker | None = None) -> None:
        if server is not None and broker is None:
            self._sending = server.sending
            if rooms is not None and self._sending.rooms is not None:
                rooms.share(self._sending.rooms)
        elif broker is not None and server is None:
            self._sending = Sending(broker=broker, rooms=rooms)
        else:
            raise ConfigurationError("EventBroadcaster: exactly one of server= and broker= is needed")

    def filter(self, name: str) -> Callable[[P], P]:
        """Register a filter under a name, with which it travels to other nodes and into recovery: `@broadcaster.filter("approvers")`.

        The function takes a `User` and returns whether he gets the event; then pass `filter="approvers"`, or the function itself.
        """

        def register(predicate: P) -> P:
            self._sending.filters.add(name, predicate)
            return predicate

        return register

    async def broadcast_to_room(
        self,
        room_id: str,
        event: str,
        data: Any = None,
        *,
        filter: Filter | None = None,
        exclude: Iterable[str] = (),
        idempotency_key: str | None = None,
        volatile: bool = False,
        persist: bool = True,
    ) -> Receipt:
        """Send an event to the members of a room.

        `filter`: `where(...)`, the name of a registered filter, or a callable `User -> bool`, which is decided now, for the users who are in the
        room, on whichever node, or left it within the recovery window. `exclude`: user ids. `idempotency_key`: repeating it within 5 minutes
        publishes once. `volatile`: no position, no log, dropped for members who are behind. `persist=False`: a position, but no payload in the store.

        Raises `ProtocolError` (names), `MessageTooLarge`, `ValidationError` (data that JSON cannot express), `IdempotencyConflict`,
        `BrokerUnavailable`.
        """
        check_name("room", room_id)
        return await self._publish(room_id, event, data, filter, exclude, idempotency_key, volatile, persist)

    async def broadcast_to_user(
        self, user_id: str, event: str, data: Any = None, *, idempotency_key: str | None = None, volatile: bool = False, persist: bool = True
    ) -> Receipt:
        """Send an event to every connection of a user, through his own stream: ordered, and recovered after a reconnect.

        Else as `broadcast_to_room`.
        """
        check_room(user_stream(user_id))
        return await self._publish(user_stream(user_id), event, data, None, (), idempotency_key, volatile, persist)

    async def broadcast_to_all(
        self,
        event: str,
        data: Any = None,
        *,
        filter: Filter | None = None,
        exclude: Iterable[str] = (),
        idempotency_key: str | None = None,
        volatile: bool = False,
        persist: bool = True,
    ) -> Receipt:
        """Send an event to every authenticated connection. Else as `broadcast_to_room`."""
        return await self._publish(ALL, event, data, filter, exclude, idempotency_key, volatile, persist)

    async def broadcast_many(self, items: Iterable[Broadcast | Mapping[str, Any]]) -> list[Receipt]:
        """Send several events, in order; one receipt for each. All are checked before the first is sent.

        Items are `Broadcast`s or mappings with the same members (`{"room": …, "event": …, "data": …}`). Raises as `broadcast_to_room` does.
        """
        drafts = [await self._draft_of(item if isinstance(item, Broadcast) else _broadcast(item)) for item in items]
        return await asyncio.gather(*(self._send(draft, volatile) for draft, volatile in drafts))

    # — inside —

    async def _publish(
        self,
        room_id: str,
        event: str,
        data: Any,
        filter: Filter | None,
        exclude: Iterable[str],
        key: str | None,
        volatile: bool,
        persist: bool,
    ) -> Receipt:
        return await self._send(await self._draft(room_id, event, data, filter, exclude, key, persist), volatile)

    def _send(self, draft: Draft, volatile: bool) -> asyncio.Future[Receipt]:
        if not volatile:
            return self._sending.broker.publish(draft)
        now = int(self._sending.clock.now() * 1000)
        event = LoggedEvent(draft.room, draft.event, draft.data, draft.id, "", 0, now, None, draft.audience)
        if self._sending.fanout is not None:
            self._sending.fanout.deliver_volatile(event)
        self._sending.broker.send_volatile(event)
        done: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        done.set_result(Receipt(draft.id, draft.room, None))
        return done

    async def _draft_of(self, item: Broadcast) -> tuple[Draft, bool]:
        if (item.room is not None) + (item.user is not None) + item.all != 1:
            raise ValidationError("broadcast_many: each item needs exactly one of room, user and all")
        room_id = item.room if item.room is not None else user_stream(item.user) if item.user is not None else ALL
        check_room(room_id)
        draft = await self._draft(room_id, item.event, item.data, item.filter, item.exclude, item.idempotency_key, item.persist)
        return draft, item.volatile

    async def _draft(
        self, room_id: str, event: str, data: Any, filter: Filter | None, exclude: Iterable[str], key: str | None, persist: bool
    ) -> Draft:
        check_event(event)
        if key is not None:
            check_id("idempotency_key", key)
        text = encode_data(data, self._sending.max_bytes)
        audience = None if filter is None and exclude == () else await self._audience(room_id, filter, exclude)
        rooms = self._sending.rooms
        pattern = rooms.pattern(room_id) if rooms is not None and not is_own_stream(room_id) else _DEFAULTS
        return Draft(
            room_id,
            event,
            text,
            key or new_id(),
            audience=audience,
            keyed=key is not None,
            persist=persist,
            ephemeral=pattern.ephemeral,
            ack=pattern.ack,
            history_size=pattern.history_size,
            history_ttl=pattern.history_ttl,
        )

    async def _audience(self, room_id: str, filter: Filter | None, exclude: Iterable[str]) -> Audience | None:
        but = excluded(exclude)
        if but or isinstance(filter, Where):
            check_audience([filter if isinstance(filter, Where) else None, but])
        if filter is None:
            return Audience(exclude=but) if but else None
        if isinstance(filter, Where):
            return Audience(where=dict(filter), exclude=but)
        filters = self._sending.filters
        name = filter if isinstance(filter, str) else filters.name_of(filter)
        if name is not None:
            if name not in filters:
                raise ConfigurationError(f"filter: there is no filter {name!r}; registered are: {', '.join(filters.names()) or 'none'}")
            return Audience(filter=name, exclude=but)
        if not callable(filter):
            raise ConfigurationError(f"filter: where(…), a registered name or a function is expected, not {type(filter).__name__}")
        users = frozenset(user.id for user in await self._within_reach(room_id) if decide(filter, user))
        return Audience(users=users, exclude=but)

    async def _within_reach(self, room_id: str) -> list[User]:
        rooms = self._sending.rooms
        if rooms is None:
            raise ConfigurationError(
                "filter: a function is decided for the users present, whom a broadcaster with a broker alone does not know; use where(…)"
            )
        return await (rooms.everybody_within_reach(RECOVERY_WINDOW) if room_id == ALL else rooms.users_within_reach(room_id))


def _broadcast(item: Mapping[str, Any]) -> Broadcast:
    try:
        return Broadcast(**item)
    except TypeError:
        raise ValidationError(
            f"broadcast_many: an item has the members {sorted(map(str, item))}; `event` is needed; allowed: {', '.join(Broadcast.__struct_fields__)}"
        ) from None
