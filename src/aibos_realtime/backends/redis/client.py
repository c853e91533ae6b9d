"""Commands to Redis, whichever kind: one server, one that sentinels name, or a cluster; with the deadlines and errors of this package.

What keys and scripts mean is for others to know.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet

from ...clock import SYSTEM_CLOCK, Clock
from ...errors import BrokerUnavailable, ConfigurationError
from .checks import check_server, check_version, read_info, warn_unchecked
from .connection import Connection, ConnectionLost, Endpoint, Login, ReplyError
from .options import RedisOptions
from .script import Script
from .topology import Dialer, Flights, Servers, ServiceUnknown, make_servers
from .urls import Address

R = TypeVar("R")
Entry = tuple[str, dict[bytes, bytes]]
"""One entry of a stream: its id, and its fields."""

CONNECT_TIMEOUT = 2.0
COMMAND_TIMEOUT = 2.0
MAX_BLOCK = 5.0
"""Seconds that one blocking read takes at most."""
MAX_HOPS = 4
"""Servers of a cluster that one call is sent to, one after the other, each time because the last one has sent it on."""
MAX_IDLE = 50
"""Connections to one server that are kept for the next blocking reads."""


class Client:
    """One connection to each primary, which all calls share, and one for each blocking read. Nothing is ever sent twice.

    An error leaves the outcome of a call unknown, unless the server refused it. `tls_ca`, `sentinel_password`: see `RedisOptions`.
    """

    def __init__(self, address: Address, *, tls_ca: Path | None = None, sentinel_password: str | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self.address = address
        self.clock = clock
        self._tls_ca = tls_ca
        self._sentinel_password = sentinel_password
        self._servers: Servers | None = None
        self._opening = asyncio.Lock()
        self._flights = Flights()
        self._connections: dict[Endpoint | None, Connection] = {}
        self._idle: dict[Endpoint, list[Connection]] = {}
        self._all: WeakSet[Connection] = WeakSet()  # with those that are in use, or given up and not closed yet

    @classmethod
    def from_options(cls, options: RedisOptions, *, clock: Clock = SYSTEM_CLOCK) -> Client:
        """A client for what the options describe; it is not open yet."""
        password = options.sentinel_password
        return cls(options.address, tls_ca=options.tls_ca, sentinel_password=password.get_secret_value() if password else None, clock=clock)

    @property
    def is_cluster(self) -> bool:
        return self.address.kind == "cluster"

    @property
    def servers(self) -> Servers:
        """Where the primaries are. Raises `BrokerUnavailable` unless the client is open."""
        if self._servers is None:
            raise BrokerUnavailable("The connection to Redis is closed.")
        return self._servers

    async def open(self) -> None:
        """Connect to every primary, and check it. Idempotent. Raises `BrokerUnavailable` and `ConfigurationError`."""
        async with self._opening:
            if self._servers is not None:
                return
            tls = make_tls(self._tls_ca) if self.address.is_tls else None
            login = Login(self.address.username, self.address.password, self.address.db, tls)
            self._servers = make_servers(self.address, Dialer(login, self.clock), self._sentinel_password)
            try:
                await _answer(self._connect_and_check())
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """Let go of all connections; calls that wait fail. Idempotent."""
        servers, self._servers = self._servers, None
        await self._flights.close()
        if servers is not None:
            await servers.close()
        self._connections.clear()
        self._idle.clear()
        for connection in list(self._all):
            connection.close()
        await asyncio.sleep(0)  # the loop closes the sockets

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        """The reply of a script, which is sent whole only where the server does not know it yet. Raises `BrokerUnavailable`.

        In a cluster the first key says where it runs. Arguments are texts, bytes and numbers.
        """
        return await _answer(self._run(script, keys, arguments))

    async def command(self, *words: Any, key: str | bytes | None = None) -> Any:
        """The reply of one command, as RESP3 gives it. `key`: whoever serves it gets the command (default: the second word).

        Raises `BrokerUnavailable`.
        """
        return await _answer(self._call(words[1] if key is None and len(words) > 1 else key, words))

    async def scan(self, pattern: str) -> list[bytes]:
        """All keys whose names are like a pattern, of all primaries; what comes or goes meanwhile may be missing. Raises `BrokerUnavailable`."""
        return await _answer(self._scan(pattern))

    async def wait_for_entry(self, stream: str, after: str, timeout: float) -> None:
        """Return when a stream has an entry after the one named, and at the latest after `timeout` seconds (at most 5). Cancelling is safe."""
        await self.read_stream(stream, after, 1, timeout)

    async def read_stream(self, stream: str, after: str, count: int, timeout: float) -> list[Entry]:
        """Up to `count` entries after the one named; waits for the first up to `timeout` seconds (at most 5), then there are none.

        Raises `BrokerUnavailable`. Cancelling is safe.
        """
        seconds = min(timeout, MAX_BLOCK)
        words = ("XREAD", "COUNT", count, "BLOCK", max(1, int(seconds * 1000) + 1), "STREAMS", stream, after)
        reply = await _answer(self._read(stream, words, seconds + COMMAND_TIMEOUT))
        if not reply:
            return []
        [rows] = reply.values()
        return [(id.decode(), dict(zip(fields[::2], fields[1::2], strict=True))) for id, fields in rows]

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[Any]) -> Any:
        key = keys[0] if keys else None
        try:
            return await self._call(key, ("EVALSHA", script.digest, len(keys), *keys, *arguments))
        except ReplyError as error:
            if error.code != "NOSCRIPT":
                raise
        return await self._call(key, ("EVAL", script.text, len(keys), *keys, *arguments))

    async def _call(self, key: str | bytes | None, words: Sequence[Any]) -> Any:
        servers = self.servers
        connection = self._connections.get(servers.find(key))
        if connection is None or not connection.is_usable:
            connection = await self._connect(servers, key)
        before: Sequence[str] | None = None
        for hop in range(1, MAX_HOPS + 1):
            try:
                return await connection.call(words, COMMAND_TIMEOUT, before=before)
            except ReplyError as error:
                target = servers.move(error, connection.endpoint, CONNECT_TIMEOUT)
                if error.code == "READONLY":
                    connection.retire()
                if target is None or hop == MAX_HOPS:
                    raise
                before = ("ASKING",) if error.code == "ASK" else None
            connection = await self._connect(servers, key, target)

    async def _read(self, key: str, words: Sequence[Any], timeout: float) -> Any:
        servers = self.servers
        main = self._connections.get(servers.find(key))
        if main is None or not main.is_usable:
            main = await self._connect(servers, key)  # asks where the key is now
        idle = self._idle.setdefault(main.endpoint, [])
        while idle and not idle[-1].is_usable:
            idle.pop()
        connection = idle.pop() if idle else await self._dial(servers, main.endpoint)
        try:
            reply = await connection.call(words, timeout)
        except BaseException as error:
            connection.close()
            if isinstance(error, ReplyError):
                servers.move(error, main.endpoint, CONNECT_TIMEOUT)
            raise
        if self._servers is servers and len(idle) < MAX_IDLE:
            idle.append(connection)
        else:
            connection.close()
        return reply

    async def _connect(self, servers: Servers, key: str | bytes | None, target: Endpoint | None = None) -> Connection:
        """The connection to who serves a key, or to a server that is named."""
        async with asyncio.timeout(CONNECT_TIMEOUT):
            if target is None:
                await servers.refresh(CONNECT_TIMEOUT / 2)
                target = servers.find(key)
            if target is None:
                raise ConnectionLost("no server serves this key")
            connection = self._connections.get(target)
            if connection is not None and connection.is_usable:
                return connection
            endpoint = target
            return await self._flights.join(endpoint, lambda: self._dial_main(servers, endpoint))

    async def _dial_main(self, servers: Servers, endpoint: Endpoint) -> Connection:
        connection = self._connections[endpoint] = await self._dial(servers, endpoint)
        return connection

    async def _dial(self, servers: Servers, endpoint: Endpoint) -> Connection:
        connection = await servers.dial(endpoint, CONNECT_TIMEOUT)
        self._all.add(connection)
        if self._servers is not servers:
            connection.close()  # the client was closed meanwhile
        return connection

    async def _connect_and_check(self) -> None:
        servers = self.servers
        try:
            await self._connect(servers, None)
        except ServiceUnknown as error:
            raise ConfigurationError(f"redis.url: the sentinels at {self.address.shown} know no service {error}") from None
        await asyncio.gather(*(self._check(servers, endpoint) for endpoint in servers.primaries()))

    async def _check(self, servers: Servers, endpoint: Endpoint) -> None:
        connection = await self._connect(servers, None, endpoint)
        shown = self.address.shown if self.address.kind == "single" else str(endpoint)
        try:
            check_server(read_info(await connection.call(("INFO", "server", "memory", "persistence"), COMMAND_TIMEOUT)), shown)
        except ReplyError as error:
            if error.code != "NOPERM":
                raise
            check_version(connection.greeting[b"version"].decode(), shown)
            warn_unchecked(shown)

    async def _scan(self, pattern: str) -> list[bytes]:
        servers, found = self.servers, set()
        for endpoint in servers.primaries():
            connection, cursor = await self._connect(servers, None, endpoint), b"0"
            while True:
                cursor, keys = await connection.call(("SCAN", cursor, "MATCH", pattern, "COUNT", 1000), COMMAND_TIMEOUT)
                found.update(keys)
                if cursor == b"0":
                    break
        return sorted(found)


def make_tls(ca: Path | None) -> ssl.SSLContext:
    """What trusts the certificates in a file, or else those that the system trusts. Raises `ConfigurationError`."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigurationError(f"redis.tls_ca: {str(ca)!r} cannot be read: {reason}") from None


async def _answer(reply: Coroutine[Any, Any, R]) -> R:
    """A reply, or `BrokerUnavailable` for whatever went wrong. Neither addresses nor arguments get into its text."""
    try:
        return await reply
    except (ReplyError, ConnectionLost, TimeoutError) as error:
        raise unavailable(error) from error


def unavailable(error: Exception) -> BrokerUnavailable:
    """What went wrong, as this package says it."""
    if isinstance(error, ReplyError):
        if error.code in ("WRONGPASS", "NOAUTH"):
            return BrokerUnavailable("Redis refused the user or the password.")
        if "cluster support disabled" in str(error):
            return BrokerUnavailable("This Redis is no cluster: its URL begins with redis:// or rediss://.")
        if "unknown command 'SENTINEL'" in str(error):
            return BrokerUnavailable("This Redis is no sentinel: its URL begins with redis:// or rediss://.")
        return BrokerUnavailable(f"Redis refused a command ({error.code}): try again later.")
    if isinstance(error.__cause__, ssl.SSLCertVerificationError):
        return BrokerUnavailable("The certificate that Redis shows is not trusted.")
    return BrokerUnavailable("Redis does not answer: try again later.")
