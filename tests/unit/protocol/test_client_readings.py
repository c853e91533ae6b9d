from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from aibos_realtime import ProtocolError, RateLimitExceeded, RealtimeError, errors
from aibos_realtime.client.wire import JsonWire
from aibos_realtime.protocol.client_notices import Parting
from aibos_realtime.protocol.client_readings import (
    LONGEST_DELAY,
    JoinedRoom,
    read_delay,
    read_error,
    read_parting,
    read_positions,
    read_text,
    read_user,
    to_event,
    to_frame,
)
from aibos_realtime.protocol.messages import Position, ServerMessage


def test_an_error_gets_its_class_by_its_code() -> None:
    error = read_error(ServerMessage("error", {"code": "rate_limited", "message": "Wait.", "retryable": True, "retryAfter": 2}))
    assert isinstance(error, errors.RateLimitExceeded)
    assert (error.retry_after, str(error), error.retryable) == (2.0, "Wait.", True)


def test_an_unknown_code_is_kept() -> None:
    error = read_error(ServerMessage("error", {"code": "of_tomorrow", "message": "New."}))
    assert type(error) is errors.RealtimeError
    assert error.code == "of_tomorrow"


def test_permission_denied_is_an_error_by_its_own_name() -> None:
    data = {"code": "permission_denied", "resource": "tenant_9", "action": "read", "message": "No.", "retryable": False}
    error = read_error(ServerMessage("permission_denied", data))
    assert isinstance(error, errors.PermissionDenied)
    assert (error.resource, error.action) == ("tenant_9", "read")


@pytest.mark.parametrize("data", [None, 1, "x", [], {"code": "validation_failed", "errors": 5}, {"code": {"a": 1}}])
def test_an_error_that_makes_no_sense_is_still_an_error(data: Any) -> None:
    assert isinstance(read_error(ServerMessage("error", data)), errors.RealtimeError)


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2, 2.0), (2.5, 2.5), (-1, 0.0), (1e300, 600.0), (10**400, 600.0), (float("nan"), 0.0), ("5", 0.0), (None, 0.0), (True, 0.0)],
)
def test_a_delay_is_made_safe(value: Any, expected: float) -> None:
    assert read_delay(value) == expected


def test_bounds_the_wrong_way_round_are_put_right() -> None:
    assert read_parting({"delayMin": 9, "delayMax": 3, "reason": "draining", "url": "ws://node2:3001"}) == Parting(
        3, 9, "draining", "ws://node2:3001"
    )
    assert read_parting("nonsense") == Parting(0, 0, "")


def test_positions_of_streams() -> None:
    assert read_positions({"all": {"epoch": "e", "offset": 4}}) == {"all": Position("e", 4)}
    assert read_positions(None) == {}
    with pytest.raises(msgspec.ValidationError):
        read_positions({"all": {"epoch": 1}})


@pytest.mark.parametrize("epoch", ["", "\0", "a b", "ä", "x" * 129])
def test_an_epoch_that_no_server_would_take_is_none(epoch: str) -> None:
    """A hostile server's epoch was kept and sent with every later join, which good servers then refused."""
    with pytest.raises(msgspec.ValidationError):
        read_positions({"all": {"epoch": epoch, "offset": 1}})


def test_a_user_is_a_mapping_or_nobody() -> None:
    assert read_user({"id": "u"}) == {"id": "u"}
    assert read_user("u") is None


def test_an_event_as_the_application_gets_it() -> None:
    message = ServerMessage("tick", {"n": 1}, room="r", id="i", offset=7, user_id="u", timestamp="2025-09-17T12:00:00.123Z")
    event = to_event(message, "e1")
    assert event.position == Position("e1", 7)
    assert event.timestamp == datetime(2025, 9, 17, 12, 0, 0, 123_000, UTC)
    assert to_event(ServerMessage("tick", None, timestamp="yesterday"), "e1", "r") == to_event(ServerMessage("tick", None, room="r"), None)


def test_a_frame_holds_only_what_is_given() -> None:
    assert to_frame("a", msgspec.UNSET) == {"event": "a"}
    assert to_frame("a", msgspec.Raw(b"1"), room="r") == {"event": "a", "data": msgspec.Raw(b"1"), "room": "r"}


@pytest.mark.parametrize("offset", [-1, 2**53 + 1, 10**30])
def test_an_offset_beyond_all_logs_is_none(offset: int) -> None:
    """A server said offset 10^30 in JSON. The client kept it, came to one that speaks MessagePack, could not write it down, and gave up for good."""
    with pytest.raises(msgspec.ValidationError):
        read_positions({"all": {"epoch": "e", "offset": offset}})
    with pytest.raises(ProtocolError):
        JsonWire().decode(json.dumps({"event": "note", "room": "a", "offset": offset}))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"roomId": "a", "epoch": "e", "offset": offset}, JoinedRoom)


@pytest.mark.parametrize("wait", [1e306, 10**400, float("inf"), -1e9, float("nan"), True, "5", None])
def test_no_wait_of_a_server_is_endless_or_no_number(wait: object) -> None:
    """`retryAfter: 1e306` raised OverflowError in the reader of the connection, and the client ended for good. NaN in MessagePack had it spin."""
    error = read_error(ServerMessage("error", {"code": "rate_limited", "message": "", "retryAfter": wait}))
    assert isinstance(error, RateLimitExceeded) and 0 <= error.retry_after <= LONGEST_DELAY


def test_texts_that_are_none() -> None:
    """A message that was a list, a thousand levels deep, was made a text of: RecursionError, and the end of the client."""
    deep: list[object] = []
    for _ in range(sys.getrecursionlimit() - 100):
        deep = [deep]
    for name in ("error", "permission_denied"):
        assert isinstance(read_error(ServerMessage(name, {"code": deep, "message": deep, "resource": deep, "errors": 5})), RealtimeError)
    assert read_parting({"reason": deep}).reason == ""
    assert read_text(deep, "closed") == "closed" and read_text("", "closed") == "closed" and read_text("a") == "a"
