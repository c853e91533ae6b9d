"""The target of a connection: what clients send to a whole server in memory, valid and not, in any order, and what must hold of it afterwards."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from aibos_realtime import ConnectionClosed, RealtimeServer, Socket
from aibos_realtime.protocol.close_codes import CloseCode
from aibos_realtime.protocol.frames import BINARY, PING, PONG, TEXT
from aibos_realtime.protocol.messages import RESERVED
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.testing.server import MemoryClient, MemoryServer, memory_server

from .oracle import check, run
from .source import Source

OPTIONS: dict[str, Any] = {
    "authentication": {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3},
    "authorization": {"permissions": {"lobby": ["read", "write"], "hall-*": ["read", "write"], "news": ["read"], "box": ["write"]}},
    "persistence": {"database": {"url": "memory://"}},
    "rooms": {"max_users_per_room": 2, "patterns": {"hall-short": {"history_size": 2}, "hall-light": {"ephemeral": True}}},
}
EVENTS = ("note", "echo", "invoice", *sorted(RESERVED))
ROOMS = ("lobby", "hall-1", "hall-short", "hall-light", "news", "box", "all", "user:ann", "user:bob", "nowhere", "")
CODES = frozenset(CloseCode)
STEPS = 40


@dataclass
class Invoice:
    amount: int


def make_server(clock: ManualClock) -> RealtimeServer:
    """With a handler that repeats, and one with a payload of its own."""
    server = RealtimeServer(**OPTIONS, clock=clock)

    @server.event("echo")
    def echo(socket: Socket, data: Any) -> Any:
        return data

    @server.event("invoice", payload=Invoice)
    async def invoice(socket: Socket, data: Invoice) -> int:
        return data.amount

    return server


class Talk:
    """One client, and what it is owed."""

    def __init__(self, client: MemoryClient, is_binary: bool) -> None:
        self.client = client
        self.is_binary = is_binary
        self.asked: list[int] = []

    @property
    def is_open(self) -> bool:
        return self.client.end.close_code is None

    def send(self, text: bytes | dict[str, Any]) -> None:
        """A message as it stands, or one to be written down."""
        if isinstance(text, dict):
            text = msgspec.msgpack.encode(text) if self.is_binary else json.dumps(text, ensure_ascii=False).encode(errors="replace")
        self.client.end._near.receive(BINARY if self.is_binary else TEXT, text)


def connection(data: bytes) -> None:
    """Any messages: each that can be answered is, once, or its connection ends with a code of the protocol; nothing is left when all are gone."""
    run(_connection(Source(data)))


async def _connection(source: Source) -> None:
    clock = ManualClock()
    async with memory_server(make_server(clock)) as net:
        talks = [await _connect(net, who) for who in range(3)]
        for number in range(STEPS):
            if source.is_empty:
                break
            place = source.byte() % 3
            if not talks[place].is_open:
                talks[place] = await _connect(net, place)
            await _step(source, talks[place], number, clock)
        for talk in talks:
            await _check_answers(talk, clock)
        _check_rooms(net)
        for talk in talks:
            with suppress(ConnectionClosed):
                talk.client.close()
            await talk.client.take_all()
        _check_rooms(net)
        check(len(net.server.pool) == 0 and not any(room.users for room in net.server.rooms.by_id.values()), "somebody is left")
        check(net.server.metrics.handler_failures == 0, "a failure of ours")
        ann = await net.connect("ann")
        check(await ann.request("echo", 5) == 5, "the server is no more")


async def _connect(net: MemoryServer, who: int) -> Talk:
    """Ann speaks JSON, Bob MessagePack, and the third is nobody yet. First who is gone is gone."""
    await settle(3)
    return Talk(await net.connect(("ann", "bob", None)[who], codec="msgpack" if who == 1 else "json"), who == 1)


async def _step(source: Source, talk: Talk, number: int, clock: ManualClock) -> None:
    kind = source.byte() % 16
    if kind < 9:
        _ask(source, talk, number + 1)
    elif kind < 11:
        raw = source.take(source.byte() % 64) if talk.is_binary else source.json().encode(errors="replace")
        talk.send(raw)
    elif kind == 11:
        talk.send(f'{{"event":{source.json(1)},"data":{source.json()},"room":{source.json(0)},"id":{source.json(0)}}}'.encode(errors="replace"))
    elif kind == 12:
        talk.client.end._near.receive(source.pick((PING, PONG, BINARY, TEXT)), source.take(5))
    elif kind == 13:
        await clock.advance(source.pick((0.1, 1.0, 5.0, 31.0)))
    elif kind == 14:
        talk.client.cut()
    else:
        await talk.client.take_all() if not talk.asked else None


def _ask(source: Source, talk: Talk, ref: int) -> None:
    """A message of a good envelope, which has to be answered."""
    event = source.pick(EVENTS)
    message: dict[str, Any] = {"event": event, "ref": ref}
    if source.flag():
        message["room"] = source.pick(ROOMS)
    if source.flag():
        message["id"] = source.pick(("x", "y", "z" * 128))
    shape = source.byte() % 4
    if shape == 0:
        message["data"] = source.pick(ROOMS)
    elif shape == 1:
        message["data"] = {"roomId": source.pick(ROOMS), "amount": 5} | {source.pick(_FIELDS): _field(source) for _ in range(source.byte() % 3)}
    elif shape == 2 and talk.is_binary:
        message["data"] = source.value()
    if event != "ack":
        talk.asked.append(ref)
    talk.send(message)


_FIELDS = ("recover", "rewind", "presence", "limit", "before", "after", "token")


def _field(source: Source) -> Any:
    offset = source.pick((0, 1, 3, -1, 2**53, 2**53 + 1, -(2**53), 2**62, 0.5, "1"))
    return source.pick(({"epoch": source.pick(("", "e1", "x" * 500)), "offset": offset}, offset, True, False, None, "text", []))


async def _check_answers(talk: Talk, clock: ManualClock) -> None:
    """Of tokens that are refused again and again, each answer is held back for a second."""
    answers: list[dict[str, Any]] = []
    for _ in range(STEPS):
        answers += [message for message in await talk.client.take_all() if message.get("ref") in talk.asked]
        if not talk.is_open or len(answers) >= len(talk.asked):
            break
        await clock.advance(1.0)
    if not talk.is_open:
        check(talk.client.end.close_code in CODES, f"closed with {talk.client.end.close_code}")
    counted = Counter(message["ref"] for message in answers)
    check(not counted or max(counted.values()) == 1, f"answered more than once: {counted}")
    check(not talk.is_open or counted.keys() >= set(talk.asked), f"never answered: {sorted(set(talk.asked) - counted.keys())}")


def _check_rooms(net: MemoryServer) -> None:
    """Who is in a room knows it, and is counted; nobody else."""
    sockets = list(net.server.pool)
    for room in net.server.rooms.by_id.values():
        members = [socket for socket in sockets if room.id in (socket.memberships or {})]
        check(set(room.sockets) == set(members), f"{room.id} holds {room.sockets}, members are {members}")
        users = Counter(socket.user.id for socket in members if socket.user is not None)
        check({user: presence.sockets for user, presence in room.users.items()} == dict(users), f"{room.id} counts {room.users}, which are {users}")
        check(set(room.watchers) <= set(members), f"{room.id} is watched from outside")
    for socket in sockets:
        check(set(socket.memberships or ()) <= set(net.server.rooms.by_id), "a member of no room")
