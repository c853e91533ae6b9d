"""The keys that an identity provider publishes (RFC 7517), kept fresh in the background and looked up by `kid`.

The URL comes from the configuration alone; nothing of a token makes one. Keys belong to this object, so no `kid` reaches another issuer's.
A token with an unknown `kid` asks for one fetch at most per cool-down, whoever sends how many.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from ..backends.supervision import keep_going
from ..clock import SYSTEM_CLOCK, Clock
from ..logs import get_logger
from .document import fetch_document
from .keys import VerificationKey, key_of_jwk
from .tokens import is_kid

logger = get_logger(__name__)

REFRESH_INTERVAL = 300.0
COOLDOWN = 30.0
RETRY_DELAY = 5.0
UNKNOWN_TTL = 60.0
MAX_STALE = 24 * 3600.0
MAX_KEYS = 100
MAX_UNKNOWN = 1000

Fetch = Callable[[str], bytes]


class KeySet:
    """The key set of one URL. Stale keys stay good while a fetch is under way or failing, for 24 hours."""

    def __init__(self, url: str, *, algorithms: Sequence[str], clock: Clock = SYSTEM_CLOCK, fetch: Fetch | None = None) -> None:
        """`fetch(url)` gives the document and may block: it runs in a thread. Default: HTTP, 3 s, 256 KiB, no redirects."""
        self._url = url
        self._algorithms = tuple(algorithms)
        self._clock = clock
        self._fetch = fetch or fetch_document
        self._keys: dict[str, VerificationKey] = {}
        self._unknown: dict[str, float] = {}
        self._fetched_at: float | None = None
        self._next_fetch_at: float | None = None
        self._flight: asyncio.Task[bool] | None = None
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to keep the keys fresh; returns at once. Idempotent."""
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(keep_going(self._keep_fresh, "jwks", clock=self._clock), name="jwks")

    async def stop(self) -> None:
        """End it, and forget no key. Idempotent."""
        tasks = [task for task in (self._keeper, self._flight) if task is not None]
        self._keeper = self._flight = None
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def find(self, kid: str) -> VerificationKey | None:
        """The key with this id, if it is here and not too old."""
        key = self._keys.get(kid)
        if key is None or self._fetched_at is None or self._clock.monotonic() - self._fetched_at > MAX_STALE:
            return None
        return key

    def can_fetch(self, kid: str) -> bool:
        """Whether waiting for a fetch may bring this key: not if it was missing a moment ago, nor while the cool-down lasts."""
        now = self._clock.monotonic()
        if not is_kid(kid) or self._unknown.get(kid, now) > now:
            return False
        return self._flight is not None or self._next_fetch_at is None or now >= self._next_fetch_at

    async def look_for(self, kid: str) -> VerificationKey | None:
        """The key with this id, after a fetch if `can_fetch` says so. Cancelling leaves the fetch to the others who wait for it."""
        key = self.find(kid)
        if key is None and self.can_fetch(kid) and await self.refresh():
            key = self.find(kid)
            if key is None:
                self._unknown.pop(kid, None)
                if len(self._unknown) >= MAX_UNKNOWN:
                    del self._unknown[next(iter(self._unknown))]
                self._unknown[kid] = self._clock.monotonic() + UNKNOWN_TTL
        return key

    async def refresh(self) -> bool:
        """Fetch the set, or wait for the fetch that is under way; whether it came. Never raises for a provider that fails."""
        flight = self._flight
        if flight is None:
            flight = self._flight = asyncio.get_running_loop().create_task(self._load(), name="jwks-fetch")
            flight.add_done_callback(self._land)
        # Not `await flight`: neither may a caller's cancellation end the fetch, nor `stop` look like a cancellation of the caller.
        await asyncio.wait([flight])
        return not flight.cancelled() and flight.result()

    def _land(self, flight: asyncio.Task[bool]) -> None:
        if self._flight is flight:
            self._flight = None

    async def _load(self) -> bool:
        try:
            keys = keys_in(await asyncio.to_thread(self._fetch, self._url), self._algorithms)
        except Exception as error:  # whatever the provider sends, the keys that are here stay, and the next fetch comes
            logger.warning("The key set of %s could not be fetched (%s).", urlsplit(self._url).hostname, type(error).__name__)
            self._next_fetch_at = self._clock.monotonic() + RETRY_DELAY
            return False
        self._keys = keys
        self._fetched_at = self._clock.monotonic()
        self._next_fetch_at = self._fetched_at + COOLDOWN
        return True

    async def _keep_fresh(self) -> None:
        retry = RETRY_DELAY
        while True:
            if await self.refresh():
                retry = RETRY_DELAY
                await self._clock.sleep(REFRESH_INTERVAL)
            else:
                await self._clock.sleep(retry)
                retry = min(retry * 2, REFRESH_INTERVAL)


def keys_in(document: bytes, algorithms: Sequence[str]) -> dict[str, VerificationKey]:
    """The usable keys of a key set by `kid`; entries of other kinds are passed over. Raises `ValueError` where there is none."""
    entries = json.loads(document)
    entries = entries.get("keys") if isinstance(entries, dict) else None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError("not a key set")
    found: dict[str, VerificationKey] = {}
    for entry in entries:
        key = key_of_jwk(entry, algorithms)
        if key is not None and key.kid is not None:
            found.setdefault(key.kid, key)
    if not found:
        raise ValueError("no usable key")
    return found
