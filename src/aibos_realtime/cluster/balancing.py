"""`LoadBalancer`: names the instance that the next connection goes to, and keeps track of which are up. It carries no traffic itself."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from pydantic import field_validator

from ..backends.supervision import keep_going
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import ConfigurationError, NoInstanceAvailable
from ..logs import get_logger
from ..options import Count, Options, Seconds
from .choice import Algorithm, make_choice
from .instances import Instance, Standing
from .probe import is_ready

logger = get_logger("aibos_realtime.cluster")

PROBES_AT_ONCE = 20


class HealthCheckOptions(Options):
    """Seconds between two checks of an instance, and for one; how many failures in a row turn it down, and successes up again."""

    interval: Seconds = 30.0
    timeout: Seconds = 5.0
    failures: Count = 2
    successes: Count = 2


class LoadBalancerOptions(Options):
    """See `LoadBalancer`. `health_check`: True is its defaults, False or None none at all."""

    algorithm: Algorithm = "round-robin"
    health_check: HealthCheckOptions | None = HealthCheckOptions()

    @field_validator("health_check", mode="before")
    @classmethod
    def _switch(cls, value: object) -> object:
        return ({} if value else None) if isinstance(value, bool) else value


class LoadBalancer:
    """Chooses among instances by one of five algorithms.

    `instances`: URLs, `Instance`s, or mappings (`{"url": …, "weight": 2}`). `algorithm`: "round-robin", "least-connections", "random",
    "consistent-hash" (by `key`; the same in every process) or "weighted-round-robin"; all but the first respect weights.
    `health_check`: `{"interval": 30, "timeout": 5}`, True or False. `tls`: what to trust when an instance is asked over TLS.

    An instance is up until two checks in a row failed, or `mark_down`; then down until two in a row succeeded, or `mark_up`.
    Between `start` and `stop` (or in `async with`) all are checked every `interval`. Where nothing is checked in the background, one
    that is down is tried again after `interval`. A `RealtimeClient` takes a balancer in place of its URL.
    Raises `ConfigurationError` naming `load_balancer.…`.
    """

    def __init__(
        self,
        *,
        algorithm: Algorithm = "round-robin",
        health_check: HealthCheckOptions | Mapping[str, Any] | bool | None = True,
        instances: Iterable[str | Instance | Mapping[str, Any]] = (),
        tls: ssl.SSLContext | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.options = LoadBalancerOptions.parse("load_balancer", {"algorithm": algorithm, "health_check": health_check})
        self._checks = self.options.health_check or HealthCheckOptions()
        self._choice = make_choice(self.options.algorithm)
        self._standings: dict[str, Standing] = {}
        self._tls = tls
        self._clock = clock
        self._checking: asyncio.Task[None] | None = None
        if isinstance(instances, str | Mapping) or not isinstance(instances, Iterable):
            raise ConfigurationError("load_balancer.instances: allowed is a list of URLs")
        for number, given in enumerate(instances):
            self._add(f"load_balancer.instances.{number}", given)

    # — the instances —

    @property
    def instances(self) -> list[Instance]:
        """All of them, up or down, in their order."""
        return [standing.instance for standing in self._standings.values()]

    @property
    def available_instances(self) -> list[Instance]:
        """Those among which the next one is chosen."""
        return [standing.instance for standing in self._available()]

    def add_instance(self, instance: str | Instance | Mapping[str, Any]) -> Instance:
        """Take one in; it counts as up. One that is here already is left as it is, but for its weight. Raises `ConfigurationError`."""
        parsed = Instance.parse("instance", instance)
        known = self._standings.get(parsed)
        if known is None:
            return self._add("instance", parsed)
        known.instance = parsed
        return parsed

    def remove_instance(self, instance: str) -> None:
        """Forget one; nothing happens where it is not here."""
        self._standings.pop(str(instance), None)

    def is_up(self, instance: str) -> bool:
        """Whether an instance counts as up; one that is not here does not."""
        standing = self._standings.get(str(instance))
        return standing is not None and standing.is_up

    # — choosing —

    async def get_next_instance(self, key: str | None = None) -> Instance:
        """The instance for the next connection. `key`: whose it is (a tenant, a user), for "consistent-hash".

        It counts as one more connection there, until `release` or the next `note_connections`. Raises `NoInstanceAvailable`. Never waits.
        """
        available = self._available()
        if not available:
            raise NoInstanceAvailable(f"None of {len(self._standings)} instances is up." if self._standings else "There are no instances.")
        chosen = self._choice.choose(available, key)
        self._standings[chosen].connections += 1
        return chosen

    def release(self, instance: str) -> None:
        """A connection that `get_next_instance` gave this instance for has ended."""
        standing = self._standings.get(str(instance))
        if standing is not None:
            standing.connections = max(0, standing.connections - 1)

    def note_connections(self, instance: str, count: int) -> None:
        """How many connections an instance has by its own account, instead of what was counted here."""
        standing = self._standings.get(str(instance))
        if standing is not None:
            standing.connections = max(0, count)
            standing.is_reported = True

    # — up and down —

    def mark_down(self, instance: str) -> None:
        """Choose this instance no more, from now on: whoever tried it knows better than the last check."""
        self._set(instance, False)

    def mark_up(self, instance: str) -> None:
        """Choose this instance again, from now on."""
        self._set(instance, True)

    async def check_health(self, instance: str) -> bool:
        """Ask an instance whether it is ready, now (GET `/ready`, 200 within the time-out); the result counts, as that of any check.

        Also for a URL that is not among the instances: then nothing is counted. Raises `ConfigurationError` for what is no URL.
        Cancelling is safe.
        """
        asked = Instance.parse("instance", instance)
        ready = await is_ready(asked, timeout=self._checks.timeout, tls=self._tls)
        standing = self._standings.get(asked)
        if standing is not None and standing.note(ready, self._clock.monotonic()):
            _tell(standing)
        return ready

    async def start(self) -> None:
        """Begin to check all instances in the background; returns at once. Idempotent. Without `health_check`: nothing happens."""
        if self.options.health_check is not None and self._checking is None:
            self._checking = asyncio.get_running_loop().create_task(
                keep_going(self._keep_checking, "health-checks", clock=self._clock), name="health-checks"
            )

    async def stop(self) -> None:
        """End the background checks. Idempotent."""
        checking, self._checking = self._checking, None
        if checking is not None:
            checking.cancel()
            await asyncio.wait([checking])

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    # — inside —

    def _add(self, path: str, given: object) -> Instance:
        instance = Instance.parse(path, given)
        if instance in self._standings:
            raise ConfigurationError(f"{path}: {instance.name} was given twice; allowed is each URL once")
        self._standings[str(instance)] = Standing(instance, failures=self._checks.failures, successes=self._checks.successes)
        return instance

    def _available(self) -> list[Standing]:
        standings = self._standings.values()
        if self._checking is None:
            horizon = self._clock.monotonic() - self._checks.interval
            return [standing for standing in standings if standing.is_up or standing.down_at <= horizon]
        return [standing for standing in standings if standing.is_up]

    def _set(self, instance: str, is_up: bool) -> None:
        standing = self._standings.get(str(instance))
        if standing is not None:
            changed = standing.is_up != is_up
            standing.set(is_up, self._clock.monotonic())
            if changed:
                _tell(standing)

    async def _keep_checking(self) -> None:
        while True:
            places = asyncio.Semaphore(PROBES_AT_ONCE)
            await asyncio.gather(*(self._check_one(instance, places) for instance in self.instances))
            await self._clock.sleep(self._checks.interval)

    async def _check_one(self, instance: Instance, places: asyncio.Semaphore) -> None:
        async with places:
            try:
                await self.check_health(instance)
            except Exception:
                logger.exception("the check of %s failed in itself", instance.name)


def _tell(standing: Standing) -> None:
    if standing.is_up:
        logger.info("instance %s is up", standing.instance.name)
    else:
        logger.warning("instance %s is down", standing.instance.name)
