"""The rooms that several nodes have in common, as one of them takes part: it asks the directory, and does what is asked over the bus.

Somebody joins in two steps: the directory gives him a place, and with it he enters at once. What follows from limits and timers is the directory's.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from ..auth.user import User
from ..backends.bus import Bus
from ..backends.directory import Directory, PresentUser, RoomRecord
from ..backends.foreign import Foreign
from ..clock import Clock
from ..errors import AuthenticationError, GuestsNotAllowed, NotInRoom, RealtimeError, RoomFull, RoomLimitExceeded, RoomNotFound
from ..logs import get_logger
from ..metrics import Metrics
from ..protocol.limits import check_name, is_own_stream
from ..protocol.messages import Member
from ..protocol.timestamps import rfc3339
from .keeper import LocalRooms, Place, Reason
from .openings import Openings, Proceed
from .requests import BringUser, CloseRoom, ListUsers, RemoveUser
from .room import Presence, Room, RoomInfo, RoomSettings
from .room_records import draft_of, info_of, present_of, room_of, settings_of, user_of

K = TypeVar("K")

logger = get_logger("aibos_realtime.rooms")

ENDED = 1_000
"""Lives of rooms that were destroyed lately, and are known to be over."""


class _Notice(Struct):
    """What the nodes of a room are told of a user."""

    event: Literal["user.joined", "user.left"]
    user: Annotated[str, Meta(min_length=1, max_length=1024)]
    since: Annotated[str, Meta(pattern="^[0-9]{1,14}$")]
    role: str = ""


_notices = msgspec.json.Decoder(_Notice)


class SharedRooms:
    """See `keeper.Keeper`. It is the directory's `Listener`."""

    def __init__(self, local: LocalRooms, *, directory: Directory, bus: Bus, metrics: Metrics, clock: Clock) -> None:
        self._local = local
        self._directory = directory
        self._bus = bus
        self._clock = clock
        self._foreign = Foreign(metrics, clock)
        self._places: Counter[tuple[str, str]] = Counter()
        self._coming: Counter[str] = Counter()
        self._left: set[tuple[str, str]] = set()
        """Pairs of room and user who left while they had a place."""
        self._ended: OrderedDict[str, None] = OrderedDict()
        self._openings = Openings(self._make, clock)
        self._adopted: set[str] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_started = False
        directory.attach(self)
        bus.on(RemoveUser, self._remove_here)
        bus.on(BringUser, self._bring_here)
        bus.on(CloseRoom, self._close_here)
        bus.on(ListUsers, self._list_here)

    async def start(self) -> None:
        await self._directory.start()
        self._is_started = True
        for room in list(self._local.by_id.values()):
            self._spawn(self._adopt(room))

    async def stop(self) -> None:
        self._is_started = False
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._openings.stop()
        await self._directory.stop()

    def adopt(self, room: Room) -> None:
        """From `start` on it is all nodes'."""
        self._local.by_id.setdefault(room.id, room)
        if self._is_started:
            self._spawn(self._adopt(room))

    async def _adopt(self, room: Room) -> None:
        self._adopted.add(room.id)
        try:
            record = await self._directory.create(draft_of(room.id, room.name, room.type, room.settings), max_rooms=self._local.options.max_rooms)
            self._take_up(record)
            for user_id, presence in list(room.users.items()):
                await self._enter(room.id, present_of(presence.user) if presence.user else PresentUser(user_id))
                presence.birth = record.birth
        except RealtimeError as error:
            logger.warning("a room that was made before its node took part is not known to the others: %s", error)
        finally:
            self._adopted.discard(room.id)
            self._drop_if_empty(room.id)

    # — coming and going —

    async def admit(self, room_id: str, user: User) -> Place:
        return await self._admit(room_id, present_of(user))

    async def _admit(self, room_id: str, user: PresentUser) -> Place:
        """A user counts as being in the room until his place is given back, and as long as he is here."""
        self._check(room_id)
        pair = (room_id, user.id)
        self._places[pair] += 1
        self._coming[room_id] += 1
        try:
            record, members = await self._enter(room_id, user)
        except BaseException as error:
            self._release(pair, isinstance(error, asyncio.CancelledError))
            raise
        return Place(partial(self._release, pair, True), room=self._take_up(record), user_count=record.user_count, members=members)

    async def _enter(self, room_id: str, user: PresentUser) -> tuple[RoomRecord, list[Member] | None]:
        options = self._local.options
        draft = draft_of(room_id, room_id, "room", self._local.patterns.settings(room_id, None))
        asked_again: set[str] = set()
        while True:
            entered = await self._directory.enter(draft, user, create=options.create, max_rooms=options.max_rooms)
            birth = entered.room.birth
            if birth in asked_again:
                self._ended.pop(birth, None)  # it is there after all: the directory has lost its end, or was told of it once more
            if birth not in self._ended:
                return entered.room, entered.members
            asked_again.add(birth)  # it was destroyed while the answer was on its way

    def _release(self, pair: tuple[str, str], is_counted: bool) -> None:
        """`is_counted`: by the directory, perhaps. Who left while he asked to come once more is, also where that failed."""
        room_id, user_id = pair
        _decrease(self._places, pair)
        _decrease(self._coming, room_id)
        room = self._local.by_id.get(room_id)
        if pair not in self._places:
            is_counted = is_counted or pair in self._left
            self._left.discard(pair)
            if is_counted and (room is None or user_id not in room.users):
                self._directory.leave(room_id, user_id)
        self._drop_if_empty(room_id)

    def room_for(self, room_id: str, user: User) -> Room:
        room = self._local.by_id.get(room_id)
        if room is None or (room_id, user.id) not in self._places:
            raise RoomNotFound()  # he was not admitted
        return room

    def check_place(self, room: Room) -> None:
        """Who was admitted has one."""

    def joined(self, room: Room, user_id: str, presence: Presence) -> None:
        """The directory has told."""

    def renewed(self, room: Room, presence: Presence) -> None:
        if presence.user is not None:
            self._directory.renew(room.id, present_of(presence.user))

    def left(self, room: Room, user_id: str, presence: Presence) -> None:
        if (room.id, user_id) not in self._places:
            self._directory.leave(room.id, user_id)
        else:
            self._left.add((room.id, user_id))
        self._drop_if_empty(room.id)

    def counted(self, room: Room) -> None:
        self._directory.count(room.id, room.socket_count)

    def _take_up(self, record: RoomRecord) -> Room:
        room = self._local.by_id.get(record.id)
        if room is None:
            room = self._local.by_id[record.id] = room_of(record)
        room.stop_timer()
        room.birth, room.settings = record.birth, settings_of(record)
        return room

    def _drop_if_empty(self, room_id: str) -> None:
        """A room with nobody of this node in it is the directory's alone."""
        room = self._local.by_id.get(room_id)
        if room is not None and room.is_empty and not self._coming[room_id] and room_id not in self._adopted:
            del self._local.by_id[room_id]

    # — rooms —

    async def create(self, room_id: str, name: str | None, type: str, settings: Mapping[str, Any] | RoomSettings | None) -> Room:
        self._check(room_id)
        draft = draft_of(room_id, name or room_id, type, self._local.patterns.settings(room_id, settings))
        record = await self._directory.create(draft, max_rooms=self._local.options.max_rooms)
        return self._local.by_id.get(room_id) or room_of(record)

    def opening(self, room_id: str) -> Callable[[Proceed], None] | None:
        """None where a room is there; else how to wait until it is: see `Openings.wait`. Raises `ProtocolError`, `RoomNotFound`."""
        if not self._openings.is_awaited(room_id):
            if room_id in self._local.by_id or self._openings.is_open(room_id):
                return None
            self._check(room_id)
        return partial(self._openings.wait, room_id)

    async def _make(self, room_id: str) -> None:
        if self._local.options.create:
            await self.create(room_id, None, "room", None)
        elif await self._directory.find(room_id) is None:
            raise RoomNotFound()

    async def destroy(self, room_id: str) -> None:
        birth = await self._directory.destroy(room_id)
        await self._bus.ask(CloseRoom(room_id, birth))

    async def info(self, room_id: str) -> RoomInfo:
        record = await self._directory.find(room_id)
        if record is None:
            raise RoomNotFound()
        return info_of(record)

    async def page(self, prefix: str, limit: int, cursor: str | None) -> tuple[list[RoomInfo], str | None]:
        records, after = await self._directory.page(prefix, limit, cursor)
        return [info_of(record) for record in records], after

    # — users —

    async def bring(self, room_id: str, user_id: str) -> RoomInfo:
        """Put a user into a room, with his sockets on all nodes; he stays present by this node's word."""
        pool = self._local.pool
        sockets = pool.get_user_connections(user_id) if pool is not None else []
        user = sockets[0].user if sockets else None
        with await self._admit(room_id, present_of(user) if user is not None else PresentUser(user_id)) as place:
            assert place.room is not None
            self._local.hold(place.room, user_id, user)
        refused = [answer for answer in await self._bus.ask(BringUser(room_id, user_id)) if isinstance(answer, str)]
        if refused:
            await self._bus.ask(RemoveUser(room_id, user_id, "left"))
            raise _REFUSALS.get(refused[0], RoomNotFound)()
        return await self.info(room_id)

    async def remove(self, room_id: str, user_id: str, reason: Reason) -> None:
        answers = await self._bus.ask(RemoveUser(room_id, user_id, reason))
        if True in answers or await self._directory.has(room_id, user_id):
            return  # in the second case by the word of a node that is no more
        raise RoomNotFound() if await self._directory.find(room_id) is None else NotInRoom("The user is not in this room.")

    async def users(self, room_id: str) -> list[Member]:
        found = await self._directory.members(room_id)
        if not found and await self._directory.find(room_id) is None:
            raise RoomNotFound()
        return found

    async def members(self, room_id: str) -> list[Member]:
        # In a task of its own: the road begins its requests without one.
        return await asyncio.get_running_loop().create_task(self._members(room_id))

    async def _members(self, room_id: str) -> list[Member]:
        return await self._directory.members(room_id)

    async def within_reach(self, room_id: str) -> list[User]:
        found = await self._directory.reachable(room_id, self.reach(room_id))
        return [user_of(user) for user in found]

    async def everybody_within_reach(self, window: float) -> list[User]:
        found: dict[str, User] = {}
        for answer in await self._bus.ask(ListUsers(window)):
            try:
                users = msgspec.convert(answer, list[PresentUser])
            except msgspec.ValidationError:
                self._foreign.note("a list of a node's users")
                continue
            found |= {user.id: user_of(user) for user in users}
        return list(found.values())

    def hear_notice(self, room_id: str, payload: bytes) -> None:
        try:
            notice = _notices.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._foreign.note("a notice on a room's channel")
            return
        room = self._local.by_id.get(room_id)
        if room is not None:
            self._local.tell_watchers(room, notice.event, Member(notice.user, notice.role or None, rfc3339(int(notice.since))))

    # — what any node asks of this one —

    async def _remove_here(self, request: RemoveUser) -> bool:
        room = self._local.by_id.get(request.room_id)
        if room is None or request.user_id not in room.users:
            return False
        self._local.evict(room, request.user_id, request.reason)
        await self._directory.told(request.room_id)
        return True

    async def _bring_here(self, request: BringUser) -> str | None:
        pool = self._local.pool
        for socket in pool.get_user_connections(request.user_id) if pool is not None else []:
            try:
                await self._local.bring_in(socket, request.room_id)
            except AuthenticationError:
                continue  # it ended meanwhile
            except tuple(_REFUSALS.values()) as error:
                return error.code
        return None

    def _close_here(self, request: CloseRoom) -> None:
        self._ended[request.birth] = None
        if len(self._ended) > ENDED:
            self._ended.popitem(last=False)
        self._openings.forget(request.room_id)
        room = self._local.by_id.get(request.room_id)
        for user_id, presence in list(room.users.items()) if room is not None else ():
            if room is not None and presence.birth == request.birth:
                self._local.evict(room, user_id, "destroyed")

    def _list_here(self, request: ListUsers) -> list[Any]:
        pool = self._local.pool
        users = pool.users_within_reach(request.within) if pool is not None else []
        return [msgspec.to_builtins(present_of(user)) for user in users]

    # — what the directory tells of this node's acts (`backends.directory.Listener`) —

    @property
    def room_timeout(self) -> float | None:
        return self._local.options.room_timeout

    def reach(self, room_id: str) -> float:
        return self._local.patterns.find(room_id).history_ttl

    def room_created(self, room: RoomRecord) -> None:
        if room.id not in self._adopted:
            self._local.callbacks.notify("room.created", self._local.by_id.get(room.id) or room_of(room))

    def room_destroyed(self, room_id: str) -> None:
        self._openings.forget(room_id)
        self._local.callbacks.notify("room.destroyed", room_id)

    def user_joined(self, room_id: str, user_id: str) -> None:
        if room_id not in self._adopted:
            self._local.callbacks.notify("user.joined", room_id, user_id)

    def user_left(self, room_id: str, user_id: str) -> None:
        self._local.callbacks.notify("user.left", room_id, user_id)

    def user_is_in(self, room_id: str, user_id: str, birth: str) -> bool:
        room = self._local.by_id.get(room_id)
        presence = room.users.get(user_id) if room is not None else None
        if presence is None:
            return True
        if birth in self._ended:
            if presence.birth != birth:
                presence.birth = birth
                return False
            del self._ended[birth]  # it is there after all, see `_enter`
        presence.birth = birth
        return True

    # — inside —

    def _check(self, room_id: str) -> None:
        check_name("room", room_id)
        if is_own_stream(room_id):
            raise RoomNotFound()

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


_REFUSALS = {error.code: error for error in (GuestsNotAllowed, RoomFull, RoomLimitExceeded, RoomNotFound)}


def _decrease(counter: Counter[K], key: K) -> None:
    counter[key] -= 1
    if not counter[key]:
        del counter[key]
