"""The directory of rooms as its scripts know it: acts on the rooms of one shard, and what they reply. When which act is due others know."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ...errors import ValidationError
from ...protocol.limits import is_name, is_own_stream
from ...protocol.messages import Member
from ...protocol.timestamps import rfc3339
from ..directory import PresentUser, RoomDraft, RoomRecord
from .client import Client
from .layout import Layout
from .script import load_script

Word = str | bytes | int

WHO_BYTES = 65_536
"""Of what is kept of one user; for one of more claims they are left out."""
TEXT_BYTES = 1024
"""Of a user id, and of the name and the type of a room."""
MOST_DIGITS, TIME_DIGITS = 15, 14
"""Of the number of users that a room may have, and of a time in milliseconds."""
_PARTS = ("meta", "users", "members", "who", "gone", "sockets")

_WRITE = load_script("rooms_write")
_encoder = msgspec.json.Encoder()


class Act:
    """One thing to be done to a room. `words`: its name and its arguments; none: nothing is to be done, and the reply tells what the node had told.

    `heard(outcome)` is called as soon as it is done; `failed(error)` when that is unknown.
    """

    __slots__ = ("failed", "heard", "reply", "room", "words")

    def __init__(
        self,
        room: str,
        words: Sequence[Word],
        *,
        heard: Callable[[Any], None] | None = None,
        failed: Callable[[], None] | None = None,
        reply: asyncio.Future[Any] | None = None,
    ) -> None:
        self.room = room
        self.words = words
        self.heard = heard
        self.failed = failed
        self.reply = reply


class Step(Struct, frozen=True):
    """What a node tells at once. `number`: rising. `answered`: that of the last step that was; `found`: what the shard had then in place of it."""

    number: str
    answered: str = ""
    found: str = ""


FAREWELL = Step("")
"""The node ends."""
CLEANED = Step("cleaned")
"""Another node cleans up after it."""


class Reply(Struct, frozen=True):
    """`last`: what the shard knew as the node's last step; `is_known`: nothing was lost since `answered`. `outcomes`: one for each act. `entered`: of
    each room that was entered, how many users are there, and if they are few, who.
    """

    last: str
    is_known: bool
    foreign: int
    outcomes: list[Any]
    entered: dict[str, tuple[int, list[bytes]]]


async def run_acts(client: Client, layout: Layout, shard: int, node: str, step: Step, acts: Sequence[Act]) -> Reply:
    """Have acts done, all at once. Raises `BrokerUnavailable`."""
    rooms = {room: number for number, room in enumerate(dict.fromkeys(act.room for act in acts if act.words), 1)}
    keys = [layout.of_shard(shard, name) for name in ("rooms", "empty", "told")] + [present_key(layout, shard, node)]
    words: list[Word] = [node, step.number, step.answered, step.found, len(rooms)]
    for room in rooms:
        keys += [layout.of_room(room, part) for part in _PARTS]
        words += (room, layout.of_room(room, "room"))
    for act in acts:
        if act.words:
            words += (act.words[0], rooms[act.room], *act.words[1:])
    last, is_known, foreign, replies, entered = await client.run(_WRITE, keys, words)
    names, outcomes = list(rooms), iter(replies)
    return Reply(
        last.decode("latin-1"),
        is_known == 1,
        foreign,
        [next(outcomes) if act.words else None for act in acts],
        {names[number - 1]: (count, users) for number, count, users in entered},
    )


def present_key(layout: Layout, shard: int, node: str) -> str:
    """The key under which everything is found that a node has told a shard."""
    return layout.of_shard(shard, f"present:{node}")


def split_pair(entry: bytes) -> tuple[str, str] | None:
    """(room, user) of an entry under `present_key`; None for what is none of ours."""
    room, _, user = entry.partition(b"\0")
    try:
        name, user_id = room.decode(), user.decode()
    except UnicodeDecodeError:
        return None
    return (name, user_id) if is_room(name) and user_id and len(user) <= TEXT_BYTES else None


def is_room(name: str) -> bool:
    """Whether a room may have this name."""
    return is_name(name) and not is_own_stream(name)


def draft_words(draft: RoomDraft | RoomRecord, birth: str, reservation: str = "") -> list[Word]:
    """A room as the scripts take it; a draft is made now."""
    created = int(draft.created_at * 1000) if isinstance(draft, RoomRecord) else 0
    return [birth, draft.name, draft.type, draft.max_users or 0, int(draft.allow_guests), created, reservation]


def user_words(user: PresentUser) -> tuple[str, bytes]:
    """(role, what is kept of him). Claims that are too large, or no JSON, are left out."""
    role = as_text(user.role or "")
    kept = {"role": role or None, "tenant_id": None if user.tenant_id is None else as_text(user.tenant_id)}
    try:
        who = _encoder.encode(kept | {"claims": user.claims})
    except (TypeError, ValueError, RecursionError):
        who = b""
    return role, who if 0 < len(who) <= WHO_BYTES else _encoder.encode(kept)


def as_text(text: str) -> str:
    """A text as it can be kept: no half of a surrogate pair is left in it."""
    return text.encode(errors="replace").decode()


def check_text(what: str, text: str) -> None:
    """Raise `ValidationError` for what cannot be kept as the name of something. `what`: for the error."""
    if as_text(text) != text or len(text.encode()) > TEXT_BYTES:
        raise ValidationError(f"{what}: a text of at most {TEXT_BYTES} bytes is expected, without half surrogate pairs")


def read_record(room: str, found: Sequence[Any], users: int = 0, sockets: int = 0) -> RoomRecord | None:
    """The room that (birth, name, type, max_users, guests, created) are; None for what is none of ours, as `scripts/rooms_write.lua` sees it too."""
    if len(found) < 6 or not all(isinstance(part, bytes) for part in found[:6]):
        return None
    birth, name, type, most, guests, created = found[:6]
    if not (most.isdigit() and len(most) <= MOST_DIGITS and created.isdigit() and len(created) <= TIME_DIGITS):
        return None
    texts = [as_text(part.decode(errors="replace")).replace("\0", "\ufffd") for part in (name, type, birth)]
    return RoomRecord(room, texts[0], texts[1], int(most) or None, guests == b"1", int(created) / 1000, texts[2], users, sockets)


def read_members(flat: Sequence[bytes]) -> tuple[list[Member], int]:
    """Members, longest first, from user, "nodes since role", …; and how many were none of ours."""
    read = [read_presence(user, value) for user, value in zip(flat[::2], flat[1::2], strict=True)]
    found = {one[0]: one for one in read if one is not None}  # a hash that grows is read twice here and there
    ordered = sorted(found.values(), key=lambda one: (one[1], one[0]))
    return [Member(user_id, role, rfc3339(since)) for user_id, since, role in ordered], read.count(None)


def read_presence(user: bytes, value: bytes) -> tuple[str, int, str | None] | None:
    """(user id, since when, role); None for what is none of ours."""
    parts = value.split(b" ", 2)
    if len(parts) != 3 or not user or not parts[1].isdigit() or len(parts[1]) > TIME_DIGITS:
        return None
    try:
        return user.decode(), int(parts[1]), parts[2].decode() or None
    except UnicodeDecodeError:
        return None


class _Who(Struct):
    role: str | None = None
    tenant_id: str | None = None
    claims: dict[str, Any] = {}


_who = msgspec.json.Decoder(_Who)


def read_user(user: bytes, who: bytes) -> PresentUser | None:
    """A user by what is kept of him; None for what is none of ours."""
    try:
        found = _who.decode(who) if who else _Who()
        return PresentUser(user.decode(), found.role, found.tenant_id, found.claims) if user else None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
