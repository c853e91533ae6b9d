"""Targets of what comes from Redis: each decoder takes any bytes, gives nothing or what can go on everywhere, and costs nobody else anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import msgspec

from aibos_realtime import Position
from aibos_realtime.auth.user import User
from aibos_realtime.backends.base import Audience, LoggedEvent
from aibos_realtime.backends.foreign import Foreign
from aibos_realtime.backends.queue import StoredLetter, Taken
from aibos_realtime.backends.redis import intake, log, nodes, queue, records, revocations, room_acts, room_places
from aibos_realtime.backends.redis.bus import RedisBus
from aibos_realtime.backends.redis.layout import Layout
from aibos_realtime.cluster.reports import merge
from aibos_realtime.hub.requests import BringUser, CloseRoom, Disconnect, ListUsers, RemoveUser, SetRole
from aibos_realtime.metrics import Metrics
from aibos_realtime.pipeline.fanout import room_frame
from aibos_realtime.pipeline.filters import Filters
from aibos_realtime.protocol.codec import JsonCodec, MsgpackCodec
from aibos_realtime.protocol.frames import is_close_code
from aibos_realtime.protocol.limits import is_name
from aibos_realtime.protocol.timestamps import rfc3339
from aibos_realtime.storage.handling import Handling, ProcessOptions
from aibos_realtime.testing.clock import ManualClock, settle

from .oracle import check, depth_of, is_plain, read_strictly, run
from .source import NUMBERS, Source

PICKLE = b"\x80\x04\x95\x1e\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04true\x94\x85\x94R\x94."
WORDS = (
    b"", b"e1", b"1", b"0", b"5", b"-1", b"1700000000000", b"9" * 16, b"9" * 17, b"9" * 400, b"1" + b"0" * 311, b"\xff", b"a\0b", b"inf", b"nan",
    b"1e400", PICKLE, b"ann", b"lobby", b"x" * 1025, "ü".encode(), b"user", b"1_0", b" 5", b"\xd9\xa3", b"cleaned 5", b"1 2 user", b"{}", b"[]",
    b'{"claims":{}}', b"1700000000000-0", b"18446744073709551615-1", b"0-0", b"-", b"u", b"*", b"tann",
)  # fmt: skip
_ANN = User("ann", "admin", "t1", {"plan": "gold"})
_CODECS = (JsonCodec(), MsgpackCodec())


def _word(source: Source) -> bytes:
    return source.pick(WORDS) if source.flag() else source.take(source.byte() % 40)


def _record(source: Source) -> bytes:
    """That of an event, more or less."""
    if source.byte() > 230:
        return _word(source)
    members = {
        "e": source.pick(('"note"', '"note"', '"invoice.created"', '"room-closed"', '"a b"', '""', source.json(0))),
        "d": source.json(),
        "i": '"x"',
    }
    if source.flag():
        members["u"] = source.pick(('"ann"', json.dumps(source.text()), source.json(0)))
    if source.flag():
        members["i"] = source.pick((json.dumps(source.text()), '""', source.json(0)))
    if source.flag():
        condition = json.dumps(source.pick(("role__in", "id", "id__in", "role__like", "tenant_id__gt", "plan__contains", "__in", "x__", "role")))
        audience = {"where": f"{{{condition}:{source.json(2)}}}", "users": source.json(1), "filter": source.json(0), "exclude": '["bob"]'}
        kept = {name: audience[name] for name in audience if source.flag()}
        members["a"] = "{" + ",".join(f'"{name}":{value}' for name, value in kept.items()) + "}"
    return ("{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}").encode(errors="replace")


def events(data: bytes) -> None:
    """Records of events: on channels, in a room's log, and in what waits for the store. What is taken can go to every member, and into a database."""
    source = Source(data)
    record, kind = _record(source), source.byte() % 4
    epoch, offset, timestamp = source.pick((b"e1", b"e1", _word(source))), _number(source), _number(source)
    found: LoggedEvent | None
    if kind == 0:
        found = records.decode_event(b"e" + b" ".join((epoch, offset, timestamp, record)), "lobby")
    elif kind == 1:
        sent = records.decode_volatile(b"v" + b" ".join((b"node", timestamp, record)), "lobby")
        found = sent[1] if sent is not None else None
    elif kind == 2:
        found = records.decode_entry([b"r", record, b"t", timestamp], "lobby", Position("e1", 1000), offset + b"-0")
    else:
        room = source.pick((b"lobby", b"user:ann", b"all", b"\xff", b"a b", b"x" * 2000))
        place = b" ".join((epoch, offset, timestamp))
        found = intake._entry("1-0", [b"p", place, b"m", room, b"r", record, b"k", b"1"]).event
    if found is not None:
        _check_event(found)
    records.decode_event(source.rest(), "lobby")


def _number(source: Source) -> bytes:
    return source.pick((b"5", b"1700000000000", _word(source)))


