"""How many connections there are descriptors for, and what is said where they are too few."""

from __future__ import annotations

import resource

import pytest

from aibos_realtime.hub.connections import ConnectionPool
from aibos_realtime.server import descriptors
from aibos_realtime.server.descriptors import descriptors_for, limit_connections, limit_of_descriptors, places_of, raise_limit


@pytest.mark.parametrize("connections", [1, 10, 206, 1000, 9_999, 100_000])
def test_the_fewest_descriptors_are_enough_and_one_less_is_not(connections: int) -> None:
    needed = descriptors_for(connections)
    assert places_of(needed) >= connections > places_of(needed - 1) or connections == 1


def test_a_pool_is_as_large_as_there_are_descriptors(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    pool = ConnectionPool(max_connections=1000)
    monkeypatch.setattr(descriptors, "limit_of_descriptors", lambda: 256)
    limit_connections(pool)
    assert pool.most == 206 and caplog.messages[0].startswith("206 connections are taken at most") and "1138" in caplog.messages[0]
    monkeypatch.setattr(descriptors, "limit_of_descriptors", lambda: None)
    limit_connections(pool)
    assert pool.most == 1000 and len(caplog.records) == 1


def test_the_limit_is_raised_as_far_as_may_be_and_never_lowered() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, before[1]))
        raise_limit(100)
        assert limit_of_descriptors() == 200
        raise_limit(1000)
        assert limit_of_descriptors() == min(1138, before[1])
        raise_limit(None)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
