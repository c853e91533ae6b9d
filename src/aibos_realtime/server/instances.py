"""`GET /api/v1/instances`: where else clients can connect, for those who choose by themselves. Whoever has a valid token may ask."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..auth.authentication import WebSocketAuth
from ..clock import Clock
from ..cluster.reports import InstanceReport
from ..cluster.scaling import ScalingManager
from ..errors import AuthenticationError, BrokerUnavailable
from ..transport.asgi import Scope
from .http import Reply, problem
from .upgrade import TrustedProxies

INSTANCES_PATH = "/api/v1/instances"
FRESH = 1.0
"""Seconds for which one reading of the register serves everybody who asks."""


class InstancesRoute:
    """A `http.Route`. `penalty(address)`: counts a failed authentication, and says for how many seconds to hold the answer back."""

    def __init__(
        self, scaling: ScalingManager, *, auth: WebSocketAuth, proxies: TrustedProxies, penalty: Callable[[str], float], clock: Clock
    ) -> None:
        self._scaling = scaling
        self._auth = auth
        self._proxies = proxies
        self._penalty = penalty
        self._clock = clock
        self._reports: list[InstanceReport] = []
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    async def __call__(self, scope: Scope) -> Reply:
        """`{"instances": [{"url", "name", "connections", "load", "weight"}, …]}`, the least loaded first; 401 without a valid token, 503 while the
        register cannot be read.
        """
        try:
            await self._check(scope)
            reports = await self._read()
        except AuthenticationError as error:
            return Reply(401, problem(error.code, AuthenticationError.default_message), ((b"www-authenticate", b"Bearer"),))
        except BrokerUnavailable as error:
            return Reply(503, problem(error.code, error.message, retryable=True), ((b"retry-after", b"1"),))
        return Reply(200, {"instances": [_shown(report) for report in reports]})

    async def _check(self, scope: Scope) -> None:
        if self._auth.is_excluded(INSTANCES_PATH):
            return
        token = self._auth.token_from(scope["headers"], scope["query_string"])
        if token is None:
            raise AuthenticationError()
        try:
            await self._auth.identify(token)
        except AuthenticationError:
            if seconds := self._penalty(self._proxies.address_of(scope)):
                await self._clock.sleep(seconds)
            raise

    async def _read(self) -> list[InstanceReport]:
        async with self._reading:
            now = self._clock.monotonic()
            if self._read_at is None or now - self._read_at >= FRESH:
                self._reports = await self._scaling.report()
                self._read_at = now
            return self._reports


def _shown(report: InstanceReport) -> dict[str, object]:
    return {"url": report.url, "name": report.name, "connections": report.connections, "load": report.load, "weight": report.weight}
