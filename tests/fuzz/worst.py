"""The worst inputs, and what each costs.

python -m tests.fuzz.worst            all of them, the most expensive first
python -m tests.fuzz.worst --json

They are measured in a process of their own. In one that has run thousands of tests, free memory lies in crumbs all over the heap: there 30,000 lists
cost five times what 15,000 cost, and in a process that has just been started twice as much.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial

import msgspec

from aibos_realtime.backends.redis import records
from aibos_realtime.client.wire import JsonWire
from aibos_realtime.errors import ProtocolError, RealtimeError
from aibos_realtime.protocol import deflate
from aibos_realtime.protocol.codec import Codec, JsonCodec, MsgpackCodec, decode_json
from aibos_realtime.protocol.frames import FrameReader, encode_frame
from aibos_realtime.server.loop import rare_garbage_collection
from tests.network.raw import smallest

SIZE = 65_536
MOST = 0.005
"""Seconds of processor time, on a machine that does nothing else."""
BUSY = 3
"""Times as long where others use the same caches and memory."""
ORDINARY = 0.0012
"""Seconds that reading `LISTS` takes on the machine that the limits were set on."""
LISTS = json.dumps([[[]] * 8] * 3000)
TRIES = 6
"""At most: of the quickest. Others use the machine too, and its caches."""

_JSON, _MSGPACK = JsonCodec(), MsgpackCodec()


def fill(begin: str, part: str, end: str, size: int) -> bytes:
    """As many parts as there is room for."""
    return (begin + part * ((size - len(begin) - len(end)) // len(part)) + end).encode()


def nest(begin: str, end: str, levels: int) -> str:
    return begin * levels + end * levels


MESSAGES: dict[str, Callable[[int], bytes]] = {
    "open brackets": lambda size: fill('{"event":"a","data":', "[", "", size),
    "brackets, closed": lambda size: f'{{"event":"a","data":{nest("[", "]", size // 2 - 20)}}}'.encode(),
    "brackets that are deep enough": lambda size: fill('{"event":"a","data":[0', "," + nest("[", "]", 30), "]}", size),
    "empty lists": lambda size: fill('{"event":"a","data":[0', ",[]", "]}", size),
    "digits": lambda size: fill('{"event":"a","data":', "9", "}", size),
    "digits after the point": lambda size: fill('{"event":"a","data":0.', "9", "}", size),
    "digits of an exponent": lambda size: fill('{"event":"a","data":1e', "9", "}", size),
    "zeros before the point": lambda size: fill('{"event":"a","data":1', "0", ".5}", size),
    "long integers": lambda size: fill('{"event":"a","data":[0', "," + "9" * 4000, "]}", size),
    "integers of 16 digits": lambda size: fill('{"event":"a","data":[0', ",1234567890123456", "]}", size),
    "the largest floats": lambda size: fill('{"event":"a","data":[0', ",1e308", "]}", size),
    "the smallest floats": lambda size: fill('{"event":"a","data":[0', ",5e-324", "]}", size),
    "a float between two": lambda size: fill('{"event":"a","data":[0', ",1e23", "]}", size),
    "the largest floats, in no event": lambda size: fill('{"event":5,"ref":1,"data":[0', ",1e308", "]}", size),
    "the largest floats, as a ref": lambda size: fill('{"event":5,"ref":[0', ",1e308", "]}", size),
    "floats of many digits": lambda size: fill('{"event":"a","data":[0', ",2.2250738585072011e-308", "]}", size),
    "names of members": lambda size: ('{"event":"a","data":{' + ",".join(f'"{number:04x}":0' for number in range(size // 9 - 4)) + "}}").encode(),
    "one name again and again": lambda size: fill('{"event":"a","data":{"a":0', ',"a":0', "}}", size),
    "members of the envelope": lambda size: fill('{"event":"a"', ',"event":"a"', "}", size),
    "unknown members": lambda size: fill('{"event":"a"', ',"x":{"y":[1,2]}', "}", size),
    "escapes": lambda size: fill('{"event":"a","data":"', "\\u0041", '"}', size),
    "pairs of surrogates": lambda size: fill('{"event":"a","data":"', "\\ud83d\\ude00", '"}', size),
    "backslashes": lambda size: fill('{"event":"a","data":"', "\\\\", '"}', size),
    "a NUL at the end": lambda size: fill('{"event":"a","data":["', "a" * 16, '\\u0000"]}', size),
    "a long event": lambda size: fill('{"event":"', "a", '"}', size),
    "a long room": lambda size: fill('{"event":"a","room":"', "a", '"}', size),
    "a long id": lambda size: fill('{"event":"a","id":"', "a", '"}', size),
    "a long ref": lambda size: fill('{"event":"a","ref":"', "a", '"}', size),
    "spaces": lambda size: fill('{"event":"a"', " ", "}", size),
    "letters beyond ASCII": lambda size: fill('{"event":"a","data":"', "😀", '"}', size),
}

FRAMES: dict[str, Callable[[int], bytes]] = {
    "empty fragments": lambda size: b"\x01\x80abcd" + b"\x00\x80abcd" * (size // 6),
    "empty messages": lambda size: b"\x81\x80abcd" * (size // 6),
    "pings": lambda size: b"\x89\x80abcd" * (size // 6),
    "one large message": lambda size: encode_frame(1, b"a" * size, mask=b"abcd"),
    "letters over fragments": lambda size: (
        b"\x01\x81\0\0\0\0\xf0" + b"".join(b"\x00\x81\0\0\0\0" + b"\x9f\x98\x80\xf0"[n % 4 : n % 4 + 1] for n in range(size // 7))
    ),
}

COMPRESSED = {
    "bomb": smallest(b"\0" * 60_000_000),
    "brackets": smallest(b"[" * 65_536),
    "blocks": b"\x02\x00" * 30_000,
    "empty": b"\x01\x00\x00\xff\xff" * 10_000,
}

OFFERS = (",", ";", "permessage-deflate;", "a,", '"', 'permessage-deflate; x="\\', " ", "permessage-deflate,")


# — what is done with them —


def handle(codec: Codec, payload: bytes) -> None:
    """What the server does with a message for a handler; of one that is none it looks for the ref."""
    try:
        message = codec.decode(payload)
    except ProtocolError:
        codec.ref_of(payload)
        raise
    codec.value(message.data)


def publish(codec: Codec, payload: bytes) -> None:
    """With one for a room."""
    codec.to_json(codec.decode(payload).data)


def hear(payload: bytes) -> None:
    """What a client does."""
    JsonWire().decode(payload.decode())


def remember(record: bytes) -> None:
    """What a node does with an event that it finds in Redis."""
    records.decode(record, "a", "e", 1, 1)


def unframe(sent: bytes, step: int) -> None:
    reader = FrameReader(max_message=2 * SIZE, max_fragments=None)
    for at in range(0, len(sent), step or len(sent)):
        reader.feed(sent[at : at + (step or len(sent))])


def inflate(payload: bytes) -> None:
    deflate.Inflater().inflate(payload, SIZE)


def negotiate(header: bytes) -> None:
    deflate.negotiate((header.decode() * 8192)[:8192], max_message=SIZE)


def of_any_size(payload: bytes, size: int) -> bytes:
    """An input of which there is but one."""
    return payload


def of_a_record(name: str, size: int) -> bytes:
    return MESSAGES[name](size).replace(b'"event":"a","data"', b'"e":"a","i":"x","d"')


def in_messagepack(name: str, size: int) -> bytes:
    """The same values, as far as they are any, in as many bytes as they take there."""
    return msgspec.msgpack.encode(json.loads(MESSAGES[name](size)))


@dataclass(frozen=True)
class Case:
    """`act` on an input of a size. `most`: seconds for one of `SIZE`; `grows`: whether there is one of half the size to compare it with."""

    act: Callable[[bytes], object]
    make: Callable[[int], bytes]
    most: float = MOST
    grows: bool = True


def cases() -> dict[str, Case]:
    found = {f"json, {way.__name__}: {name}": Case(partial(way, _JSON), make) for name, make in MESSAGES.items() for way in (handle, publish)}
    for name in ("brackets that are deep enough", "empty lists", "names of members", "floats of many digits", "integers of 16 digits"):
        found[f"messagepack: {name}"] = Case(partial(handle, _MSGPACK), partial(in_messagepack, name))
    for name in ("open brackets", "brackets that are deep enough", "digits", "names of members", "escapes", "the largest floats"):
        found[f"of a server: {name}"] = Case(hear, MESSAGES[name])
    for name in ("open brackets", "brackets that are deep enough", "long integers", "names of members", "escapes", "the largest floats"):
        found[f"record in Redis: {name}"] = Case(remember, partial(of_a_record, name))
    for name, make in FRAMES.items():
        found[f"frames: {name}"] = Case(partial(unframe, step=0), make, 8 * MOST)
        found[f"frames in pieces of 1,000 bytes: {name}"] = Case(partial(unframe, step=1000), make, 8 * MOST)
    for name, payload in COMPRESSED.items():
        found[f"compressed: {name}"] = Case(inflate, partial(of_any_size, payload), grows=False)
    for header in OFFERS:
        found[f"offer of extensions: {header}"] = Case(negotiate, partial(of_any_size, header.encode()), grows=False)
    # 64 KiB of `1e308` took 95 ms to read: 50 times a second of one user, who need not have said who he is, and once more for each room.
    for to, read in (("messagepack", _MSGPACK.from_json), ("values", decode_json)):
        found[f"the largest floats, to {to}"] = Case(read, lambda size: b"[" + b"1e308," * (size // 6 - 1) + b"1]")
    return found


# — what it costs —


@dataclass(frozen=True)
class Cost:
    """Seconds of a processor: for the whole, and for an input of half the size. `slowness`: see there; of the same moment."""

    whole: float
    half: float | None
    slowness: float


def cost(act: Callable[[], object], enough: float = MOST) -> float:
    """Seconds of this thread, of the quickest of some tries; no more of them are made once that is `enough`."""
    found: list[float] = []
    while len(found) < TRIES and (len(found) < 3 or min(found) > enough):
        began = time.thread_time()
        try:
            act()
        except RealtimeError:
            pass
        found.append(time.thread_time() - began)
    return min(found)


def slowness() -> float:
    """How many times slower this machine is than the one that the limits were set on; at least 1."""
    return max(1.0, cost(lambda: json.loads(LISTS), ORDINARY) / ORDINARY)


def measure(case: Case) -> Cost:
    """Cycles are collected as a server has them collected."""
    whole, half = case.make(SIZE), case.make(SIZE // 2)
    with rare_garbage_collection():
        return Cost(cost(lambda: case.act(whole)), cost(lambda: case.act(half)) if case.grows else None, slowness())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.worst", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="seconds, by name")
    given = parser.parse_args()
    costs = {name: measure(case) for name, case in cases().items()}
    if given.json:
        print(json.dumps({name: asdict(found) for name, found in costs.items()}))
        return
    for name, found in sorted(costs.items(), key=lambda item: -item[1].whole):
        print(f"{found.whole * 1000:8.3f} ms  {name}" + ("" if found.half is None else f" (half of it: {found.half * 1000:.3f})"))


if __name__ == "__main__":
    main()
