"""Nodes that share a PostgreSQL database: they have to see the same one, and to know one another. Two groups would give one position twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from aibos_realtime import ConfigurationError
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.meta import GROUP, identity, read_meta

ELSEWHERE = r"^database\.url: nodes that meet elsewhere, in another Redis or under another prefix, write to postgresql://"


@pytest.fixture
async def databases(postgres_url: str) -> AsyncIterator[list[Database]]:
    async with Database(postgres_url) as one, Database(postgres_url) as two, Database(postgres_url) as three:
        yield [one, two, three]


async def test_nodes_that_begin_at_one_moment_see_the_same_database(databases: list[Database]) -> None:
    """They tell one another its name (`Scaling.agree`): of two names one node would have been refused, at that start and at each one after it."""
    await asyncio.gather(*(database.read(read_meta, GROUP) for database in databases))  # all are connected
    assert len(set(await asyncio.gather(*(database.write(identity) for database in databases)))) == 1


async def test_a_second_group_is_refused_as_long_as_the_first_one_has_a_node(databases: list[Database]) -> None:
    one, two, three = databases
    first, second = await one.acquire_share(group="a"), await two.acquire_share(group="a")
    assert first.era == second.era
    with pytest.raises(ConfigurationError, match=ELSEWHERE):
        await three.acquire_share(wait=0.1, group="b")
    await first.release()
    with pytest.raises(ConfigurationError, match=ELSEWHERE):
        await three.acquire_share(wait=0, group="b")
    assert await three.read(read_meta, GROUP) == "a", "whoever was refused has changed nothing"
    await second.release()
    await (await three.acquire_share(wait=5, group="b")).release()
    assert await three.read(read_meta, GROUP) == "b"


async def test_whoever_waits_comes_after_the_last_of_the_others(databases: list[Database]) -> None:
    one, two, _ = databases
    first = await one.acquire_share(group="a")
    waiting = asyncio.ensure_future(two.acquire_share(wait=10, group="b"))
    done, _ = await asyncio.wait([waiting], timeout=0.3)
    assert not done
    await first.release()
    await (await waiting).release()


async def test_a_new_group_may_come_with_several_nodes_at_once(databases: list[Database]) -> None:
    """The others of a node's own group are no reason to refuse it, though the name of an old group still stands there."""
    one, two, three = databases
    await (await one.acquire_share(group="a")).release()
    shares = await asyncio.gather(*(database.acquire_share(wait=5, group="b") for database in (one, two, three)))
    for share in shares:
        await share.release()


async def test_a_group_lives_on_when_its_sessions_were_cut(databases: list[Database]) -> None:
    one, two, _ = databases
    share = await one.acquire_share(group="a")
    end = text("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()")
    await two.write(lambda connection: connection.execute(end).all())
    for _ in range(2):  # the first one may be what finds out
        try:
            await share.write(lambda connection: connection.scalar(text("SELECT 1")))
            break
        except Exception:
            continue
    with pytest.raises(ConfigurationError, match=ELSEWHERE):
        await two.acquire_share(wait=0, group="b")
    await share.release()


async def test_who_is_of_no_group_is_let_in(databases: list[Database]) -> None:
    one, two, _ = databases
    shares = [await one.acquire_share(group="a"), await two.acquire_share()]
    for share in shares:
        await share.release()
