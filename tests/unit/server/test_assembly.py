"""Parts that were passed in are the server's own; what this version cannot keep is refused."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime import ConfigurationError, ConnectionPool, RealtimeServer, RoomManager, WebSocketAuth, WebSocketAuthorization
from aibos_realtime.backends.memory.broker import MemoryBroker

SECRET = "k7Qz-0pLr5Tn2Wx8" * 3


def test_each_part_can_be_passed_in_also_while_it_is_empty() -> None:
    auth, authz, rooms, pool, broker = (
        WebSocketAuth(jwt_secret=SECRET),
        WebSocketAuthorization(),
        RoomManager(max_rooms=3),
        ConnectionPool(),
        MemoryBroker(),
    )
    server = RealtimeServer(authentication=auth, authorization=authz, rooms=rooms, connections=pool, broker=broker)
    assert server.auth is auth and server.authorization is authz and server.rooms is rooms and server.pool is pool and server.broker is broker
    assert server.metrics is pool.metrics


def test_options_reach_their_parts() -> None:
    server = RealtimeServer(
        authentication={"jwt_secret": SECRET}, rooms={"max_rooms": 7}, connections={"max_connections": 9}, heartbeat={"interval": 3, "timeout": 8}
    )
    assert server.rooms.options.max_rooms == 7
    options = server.pool.options
    assert (options.max_connections, options.heartbeat_interval, options.heartbeat_timeout) == (9, 3.0, 8.0)


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "authentication.jwt_secret"),
    ({"authentication": {"jwt_secret": "short"}}, "authentication.jwt_secret"),
    ({"authentication": {"jwt_secret": "your_jwt_secret"}}, "authentication.jwt_secret"),
    ({"authentication": {"jwt_secret": SECRET}, "scaling": {"enabled": True}}, "scaling.redis.url"),
    ({"authentication": {"jwt_secret": SECRET}, "tls": {"certificate": "/nowhere.pem"}}, "tls.certificate"),
    ({"authentication": {"jwt_secret": SECRET}, "trusted_proxies": ["x"]}, "trusted_proxies"),
    ({"authentication": {"jwt_secret": SECRET}, "heartbeat": {"interval": 60, "timeout": 30}}, "heartbeat.timeout"),
    ({"authentication": {"jwt_secret": SECRET}, "limits": {"mesages_per_second": 5}}, "limits.mesages_per_second"),
]


@pytest.mark.parametrize(("options", "path"), BAD, ids=range(len(BAD)))
def test_what_is_refused_at_construction(options: dict[str, Any], path: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RealtimeServer(**options)
    assert str(caught.value).startswith(path)
