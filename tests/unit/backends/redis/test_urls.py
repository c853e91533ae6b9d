"""URLs of Redis: what they mean, and what is never shown of them."""

from __future__ import annotations

import pytest

from aibos_realtime import ConfigurationError
from aibos_realtime.backends.redis.options import RedisOptions
from aibos_realtime.backends.redis.urls import Address, hide_password, read_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache.example.com", Address("cache.example.com")),
        ("redis://localhost:6380/2", Address("localhost", 6380, db=2)),
        ("redis://localhost/", Address("localhost")),
        ("redis://[::1]:7000", Address("::1", 7000)),
        ("redis://:secret@localhost", Address("localhost", password="secret")),
        ("rediss://me:s%40cret%2F@localhost:1/0", Address("localhost", 1, is_tls=True, username="me", password="s@cret/")),
        ("unix:///run/redis.sock", Address(path="/run/redis.sock")),
        ("unix:///run/redis.sock?db=3", Address(path="/run/redis.sock", db=3)),
        (
            "redis+sentinel://me:s%40cret@a,b:7,[::1]/main/2",
            Address(kind="sentinel", nodes=(("a", 26379), ("b", 7), ("::1", 26379)), service="main", db=2, username="me", password="s@cret"),
        ),
        ("rediss+sentinel://a/my%2Fmain", Address(kind="sentinel", nodes=(("a", 26379),), service="my/main", is_tls=True)),
        ("redis+cluster://a:7000,b", Address(kind="cluster", nodes=(("a", 7000), ("b", 6379)))),
        ("rediss+cluster://:secret@a/0", Address(kind="cluster", nodes=(("a", 6379),), is_tls=True, password="secret")),
    ],
)
def test_urls_are_read(url: str, address: Address) -> None:
    assert read_url(url) == address


@pytest.mark.parametrize(
    "url",
    ["", "localhost", "http://localhost", "redis://", "redis:///1", "redis://h:0", "redis://h:99999", "redis://h:x", "redis://h/one", "redis://h/1/2",
     "redis://h?db=1", "redis://h#1", "redis://h /1", "unix://", "unix:///", "unix:///s?x=1", "redis://me:hunter2@h:hunter2@/x", "redis:" + "//[h",
     "redis+sentinel://a,b", "redis+sentinel://a//0", "redis+sentinel://a/main/x", "redis+sentinel://a/main/0/1", "redis+sentinel:///main",
     "redis+sentinel://a,/main", "redis+sentinel://me:hunter2@a:x/main", "redis+cluster://", "redis+cluster://a:0", "redis+cluster://a/x",
     "redis+cluster://a?b=1", "unix+cluster://a", "redis+sentinel://a:hunter2@b:hunter2@c/main"],
)  # fmt: skip
def test_what_is_no_url_is_named_without_its_password(url: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^queue.redis.url: '.*' was given; allowed are redis://host:6379/0") as failure:
        read_url(url, "queue.redis.url")
    assert "hunter2" not in str(failure.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://me:hunter2@host:1/0", "redis://…@host:1/0"),
        ("redis://me:hunter2/a@b@host", "redis://…@host"),
        ("redis://host?password=hunter2", "redis://host?…"),
        ("me:hunter2@host", "…"),
        ("host", "host"),
    ],
)
def test_passwords_are_hidden(url: str, shown: str) -> None:
    assert hide_password(url) == shown


def test_an_address_never_shows_its_password() -> None:
    address = read_url("rediss://me:hunter2@[::1]:7000/4")
    assert address.shown == "rediss://[::1]:7000/4" and repr(address) == "Address(rediss://[::1]:7000/4)"
    assert read_url("unix:///run/redis.sock").shown == "unix:///run/redis.sock?db=0"
    address = read_url("rediss+sentinel://me:hunter2@a,[::1]:7/main/4")
    assert address.shown == "rediss+sentinel://a:26379,[::1]:7/main/4" and "hunter2" not in repr(address)
    assert read_url("redis+cluster://:hunter2@a").shown == "redis+cluster://a:6379"


def test_a_cluster_has_one_database() -> None:
    with pytest.raises(ConfigurationError, match=r"^redis.url: 'redis\+cluster://…@a/1' was given; a cluster has database 0 only"):
        read_url("redis+cluster://me:hunter2@a/1")
    with pytest.raises(ConfigurationError, match="^redis.db: 2 was given; a cluster has database 0 only"):
        RedisOptions.parse("redis", {"url": "redis+cluster://me:hunter2@a", "db": 2})
    assert RedisOptions(url="redis+cluster://a", db=0).address.db == 0
