"""What every store of events promises where several nodes write it (`backends.base.EventStore`), against each of them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec import structs

from aibos_realtime import Message, MessagePersistence, Position
from aibos_realtime.backends.base import Audience, Batch, EventStore, LoggedEvent, Refused, Stored
from aibos_realtime.backends.shared_log import Remembered
from aibos_realtime.backends.sql import events as events_module
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.events import SqlEventStore
from aibos_realtime.backends.sql.meta import renew_epochs
from aibos_realtime.errors import ConfigurationError
from aibos_realtime.testing.store import MemoryStore
from tests.contracts.test_event_store import event

NOW = 1_700_000_100_000


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    async with Database(store_url, statement_timeout=2) as database:
        yield database


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventStore]:
    if request.param == "memory":
        store = MemoryStore()
        await store.share()
        yield store
        return
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else f"sqlite:///{tmp_path / 'log.db'}"
    async with Database(url) as database:
        shared = SqlEventStore(database)
        await shared.share()
        yield shared
        await shared.close()


async def append(store: EventStore, *events: LoggedEvent, hollow: frozenset[int] = frozenset()) -> None:
    await store.append_once(list(events), hollow)


async def rows(store: EventStore, room: str = "lobby", epoch: str = "e1") -> list[LoggedEvent]:
    return await store.read_after(room, Position(epoch, 0), 1000)


class TestAppendingOnce:
    async def test_what_was_stored_comes_back_as_it_was(self, store: EventStore) -> None:
        rich = event(2, user_id="ann", audience=Audience(where={"role": "a"}, exclude=frozenset({"x"})))
        await append(store, event(1), rich, event(3, audience=Audience(filter="f")), hollow=frozenset({2}))
        assert await rows(store) == [event(1), rich, event(3, data=b"")]

    async def test_repeating_changes_nothing(self, store: EventStore) -> None:
        first = [event(1), event(2, data=b'"kept"'), event(1, "other")]
        await append(store, *first)
        await append(store, *first)
        await append(store, event(2, data=b'"kept"'), event(3))
        assert await rows(store) == [event(1), event(2, data=b'"kept"'), event(3)]
        assert await rows(store, "other") == [event(1, "other")]

    async def test_another_event_at_a_place_that_is_taken_is_refused(self, store: EventStore) -> None:
        """Two copies of the log went on at once: the event of the second was passed over, and its publisher was told that it was committed."""
        await append(store, event(1))
        other = event(1, data=b'"other"', id="else")
        with pytest.raises(Refused):
            await append(store, other, event(2))
        assert await rows(store) == [event(1)]
        await store.bury(other, "why", NOW)
        assert await rows(store) == [event(1)]
        if isinstance(store, MemoryStore):
            assert store.buried == [(other, "why")]
            return
        assert isinstance(store, SqlEventStore)
        async with MessagePersistence(database=store._database, retention={"duration": None}) as persistence:
            [dead] = await persistence.dead_messages("lobby")
        assert (dead.id, dead.data) == ("else", '"other"')

    async def test_what_was_erased_is_still_at_its_place(self, store: EventStore) -> None:
        """An event that comes again, because its entry was not dropped, is no other one for having lost its id to an erasure."""
        await append(store, event(1))
        if isinstance(store, SqlEventStore):
            async with MessagePersistence(database=store._database, retention={"duration": None}) as persistence:
                await persistence.erase(room="lobby")
        await append(store, event(1), event(2))
        await store.bury(event(1), "late", NOW)
        assert [one.offset for one in await rows(store)] == [1, 2]

    @pytest.mark.parametrize("is_in_one_batch", [True, False])
    async def test_an_id_that_is_there_twice_loses_no_place_and_no_payload(self, store: EventStore, is_in_one_batch: bool) -> None:
        batch = [event(1, id="x", user_id="ann"), event(2, id="x", user_id="ann", data=b"2"), event(1, id="x", user_id="ann", epoch="e2", data=b"3")]
        for _ in range(2):
            for part in [batch] if is_in_one_batch else [[one] for one in batch]:
                await append(store, *part)
        found = [*await rows(store), *await rows(store, epoch="e2")]
        assert [(one.offset, one.data, one.user_id) for one in found] == [(1, b'{"n":1}', "ann"), (2, b"2", "ann"), (1, b"3", "ann")]
        assert {one.id for one in found} == {"x"} == {one.id for one in await store.recent_ids("lobby", 0)}
        assert (await store.find([("lobby", "ann", "x")]))[("lobby", "ann", "x")].position == Position("e1", 1)
        if isinstance(store, SqlEventStore):
            async with MessagePersistence(database=store._database, retention={"duration": None}) as persistence:
                messages = await persistence.get_messages("lobby")
                assert {one.id for one in messages} == {"x", "x~e1:2", "x~e2:1"}, "one message for each id"

    async def test_nobody_makes_a_hole_by_taking_such_an_id_before(self, store: EventStore) -> None:
        batch = [event(1, id="x"), event(2, id="x~e1:3", data=b"2"), event(3, id="x", data=b"3"), event(4, id="x~e1:4")]
        for _ in range(2):
            await append(store, *batch)
        assert [(one.offset, one.data) for one in await rows(store)] == [(one.offset, one.data) for one in batch]

    async def test_a_batch_with_one_bad_row_leaves_nothing(self, store: EventStore) -> None:
        wrong = event(2, id="id\ud800")
        if isinstance(store, MemoryStore):
            store.poisoned = {wrong.id}
        for batch in ([event(1), wrong, event(3)], [wrong]):
            with pytest.raises(Refused):
                await append(store, *batch)
        assert await rows(store) == []

    async def test_where_rooms_end_is_where_the_newest_epoch_does(self, store: EventStore) -> None:
        assert await store.heads(["lobby"]) == {}
        await append(store, event(5), event(1, "other"), event(4))
        await append(store, event(2, epoch="e2", id="x"))
        await append(store, event(6))
        assert await store.heads(["lobby", "other", "unknown"]) == {"lobby": Position("e1", 6), "other": Position("e1", 1)}
        later = LoggedEvent("lobby", "note", b"1", "y", "e2", 3, NOW)
        await append(store, later)
        await append(store, event(7))
        assert await store.heads(["lobby"]) == {"lobby": Position("e2", 3)}


class TestBurying:
    async def test_the_place_stays_and_the_event_is_dead_once(self, store: EventStore) -> None:
        await append(store, event(1))
        poisoned = event(2, id="half\ud800", data=b'"\xff"', user_id="ann", audience=Audience(filter="f"))
        for _ in range(2):
            await store.bury(poisoned, "it is poisoned", NOW)
        found = await rows(store)
        assert [(one.offset, one.data, one.user_id, one.audience) for one in found[1:]] == [(2, b"", None, None)]
        if isinstance(store, MemoryStore):
            assert store.buried == [(poisoned, "it is poisoned")]
            return
        assert isinstance(store, SqlEventStore)
        async with MessagePersistence(database=store._database, retention={"duration": None}) as persistence:
            [dead] = await persistence.dead_messages("lobby")
        assert (dead.id, dead.user_id, dead.type, dead.data, dead.reason) == ("half?", "ann", "note", '"�"', "it is poisoned")
        assert (dead.timestamp.timestamp() * 1000, dead.buried.timestamp() * 1000) == (poisoned.timestamp, NOW)

    async def test_what_is_stored_already_is_not_buried(self, store: EventStore) -> None:
        await append(store, event(1))
        await store.bury(event(1), "late", NOW)
        assert await rows(store) == [event(1)]

    async def test_a_place_that_cannot_be_stored(self, database: Database) -> None:
        store = SqlEventStore(database)
        await store.share()
        with pytest.raises(Refused):
            await store.bury(event(1, "room\ud800"), "why", NOW)
        await store.close()


class TestRecentIds:
    async def test_since_a_time_the_newest_first(self, store: EventStore) -> None:
        await append(store, *(event(offset) for offset in (1, 2, 3)), event(9, "other"), hollow=frozenset({1}))
        await append(store, event(4, user_id="ann", epoch="e2", id="x"))
        since = event(2).timestamp
        assert await store.recent_ids("lobby", since) == [
            Remembered("ann", "x", "note", b'{"n":1}', Position("e2", 4)),
            Remembered("", "id3", "note", b'{"n":1}', Position("e1", 3)),
            Remembered("", "id2", "note", None, Position("e1", 2)),
        ]
        assert await store.recent_ids("nowhere", 0) == []

    async def test_they_are_read_in_pages_and_bounded(self, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(events_module, "IDS_AT_ONCE", 10)
        monkeypatch.setattr(events_module, "IDS", 40)
        monkeypatch.setattr(events_module, "IDS_BYTES", 25)
        store = SqlEventStore(database)
        await store.share()
        same_time = [LoggedEvent("lobby", "note", b"1", f"id{number}", "e1", number, NOW) for number in range(1, 36)]
        await append(store, *same_time)
        found = await store.recent_ids("lobby", 0)
        assert [one.position.offset for one in found] == list(range(35, 0, -1)), "each once, whatever the time"
        assert [one.data for one in found] == [b"1"] * 30 + [None] * 5
        await append(store, *(event(number, "big", id=f"{number}") for number in range(1, 100)))
        assert len(await store.recent_ids("big", 0)) == 40
        await store.close()


class TestMessagesBesideTheLog:
    async def test_the_id_of_one_is_no_place_of_the_log(self, database: Database) -> None:
        store = SqlEventStore(database)
        await store.share()
        async with MessagePersistence(database=database, retention={"duration": None}) as persistence:
            await persistence.store_message(Message(id="x", room_id="lobby", type="note", timestamp=datetime.now(UTC), data="beside"))
            assert await store.recent_ids("lobby", 0) == [] and await store.heads(["lobby"]) == {}
            await append(store, event(1, id="x", data=b'"in the log"'))
            assert [one.data for one in await rows(store)] == [b'"in the log"']
            assert (await store.find([("lobby", "", "x")]))[("lobby", "", "x")] == Stored("note", b'"beside"', None)
            messages = await persistence.get_messages("lobby")
            assert {(one.data, one.position) for one in messages} == {("beside", None), ("in the log", Position("e1", 1))}
        await store.close()


class TestSharing:
    async def test_nodes_share_and_a_single_writer_does_not(self, database: Database, store_url: str) -> None:
        async with Database(store_url) as second, Database(store_url) as third:
            stores = [SqlEventStore(one) for one in (database, second)]
            eras = [await store.share() for store in stores]
            assert eras[0] == eras[1] == await stores[0].share() != ""
            for number, store in enumerate(stores):
                await append(store, event(number + 1))
            with pytest.raises(ConfigurationError, match=r"^database\.url: nodes with scaling\.enabled write to .*: stop them, set it here too"):
                await third.acquire_writer(wait=0.1)
            await stores[0].close()
            with pytest.raises(ConfigurationError, match="nodes with scaling"):
                await third.acquire_writer(wait=0)
            await stores[1].close()
            alone = await third.acquire_writer(wait=5)
            with pytest.raises(ConfigurationError, match=r"^database\.url: another server writes to .*, without scaling\.enabled; stop it"):
                await database.acquire_share(wait=0.1)
            await alone.release()

    async def test_whoever_waits_gets_it(self, database: Database, store_url: str) -> None:
        async with Database(store_url) as other:
            alone = await other.acquire_writer()
            waiting = asyncio.ensure_future(database.acquire_share(wait=5))
            await asyncio.sleep(0)
            await alone.release()
            share = await waiting
            waiting_alone = asyncio.ensure_future(other.acquire_writer(wait=5))
            await asyncio.sleep(0)
            await share.release()
            await (await waiting_alone).release()


_numbers = itertools.count()


def next_event(epoch: str, offset: int) -> LoggedEvent:
    """Later than the last one."""
    number = next(_numbers)
    return LoggedEvent("lobby", "note", b"1", f"id{number}", epoch, offset, NOW + number)


class TestGoingBackAndForth:
    """No position is given twice, and what is remembered of before somebody else wrote is no continuity."""

    async def test_a_single_writer_continues_no_epoch_of_nodes_and_they_none_of_his(self, database: Database) -> None:
        epochs: list[str] = []
        eras: list[str] = []
        for _ in range(2):
            alone = SqlEventStore(database)
            epoch, ends = await alone.open()
            assert ends == {} and epoch not in epochs, "whatever the nodes gave out, he begins anew"
            epochs.append(epoch)
            await alone.append(Batch([next_event(epoch, 1)], frozenset(), {"lobby": Position(epoch, 1)}))
            await alone.close()
            assert (await alone.open())[1] == {"lobby": Position(epoch, 1)}, "after himself he goes on"
            await alone.close()

            given = next_event("", 8)
            for is_first in (True, False):
                node = SqlEventStore(database)
                eras.append(await node.share())
                if is_first:
                    assert await node.heads(["lobby"]) == {"lobby": Position(epoch, 1)}, "what he stored can be read"
                # The nodes gave out offset 9 as well, and it is not stored yet.
                await append(node, structs.replace(given, epoch=f"{eras[-1]}-redis"))
                await node.close()
        assert eras[0] == eras[1] != eras[2] == eras[3]

    async def test_new_epochs_by_command_are_a_new_era(self, database: Database) -> None:
        store = SqlEventStore(database)
        era = await store.share()
        await store.close()
        writer = await database.acquire_writer()
        await writer.write(renew_epochs)
        await writer.release()
        assert await store.share() != era
        await store.close()

    async def test_nodes_that_start_together_are_of_one_era(self, database: Database, store_url: str) -> None:
        writer = await database.acquire_writer()
        await writer.release()
        databases = [Database(store_url) for _ in range(4)]
        stores = [SqlEventStore(one) for one in databases]
        assert len(set(await asyncio.gather(*(store.share() for store in stores)))) == 1
        for store in stores:
            await append(store, event(1))
            await store.close()
        for one in databases:
            await one.close()
