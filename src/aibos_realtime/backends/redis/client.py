"""Connections to one Redis or Valkey, with the deadlines and errors of this package. What keys and scripts mean is for others to know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import BrokerUnavailable, ConfigurationError
from .urls import Address

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.commands.core import AsyncScript

R = TypeVar("R")

logger = logging.getLogger("aibos_realtime.redis")

CONNECT_TIMEOUT = 2.0
COMMAND_TIMEOUT = 2.0
MAX_CONNECTIONS = 50
MAX_BLOCK = 5.0
"""Seconds that one blocking read takes at most."""
OLDEST = (7, 0)


@cache
def read_script(name: str, common: str) -> str:
    """The text of `scripts/<name>.lua`, with that of `scripts/<common>.lua` before it, and its first line (`#!lua flags=…`, if any) before both."""
    folder = files(__package__) / "scripts"
    text = (folder / f"{name}.lua").read_text()
    head, body = text.split("\n", 1) if text.startswith("#!") else ("#!lua", text)
    return f"{head}\n{(folder / f'{common}.lua').read_text()}\n{body}"


class Client:
    """Two pools: one for commands, one for reads that block. Nothing is ever sent twice: an error leaves the outcome of a command unknown."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._commands: Redis | None = None
        self._reads: Redis | None = None
        self._scripts: dict[str, AsyncScript] = {}

    async def open(self) -> None:
        """Connect, and check the server. Idempotent. Raises `BrokerUnavailable` and `ConfigurationError`."""
        if self._commands is not None:
            return
        commands = self._connect()
        try:
            info: Mapping[str, Any] = await _within(commands.info("server", "memory", "persistence"), CONNECT_TIMEOUT + COMMAND_TIMEOUT)
            check_server(info, self.address.shown)
        except BaseException:
            await commands.aclose()
            raise
        self._commands, self._reads = commands, self._connect()

    async def close(self) -> None:
        """Let go of all connections. Idempotent."""
        clients = [client for client in (self._commands, self._reads) if client is not None]
        self._commands = self._reads = None
        self._scripts.clear()
        for client in clients:
            await client.aclose()

    def _connect(self) -> Redis:
        try:
            from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ImportError as error:
            raise ConfigurationError('redis: the driver is not installed: pip install "aibos-realtime[redis]"') from error
        address = self.address
        options: dict[str, Any] = {
            "db": address.db,
            "username": address.username,
            "password": address.password,
            # None, since every call here has its deadline: with a time-out of its own the driver loses a cancellation now and then.
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_TIMEOUT,
            # The driver's own retries write twice what was written once before the answer was lost.
            "retry": Retry(NoBackoff(), 0),
        }
        if address.path:
            options |= {"connection_class": UnixDomainSocketConnection, "path": address.path}
        else:
            options |= {"host": address.host, "port": address.port, "socket_keepalive": True}
        if address.is_tls:
            options["connection_class"] = SSLConnection
        pool = BlockingConnectionPool(max_connections=MAX_CONNECTIONS, timeout=CONNECT_TIMEOUT, **options)
        return Redis.from_pool(pool)

    async def run(self, name: str, text: str, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The reply of a script, which is sent whole only where the server does not know it yet. Raises `BrokerUnavailable`."""
        client = self._opened(self._commands)
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = client.register_script(text)
        return await _within(script(keys=keys, args=arguments), CONNECT_TIMEOUT + COMMAND_TIMEOUT)

    async def command(self, *words: Any) -> Any:
        """The reply of one command. Raises `BrokerUnavailable`."""
        return await _within(_send(self._opened(self._commands), *words), CONNECT_TIMEOUT + COMMAND_TIMEOUT)

    async def wait_for_entry(self, stream: str, after: str, timeout: float) -> None:
        """Return when a stream has an entry after the one named, and at the latest after `timeout` seconds (at most 5). Cancelling is safe."""
        milliseconds = max(1, int(min(timeout, MAX_BLOCK) * 1000) + 1)
        read = _send(self._opened(self._reads), "XREAD", "COUNT", 1, "BLOCK", milliseconds, "STREAMS", stream, after)
        await _within(read, MAX_BLOCK + CONNECT_TIMEOUT + COMMAND_TIMEOUT)

    @staticmethod
    def _opened(client: Redis | None) -> Redis:
        if client is None:
            raise BrokerUnavailable("The connection to Redis is closed.")
        return client


def check_server(info: Mapping[str, Any], shown: str) -> None:
    """Raise `ConfigurationError` unless a server, by its INFO, can keep what must not be lost. `shown`: its address, for the error."""
    version = str(info.get("valkey_version") or info.get("redis_version") or "0")
    parts = version.split(".")
    if tuple(int(part) if part.isdecimal() else 0 for part in parts[:2]) < OLDEST:
        raise ConfigurationError(f"redis: version {version} answers at {shown}; needed is Redis 7.0 or Valkey 7.2, or a later one")
    policy = info.get("maxmemory_policy")
    if policy not in (None, "noeviction"):
        raise ConfigurationError(f"redis: maxmemory-policy is {policy} at {shown}, which deletes messages when memory is short; needed is noeviction")
    if str(info.get("aof_enabled")) == "0":
        logger.warning("Redis at %s keeps no append-only file (appendonly no): what it holds is lost when it restarts", shown)


async def _send(client: Redis, *words: Any) -> Any:
    return await client.execute_command(*words)  # type: ignore[no-untyped-call]


async def _within(reply: Awaitable[R], seconds: float) -> R:
    """A reply, or `BrokerUnavailable` for whatever went wrong. Neither addresses nor arguments get into its text."""
    from redis.exceptions import AuthenticationError, RedisError, ResponseError

    try:
        async with asyncio.timeout(seconds):
            return await reply
    except (RedisError, TimeoutError, OSError) as error:
        text = "Redis does not answer: try again later."
        if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):  # the cause, when met while connecting
            text = "Redis refused the user or the password."
        elif isinstance(error, ResponseError):
            text = f"Redis refused a command ({type(error).__name__}): try again later."
        raise BrokerUnavailable(text) from error