def _check_event(event: LoggedEvent) -> None:
    check(is_name(event.event), f"an event named {event.event!r}")
    value = read_strictly(event.data)
    check(is_plain(value) and depth_of(value) <= 32, "data that cannot go everywhere")
    check(is_plain([event.id, event.user_id, event.epoch, event.room]) and 0 < len(event.id) <= 128, "an id that cannot go everywhere")
    check(event.offset <= 2**53 and rfc3339(event.timestamp).endswith("Z"), "a place or a time that cannot be told")
    for codec in _CODECS:
        check(codec.encode(room_frame(event, codec)), "no frame")
    check(Filters().admits(event.audience, _ANN) in (True, False), "nobody knows for whom it is")
    if event.audience is not None:
        Filters().decision(event.audience, {})
        _check_audience(event.audience)
    again = records.decode(records.encode(event), event.room, event.epoch, event.offset, event.timestamp)
    check(again == event, "it does not come back as it went")


def _check_audience(audience: Audience) -> None:
    kept = read_strictly(msgspec.json.encode(audience))
    check(is_plain(kept), "an audience that no database takes")


def directory(data: bytes) -> None:
    """Entries of the directory of rooms, and of places: a room, a user, a member, a pair; or nothing."""
    source = Source(data)
    words = [_word(source) for _ in range(6)]
    room = room_acts.read_record("lobby", words if source.byte() else words[:3])
    if room is not None:
        check(is_plain([room.name, room.type, room.birth, room.created_at, room.max_users]), f"a room that cannot be told: {room}")
        check(room.max_users is None or room.max_users > 0, "a room for nobody")
        msgspec.json.encode(room)
        msgspec.msgpack.encode(room)
    members, foreign = room_acts.read_members(words)
    check(len(members) + foreign <= 3 and msgspec.json.encode(members), "members that cannot be told")
    for who in (
        words[2],
        ('{"role":' + source.json(0) + ',"tenant_id":' + source.json(0) + ',"claims":' + source.json() + "}").encode(errors="replace"),
    ):
        user = room_acts.read_user(words[3], who)
        check(user is None or (user.id and msgspec.json.encode(user)), f"a user who cannot be told: {user}")
    pair = room_acts.split_pair(source.pick((b"lobby\0ann", b"\0".join(words[:2]))))
    check(pair is None or is_name(pair[0]), "a pair of no room")
    check(room_places._taken_at(words[4]) >= 0, "a time before all times")


def register(data: bytes) -> None:
    """The register of nodes: a record that a load balancer can use, or nothing."""
    source = Source(data)
    one = nodes.Register(cast(Any, None), Layout("t", 1), "nodes", 10.0, Metrics())
    members = {"id": '"n1"', "name": '"web-1"', "url": '"ws://10.0.0.1:3001"', "state": '"up"', "version": '"1"', "started_at": "5", "seen_at": "5"}
    names = (*members, "connections", "max_connections", "rooms", "load", "weight", "role", "x")
    members |= {
        source.pick(names): source.pick((source.json(1), source.pick(NUMBERS), '"ws://[:"', '"ws://a:b"', '"wss://a:99999/"'))
        for _ in range(source.byte() % 4)
    }
    told = (
        _word(source)
        if source.byte() > 230
        else ("{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}").encode(errors="replace")
    )
    record = one._read(source.pick((b"n1", _word(source))), source.pick((b"5", b"5", b"inf", b"nan", b"-inf", b"1e300")), told)
    if record is not None:
        shown = msgspec.json.decode(msgspec.json.encode(record))
        check(is_plain(shown) and None not in (shown["seen_at"], shown["started_at"], shown["load"]), f"a node that cannot be told: {record}")
        merge([record])


class _Store:
    """A client of Redis that says what it was given."""

    def __init__(self, reply: Any) -> None:
        self.reply = reply

    async def run(self, *_: Any) -> Any:
        return self.reply

    async def command(self, *_: Any, **__: Any) -> Any:
        return self.reply


def queued(data: bytes) -> None:
    """Entries of queues, also of dead letters: other programs write them too. A handler gets a message, or it is buried; a list is a list."""
    run(_queued(Source(data)))


async def _queued(source: Source) -> None:
    fields = {b"id": b"x", b"data": b'{"a":1}', b"attempts": b"3", b"reason": b"no", b"sent": b"1700000000000-0", b"key": b"k"}
    for _ in range(source.byte() % 4):
        name = source.pick((b"id", b"data", b"attempts", b"reason", b"sent", b"key"))
        if source.flag():
            fields.pop(name, None)
        else:
            fields[name] = _word(source)
    place = source.pick((b"1700000000000-0", b"18446744073709551615-1", b"0-1", b"253402300800000-0"))
    good = [b"1700000000000-5", [b"id", b"y", b"data", b"1", b"attempts", b"1", b"reason", b"", b"sent", b"1700000000000-5"]]
    store = queue.RedisQueue.__new__(queue.RedisQueue)
    store._client, store._prefix, store._keys, store._horizons = (
        cast(Any, _Store([[place, [part for pair in fields.items() for part in pair]], good])),
        "t",
        {},
        {},
    )
    letters = await store.dead_letters("orders", 10)
    check(letters and letters[-1].id == "y", "one bad letter hides the others")
    for letter in letters:
        _check_letter(letter)
    text = source.json().encode(errors="replace") if source.flag() else _word(source)
    taken = queue._as_taken("m", place, source.byte(), fields.get(b"id", b""), text, fields.get(b"key"))
    await _handle(taken)


