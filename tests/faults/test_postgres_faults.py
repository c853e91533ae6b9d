"""PostgreSQL fails in every way once. For longer and more often: `python -m tests.faults.postgres_faults --seconds 10 --rounds 3`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from aibos_realtime import StoreUnavailable
from aibos_realtime.backends.sql.database import Database
from tests.faults import kill_server
from tests.faults.postgres_faults import FAULTS, GRACE, prove, socket_of, through
from tests.faults.processes import Zygote
from tests.faults.proxy import Blackhole, Pass, Proxy
from tests.servers.postgres import PostgresServer, running_postgres

STATEMENT_TIMEOUT = 1.0
NAMES = list(FAULTS)
GROUPS = [NAMES[:2], NAMES[2:4], NAMES[4:]]
"""Several faults to a server, since each one has to be started and settled."""


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """One that may be killed."""
    with running_postgres() as server:
        yield server


@pytest.mark.parametrize("faults", GROUPS, ids=" ".join)
async def test_nothing_is_lost_when_postgresql_fails(zygote: Zygote, tmp_path: Path, own_postgres: PostgresServer, faults: list[str]) -> None:
    verdict = await prove(zygote, tmp_path, own_postgres, faults=faults, seconds=1.5, statement_timeout=STATEMENT_TIMEOUT, seed=20)
    assert verdict.is_clean, str(verdict)
    assert verdict.counts["told of a gap"] == 0, str(verdict)
    assert verdict.counts["slowest refusal (ms)"] <= 1000 * (STATEMENT_TIMEOUT + GRACE), str(verdict)


async def test_nothing_is_lost_when_the_server_before_it_is_killed(zygote: Zygote, tmp_path: Path, postgres_url: str) -> None:
    verdict = await kill_server.prove(zygote, tmp_path, postgres_url, kills=3, seed=20)
    assert verdict.is_clean, str(verdict)
    assert verdict.counts["told of a gap"] == 0, str(verdict)


async def test_a_write_into_a_blackhole_fails_in_time(own_postgres: PostgresServer) -> None:
    with own_postgres.database() as url:
        async with Proxy(socket_of(own_postgres)) as proxy:
            database = Database(through(proxy, url), statement_timeout=1.5)
            await database.open()
            writer = await database.acquire_writer()
            proxy.mode = Blackhole()
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await writer.write(lambda connection: connection.execute(text("SELECT 1")))
            waited = time.monotonic() - began
            proxy.mode = Pass()
            await writer.release()
            await database.close()
    assert waited < 2.75  # 1.5, and half a second until a connection that says nothing is cut
