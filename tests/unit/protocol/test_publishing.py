"""What a program says of an event, checked. The data's own cases, over the road: tests/unit/pipeline/test_broadcaster.py."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from aibos_realtime import MessageTooLarge, ProtocolError, ValidationError
from aibos_realtime.protocol.messages import RESERVED
from aibos_realtime.protocol.publishing import check_event, check_id, encode_data, excluded


def test_names_of_events() -> None:
    check_event("invoice.created")
    for name in ("", "a b", "x" * 129):
        with pytest.raises(ProtocolError):
            check_event(name)
    for name in RESERVED:
        with pytest.raises(ValidationError, match="reserved"):
            check_event(name)


def test_ids() -> None:
    for id in ("x", "x" * 128, "Rechnung 5 ü 😀", "a:b/c"):
        check_id("id", id)
    for wrong in ("", "x" * 129, "a\0b", "a\nb", "\ud800", 5, None):
        with pytest.raises(ValidationError, match=r"^key: .*1–128"):
            check_id("key", wrong)  # type: ignore[arg-type]


def test_whom_to_leave_out() -> None:
    assert excluded(()) == frozenset() and excluded(iter(["a", "b", "a"])) == {"a", "b"}
    wrong: list[Any] = ["ann", [5], [None]]
    for given in wrong:
        with pytest.raises(ValidationError, match=r"^exclude: "):
            excluded(given)


def test_data_becomes_json() -> None:
    assert encode_data({"amount": Decimal("1.50"), "to": ["ü"]}, None) == '{"amount":"1.50","to":["ü"]}'.encode()
    assert encode_data(None, 4) == b"null"


@pytest.mark.parametrize(
    "data",
    [object(), "a\0b", "\ud800", 2**53 + 1, math.nan, [math.inf]],
    ids=["an object", "NUL", "half a surrogate", "an integer beyond 2^53", "not a number", "infinity"],
)
def test_data_that_cannot_be_sent(data: object) -> None:
    with pytest.raises(ValidationError, match="^The data cannot be sent: "):
        encode_data(data, None)


def test_the_size_is_that_of_the_text() -> None:
    assert len(encode_data("ü", 4)) == 4
    with pytest.raises(MessageTooLarge, match="has 5 bytes; at most 4"):
        encode_data("xxx", 4)
