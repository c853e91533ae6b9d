"""The outbox, on SQLite and PostgreSQL, for sessions of every kind: delivered if and only if committed, in the order of transactions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from aibos_realtime import ConfigurationError, outbox, where
from aibos_realtime.backends.base import Audience
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.outbox import CHANNEL, read
from aibos_realtime.backends.sql.schema import outbox as table
from aibos_realtime.storage.relay import Relay
from tests.contracts.outbox_rig import KINDS, PATIENCE, Application, WritingLog
from tests.servers.postgres import PostgresServer

NEVER = 3600.0


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    async with Database(store_url) as database:
        yield database


@pytest.fixture(params=KINDS)
async def application(request: pytest.FixtureRequest, database: Database, store_url: str) -> AsyncIterator[Application]:
    application = Application(store_url, request.param)
    yield application
    await application.close()


@pytest.fixture
async def session_application(database: Database, store_url: str) -> AsyncIterator[Application]:
    application = Application(store_url, "AsyncSession")
    yield application
    await application.close()


async def waiting(database: Database) -> list[str]:
    """The events that may be relayed now."""
    return [row.event for row in (await database.read(lambda connection: read(connection, 1000))).rows]


async def test_delivered_if_and_only_if_committed(database: Database, application: Application) -> None:
    log = WritingLog()
    async with Relay(database, log.publish) as relay:
        async with application.transaction() as (_, publish):
            ids = [await publish("tenant_123", "one", {"n": 1}), await publish("user:ann ü", "two", None, id="mine", persist=False)]
            ids += [await publish("all", "three", "ü😀", filter=where(role__in=["admin"]), exclude=["bob"])]
            ids += [await publish("tenant_123", "four", [1.5], filter="approvers")]
            assert await waiting(database) == []
        async with application.transaction(commit=False) as (_, publish):
            await publish("tenant_123", "never")
        with suppress(ZeroDivisionError):
            async with application.transaction() as (_, publish):
                await publish("tenant_123", "never")
                1 / 0  # noqa: B018
        await application.publish("tenant_123", "last")
        assert await log.until("last") == ["one", "two", "three", "four", "last"]
    assert [draft.id for draft in log.drafts[:4]] == ids and ids[1] == "mine" and len(set(ids)) == 4
    assert [draft.room for draft in log.drafts] == ["tenant_123", "user:ann ü", "all", "tenant_123", "tenant_123"]
    assert [draft.data for draft in log.drafts] == [b'{"n":1}', b"null", '"ü😀"'.encode(), b"[1.5]", b"null"]
    assert [draft.persist for draft in log.drafts] == [True, False, True, True, True] and all(draft.keyed for draft in log.drafts)
    assert log.drafts[2].audience == Audience(where={"role__in": ["admin"]}, exclude=frozenset({"bob"}))
    assert log.drafts[3].audience == Audience(filter="approvers") and log.drafts[0].audience is None
    assert relay.relayed == 5 and await waiting(database) == []


async def test_a_savepoint_takes_back_its_own_events(database: Database, application: Application) -> None:
    async with application.transaction() as (session, publish):
        await publish("lobby", "before")
        nested = await application.call(session.begin_nested())
        await publish("lobby", "never")
        await application.call(nested.rollback())
        await publish("lobby", "after")
    assert await waiting(database) == ["before", "after"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_database_without_the_table_says_what_makes_it(kind: str, tmp_path: Any, postgres: PostgresServer) -> None:
    with postgres.database("template0") as url:
        for empty in (url, f"sqlite:///{tmp_path}/empty.db"):
            application = Application(empty, kind)
            with pytest.raises(ConfigurationError, match="no table realtime_outbox; `aibos-realtime database upgrade"):
                await application.publish("lobby", "note")
            await application.close()


async def test_what_the_driver_says_is_passed_on_without_the_data(application: Application) -> None:
    async with application.transaction() as (session, publish):
        statement = sa.text("CREATE UNIQUE INDEX once ON realtime_outbox (message_id)")
        await application.call(session.execute(statement))
        await publish("lobby", "note", "a secret", id="same")
        with pytest.raises(IntegrityError) as refused:
            await publish("lobby", "note", "a secret", id="same")
        await application.call(session.rollback())
    assert "secret" not in str(refused.value) and "same" not in str(refused.value.statement)


# — order —


async def begun(application: Application, event: str) -> Any:
    """An open transaction that has published."""
    session = await application.begin()
    await application.call(outbox.publish(session, "lobby", event))
    return session


async def end(application: Application, session: Any, *, commit: bool = True) -> None:
    await application.call(session.commit() if commit else session.rollback())
    await application.call(session.close())


@pytest.mark.parametrize("commit", [True, False], ids=["committed", "rolled back"])
@pytest.mark.parametrize("kind", KINDS)
async def test_nothing_passes_over_a_transaction_that_is_still_open(kind: str, commit: bool, postgres_url: str) -> None:
    """The race of every outbox that reads by its sequence alone: A has the lower number, and is committed after B."""
    log, application = WritingLog(), Application(postgres_url, kind)
    async with Database(postgres_url) as database, Relay(database, log.publish):
        first = await begun(application, "a")
        await end(application, await begun(application, "b"))
        window = await database.read(lambda connection: read(connection, 10))
        assert window.rows == [] and window.is_held and log.events == []
        await end(application, first, commit=commit)
        assert await log.until("b") == (["a", "b"] if commit else ["b"])
    await application.close()


async def test_a_transaction_that_publishes_late_still_comes_in_its_place(postgres_url: str) -> None:
    """A has changed something before B began, so what A publishes after B's commit is of an older transaction, and comes first."""
    log, application = WritingLog(), Application(postgres_url, "Connection")
    async with Database(postgres_url) as database, Relay(database, log.publish):
        first = await application.begin()
        first.execute(sa.text("CREATE TABLE invoices (id int)"))
        await end(application, await begun(application, "b"))
        outbox.publish(first, "lobby", "a")
        assert await waiting(database) == []
        await end(application, first)
        assert await log.until("b") == ["a", "b"]
    await application.close()


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_the_interleaving(seed: int, postgres_url: str) -> None:
    """Relayed = committed, each once; and who began after another's commit comes later. Sessions of all kinds at once."""
    chance = random.Random(seed)
    log = WritingLog()
    applications = [Application(postgres_url, kind) for kind in KINDS]
    time = 0
    spans: dict[str, tuple[int, int, bool]] = {}  # number of the transaction: began, ended, committed
    published: dict[str, list[str]] = {}
    open_ones: dict[str, tuple[Application, Any, int]] = {}
    async with Database(postgres_url) as database, Relay(database, log.publish, window=3):
        for step in range(60):
            time += 1
            if len(open_ones) < 5 and (not open_ones or chance.random() < 0.4):
                number, application = f"t{step}", chance.choice(applications)
                open_ones[number] = (application, await application.begin(), time)
                published[number] = []
            number = chance.choice(list(open_ones))
            application, session, since = open_ones[number]
            if chance.random() < 0.6 or not published[number]:
                event = f"{number}.{len(published[number])}"
                await application.call(outbox.publish(session, "lobby", event))
                published[number].append(event)
            else:
                del open_ones[number]
                commit = chance.random() < 0.7
                await end(application, session, commit=commit)
                spans[number] = (since, time, commit)
        for number, (application, session, since) in open_ones.items():
            time += 1
            await end(application, session)
            spans[number] = (since, time, True)
        await applications[0].publish("lobby", "last")
        events = (await log.until("last"))[:-1]
    for application in applications:
        await application.close()
    committed = {number for number, (_, _, commit) in spans.items() if commit and published[number]}
    assert sorted(events) == sorted(event for number in committed for event in published[number])
    for number in committed:
        assert [event for event in events if event.startswith(f"{number}.")] == published[number]
    place = {number: events.index(published[number][0]) for number in committed}
    late = [(a, b) for a in committed for b in committed if spans[a][1] < spans[b][0] and place[a] > place[b]]
    assert late == []


