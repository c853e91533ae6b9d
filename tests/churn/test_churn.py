"""An hour of churn on a clock moved by hand leaves nothing; the long form is `python -m tests.churn`. What would be left is seen."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from aibos_realtime.hub.departed import Departed
from tests.churn.census import grown, take_census
from tests.churn.churn import Remains, prove


async def churn(minutes: int) -> Remains:
    return await prove(minutes=minutes, per_minute=5, seed=1, progress=lambda _: None)


@pytest.mark.timeout(120)
async def test_an_hour_of_churn_leaves_nothing() -> None:
    remains = await churn(60)
    assert remains.is_nothing, str(remains)
    assert remains.done["sessions"] == 350 and min(remains.done.values()) > 10, str(remains)


@pytest.mark.timeout(120)
async def test_what_is_not_forgotten_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Departed, "_forget", lambda *_: None)
    remains = await churn(5)
    assert not remains.is_nothing
    assert "server.pool._departed._order" in remains.grown


class Part:
    """Looks like one of the product's."""

    __module__ = "aibos_realtime.parts"
    __slots__ = ("__hidden", "names", "then")

    def __init__(self) -> None:
        self.names: Any = {"a": [1, 2]}
        self.then: Any = None
        self.__hidden = {1, 2, 3}

    def call(self) -> None: ...


def sizes(part: object) -> dict[str, int]:
    return {path: size for path, size in take_census(part, "part").items() if path.startswith("part")}


def test_the_census_counts_what_is_in_containers() -> None:
    assert sizes(Part()) == {"part.names": 1, "part.names[]": 2, "part._Part__hidden": 3}


def test_the_census_follows_callbacks() -> None:
    part, other = Part(), Part()
    part.names, other.names = None, deque([1])
    part.then = other.call
    assert sizes(part)["part.then.names"] == 1
    part.then = lambda: other
    assert sizes(part)["part.then().names"] == 1


def test_what_cannot_grow_is_not_counted() -> None:
    part = Part()
    part.names = deque([1, 2], maxlen=5)
    assert "part.names" not in sizes(part)


def test_growth() -> None:
    assert grown({"a": 1, "b": 2}, {"a": 2, "b": 2, "c": 1, "d": 0}) == {"a": (1, 2), "c": (0, 1)}


def test_the_census_sees_the_modules_caches() -> None:
    assert "aibos_realtime.auth.tokens._names" in take_census(Part())
