"""The paths that are guarded: what is done over and over while their instructions are counted. How they are counted is `drive`'s and `callgrind`'s.

A workload is prepared once, and then does its step again and again; a counter shows that each step did what its name says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, NamedTuple

import msgspec

from aibos_realtime import User, where
from aibos_realtime.backends.base import LoggedEvent
from aibos_realtime.backends.redis import records
from aibos_realtime.client.wire import JsonWire
from aibos_realtime.protocol.client_session import ClientSession
from aibos_realtime.protocol.codec import JsonCodec, MsgpackCodec
from aibos_realtime.protocol.frames import BINARY, TEXT, FrameReader, encode_frame
from aibos_realtime.protocol.messages import ServerMessage

from .reference import Reference
from .rig import MASK, Client, Net, Write, nowhere

DATA = {"id": "inv-20418", "status": "approved", "amount": 1249.5, "currency": "EUR", "by": "ann", "lines": [1, 2, 3], "note": "Für März"}
MEMBERS = 1000


class Work(NamedTuple):
    """`step` is called, and awaited where `is_async`; each of them moves `counter` on by `each`."""

    step: Callable[[], Any]
    counter: Callable[[], int]
    each: int
    is_async: bool = True


class Workload(NamedTuple):
    name: str
    steps: int
    warm_up: int
    prepare: Callable[[Net], Coroutine[Any, Any, Work]]


WORKLOADS: dict[str, Workload] = {}
"""By name, in the order in which they run."""

REFERENCE = "reference"
Prepare = Callable[[Net], Coroutine[Any, Any, Work]]


def workload(name: str, *, steps: int, warm_up: int = 40) -> Callable[[Prepare], Prepare]:
    """Register a workload. `steps` are counted; `warm_up` go before, for the interpreter to specialise what is called often."""

    def register(prepare: Prepare) -> Prepare:
        WORKLOADS[name] = Workload(name, steps, warm_up, prepare)
        return prepare

    return register


def turn() -> Awaitable[None]:
    """One turn of the event loop."""
    return asyncio.sleep(0)


@workload(REFERENCE, steps=300)
async def reference(net: Net) -> Work:
    reference = Reference()
    return Work(reference.run, lambda: reference.rounds, 1, is_async=False)


# — fan-out —


async def crowd(net: Net) -> None:
    """The members of the room that all fan-outs go to; there once, whichever comes first."""
    if net.server.rooms.get("live:crowd") is None:
        await net.fill("live:crowd", [f"member-{number}" for number in range(MEMBERS - 100)])
        await net.fill("live:crowd", [f"accountant-{number}" for number in range(100)], "accountant")


def broadcast(net: Net, room: str = "live:crowd", events: int = 1, each: int = MEMBERS, **options: Any) -> Work:
    """Broadcasts of one loop turn. `each`: deliveries of them all."""
    send = net.server.broadcaster.broadcast_to_room

    async def step() -> None:
        for _ in range(events):
            await send(room, "invoice.approved", DATA, **options)
        await turn()

    return Work(step, lambda: net.server.metrics.deliveries, each)


@workload("fan-out of one event to 1,000 members", steps=40)
async def fan_out(net: Net) -> Work:
    await crowd(net)
    return broadcast(net)


@workload("fan-out of 16 events in one turn to 1,000 members", steps=10)
async def burst(net: Net) -> Work:
    await crowd(net)
    return broadcast(net, events=16, each=16 * MEMBERS)


@workload("fan-out to 999 of 1,000 members, one excluded", steps=10, warm_up=10)
async def fan_out_excluded(net: Net) -> Work:
    await crowd(net)
    return broadcast(net, each=MEMBERS - 1, exclude=["member-7"])


@workload("fan-out to 100 of 1,000 members, by role", steps=10, warm_up=10)
async def fan_out_where(net: Net) -> Work:
    await crowd(net)
    return broadcast(net, each=100, filter=where(role="accountant"))


@workload("fan-out to 100 of 1,000 members, by a filter of the application", steps=10, warm_up=10)
async def fan_out_filtered(net: Net) -> Work:
    await crowd(net)

    def accountants(user: User) -> bool:
        return user.role == "accountant"

    net.server.broadcaster.filter("accountants")(accountants)
    return broadcast(net, each=100, filter="accountants")


@workload("fan-out to 10 members in each of two encodings", steps=100)
async def fan_out_twice(net: Net) -> Work:
    await net.fill("live:both", [f"json-{number}" for number in range(10)])
    await net.fill("live:both", [f"msgpack-{number}" for number in range(10)], codec="msgpack")
    return broadcast(net, "live:both", each=20)


# — requests and publishes —


def asking(net: Net, client: Client, frame: bytes, *, answers: int = 1) -> Work:
    """A client sends this frame. `answers`: messages that it brings, to whomever."""

    async def step() -> None:
        client.send(frame)
        await turn()

    return Work(step, lambda: net.server.metrics.messages_out, answers)


@workload("request, answered by an async handler", steps=300)
async def request_async(net: Net) -> Work:
    @net.server.event("invoice.read")
    async def read(socket: Any, data: Any) -> Any:
        return {"id": data["id"], "status": "open"}

    client = net.connect("asker")
    return asking(net, client, client.frame("invoice.read", DATA, ref=17))


@workload("request, answered by a plain handler", steps=300)
async def request_plain(net: Net) -> Work:
    @net.server.event("invoice.look")
    def look(socket: Any, data: Any) -> Any:
        return {"id": data["id"], "status": "open"}

    client = net.connect("plain asker")
    frame = client.frame("invoice.look", DATA, ref=17)
    return Work(lambda: client.send(frame), lambda: net.server.metrics.messages_out, 1, is_async=False)


@workload("ping", steps=300)
async def ping(net: Net) -> Work:
    client = net.connect("pinger")
    frame = client.frame("ping", ref=17)
    return Work(lambda: client.send(frame), lambda: net.server.metrics.messages_out, 1, is_async=False)


@workload("publish to an ephemeral room, acknowledged, one member", steps=200)
async def publish_ephemeral(net: Net) -> Work:
    client = net.connect("publisher")
    client.join("live:desk")
    return asking(net, client, client.frame("invoice.created", DATA, room="live:desk", ref=17), answers=2)


@workload("publish to a logged room, acknowledged, one member", steps=200)
async def publish_logged(net: Net) -> Work:
    client = net.connect("logged publisher")
    client.join("desk")
    return asking(net, client, client.frame("invoice.created", DATA, room="desk", ref=17), answers=2)


@workload("publish in MessagePack to a room of JSON, acknowledged", steps=200)
async def publish_msgpack(net: Net) -> Work:
    await net.fill("live:text", ["reader"])
    client = net.connect("packer", codec="msgpack")
    return asking(net, client, client.frame("invoice.created", DATA, room="live:text", ref=17), answers=2)


# — coming and going —


def coming_and_going(net: Net, user: str, room: str, heard: list[bytes], each: int, write: Write = nowhere) -> Work:
    """A client joins a room and leaves it. `heard`: what those who are looked at are sent, of which each step brings so much."""
    client = net.connect(user, write=write)
    join, leave = client.frame("join-room", {"roomId": room}, ref=1), client.frame("leave-room", {"roomId": room}, ref=2)

    async def step() -> None:
        client.send(join)
        await turn()
        client.send(leave)
        await turn()

    return Work(step, lambda: len(heard), each)


@workload("opening: token, handshake, connected, and gone", steps=30, warm_up=20)
async def opening(net: Net) -> Work:
    request = net.handshake("visitor")

    async def step() -> None:
        client = net.open(request)
        await turn()
        client.stream.end()

    return Work(step, lambda: net.server.metrics.authentications, 1)


@workload("join of a room with 20 members, and leave", steps=60)
async def join(net: Net) -> Work:
    await net.fill("live:office", [f"colleague-{number}" for number in range(20)])
    heard: list[bytes] = []
    return coming_and_going(net, "joiner", "live:office", heard, 2, heard.append)


@workload("join and leave, told to 100 watchers", steps=20, warm_up=20)
async def presence(net: Net) -> Work:
    heard: list[bytes] = []
    await net.fill("live:watched", [f"watcher-{number}" for number in range(100)], write=heard.append, presence=True)
    return coming_and_going(net, "watched", "live:watched", heard, 200)


@workload("recovery of 100 events", steps=10, warm_up=12)
async def recovery(net: Net) -> Work:
    await net.fill("ledger", ["bookkeeper"])
    for _ in range(100):
        await net.server.broadcaster.broadcast_to_room("ledger", "invoice.approved", DATA)
    top = await net.server.broker.position("ledger")
    heard: list[bytes] = []
    client = net.connect("returner", write=heard.append)
    place = {"roomId": "ledger", "recover": {"epoch": top.epoch, "offset": top.offset - 100}}
    join, leave = client.frame("join-room", place, ref=1), client.frame("leave-room", {"roomId": "ledger"}, ref=2)

    async def step() -> None:
        client.send(join)
        await turn()
        client.send(leave)

    return Work(step, lambda: sum(data.count(b'"event":"invoice.approved"') for data in heard), 100)


# — the protocol alone —


def repeated(act: Callable[[], Any], expected: Any) -> Work:
    """A step without a server, which gives the same each time."""
    assert act() == expected
    done = 0

    def step() -> None:
        nonlocal done
        act()
        done += 1

    return Work(step, lambda: done, 1, is_async=False)


@workload("reading a frame of 150 bytes", steps=500)
async def read_frame(net: Net) -> Work:
    payload = b"x" * 150
    reader, frame = FrameReader(), memoryview(encode_frame(TEXT, payload, mask=MASK))
    return repeated(lambda: reader.feed(frame), [(TEXT, payload)])


@workload("reading a frame of 64 KB", steps=20, warm_up=20)
async def read_large_frame(net: Net) -> Work:
    payload = b"x" * 65_000
    reader, frame = FrameReader(), memoryview(encode_frame(BINARY, payload, mask=MASK))
    return repeated(lambda: reader.feed(frame), [(BINARY, payload)])


@workload("building a frame of 150 bytes", steps=1000)
async def build_frame(net: Net) -> Work:
    payload = b"x" * 150
    return repeated(lambda: encode_frame(TEXT, payload), b"\x81\x7e\x00\x96" + payload)


@workload("decoding a message in JSON, data included", steps=300)
async def decode_json(net: Net) -> Work:
    codec, payload = JsonCodec(), msgspec.json.encode({"event": "invoice.created", "room": "desk", "ref": 17, "data": DATA})
    return repeated(lambda: codec.value(codec.decode(payload).data), DATA)


@workload("decoding a message in MessagePack, data included", steps=100)
async def decode_msgpack(net: Net) -> Work:
    codec, payload = MsgpackCodec(), msgspec.msgpack.encode({"event": "invoice.created", "room": "desk", "ref": 17, "data": DATA})
    return repeated(lambda: codec.value(codec.decode(payload).data), DATA)


EVENT = LoggedEvent("desk", "invoice.approved", msgspec.json.encode(DATA), "k7Qz0pLr5Tn-1f", "epoch-1", 4711, 1_700_000_000_000, "ann")


@workload("encoding an event for Redis", steps=300)
async def encode_record(net: Net) -> Work:
    expected = msgspec.json.encode({"e": EVENT.event, "d": DATA, "i": EVENT.id, "u": EVENT.user_id})
    return repeated(lambda: records.encode(EVENT), expected)


@workload("decoding an event from Redis", steps=200)
async def decode_record(net: Net) -> Work:
    message = b"eepoch-1 4711 1700000000000 " + records.encode(EVENT)
    return repeated(lambda: records.decode_event(message, "desk"), EVENT)


# — the client —


@workload("an event at the Python client", steps=200)
async def client_event(net: Net) -> Work:
    session, wire = ClientSession(), JsonWire()
    session.connect({"socketId": "s", "protocol": 1, "user": {"id": "u"}, "limits": {}}, 0.0)
    ref = session.join("desk", 0.0)
    while session.take(0.0):
        pass
    session.receive(ServerMessage("joined-room", {"roomId": "desk", "epoch": "e", "offset": 0, "recovered": None}, ref=ref), 0, 0.0)
    session.notices()
    offset = told = 0

    def step() -> None:
        nonlocal offset, told
        offset += 1
        text = f'{{"event":"invoice.approved","room":"desk","offset":{offset},"id":"k7Qz-{offset}","data":{TEXT_DATA}}}'
        session.receive(wire.decode(text), len(text), 0.0)
        told += len(session.notices())
        session.handled(len(text), 0.0)

    return Work(step, lambda: told, 1, is_async=False)


TEXT_DATA = msgspec.json.encode(DATA).decode()
