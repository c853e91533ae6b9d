"""Joins that race a publisher, in memory and on sockets. The full figure on sockets: `python -m tests.faults.join_race --joins 1000`."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime.testing import MemoryClient, memory_server
from tests.faults.join_race import REACH, Message, Race, check_race, prove
from tests.faults.journal import Journal
from tests.faults.processes import Zygote
from tests.faults.server_program import make_server

SEED = 20


class MemoryPeer:
    """A `testing.MemoryClient` as a `join_race.Peer`."""

    def __init__(self, client: MemoryClient) -> None:
        self._client = client

    async def send(self, event: str, data: Any = None, **members: Any) -> None:
        self._client.send(event, data, **members)

    async def receive(self) -> Message:
        return await self._client.receive(timeout=20)

    async def close(self) -> None:
        self._client.close()


@pytest.mark.parametrize("history_size", [1000, 10], ids=["hot", "store"])
async def test_a_thousand_joins_in_memory(tmp_path: Path, history_size: int) -> None:
    """With a hot log of 10 events most of what is recovered comes from the store."""
    server = make_server(0, f"sqlite:///{tmp_path}/realtime.db", {"history_size": history_size})
    async with memory_server(server) as net:

        async def connect(user_id: str) -> MemoryPeer:
            return MemoryPeer(await net.connect(user_id))

        with Journal(tmp_path, "race") as journal:
            race = Race(connect, journal, random.Random(SEED))
            await race.publish(REACH)
            await race.run(500)
    verdict = check_race(tmp_path, race)
    assert verdict.is_clean, str(verdict)
    assert verdict.counts["told of a gap"] == 0, str(verdict)


async def test_joins_on_sockets(zygote: Zygote, tmp_path: Path) -> None:
    verdict = await prove(zygote, tmp_path, f"sqlite:///{tmp_path}/realtime.db", joins=200, seed=SEED)
    assert verdict.is_clean, str(verdict)
    assert verdict.counts["told of a gap"] == 0, str(verdict)
