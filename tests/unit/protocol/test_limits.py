from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aibos_realtime.errors import ProtocolError
from aibos_realtime.protocol.limits import DEPTH, check_name, check_value, is_name, is_own_stream, is_suspect, user_stream


@pytest.mark.parametrize("name", ["a", "x" * 128, "tenant_123", "bench:1", "a/b@c:d-e_f.g", "0"])
def test_names(name: str) -> None:
    check_name("room", name)
    assert is_name(name)


@pytest.mark.parametrize("name", ["", "x" * 129, "a b", "a\n", "é", "a*", "{a}", "a\0", "\u0663", "\u212a"])
def test_what_is_no_name(name: str) -> None:
    assert not is_name(name)
    for _ in range(2):
        with pytest.raises(ProtocolError, match="The event name is not valid"):
            check_name("event", name)


def test_own_streams() -> None:
    assert is_own_stream("all") and is_own_stream(user_stream("ann")) and is_own_stream("user:")
    assert not is_own_stream("all2") and not is_own_stream("users:ann") and not is_own_stream("ALL")


def nested(levels: int, inner: Any = 1) -> Any:
    for number in range(levels):
        inner = {"a": inner} if number % 2 else [inner]
    return inner


def test_values_at_the_limits() -> None:
    values: list[Any] = [
        nested(DEPTH),
        2**53,
        -(2**53),
        1.5e308,
        "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"),
        True,
        None,
        [],
        {},
    ]
    for value in values:
        check_value(value)


BAD = [
    nested(DEPTH + 1),
    2**53 + 1,
    -(2**53) - 1,
    "a\0",
    {"a\0": 1},
    ["\ud800"],
    {"\udfff": 1},
    float("nan"),
    [float("inf")],
    b"x",
    (1,),
    {1: 2},
    object(),
]


@pytest.mark.parametrize("value", BAD, ids=range(len(BAD)))
def test_values_beyond(value: Any) -> None:
    with pytest.raises(ProtocolError):
        check_value(value)


SCALARS = st.none() | st.booleans() | st.integers() | st.integers(2**53 - 2, 2**53 + 2) | st.floats() | st.text() | st.just("a\0b")
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3), max_leaves=12)


@given(JSON, st.booleans(), st.integers(0, 36))
@example(10**16, True, 0)
@example("\0", True, 0)
@example(1e300, True, 0)
@example([1.2345678901234567e-7], True, 31)
def test_text_that_is_not_suspect_holds_nothing_that_is_refused(value: Any, ascii: bool, depth: int) -> None:
    try:
        text = json.dumps(nested(depth, value), ensure_ascii=ascii).encode()
    except UnicodeEncodeError:
        return
    if not is_suspect(text) and b"NaN" not in text and b"Infinity" not in text:
        check_value(json.loads(text))


@pytest.mark.parametrize(
    "text",
    [b"1E400", b"1e+400", b"[1.0e0400]", b"-9e999", b"5e-324", b"[1,2E-310]", b"123456789012345678e-9", b'"\\u0000"', b"9007199254740993", b"[" * 33],
)
def test_what_is_suspect(text: bytes) -> None:
    assert is_suspect(text)


@pytest.mark.parametrize(
    "value",
    [
        {"id": "3e4f0192-77ab-4e11-9c3e-88aa01e7d210", "at": "2026-01-31T12:00:00.000Z", "amount": 1250.75, "ids": [1700000000000, 1700000000001]},
        {"note": "C:\\new\\u00e9", "quoted": 'a "b"'},
        {"lines": [{"sku": f"A-{number}", "net": number} for number in range(30)]},
        "x" * 1000,
        1e99,
    ],
)
def test_what_business_sends_is_not_suspect(value: Any) -> None:
    assert not is_suspect(json.dumps(value).encode()), "it would be decoded and searched, every time"
