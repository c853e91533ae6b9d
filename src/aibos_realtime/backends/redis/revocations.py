"""Revoked users and tokens in Redis, for nodes that start later. Telling the nodes that run is the bus's, what a revocation means is `auth`'s."""

from __future__ import annotations

import math
from collections.abc import Iterable

from ...clock import SYSTEM_CLOCK, Clock
from ...metrics import Metrics
from ..foreign import Foreign
from ..revocations import Kind, Revoked
from .client import Client
from .layout import Layout
from .script import load_script

LIMIT = 100_000
AT_ONCE = 1000

_REVOKE, _REVOKED = load_script("revoke"), load_script("revoked")
_KINDS: dict[Kind, bytes] = {"user": b"u", "token": b"t", "all": b"*"}
_NAMES = {mark: kind for kind, mark in _KINDS.items()}


class RedisRevocations:
    """See `backends.revocations`. `memory`: seconds, the longest time for which a token can be good. `client` is opened and closed by its owner."""

    def __init__(self, client: Client, layout: Layout, *, memory: float, metrics: Metrics | None = None, clock: Clock = SYSTEM_CLOCK) -> None:
        self._client = client
        self._key = layout.of_nodes("revoked")
        self._memory = math.ceil(memory)
        self._foreign = Foreign(metrics if metrics is not None else Metrics(), clock)

    async def add(self, revoked: Iterable[Revoked]) -> None:
        words: list[bytes | str] = []
        for one in revoked:
            words += (_KINDS[one.kind] + one.name.encode(), repr(one.at))
        for start in range(0, len(words), 2 * AT_ONCE):
            await self._client.run(_REVOKE, [self._key], [self._memory, LIMIT, *words[start : start + 2 * AT_ONCE]])

    async def load(self) -> list[Revoked]:
        flat = await self._client.run(_REVOKED, [self._key], [LIMIT + 1])
        found: list[Revoked] = []
        for what, at in zip(flat[::2], flat[1::2], strict=True):
            kind, seconds = _NAMES.get(what[:1]), float(at)
            try:
                name = what[1:].decode()
            except UnicodeDecodeError:
                kind = None
            if kind is None or bool(name) == (kind == "all") or not math.isfinite(seconds):
                self._foreign.note("a revocation")
            else:
                found.append(Revoked(kind, name, seconds))
        return found
