"""A lease in Redis, for what one of several nodes does at a time.

It excludes nobody for certain: a holder that stood still for too long hears of its loss only when it asks.
"""

from __future__ import annotations

from .client import Client
from .layout import Layout
from .script import load_script

_HOLD, _RELEASE = load_script("lease_hold"), load_script("lease_release")


class RedisLease:
    """See `intake.Lease`. `name`: what it is for; `holder_id`: who asks, never the same for two. `ttl`: seconds, by the server's clock."""

    def __init__(self, client: Client, layout: Layout, name: str, holder_id: str, ttl: float = 5.0) -> None:
        self.ttl = ttl
        self._client = client
        self._keys = [layout.of_nodes(f"lease:{name}")]
        self._holder = holder_id

    async def hold(self) -> bool:
        reply = await self._client.run(_HOLD, self._keys, [self._holder, int(self.ttl * 1000)])
        return bool(reply == 1)

    async def release(self) -> None:
        await self._client.run(_RELEASE, self._keys, [self._holder])
