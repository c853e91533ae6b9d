"""The outbox, on SQLite and PostgreSQL, for sessions of every kind: delivered if and only if committed, in the order of transactions."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError

from aibos_realtime import ConfigurationError, outbox, where
from aibos_realtime.backends.base import Audience, Draft, Receipt
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.events import SqlEventStore
from aibos_realtime.backends.sql.outbox import CHANNEL, read
from aibos_realtime.backends.sql.schema import outbox as table
from aibos_realtime.storage.broker import StoredBroker
from aibos_realtime.storage.relay import LONGEST_DELAY, LONGEST_LOOK, Relay
from aibos_realtime.testing.clock import ManualClock
from tests.contracts.outbox_rig import KINDS, PATIENCE, Application, WritingLog
from tests.receiver import Recorder
from tests.servers.postgres import PostgresServer

NEVER = 1e9


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    async with Database(store_url) as database:
        yield database


@pytest.fixture(params=KINDS)
async def application(request: pytest.FixtureRequest, database: Database, store_url: str) -> AsyncIterator[Application]:
    async with Application(store_url, request.param) as application:
        yield application


@pytest.fixture
async def session_application(database: Database, store_url: str) -> AsyncIterator[Application]:
    async with Application(store_url, "AsyncSession") as application:
        yield application


@asynccontextmanager
async def relaying(url: str, kind: str, log: WritingLog, **options: Any) -> AsyncIterator[tuple[Application, Database]]:
    """An application with sessions of a kind, and the server's side of the same database at work."""
    async with Application(url, kind) as application, Database(url) as database, Relay(database, log.publish, **options):
        yield application, database


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
            async with Application(empty, kind) as application:
                with pytest.raises(ConfigurationError, match="no table realtime_outbox; `aibos-realtime database upgrade"):
                    await application.publish("lobby", "note")


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
    log = WritingLog()
    async with relaying(postgres_url, kind, log) as (application, database):
        first = await begun(application, "a")
        await end(application, await begun(application, "b"))
        window = await database.read(lambda connection: read(connection, 10))
        assert window.rows == [] and window.is_held and log.events == []
        await end(application, first, commit=commit)
        assert await log.until("b") == (["a", "b"] if commit else ["b"])


async def test_a_transaction_that_publishes_late_still_comes_in_its_place(postgres_url: str) -> None:
    """A has changed something before B began, so what A publishes after B's commit is of an older transaction, and comes first."""
    log = WritingLog()
    async with relaying(postgres_url, "Connection", log) as (application, database):
        first = await application.begin()
        first.execute(sa.text("CREATE TABLE invoices (id int)"))
        await end(application, await begun(application, "b"))
        outbox.publish(first, "lobby", "a")
        assert await waiting(database) == []
        await end(application, first)
        assert await log.until("b") == ["a", "b"]


@pytest.mark.parametrize("seed", range(8))
async def test_whatever_the_interleaving(seed: int, postgres_url: str) -> None:
    """Relayed = committed, each once; and who began after another's commit comes later. Sessions of all kinds at once."""
    chance = random.Random(seed)
    log = WritingLog()
    time = 0
    spans: dict[str, tuple[int, int, bool]] = {}  # number of the transaction: began, ended, committed
    published: dict[str, list[str]] = {}
    open_ones: dict[str, tuple[Application, Any, int]] = {}
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(postgres_url))
        applications = [await stack.enter_async_context(Application(postgres_url, kind)) for kind in KINDS]
        await stack.enter_async_context(Relay(database, log.publish, window=3))
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
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(Database(url))
        applications = [await stack.enter_async_context(Application(url, kind)) for kind in KINDS]
        await stack.enter_async_context(Relay(database, log.publish, window=3))
        for number in range(40):
            commit = chance.random() < 0.7
            async with chance.choice(applications).transaction(commit=commit) as (_, publish):
                for part in range(chance.randint(1, 3)):
                    await publish("lobby", f"{number}.{part}")
                    committed += [f"{number}.{part}"] if commit else []
        await applications[0].publish("lobby", "last")
        assert await log.until("last") == [*committed, "last"]


async def test_rows_that_came_with_a_dump_do_not_wait_for_transactions_of_another_server(postgres_url: str) -> None:
    log = WritingLog()
    async with relaying(postgres_url, "Session", log) as (application, database):
        async with application.transaction() as (session, publish):
            await publish("lobby", "restored")
            session.execute(table.update().values(transaction_id=10**15))
        assert await log.until("restored") == ["restored"]


# — once out of it —


class TellingLog:
    """A broker's `publish`; `took` is set once it has acknowledged something."""

    def __init__(self, broker: StoredBroker) -> None:
        self._broker = broker
        self.took = asyncio.Event()

    async def publish(self, draft: Draft) -> Receipt:
        receipt = await self._broker.publish(draft)
        self.took.set()
        return receipt


