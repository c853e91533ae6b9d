"""The options of Redis: what they mean together, and what is never shown of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aibos_realtime import ConfigurationError
from aibos_realtime.backends.redis.options import RedisOptions


def test_db_takes_the_place_of_the_database_in_the_url() -> None:
    assert RedisOptions(url="redis://h/3").address.db == 3
    assert RedisOptions(url="redis+sentinel://a/main/3", db=0).address.db == 0
    assert RedisOptions(url="unix:///s?db=3", db=4).address.db == 4


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": "redis://me:hunter2@h/x"}, "redis.url: 'redis://…@h/x' was given; allowed are redis://"),
        ({"url": "redis+cluster://me:hunter2@h/1"}, "redis.url: 'redis[+]cluster://…@h/1' was given; a cluster has database 0 only"),
        ({"tls_ca": "/etc/ca.pem", "url": "redis://me:hunter2@h"}, "redis.tls_ca: a file was given, but the URL asks for no TLS"),
        ({"prefix": "a b"}, "redis.prefix: 'a b' was given"),
        ({"sentinel_password": ["hunter2"]}, "redis.sentinel_password: a secret was given"),
    ],
)
def test_a_mistake_is_named_without_a_secret(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{message}") as failure:
        RedisOptions.parse("redis", given)
    assert "hunter2" not in str(failure.value)


def test_no_secret_is_shown() -> None:
    options = RedisOptions(url="rediss+sentinel://:hunter2@h/main", sentinel_password="hunter2", tls_ca=Path("/etc/ca.pem"))
    assert "hunter2" not in f"{options!r} {options} {options.address}"