async def test_one_after_the_other_on_sqlite(tmp_path: Any) -> None:
    """SQLite lets one transaction write at a time: the order is that of the commits."""
    chance, url = random.Random(5), f"sqlite:///{tmp_path}/realtime.db"
    log, committed = WritingLog(), []
    async with Database(url) as database, Relay(database, log.publish, window=3):
        applications = [Application(url, kind) for kind in KINDS]
        for number in range(40):
            commit = chance.random() < 0.7
            async with chance.choice(applications).transaction(commit=commit) as (_, publish):
                for part in range(chance.randint(1, 3)):
                    await publish("lobby", f"{number}.{part}")
                    committed += [f"{number}.{part}"] if commit else []
        await applications[0].publish("lobby", "last")
        assert await log.until("last") == [*committed, "last"]
        for application in applications:
            await application.close()


async def test_rows_that_came_with_a_dump_do_not_wait_for_transactions_of_another_server(postgres_url: str) -> None:
    log, application = WritingLog(), Application(postgres_url, "Session")
    async with Database(postgres_url) as database, Relay(database, log.publish):
        async with application.transaction() as (session, publish):
            await publish("lobby", "restored")
            session.execute(table.update().values(transaction_id=10**15))
        assert await log.until("restored") == ["restored"]
    await application.close()


