"""Who of a room gets an event."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime import ConfigurationError, where
from aibos_realtime.backends.base import Audience
from aibos_realtime.pipeline.filters import Filters, decide
from aibos_realtime.types import User

ANN = User("ann", "admin", "t1", {"level": 3, "tags": ["a", "b"], "department": "sales", "odd": {"x": 1}})


def admits(**audience: Any) -> bool:
    return Filters().admits(Audience(**audience), ANN)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"role__in": ["admin", "user"]}, True),
        ({"role__in": ["user"]}, False),
        ({"role": "admin", "tenant_id": "t1", "id": "ann"}, True),
        ({"role": "admin", "tenant_id": "t2"}, False),
        ({"level__gt": 2}, True),
        ({"level__gt": 3}, False),
        ({"level__gte": 3, "level__lte": 3, "level__lt": 4}, True),
        ({"level__gt": "2"}, False),
        ({"tags__contains": "b"}, True),
        ({"tags__contains": "c"}, False),
        ({"level__contains": "c"}, False),
        ({"department__ne": "sales"}, False),
        ({"department__not_in": ["hr"]}, True),
        ({"department__eq": "sales"}, True),
        ({"missing": "x"}, False),
        ({"missing__gt": 1}, False),
        ({"missing__in": [1]}, False),
        ({"missing__ne": "x"}, True),
        ({"missing__not_in": ["x"]}, True),
        ({"odd__in": ["x"]}, False),
        ({"claims": "x"}, False),
        ({"to_wire": "x"}, False),
        ({}, True),
    ],
)
def test_conditions(conditions: dict[str, Any], expected: bool) -> None:
    assert admits(where=dict(where(**conditions))) is expected


def test_audiences() -> None:
    assert Filters().admits(None, None) and Filters().admits(None, ANN)
    assert admits() and not Filters().admits(Audience(), None), "an event with an audience is for nobody who is nobody"
    assert not admits(exclude=frozenset({"ann"})) and admits(exclude=frozenset({"bob"}))
    assert admits(users=frozenset({"ann"})) and not admits(users=frozenset({"bob"})) and not admits(users=frozenset())
    assert not admits(users=frozenset({"ann"}), exclude=frozenset({"ann"}))
    assert not admits(users=frozenset({"ann"}), where={"role": "user"}), "all of it must hold"


def test_registered_filters(caplog: pytest.LogCaptureFixture) -> None:
    filters = Filters()

    def approvers(user: User) -> bool:
        return user.role == "admin"

    filters.add("approvers", approvers)
    filters.add("approvers", approvers)
    filters.add("broken", lambda user: user.claims["nope"])
    with pytest.raises(ConfigurationError, match="already"):
        filters.add("approvers", lambda user: True)
    assert filters.name_of(approvers) == "approvers" and filters.name_of(len) is None and "approvers" in filters and "x" not in filters
    assert filters.names() == ["approvers", "broken"]
    assert filters.admits(Audience(filter="approvers"), ANN) and not filters.admits(Audience(filter="approvers"), User("bob"))
    assert not filters.admits(Audience(filter="broken"), ANN) and "a filter failed" in caplog.text
    assert not filters.admits(Audience(filter="of another node"), ANN) and "there is no filter 'of another node'" in caplog.text


def test_deciding() -> None:
    assert decide(lambda user: "yes", ANN) is True and decide(lambda user: None, ANN) is False and decide(lambda user: 1 / 0, ANN) is False  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize("key", ["role__like", "plan__x", "id__between"])
def test_a_condition_of_a_newer_version_holds_for_nobody(key: str) -> None:
    """A node that was updated first sent an event with an operator that the others did not know yet: KeyError, in the middle of their fan-out."""
    audience = Audience(where={key: "user"})
    assert not Filters().admits(audience, ANN)
    decision = Filters().decision(audience, {})
    assert decision is not None and [test(ANN) for test in (decision.of_kind, decision.of_own) if test is not None] == [False]
