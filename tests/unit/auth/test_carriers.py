"""Finding the token of a request."""

from __future__ import annotations

import pytest

from aibos_realtime.auth.carriers import TokenCarrier, bearer_entry

DEFAULT = TokenCarrier(header="Authorization", prefix="Bearer ", parameter=None)
OWN = TokenCarrier(header="X-Token", prefix="", parameter="token")


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ([], None),
        ([(b"host", b"x"), (b"authorization", b"Bearer a.b.c")], "a.b.c"),
        ([(b"Authorization", b"bEARER   a.b.c ")], "a.b.c"),
        ([(b"authorization", b"Basic dXNlcg==")], None),
        ([(b"authorization", b"Bearera.b.c")], None),
        ([(b"authorization", b"Basic dXNlcg=="), (b"authorization", b"Bearer a.b.c")], "a.b.c"),
        ([(b"authorization", b"Bearer")], ""),
        ([(b"authorization", b"Bearer ")], ""),
        ([(b"authorization", b"Bearer a.b.c"), (b"authorization", b"Bearer a.b.c")], ""),
        ([(b"authorization", b"Bearer \xff")], "\u00ff"),
    ],
)
def test_header(headers: list[tuple[bytes, bytes]], token: str | None) -> None:
    assert DEFAULT.token_from(headers, b"token=q") == token


@pytest.mark.parametrize(
    ("query", "token"),
    [
        (b"", None),
        (b"a=1", None),
        (b"a=1&token=a.b.c", "a.b.c"),
        (b"token=", ""),
        (b"token=a&token=b", ""),
        (b"a=1&" * 200, ""),
    ],
)
def test_query_parameter_where_it_is_switched_on(query: bytes, token: str | None) -> None:
    assert OWN.token_from([], query) == token


def test_the_header_comes_before_the_query() -> None:
    assert OWN.token_from([(b"x-token", b"h")], b"token=q") == "h"


@pytest.mark.parametrize(
    ("protocols", "token"),
    [
        ([], None),
        (["aibos.realtime.v1"], None),
        (["aibos.realtime.v1", "bearer.a.b.c"], "a.b.c"),
        (["bearer."], ""),
        (["bearer.a", "bearer.b"], ""),
        (["Bearer.a"], None),
    ],
)
def test_subprotocol_entry(protocols: list[str], token: str | None) -> None:
    assert bearer_entry(protocols) == token