# — once out of it —


async def test_what_was_published_but_not_cleared_is_published_under_the_same_id(database: Database, session_application: Application) -> None:
    """The process dies between the log's answer and the deletion: the log sees the id twice, and knows it."""
    first = await session_application.publish("lobby", "note")
    dead = WritingLog()
    (row,) = (await database.read(lambda connection: read(connection, 10))).rows
    for log in (dead, WritingLog()):
        relay = Relay(database, log.publish)
        if log is dead:
            await asyncio.wait([relay._call(row)])
        else:
            async with relay:
                await log.until("note")
        assert [draft.id for draft in log.drafts] == [first]
    assert await waiting(database) == []


# — waking —


@pytest.mark.parametrize("kind", ["Session", "AsyncSession"])
async def test_a_commit_of_a_session_in_this_process_wakes_the_relay(kind: str, database: Database, store_url: str) -> None:
    log, application = WritingLog(), Application(store_url, kind)
    async with Relay(database, log.publish, poll=NEVER):
        for event in ("one", "two"):
            await application.publish("lobby", event)
            await log.until(event)
    await application.close()


async def test_on_sqlite_other_commits_are_found_by_looking(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/realtime.db"
    log, application = WritingLog(), Application(url, "Connection")
    async with Database(url) as database, Relay(database, log.publish):
        await application.publish("lobby", "note")
        await log.until("note")
    await application.close()


async def test_postgresql_tells_of_every_commit_and_again_after_its_connection_was_cut(postgres: PostgresServer, postgres_url: str) -> None:
    log, application = WritingLog(), Application(postgres_url, "Connection")
    listeners = sa.text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'")
    async with Database(postgres_url) as database, Relay(database, log.publish, poll=NEVER):
        for event in ("one", "two"):
            pids: list[int] = []
            async with asyncio.timeout(PATIENCE):
                while not pids:
                    pids = await database.read(lambda connection: list(connection.scalars(listeners)))
            await application.publish("lobby", event)
            await log.until(event)
            async with application.transaction() as (session, _):
                session.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pids[0]})
        # What is committed while nobody listens is found when listening begins again.
        await application.publish("lobby", "three")
        assert await log.until("three") == ["one", "two", "three"]
    await application.close()


async def test_equal_notices_are_sent_once(postgres_url: str) -> None:
    import psycopg

    application = Application(postgres_url, "Connection")
    with psycopg.connect(postgres_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        async with application.transaction() as (_, publish):
            for _ in range(100):
                await publish("lobby", "note")
        assert [notice.channel for notice in listener.notifies(timeout=PATIENCE, stop_after=1)] == [CHANNEL]
        assert list(listener.notifies(timeout=0)) == []
    await application.close()


async def test_a_caller_needs_no_more_than_the_right_to_insert(postgres: PostgresServer, postgres_url: str) -> None:
    name = postgres_url.partition("/test_")[2].partition("?")[0]
    postgres.execute("DROP ROLE IF EXISTS caller; CREATE ROLE caller LOGIN; GRANT INSERT ON realtime_outbox TO caller", f"test_{name}")
    log, application = WritingLog(), Application(postgres_url.replace("postgres@", "caller@"), "Session")
    async with Database(postgres_url) as database, Relay(database, log.publish):
        await application.publish("lobby", "note")
        await log.until("note")
        with pytest.raises(DBAPIError, match="permission denied"):
            async with application.transaction() as (session, _):
                session.execute(sa.select(table))
    await application.close()
    postgres.execute("DROP OWNED BY caller; DROP ROLE caller", f"test_{name}")
