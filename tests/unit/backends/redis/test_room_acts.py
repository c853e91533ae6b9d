"""What the directory's scripts take and reply, as values: to Redis and back, and what is none of ours is nothing."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime.backends.directory import PresentUser, RoomDraft, RoomRecord
from aibos_realtime.backends.redis import room_acts
from aibos_realtime.backends.redis.room_acts import draft_words, read_members, read_record, read_user, split_pair, user_words
from aibos_realtime.types import Member


def test_rooms() -> None:
    assert draft_words(RoomDraft("a", "A", "room", None, True), "b1", "r1") == ["b1", "A", "room", 0, 1, 0, "r1"]
    record = RoomRecord("a", "Ä", "room", 5, False, 1700000000.123, "b1", 2, 3)
    words = draft_words(record, "b1")
    assert words == ["b1", "Ä", "room", 5, 0, 1700000000123, ""]
    assert read_record("a", [str(word).encode() for word in words[:6]], 2, 3) == record


@pytest.mark.parametrize("found", [[], [b"b1"], [b"b1", b"A", b"room", b"many", b"0", b"0"], [None] * 6])
def test_what_is_no_room(found: list[Any]) -> None:
    assert read_record("a", found) is None


@pytest.mark.parametrize(
    ("most", "created"), [(b"-5", b"0"), (b"9" * 16, b"0"), (b"1_0", b"0"), (b"0", b"9" * 15), (b"0", b"1" + b"0" * 311), (b"0", b"-1")]
)
def test_a_room_of_numbers_beyond_all_sense_is_none(most: bytes, created: bytes) -> None:
    """A room that "was made" in a time of 312 digits raised OverflowError in whoever read it, and no user could join any more."""
    assert read_record("a", [b"b1", b"A", b"room", most, b"0", created]) is None


def test_a_room_whose_name_is_no_text_has_another() -> None:
    """Its name was not UTF-8, so that the script knew the room and the node did not: all who joined got an internal error while it was there."""
    room = read_record("a", [b"b1", b"\xff\0x", b"\xed\xa0\x80", b"0", b"0", b"5"])
    assert room is not None and (room.name, room.type) == ("\ufffd\ufffdx", "\ufffd" * 3)


def test_users(monkeypatch: pytest.MonkeyPatch) -> None:
    user = PresentUser("ann", "admin", "t1", {"plan": "gold", "big": 2**53 + 1})
    role, who = user_words(user)
    assert role == "admin" and read_user(b"ann", who) == user
    assert user_words(PresentUser("ann"))[0] == "" and read_user(b"ann", user_words(PresentUser("ann"))[1]) == PresentUser("ann")
    assert read_user("böb".encode(), b"") == PresentUser("böb")
    monkeypatch.setattr(room_acts, "WHO_BYTES", 60)
    assert read_user(b"ann", user_words(user)[1]) == PresentUser("ann", "admin", "t1"), "too many claims are left out"


@pytest.mark.parametrize(("user", "who"), [(b"", b""), (b"\xff", b""), (b"a", b"{]"), (b"a", b"5"), (b"a", b'{"claims": 5}'), (b"a", b"[" * 5000)])
def test_what_is_no_user(user: bytes, who: bytes) -> None:
    assert read_user(user, who) is None


def test_members_longest_first() -> None:
    flat = [b"bob", b"1 2000 ", b"ann", b"2 1000 admin x", b"bob", b"1 2000 ", b"eve", b"x", b"\xff", b"1 1 user", b"i", b"1 999999999999999 user"]
    found, foreign = read_members(flat)
    assert found == [Member("ann", "admin x", "1970-01-01T00:00:01.000Z"), Member("bob", None, "1970-01-01T00:00:02.000Z")] and foreign == 3


def test_pairs() -> None:
    assert split_pair(b"tenant:1\0ann \xc3\xa9\0x") == ("tenant:1", "ann é\0x")
    for wrong in (b"", b"a", b"a\0", b"\0ann", b"a b\0ann", b"all\0ann", b"user:x\0ann", b"a\0\xff", b"a\0" + b"x" * 2000):
        assert split_pair(wrong) is None
