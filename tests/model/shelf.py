"""The directory's state in memory: what the script `rooms_write` does to a shard of Redis, as dicts. It decides nothing of nodes and sockets."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct, field

from aibos_realtime.backends.directory import PresentUser, RoomRecord
from aibos_realtime.backends.redis.room_acts import Act, Reply, Step, read_members, read_record, read_user
from aibos_realtime.clock import Clock
from aibos_realtime.protocol.messages import Member

FEW = 100
Meta = tuple[str, str, str, int, int, int]
"""birth, name, type, max_users (0: no limit), guests (1 or 0), created (ms)."""
Limit = str


class RoomState(Struct):
    """Everything that is kept of one room."""

    meta: Meta | None = None
    users: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    """User → on how many nodes, since when (ms), role."""
    members: set[tuple[str, str]] = field(default_factory=set)
    """(node, user)"""
    who: dict[str, bytes] = field(default_factory=dict)
    gone: dict[str, int] = field(default_factory=dict)
    sockets: dict[str, int] = field(default_factory=dict)
    empty_since: int | None = None


class Shelf:
    """One shard. `notify(room, payload)`: what the nodes of a room are told."""

    def __init__(self, clock: Clock, notify: Callable[[str, bytes], None]) -> None:
        self.rooms: dict[str, RoomState] = {}
        self.told: dict[str, str] = {}
        self.present: dict[str, set[tuple[str, str]]] = {}
        self._clock = clock
        self._notify = notify
        self._before: list[Any] = []

    @property
    def now(self) -> int:
        """Milliseconds by its own clock, which no wall clock moves."""
        return int(self._clock.monotonic() * 1000) + 1_700_000_000_000

    @property
    def is_empty(self) -> bool:
        """Whether there is neither a room nor anybody in one."""
        return not any(room.meta or room.users or room.members or room.sockets for room in self.rooms.values()) and not any(self.present.values())

    # — faults —

    def forget_all(self) -> None:
        self.rooms, self.told, self.present = {}, {}, {}
        self._before.clear()

    def fail_over(self, lost: int) -> None:
        """A copy takes over that lacks the last writes."""
        for _ in range(min(lost, len(self._before))):
            self.rooms, self.told, self.present = self._before.pop()
        self._before.clear()

    # — writing: one step —

    def write(self, node: str, step: Step, acts: Sequence[Act]) -> Reply:
        self._before = [*self._before[-11:], copy.deepcopy((self.rooms, self.told, self.present))]
        last = self.told.get(node, "")
        both = last.isdigit() and step.answered.isdigit()
        is_known = last == step.found or (both and int(last) >= int(step.answered))
        if step.number == "":
            self.told.pop(node, None)
        elif step.number == "cleaned":
            if last:
                self.told[node] = f"cleaned {self.now}"
        elif is_known:
            self.told[node] = step.number
        elif not last:
            last = self.told[node] = "new"
        outcomes = [self._do(node, act) for act in acts]
        entered: dict[str, tuple[int, list[bytes]]] = {}
        for act, outcome in zip(acts, outcomes, strict=True):
            if act.words and act.words[0] == "enter" and outcome[0] == b"entered":
                entered[act.room] = self._crowd(act.room)
        return Reply(last, is_known, 0, outcomes, entered)

    def _crowd(self, room_id: str) -> tuple[int, list[bytes]]:
        users = self.rooms[room_id].users
        return len(users), self._flat(room_id) if len(users) <= FEW else []

    def _flat(self, room_id: str) -> list[bytes]:
        found = self.rooms.get(room_id, RoomState()).users
        return [part for user, (nodes, since, role) in found.items() for part in (user.encode(), f"{nodes} {since} {role}".encode())]

    def _do(self, node: str, act: Act) -> Any:
        if not act.words:
            return None
        room = self.rooms.setdefault(act.room, RoomState())
        name: Any
        name, *words = act.words
        return getattr(self, f"_{name}")(act.room, room, node, words)

    def _enter(self, room_id: str, room: RoomState, node: str, words: list[Any]) -> Any:
        user, role, who, is_guest, may_create, limit = words[:6]
        draft, has_created = words[6:], 0
        if is_guest and (room.meta[4] if room.meta else draft[4]) != 1:
            return [b"guests" if room.meta or may_create else b"missing"]
        if room.meta is None:
            if not may_create:
                return [b"missing"]
            if self._is_limited(limit):
                return [b"limit"]
            room.meta, has_created = self._made(room, draft), 1
        most = room.meta[3]
        if most > 0 and user not in room.users and len(room.users) >= most:
            return [b"full", str(most).encode()]
        has_joined, since = self._add(room_id, room, node, user, role, who, self.now, is_loud=True)
        return [b"entered", has_created, has_joined, str(since).encode(), *self._words(room.meta)]

    def _put(self, room_id: str, room: RoomState, node: str, words: list[Any]) -> Any:
        is_loud, user, role, who, since = words[:5]
        if room.meta is None:
            room.meta = self._made(room, words[5:])
        has_joined, _ = self._add(room_id, room, node, user, role, who, int(since), is_loud=bool(is_loud))
        return [has_joined, room.meta[0].encode()]

    def _remove(self, room_id: str, room: RoomState, node: str, words: list[Any]) -> int:
        is_loud, user, window = words
        self.present.get(node, set()).discard((room_id, user))
        if (node, user) not in room.members:
            return 0
        room.members.remove((node, user))
        nodes, since, role = room.users.get(user, (0, self.now, ""))
        if nodes > 1:
            room.users[user] = (nodes - 1, since, role)
            return 0
        room.users.pop(user, None)
        room.gone[user] = self.now
        for one in [one for one, left in room.gone.items() if left <= self.now - int(window)]:
            del room.gone[one]
            room.who.pop(one, None)
        if not room.users and room.meta is not None:
            room.empty_since = self.now
        if is_loud:
            self._tell(room_id, "user.left", user, since, role)
        return 1

    def _sockets(self, room_id: str, room: RoomState, node: str, words: list[Any]) -> int:
        if words[0] == 0 or room.meta is None:
            room.sockets.pop(node, None)
        else:
            room.sockets[node] = int(words[0])
        return 1

    def _create(self, room_id: str, room: RoomState, node: str, words: list[Any]) -> Any:
        limit, draft = words[0], words[1:]
        if room.meta is not None:
            return [b"there", str(len(room.users)).encode(), *self._words(room.meta)]
        if self._is_limited(limit):
            return [b"limit"]
        room.meta = self._made(room, draft)
        return [b"created", b"0", *self._words(room.meta)]

    def _destroy(self, room_id: str, room: RoomState, node: str, words: list[Any]) -> Any:
        meta, users = room.meta, list(room.users)
        room.gone |= dict.fromkeys(users, self.now)
        room.meta, room.users, room.members, room.sockets, room.empty_since = None, {}, set(), {}, None
        return [b"missing"] if meta is None else [b"destroyed", meta[0].encode(), b"", [user.encode() for user in users]]

    def _expire(self, room_id: str, room: RoomState, node: str, words: list[Any]) -> Any:
        if room.empty_since is None or room.empty_since > self.now - int(words[0]):
            return [b"kept"]
        if room.users:
            room.empty_since = None
            return [b"kept"]
        return self._destroy(room_id, room, node, words[1:])

    # — inside —

    def _is_limited(self, limit: Limit) -> bool:
        return limit != "" and sum(room.meta is not None for room in self.rooms.values()) >= int(limit)

    def _made(self, room: RoomState, draft: Sequence[Any]) -> Meta:
        if not room.users:
            room.empty_since = self.now
        return (draft[0], draft[1], draft[2], int(draft[3]), int(draft[4]), int(draft[5]) or self.now)

    def _words(self, meta: Meta) -> list[bytes]:
        return [str(part).encode() for part in meta]

    def _add(
        self, room_id: str, room: RoomState, node: str, user: str, role: str, who: bytes | None, since: int, *, is_loud: bool
    ) -> tuple[int, int]:
        known = room.users.get(user)
        is_new_here = (node, user) not in room.members
        room.members.add((node, user))
        self.present.setdefault(node, set()).add((room_id, user))
        if known is not None and role == "":
            role, who = known[2], None
        nodes, first = (known[0], known[1]) if known is not None else (0, since)
        room.users[user] = (nodes + (is_new_here or known is None), first, role)
        if who:
            room.who[user] = who
        if known is not None:
            return 0, first
        room.gone.pop(user, None)
        room.empty_since = None
        if is_loud:
            self._tell(room_id, "user.joined", user, since, role)
        return 1, since

    def _tell(self, room_id: str, event: str, user: str, since: int, role: str) -> None:
        self._notify(room_id, msgspec.json.encode({"event": event, "user": user, "since": str(since), "role": role}))

    # — reading —

    def describe(self, room_id: str, user_id: str) -> tuple[RoomRecord | None, bool]:
        room = self.rooms.get(room_id, RoomState())
        if room.meta is None:
            return None, False
        return read_record(room_id, self._words(room.meta), len(room.users), sum(room.sockets.values())), user_id in room.users

    def members(self, room_id: str) -> list[Member]:
        return read_members(self._flat(room_id))[0]

    def reachable(self, room_id: str, within: float) -> list[PresentUser]:
        room = self.rooms.get(room_id, RoomState())
        gone = [user for user, left in room.gone.items() if left > self.now - within * 1000]
        read = (read_user(user.encode(), room.who.get(user, b"")) for user in [*room.users, *gone])
        return [one for one in read if one is not None]

    def names(self, prefix: str, limit: int, after: str | None) -> list[str]:
        found = sorted(name for name, room in self.rooms.items() if room.meta is not None and name.startswith(prefix))
        return [name for name in found if after is None or name > after][:limit]

    def due(self, timeout: float | None) -> list[str]:
        """Rooms that were empty for so long."""
        if timeout is None:
            return []
        return [name for name, room in self.rooms.items() if room.empty_since is not None and room.empty_since <= self.now - timeout * 1000]
