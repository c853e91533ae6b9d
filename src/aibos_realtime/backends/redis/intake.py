"""What waits in Redis for the store: `backends.intake.Intake`, on the streams that `log` writes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from ..intake import IntakeEntry
from . import records
from .log import RedisLog
from .script import load_script

_READ, _DROP = load_script("intake_read", "log_common"), load_script("intake_drop", "log_common")


class RedisIntake:
    """See the port."""

    def __init__(self, log: RedisLog) -> None:
        self._log = log
        self._runs: dict[int, bytes] = {}
        self.shards = log.shards

    async def read(self, shard: int, after: str | None, count: int) -> Sequence[IntakeEntry]:
        run, entries = await self._log.client.run(_READ, [self._log.layout.of_shard(shard, "intake")], (after or "", count))
        self._runs[shard] = run
        return [_entry(id.decode("latin-1"), fields) for id, fields in entries]

    async def drop(self, shard: int, up_to: str) -> None:
        """See the port. Where Redis has restarted or failed over since the reading, nothing goes: it is read, stored and dropped once more."""
        layout = self._log.layout
        keys = [layout.of_shard(shard, name) for name in ("intake", "stored", "state")]
        await self._log.client.run(_DROP, keys, (self._runs.get(shard, b""), up_to, layout.of_shard(shard, "committed")))

    async def count(self) -> int:
        client, layout = self._log.client, self._log.layout
        lengths = await asyncio.gather(*(client.command("XLEN", layout.of_shard(shard, "intake")) for shard in range(self.shards)))
        return sum(map(int, lengths))

    async def wait(self, timeout: float) -> None:
        self._log.hear_wanted()
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._log.wanted.wait()
        self._log.wanted.clear()


def _entry(id: str, fields: Any) -> IntakeEntry:
    """An entry: p (epoch, offset, time), m (the room), r (the record), k (whether its payload is to be kept), and what a newer node adds."""
    event = None
    if len(fields) >= 8 and fields[0:8:2] == [b"p", b"m", b"r", b"k"] and len(fields[3]) <= 1024 and b"\0" not in fields[3]:
        with suppress(UnicodeDecodeError):
            event = records.decode_event(b"e%s %s" % (fields[1], fields[5]), fields[3].decode())
    return IntakeEntry(id, event, keep=event is None or fields[7] == b"1")
