"""Queues as Redis streams with a consumer group. Every write is one script, so that none is ever half done; see `scripts/common.lua`.

All keys of a queue carry one hash tag (`{aibos:orders}:stream`), so that a cluster keeps them together.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import secrets
from collections.abc import Sequence
from typing import Any

from ...errors import IdempotencyConflict, QueueFull
from ...protocol.limits import ID_LENGTH
from ..queue import QueueDraft, QueueLimits, QueueStats, Sent, StoredLetter, Taken, Verdict
from .client import Client
from .options import RedisOptions
from .records import LATEST
from .script import load_script

KEYS = ("stream", "leases", "delayed", "attempts", "lines", "holders", "counters", "dead")
PAGE = 100

_ENTRY = re.compile(r"[0-9]{1,20}-[0-9]{1,20}")


class Horizon:
    """What the last `take` of a queue saw: up to which entry, and until when (by the loop's clock) nothing else comes. `news`: settled since."""

    __slots__ = ("entry", "news", "until")

    def __init__(self) -> None:
        self.entry = "0-0"
        self.until = 0.0
        self.news = asyncio.Event()


class RedisQueue:
    """See `queue.QueueStore`. Times are those of the server's clock."""

    def __init__(self, options: RedisOptions) -> None:
        self._client = Client.from_options(options)
        self._prefix = options.prefix
        self._keys: dict[str, list[str]] = {}
        self._horizons: dict[str, Horizon] = {}

    async def open(self) -> None:
        await self._client.open()

    async def close(self) -> None:
        self._horizons.clear()
        await self._client.close()

    def _keys_of(self, queue: str) -> list[str]:
        keys = self._keys.get(queue)
        if keys is None:
            keys = self._keys[queue] = [f"{{{self._prefix}:{queue}}}:{part}" for part in KEYS]
        return keys

    async def _run(self, name: str, queue: str, *arguments: Any, more_keys: Sequence[str] = ()) -> Any:
        return await self._client.run(load_script(name, "common"), [*self._keys_of(queue), *more_keys], arguments)

    async def send(self, queue: str, drafts: Sequence[QueueDraft], limits: QueueLimits) -> list[Sent | QueueFull | IdempotencyConflict]:
        arguments: list[Any] = [limits.max_size or 0, _milliseconds(limits.ttl), _milliseconds(limits.idempotency_window)]
        remembered: list[str] = []
        for draft in drafts:
            place, digest = 0, ""
            if draft.idempotency_key is not None:
                remembered.append(f"{{{self._prefix}:{queue}}}:sent:{hashlib.sha256(draft.idempotency_key.encode()).hexdigest()}")
                place = len(KEYS) + len(remembered)
                digest = hashlib.sha256(repr(draft.key).encode() + draft.data).hexdigest()[:40]
            arguments += (draft.id, draft.data, draft.key or "", _milliseconds(draft.delay), _milliseconds(draft.ttl), place, digest)
        replies = await self._run("send", queue, *arguments, more_keys=remembered)
        return [_outcome(what, id) for what, id in replies]

    async def take(self, queue: str, limit: int, *, visibility: float, limits: QueueLimits, ordered: bool = False) -> list[Taken]:
        mark = secrets.token_urlsafe(6)
        reply = await self._run("take", queue, limit, _milliseconds(visibility), _milliseconds(limits.ttl), int(ordered), mark)
        horizon = self._horizons.setdefault(queue, Horizon())
        horizon.news.clear()
        if len(reply) > 1:
            horizon.entry = reply[1].decode()
            horizon.until = math.inf if reply[2] < 0 else asyncio.get_running_loop().time() + reply[2] / 1000
        else:
            horizon.until = 0.0
        return [_as_taken(mark, *row) for row in reply[0]]

    async def wait(self, queue: str, timeout: float) -> None:
        horizon = self._horizons.setdefault(queue, Horizon())
        seconds = min(timeout, horizon.until - asyncio.get_running_loop().time())
        if seconds <= 0 or horizon.news.is_set():
            return
        entry = asyncio.ensure_future(self._client.wait_for_entry(self._keys_of(queue)[0], horizon.entry, seconds))
        news = asyncio.ensure_future(horizon.news.wait())
        try:
            await asyncio.wait((entry, news), return_when=asyncio.FIRST_COMPLETED)
            if entry.done():
                entry.result()
        finally:
            for task in (entry, news):
                task.cancel()
            await asyncio.gather(entry, news, return_exceptions=True)

    async def settle(self, queue: str, verdicts: Sequence[Verdict], limits: QueueLimits) -> list[bool]:
        arguments: list[Any] = [limits.max_dead]
        for verdict in verdicts:
            detail = verdict.reason if verdict.kind == "dead" else _milliseconds(verdict.delay)
            arguments += (*_entry_and_mark(verdict.taken), verdict.kind, detail)
        *counted, has_news = await self._run("settle", queue, *arguments)
        if has_news and queue in self._horizons:
            self._horizons[queue].news.set()
        return [one == 1 for one in counted]

    async def extend(self, queue: str, taken: Sequence[Taken], visibility: float) -> list[bool]:
        arguments: list[Any] = [_milliseconds(visibility)]
        for one in taken:
            arguments += _entry_and_mark(one)
        return [one == 1 for one in await self._run("extend", queue, *arguments)]

    async def stats(self, queue: str) -> QueueStats:
        depth, in_flight, delayed, dead, oldest, expired, dropped = await self._run("stats", queue)
        return QueueStats(depth, in_flight, delayed, dead, None if oldest < 0 else oldest / 1000, expired, dropped)

    async def names(self) -> list[str]:
        found: set[str] = set()
        for part in ("stream", "dead"):
            head, tail = f"{{{self._prefix}:", f"}}:{part}"
            for key in await self._client.scan(f"{head}*{tail}"):
                name = key.decode(errors="replace").removeprefix(head).removesuffix(tail)
                if name not in found and await self._client.command("XLEN", key):
                    found.add(name)
        return sorted(found)

    async def dead_letters(self, queue: str, limit: int, before: str | None = None) -> list[StoredLetter]:
        end = "+" if before is None else f"({before}"
        rows = await self._client.command("XREVRANGE", self._keys_of(queue)[-1], end, "-", "COUNT", limit)
        return [_as_letter(place, fields) for place, fields in rows]

    async def requeue(self, queue: str, ids: Sequence[str] | None, limits: QueueLimits) -> int:
        wanted = None if ids is None else set(ids)
        count, after = 0, "-"
        last = await self._client.command("XREVRANGE", self._keys_of(queue)[-1], "+", "-", "COUNT", 1)
        end = last[0][0] if last else "-"  # what is buried meanwhile, perhaps one of these again, stays
        while rows := await self._client.command("XRANGE", self._keys_of(queue)[-1], after, end, "COUNT", PAGE):
            letters = [_as_letter(place, fields) for place, fields in rows]
            places = [letter.place for letter in letters if wanted is None or letter.id in wanted]
            if places:
                count += await self._run("requeue", queue, _milliseconds(limits.ttl), *places)
            after = f"({letters[-1].place}"
        return count

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        count: int = await self._run("purge", queue, "dead" if dead else "unfinished")
        return count


def _milliseconds(seconds: float | None) -> int:
    """At least one, where there is any time at all; 0 for None."""
    return math.ceil(seconds * 1000) if seconds else 0


def _outcome(what: bytes, id: bytes) -> Sent | QueueFull | IdempotencyConflict:
    if what == b"full":
        return QueueFull()
    if what == b"conflict":
        return IdempotencyConflict()
    return Sent(id.decode(), duplicate=what == b"duplicate")


def _as_taken(mark: str, entry: bytes, attempt: int, id: bytes, data: bytes, key: bytes | None) -> Taken:
    place = entry.decode()
    return Taken(f"{place}.{mark}", attempt, _id(id, place), data, _sent_at(place), None if key is None else key.decode(errors="replace"))


def _entry_and_mark(taken: Taken) -> tuple[str, str]:
    entry, _, mark = taken.lease.partition(".")
    return entry, mark


def _as_letter(place: bytes, words: Sequence[bytes]) -> StoredLetter:
    """Whatever is there: what another program wrote can at least be looked at, handed out again and thrown away."""
    fields = dict(zip(words[::2], words[1::2], strict=True))
    buried = place.decode()
    sent, attempts, key = fields.get(b"sent", b"").decode(errors="replace"), fields.get(b"attempts", b""), fields.get(b"key")
    if _ENTRY.fullmatch(sent) is None:
        sent = buried
    return StoredLetter(
        buried,
        _id(fields.get(b"id", b""), sent),
        fields.get(b"data", b""),
        int(attempts) if attempts.isdigit() and len(attempts) <= 9 else 0,
        fields.get(b"reason", b"").decode(errors="replace"),
        _sent_at(sent),
        _sent_at(buried),
        None if key is None else key.decode(errors="replace"),
    )


def _id(given: bytes, entry: str) -> str:
    """The id of a message: the sender's own, or where that is none the name of its entry."""
    try:
        id = given.decode()
    except UnicodeDecodeError:
        return entry
    return id if 1 <= len(id) <= ID_LENGTH and id.isprintable() else entry


def _sent_at(entry: str) -> float:
    """Seconds. Other programs may give an entry any time, also one for which there is no date."""
    return min(int(entry.partition("-")[0]), LATEST) / 1000
