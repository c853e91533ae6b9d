"""`ScalingManager`: which instances there are by the register of nodes and by configuration, for a `LoadBalancer` that follows it.

It is the face of the register to applications. It moves no connections, and starts no processes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Never, Self

from pydantic import Field, field_validator

from ..backends.nodes import NodeRecord, Nodes, Registration
from ..backends.redis.options import RedisOptions
from ..backends.supervision import keep_going
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import BrokerUnavailable, ConfigurationError
from ..logs import get_logger
from ..options import Options
from .balancing import LoadBalancer, LoadBalancerOptions
from .instances import Instance
from .reports import InstanceReport, merge

if TYPE_CHECKING:
    from ..backends.redis.client import Client

logger = get_logger("aibos_realtime.cluster")

REFRESH = 2.0
"""Seconds between two readings of the register."""


class ScalingManagerOptions(Options):
    """See `ScalingManager`."""

    redis: RedisOptions | None = None
    instances: tuple[Any, ...] = ()
    load_balancer: LoadBalancerOptions = Field(default_factory=LoadBalancerOptions)

    @field_validator("instances", mode="before")
    @classmethod
    def _list(cls, value: object) -> object:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise ValueError("allowed is a list of URLs")
        return tuple(value)


class ScalingManager:
    """The instances that clients can go to: `instances`, which are fixed, and those in the register of `redis`, as they come and go.

    `redis`: `{"url": …, "prefix": …}`, the same as of the servers; without it there is the fixed list alone. `instances`: URLs, `Instance`s or
    mappings (`{"url": …, "weight": 2}`). `load_balancer`: `{"algorithm": …, "health_check": …}` or a `LoadBalancer`. `nodes`: a register to share
    instead of one of its own; whoever gave it opens and closes it.

    Nothing is opened at construction; each call opens what it needs. `stop` (or the end of `async with`) takes back what was registered, and is
    due after any of them. Raises `ConfigurationError` naming `scaling.…`.
    """

    def __init__(
        self,
        *,
        redis: RedisOptions | Mapping[str, Any] | None = None,
        instances: Iterable[str | Instance | Mapping[str, Any]] = (),
        load_balancer: LoadBalancer | LoadBalancerOptions | Mapping[str, Any] | None = None,
        nodes: Nodes | None = None,
        clock: Clock = SYSTEM_CLOCK,
        **unknown: Never,
    ) -> None:
        balancer, balancing = (load_balancer, None) if isinstance(load_balancer, LoadBalancer) else (None, load_balancer)
        given = {"redis": redis, "instances": instances, "load_balancer": balancing or {}}
        self.options = options = ScalingManagerOptions.parse("scaling", given | unknown)
        self._client: Client | None = None
        if options.redis is not None and nodes is None:
            self._client, nodes = _open_register(options.redis, clock)
        self._nodes = nodes
        self._clock = clock
        chosen = options.load_balancer
        self.load_balancer = balancer or LoadBalancer(algorithm=chosen.algorithm, health_check=chosen.health_check, clock=clock)
        self._fixed = _parse_instances(options.instances)
        for instance in self._fixed.values():
            self.load_balancer.add_instance(instance)
        self._set_aside: set[str] = set()
        """Of the fixed ones, those that drain."""
        self._followed: dict[str, int] = {}
        """Of the balancer's instances, those that it has from the register, with their weights."""
        self._registrations: dict[str, Registration] = {}
        self._following: asyncio.Task[None] | None = None
        self._is_away = False
        self._changing = asyncio.Lock()

    # — life —

    async def start(self) -> None:
        """Read the register, and from then on follow it; begin the health checks. Idempotent. Raises `BrokerUnavailable`, `ConfigurationError`."""
        async with self._changing:
            if self._following is not None:
                return
            await self._read()
            await self.load_balancer.start()
            self._following = asyncio.get_running_loop().create_task(
                keep_going(self._follow, "register-of-nodes", clock=self._clock), name="register-of-nodes"
            )

    async def stop(self) -> None:
        """Take back what was registered, and end everything. Idempotent."""
        async with self._changing:
            following, self._following = self._following, None
            if following is not None:
                following.cancel()
                await asyncio.wait([following])
            registrations, self._registrations = self._registrations, {}
            await asyncio.gather(*(one.stop() for one in registrations.values()))
            await self.load_balancer.stop()
            if self._client is not None:
                await self._client.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    # — the instances —

    async def register_instance(self, url: str, *, weight: int = 1, name: str | None = None) -> Instance:
        """Tell the register of an instance, which everybody sees then, until `unregister_instance`, `stop`, or 10 s after the end of this process.

        A server with `scaling.enabled` registers itself: this is for others. `name`: for people, default host and port. Registering again replaces
        weight and name. Without a register it is known here alone. Raises `ConfigurationError`, `BrokerUnavailable`. Cancelling is safe.
        """
        instance = Instance.parse("instance", {"url": url, "weight": weight})
        if self._nodes is None:
            self._fixed[instance] = instance
            return self.load_balancer.add_instance(instance)
        await self.start()
        registration = self._nodes.register(str(instance), name=name or instance.name, weight=weight)
        await registration.start()
        former = self._registrations.get(instance)
        self._registrations[instance] = registration
        if former is not None:
            await former.stop()
        await self._refresh()
        return instance

    async def unregister_instance(self, url: str) -> bool:
        """Take back a registration of this object's; whether there was one. What other processes or the instance itself tell stays."""
        instance = Instance.parse("instance", url)
        if self._nodes is None:
            self.load_balancer.remove_instance(instance)
            return self._fixed.pop(instance, None) is not None
        registration = self._registrations.pop(instance, None)
        if registration is None:
            return False
        await registration.stop()
        await self._refresh()
        return True

    async def get_available_instances(self) -> list[Instance]:
        """Those that can be connected to: registered or fixed, alive, not draining, and up by the balancer's checks.

        Where the register cannot be read: as it was last. Raises `BrokerUnavailable` where it never could.
        """
        await self.start()
        await self._refresh()
        return self.load_balancer.available_instances

    async def report(self) -> list[InstanceReport]:
        """What is known of each instance that takes connections, the least loaded first. Raises `BrokerUnavailable`."""
        reports = [report for report in await self._read() if not report.is_draining]
        known = {report.url for report in reports}
        others = [instance for instance in self.load_balancer.instances if instance not in known]
        return [*reports, *(InstanceReport(one.url, one.name, None, 0.0, one.weight) for one in others)]

    async def nodes(self) -> list[NodeRecord]:
        """All nodes that live, by rising name: servers, draining ones too, and processes without sockets. Raises `BrokerUnavailable`."""
        if self._nodes is None:
            return []
        if self._client is not None:
            await self._client.open()
        return await self._nodes.list()

    # — following —

    async def _follow(self) -> None:
        while True:
            await self._clock.sleep(REFRESH)
            await self._refresh()

    async def _refresh(self) -> None:
        """Read the register, or go on with what it said last."""
        try:
            await self._read()
        except BrokerUnavailable as error:
            if not self._is_away:
                self._is_away = True
                logger.warning("the register of nodes cannot be read: %s", error)
        else:
            self._is_away = False

    async def _read(self) -> list[InstanceReport]:
        if self._nodes is None:
            return []
        if self._client is not None:
            await self._client.open()
        reports = merge(await self._nodes.list_instances())
        self._apply(reports)
        return reports

    def _apply(self, reports: list[InstanceReport]) -> None:
        """Have the balancer know what the register says. What was added to the balancer by hand stays."""
        balancer = self.load_balancer
        up = {report.url: report for report in reports if not report.is_draining}
        draining = {report.url for report in reports} - up.keys()
        for url in [url for url in self._followed if url not in up]:
            del self._followed[url]
            balancer.remove_instance(url)
        for url in self._set_aside - draining:
            self._set_aside.discard(url)
            balancer.add_instance(self._fixed[url])
        for url in draining & self._fixed.keys():
            self._set_aside.add(url)
            balancer.remove_instance(url)
        for url, report in up.items():
            if url not in self._fixed and self._followed.get(url) != report.weight:
                balancer.add_instance(report.instance)
                self._followed[url] = report.weight
            if report.connections is not None:
                balancer.note_connections(url, report.connections)


def _open_register(options: RedisOptions, clock: Clock) -> tuple[Client, Nodes]:
    from ..backends.redis.client import Client
    from ..backends.redis.layout import Layout
    from ..backends.redis.nodes import RedisNodes

    client = Client.from_options(options, clock=clock)
    return client, RedisNodes(client, Layout(options.prefix, 1), name="instances", role="process", clock=clock)


def _parse_instances(given: Iterable[Any]) -> dict[str, Instance]:
    found: dict[str, Instance] = {}
    for number, one in enumerate(given):
        instance = Instance.parse(f"scaling.instances.{number}", one)
        if instance in found:
            raise ConfigurationError(f"scaling.instances.{number}: {instance.name} was given twice; allowed is each URL once")
        found[instance] = instance
    return found