def _check_letter(letter: StoredLetter) -> None:
    for at in (letter.enqueued_at, letter.buried_at):
        check(datetime.fromtimestamp(at, UTC), "a letter of no time")
    check(is_plain([letter.id, letter.place]), "a letter that cannot be told")


async def _handle(taken: Taken) -> None:
    got: list[Any] = []
    handling = Handling("orders", got.append, ProcessOptions(), max_message_bytes=65536, random=lambda: 0.5)
    verdict = await handling.handle(taken)
    check((verdict.kind == "done") == bool(got) and verdict.kind in ("done", "dead"), "neither handled nor buried")
    check(len(verdict.reason) <= 4096 and "\0" not in verdict.reason, "a reason that no database takes")


def bus(data: bytes) -> None:
    """Entries of the bus between nodes: a request of the protocol does what it says, another nothing; none ends the bus."""
    run(_bus(Source(data)))


class _Nodes:
    id = "n1"

    async def list(self) -> list[Any]:
        return []


async def _bus(source: Source) -> None:
    done: list[Any] = []
    one = RedisBus(cast(Any, _Store(None)), Layout("t", 1), nodes=cast(Any, _Nodes()), metrics=Metrics(), clock=ManualClock())
    for kind in (RemoveUser, BringUser, CloseRoom, ListUsers, Disconnect, SetRole):
        one.on(kind, cast(Callable[[Any], Any], done.append))
    serving = asyncio.create_task(one._serve())
    for number in range(1 + source.byte() % 4):
        asked_for = source.pick(("remove", "bring", "close-room", "list-users", "disconnect", "set-role", "x"))
        members = {"type": json.dumps(asked_for), "room_id": source.json(0), "user_id": source.json(0), "reason": '"kicked"', "birth": source.json(0)}
        members |= {"within": source.json(0), "socket_id": source.json(0), "code": source.pick(NUMBERS), "role": source.json(0)}
        asked = "{" + ",".join(f'"{name}":{value}' for name, value in members.items()) + "}"
        tag = source.pick(('"request"', '"request"', '"answer"', "5"))
        text = f'{{"type":{tag},"id":"i{number}","node":"n1","to":"n1","kind":"{asked_for}","request":{asked},"value":{source.json()}}}'
        entry = _word(source) if source.byte() > 240 else text.encode(errors="replace")
        one._take((f"{number}-0", {source.pick((b"m", b"m", b"m", b"x")): entry}))
        await settle(5)
    check(not serving.done(), "the bus serves no more")
    for request in done:
        check(is_name(getattr(request, "room_id", "lobby")) and is_close_code(getattr(request, "code", 1000)), f"asked for {request}")
    serving.cancel()
    await asyncio.gather(serving, return_exceptions=True)


def taken_back(data: bytes) -> None:
    """Revocations, and what is said on channels that are no room's."""
    run(_taken_back(Source(data)))


async def _taken_back(source: Source) -> None:
    flat = [
        part for _ in range(source.byte() % 4) for part in (_word(source), source.pick((b"1700000000", b"inf", b"-inf", b"5e-324", b"-1", b"1e308")))
    ]
    store = revocations.RedisRevocations(cast(Any, _Store(flat)), Layout("t", 1), memory=60.0, clock=ManualClock())
    for one in await store.load():
        check(is_plain(one.at) and bool(one.name) is (one.kind != "all"), f"took back {one}")
    redis_log = log.RedisLog.__new__(log.RedisLog)
    heard: list[Any] = []
    metrics = Metrics()
    redis_log.layout, redis_log._listener, redis_log._node = Layout("t", 1), cast(Any, _Listener(heard)), "n1"
    redis_log._shard_of_channel, redis_log.wanted = (
        {"t:{0}:probe:n1": ("probe", 0), "t:{0}:committed": ("committed", 0), "t:{0}:waker": ("waker", 0)},
        asyncio.Event(),
    )
    redis_log._foreign = Foreign(metrics, ManualClock())
    channel = source.pick(("t:{0}:room:lobby", "t:{0}:room:lobby", "t:{0}:probe:n1", "t:{0}:committed", "t:{0}:waker"))
    message = source.pick((b"e", b"v", b"p", b"", b"x")) + source.pick((_word(source), b"e1 5 5 " + _record(source), b"n2 5 " + _record(source)))
    redis_log._heard(channel, message)
    check(":room:" not in channel or len(heard) + metrics.foreign_records == 1 or message.startswith(b"v"), "neither heard nor counted")


class _Listener:
    def __init__(self, heard: list[Any]) -> None:
        self._heard = heard

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._heard.append((name, arguments))
