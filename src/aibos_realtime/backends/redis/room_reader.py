"""What the directory of rooms says of rooms and of who is in them, read from Redis and checked. It writes nothing."""

from __future__ import annotations

from collections.abc import Sequence

from ...protocol.messages import Member
from ..directory import PresentUser, RoomRecord
from ..foreign import Foreign
from .client import Client
from .layout import Layout
from .room_acts import is_room, read_members, read_presence, read_record, read_user
from .script import load_script

ROOMS_AT_ONCE = 100
FOREIGN = "an entry of the directory of rooms"

_DESCRIBE, _NAMES, _PEOPLE = (load_script(f"rooms_{name}") for name in ("describe", "names", "people"))


class RoomReader:
    """Raises `BrokerUnavailable`."""

    def __init__(self, client: Client, layout: Layout, foreign: Foreign) -> None:
        self._client = client
        self._layout = layout
        self._foreign = foreign

    async def describe(self, rooms: Sequence[str], user_id: str = "") -> list[tuple[RoomRecord | None, bool]]:
        """For rooms of one shard: what each is, and whether a user is there."""
        found: list[tuple[RoomRecord | None, bool]] = []
        for start in range(0, len(rooms), ROOMS_AT_ONCE):
            some = rooms[start : start + ROOMS_AT_ONCE]
            keys = [self._layout.of_room(room_id, part) for room_id in some for part in ("meta", "users", "sockets")]
            for room_id, reply in zip(some, await self._client.run(_DESCRIBE, keys, [user_id]), strict=True):
                found.append((read_record(room_id, reply, *reply[6:8]), reply[8] == 1) if reply else (None, False))
        return found

    async def names(self, shard: int, prefix: str, limit: int, after: str | None) -> list[str]:
        """Rooms of a shard by rising id, after one, at most `limit`."""
        start = f"({after}" if after is not None and after >= prefix else f"[{prefix}" if prefix else "-"
        end = b"(" + prefix.encode(errors="replace") + b"\xff" if prefix else b"+"
        replies = await self._client.run(_NAMES, [self._layout.of_shard(shard, "rooms")], [start.encode(errors="replace"), end, limit])
        names = [reply.decode("latin-1") for reply in replies]
        found = [name for name in names if is_room(name)]
        self._foreign.note(FOREIGN, len(names) - len(found))
        return found

    async def members(self, room_id: str) -> list[Member]:
        """Who is in a room, longest first."""
        flat = [part for user, value, _ in await self._people(room_id, "") for part in (user, value)]
        members, foreign = read_members(flat)
        self._foreign.note(FOREIGN, foreign)
        return members

    async def reachable(self, room_id: str, within: float) -> list[PresentUser]:
        """Who is in a room, or left it less than `within` seconds ago."""
        found: dict[str, PresentUser] = {}
        for user, value, who in await self._people(room_id, str(int(within * 1000))):
            read = read_user(user, who) if not value or read_presence(user, value) is not None else None
            if read is not None:
                found[read.id] = read
            self._foreign.note(FOREIGN, read is None)
        return list(found.values())

    async def _people(self, room_id: str, within: str) -> list[tuple[bytes, bytes, bytes]]:
        keys = [self._layout.of_room(room_id, part) for part in ("users", "who", "gone")]
        found: list[tuple[bytes, bytes, bytes]] = []
        cursor = b"0"
        while True:
            cursor, foreign, *page = await self._client.run(_PEOPLE, keys, [cursor, within])
            self._foreign.note(FOREIGN, foreign)
            found += zip(page[::3], page[1::3], page[2::3], strict=True)
            if cursor == b"0":
                return found
