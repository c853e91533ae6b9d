"""Records of events: what a node wrote comes back, and what none can have written is nothing."""

from __future__ import annotations

import pytest

from aibos_realtime.backends.base import Audience, LoggedEvent
from aibos_realtime.backends.redis import records
from aibos_realtime.backends.redis.records import LATEST
from aibos_realtime.protocol.limits import DEPTH, INTEGER

EVENT = LoggedEvent("lobby", "note", b'{"a":1}', "x", "e1", 5, 1_700_000_000_000, "ann", Audience(where={"role__in": ["admin"]}))


def message(*, record: bytes | None = None, epoch: bytes = b"e1", offset: bytes = b"5", timestamp: bytes = b"1700000000000") -> bytes:
    return b"e" + b" ".join((epoch, offset, timestamp, records.encode(EVENT) if record is None else record))


def test_what_a_node_wrote_comes_back() -> None:
    assert records.decode_event(message(), "lobby") == EVENT
    assert records.decode_event(message(offset=b"%d" % INTEGER, timestamp=b"%d" % LATEST), "lobby") is not None


RECORDS = {
    "a number that JSON has no place for": b'{"e":"note","i":"x","d":1e400}',
    "an integer beyond MessagePack": b'{"e":"note","i":"x","d":18446744073709551616}',
    "an integer beyond JavaScript": b'{"e":"note","i":"x","d":{"a":9007199254740993}}',
    "a NUL that no database takes": b'{"e":"note","i":"x","d":"\\u0000"}',
    "too deep": b'{"e":"note","i":"x","d":' + b"[" * (DEPTH + 1) + b"]" * (DEPTH + 1) + b"}",
    "a NUL in the audience": b'{"e":"note","i":"x","d":1,"a":{"users":["\\u0000"]}}',
    "a name that no event has": b'{"e":"a b","i":"x","d":1}',
    "no name": b'{"e":"","i":"x","d":1}',
    "no id": b'{"e":"note","i":"","d":1}',
    "a long id": b'{"e":"note","i":"' + b"x" * 129 + b'","d":1}',
    "an id of control characters": b'{"e":"note","i":"\\u0007","d":1}',
    "nobody by name": b'{"e":"note","i":"x","d":1,"u":""}',
    "a user with a NUL": b'{"e":"note","i":"x","d":1,"u":"a\\u0000"}',
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_record_that_no_node_wrote_is_none(record: bytes) -> None:
    """`1e400` in a record on a room's channel was taken. Writing it for a member who speaks MessagePack raised in the middle of the fan-out, and
    with it were gone, without a word, the events that all other rooms had at that moment.
    """
    assert records.decode_event(message(record=record), "lobby") is None
    assert records.decode_volatile(b"vn1 1700000000000 " + record, "lobby") is None


@pytest.mark.parametrize(
    "place", [{"timestamp": b"9" * 16}, {"timestamp": b"253402300800000"}, {"offset": b"9007199254740993"}, {"epoch": b"e\0"}, {"epoch": b"\x1b[2J"}]
)
def test_a_place_or_a_time_that_cannot_be_told_is_none(place: dict[str, bytes]) -> None:
    """An event of the year 318857 has no RFC 3339: its room's members got nothing more of that turn, and neither did the rooms after it."""
    assert records.decode_event(message(**place), "lobby") is None
