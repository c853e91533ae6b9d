"""Which store of queues a URL means: the only place of `storage` that knows their classes. It opens none."""

from __future__ import annotations

from ..backends.queue import QueueStore
from ..backends.redis.options import RedisOptions
from ..clock import Clock
from ..errors import ConfigurationError

DEFAULT = "sqlite:///realtime.db"


def make_store(redis: RedisOptions | None, url: str | None, clock: Clock) -> QueueStore:
    """The store at an address. Raises `ConfigurationError`, without the password."""
    url = url if url is not None else DEFAULT
    scheme = "redis" if redis is not None else url.partition("://")[0]
    if scheme == "memory":
        from ..backends.memory.queue import MemoryQueue

        return MemoryQueue(clock=clock)
    if scheme in ("redis", "rediss", "unix"):
        from ..backends.redis.queue import RedisQueue

        return RedisQueue(redis if redis is not None else RedisOptions.parse("queue", {"url": url}))
    if scheme in ("sqlite", "postgresql", "postgres", "postgresql+asyncpg"):
        from ..backends.sql.queue import SqlQueue

        return SqlQueue(url, clock=clock)
    from ..backends.redis.urls import hide_password

    allowed = "redis://…, rediss://…, unix://…, sqlite:///…, postgresql://… and memory://"
    raise ConfigurationError(f"queue.url: {hide_password(url)!r} was given; allowed are {allowed}")