async def test_the_log_takes_a_row_once_though_its_server_died_before_clearing_it(database: Database, session_application: Application) -> None:
    """What is left then is a row whose id the log has. Here the same row is put there again, and another server reads it, with the real log."""
    for _ in ("first", "second"):
        broker = StoredBroker(SqlEventStore(database))
        broker.attach(Recorder())
        await broker.start()
        log = TellingLog(broker)
        async with Relay(database, log.publish) as relay:  # its end lets what is on its way arrive
            await session_application.publish("lobby", "note", {"n": 1}, id="mine", exclude=["bob"])
            async with asyncio.timeout(PATIENCE):
                await log.took.wait()
        assert relay.relayed == 1
        page = await broker.read_before("lobby", None, 10)
        assert [(event.id, event.data, event.offset, event.audience) for event in page.events] == [
            ("mine", b'{"n":1}', 1, Audience(exclude=frozenset({"bob"})))
        ]
        await broker.stop()
    assert await waiting(database) == []


# — waking —


async def rest(clock: ManualClock) -> None:
    """Until the relay has seen that nothing waits, and only a ring makes it look again."""
    async with asyncio.timeout(PATIENCE):
        await clock.until_planned(NEVER / 2, math.inf)


async def hear(clock: ManualClock, log: WritingLog, event: str) -> None:
    """Until an event was relayed; time goes on in small steps."""
    async with asyncio.timeout(PATIENCE):
        while event not in log.events:
            await clock.advance(LONGEST_LOOK)


@pytest.mark.parametrize("kind", ["Session", "AsyncSession"])
async def test_a_commit_of_a_session_in_this_process_wakes_the_relay(kind: str, database: Database, store_url: str) -> None:
    log, clock = WritingLog(), ManualClock()
    async with Application(store_url, kind) as application, Relay(database, log.publish, clock=clock, poll=NEVER):
        for event in ("one", "two"):
            await rest(clock)
            await application.publish("lobby", event)
            await hear(clock, log, event)


async def test_on_sqlite_other_commits_are_found_by_looking(tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/realtime.db"
    log = WritingLog()
    async with relaying(url, "Connection", log) as (application, database):
        await application.publish("lobby", "note")
        await log.until("note")


async def test_postgresql_tells_of_every_commit_and_again_after_its_connection_was_cut(postgres_url: str) -> None:
    log, clock = WritingLog(), ManualClock()
    listeners = sa.text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%' AND state = 'idle'")
    cut: set[int] = set()
    async with relaying(postgres_url, "Connection", log, clock=clock, poll=NEVER) as (application, database):
        for event in ("one", "two"):
            pids: set[int] = set()
            async with asyncio.timeout(PATIENCE):
                while not pids - cut:
                    await clock.advance(LONGEST_DELAY)
                    pids = await database.read(lambda connection: set(connection.scalars(listeners)))
            await rest(clock)
            await application.publish("lobby", event)
            await hear(clock, log, event)
            for pid in pids - cut:
                async with application.transaction() as (session, _):
                    session.execute(sa.text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
                cut.add(pid)
        # What is committed while nobody listens is found when listening begins again.
        async with asyncio.timeout(PATIENCE):
            await clock.until_planned(0, LONGEST_DELAY)
        await rest(clock)
        await application.publish("lobby", "three")
        await hear(clock, log, "three")
        assert log.events == ["one", "two", "three"]


async def test_equal_notices_are_sent_once(postgres_url: str) -> None:
    import psycopg

    with psycopg.connect(postgres_url, autocommit=True) as listener:
        listener.execute(f"LISTEN {CHANNEL}")
        async with Application(postgres_url, "Connection") as application, application.transaction() as (_, publish):
            for _ in range(100):
                await publish("lobby", "note")
        assert [notice.channel for notice in listener.notifies(timeout=PATIENCE, stop_after=1)] == [CHANNEL]
        assert list(listener.notifies(timeout=0)) == []


async def test_a_caller_needs_no_more_than_the_right_to_insert(postgres: PostgresServer, postgres_url: str) -> None:
    name = postgres_url.rpartition("/test_")[2].partition("?")[0]
    postgres.execute("CREATE ROLE caller LOGIN; GRANT INSERT ON realtime_outbox TO caller", f"test_{name}")
    try:
        async with Application(postgres_url.replace("postgres@", "caller@"), "Session") as application:
            await application.publish("lobby", "note")
            with pytest.raises(DBAPIError, match="permission denied"):
                async with application.transaction() as (session, _):
                    session.execute(sa.select(table))
        async with Database(postgres_url) as database:
            assert await waiting(database) == ["note"]
    finally:
        postgres.execute("DROP OWNED BY caller; DROP ROLE caller", f"test_{name}")
