"""Every setting that gives up a safe default is seen, and the defaults give up none."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime.cli.exposures import EXPOSURES, find_exposures, is_loopback
from aibos_realtime.config import RealtimeConfig

SAFE = {"authentication": {"jwt_secret": "only for these tests, of 32 bytes or more"}, "trusted_proxies": ["10.0.0.0/8"]}
"""A server behind a proxy that ends TLS."""

EXPOSED: list[tuple[str, dict[str, Any]]] = [
    ("cors.origin", {"cors": {"origin": "*"}}),
    ("authentication.jwks_url", {"authentication": {"jwks_url": "http://id.example.com/keys"}}),
    ("authentication.query_parameter", {"authentication": {"query_parameter": "token"}}),
    ("authentication.leeway", {"authentication": {"leeway": 301}}),
    ("authentication.expiry_grace", {"authentication": {"expiry_grace": 301}}),
    ("authentication.max_lifetime", {"authentication": {"max_lifetime": "31d"}}),
    ("authorization.permissions", {"authorization": {"permissions": {"*": ["read"]}}}),
    ("trusted_proxies", {"trusted_proxies": ["10.0.0.0/8", "::/0"]}),
    ("limits", {"limits": {"connections_per_user": None}}),
    ("connections.max_connections", {"connections": {"max_connections": None}}),
    ("scaling.redis.url", {"scaling": {"redis": {"url": "redis://redis.internal"}}}),
    ("scaling.redis.url", {"queue": {"redis": {"url": "redis+sentinel://127.0.0.1:26379,10.0.0.7:26379/service/0"}}}),
    ("scaling.redis.url", {"queue": {"url": "redis://10.0.0.7"}}),
    ("tls", {"trusted_proxies": []}),
]

NOT_EXPOSED: list[dict[str, Any]] = [
    {},
    {"authentication": {"jwks_url": "https://id.example.com/keys"}},
    {"authentication": {"jwks_url": "http://localhost:8080/keys"}},
    {"authorization": {"roles": {"service": {"*": ["read", "write"]}}}},
    {"limits": {"messages_burst": None}},
    {"scaling": {"redis": {"url": "rediss://redis.internal"}}},
    {"scaling": {"redis": {"url": "redis://127.0.0.1"}}, "queue": {"redis": {"url": "unix:///run/redis.sock"}}},
    {"queue": {"url": "sqlite:///queue.db"}},
    {"trusted_proxies": [], "host": "127.0.0.1"},
    {"trusted_proxies": [], "tls": {"certificate": "certificate.pem"}},
]


def names(changed: dict[str, Any]) -> list[str]:
    return [exposure.option for exposure in find_exposures(RealtimeConfig.parse("", {**SAFE, **changed}))]


@pytest.mark.parametrize(("option", "changed"), EXPOSED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_given_up_is_seen(option: str, changed: dict[str, Any]) -> None:
    assert names(changed) == [option]


@pytest.mark.parametrize("changed", NOT_EXPOSED, ids=str)
def test_what_is_as_safe_as_the_default_is_not(changed: dict[str, Any]) -> None:
    assert names(changed) == []


def test_each_has_its_example() -> None:
    assert {exposure.option for exposure in EXPOSURES} == {option for option, _ in EXPOSED}


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("[::1]", True), ("localhost", True), ("a.localhost", True)]
    + [("0.0.0.0", False), ("10.0.0.1", False), ("localhost.example.com", False), ("", False)],
)
def test_which_hosts_are_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
