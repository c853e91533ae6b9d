"""What `MessagePersistence` promises, on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, insert, select, text

from aibos_realtime import (
    ConfigurationError,
    IdempotencyConflict,
    Message,
    MessagePersistence,
    MessageTooLarge,
    Position,
    StoreUnavailable,
    UnrecoverablePosition,
    ValidationError,
)
from aibos_realtime.backends.base import Audience
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.schema import dead_messages, messages, rooms
from aibos_realtime.storage.messages import to_row
from aibos_realtime.testing.clock import ManualClock

START = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
CLOCK_START = START.timestamp() + 3600

ROOM = "tenant_123"


def message(number: int = 1, **given: Any) -> Message:
    """Number 5 comes five seconds after the start."""
    basic: dict[str, Any] = dict(
        id=f"m{number}", room_id=ROOM, user_id="ann", type="note", data={"n": number}, timestamp=START + timedelta(seconds=number)
    )
    return Message(**(basic | given))


def numbers(found: Iterable[Message]) -> list[int]:
    return [one.data["n"] for one in found]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(CLOCK_START)


@pytest.fixture
async def persistence(store_url: str, clock: ManualClock) -> AsyncIterator[MessagePersistence]:
    async with MessagePersistence(database={"url": store_url}, clock=clock) as persistence:
        yield persistence


async def log(persistence: MessagePersistence, *offsets: int, room: str = ROOM, epoch: str = "e1", **given: Any) -> None:
    """Rows as the log of events writes them, one second apart."""
    rows = [to_row(message(offset, room_id=room)) | {"epoch": epoch, "log_offset": offset, "audience": None} | given for offset in offsets]
    await persistence.database.write(lambda connection: connection.execute(insert(messages), rows))


async def stored_rows(persistence: MessagePersistence, table: Any = messages) -> list[Any]:
    return await persistence.database.read(lambda connection: list(connection.execute(select(table).order_by(*table.primary_key))))


class TestStoring:
    async def test_a_message_comes_back_as_it_was(self, persistence: MessagePersistence) -> None:
        given = message(data={"name": "Ærø 🚢", "deep": [[1.5, None, True]], "none": {}}, timestamp=START.astimezone(timezone(timedelta(hours=2))))
        assert await persistence.store_message(given) == "stored"
        assert await persistence.get_messages(ROOM) == [given]
        found = (await persistence.get_messages(ROOM))[0]
        assert found.timestamp.tzinfo is UTC and found.position is None

    async def test_the_server_itself_and_no_data(self, persistence: MessagePersistence) -> None:
        given = Message(id="m1", room_id="user:ann lee", type="note", timestamp=START)
        await persistence.store_message(given)
        assert await persistence.get_messages("user:ann lee") == [given]
        assert (given.user_id, given.data) == (None, None)

    async def test_the_same_id_twice_is_one_message(self, persistence: MessagePersistence) -> None:
        assert await persistence.store_message(message()) == "stored"
        assert await persistence.store_message(message(timestamp=START + timedelta(days=1))) == "duplicate"
        assert await persistence.get_messages(ROOM) == [message()]

    async def test_the_same_id_with_other_content_is_a_conflict(self, persistence: MessagePersistence) -> None:
        await persistence.store_message(message())
        for other in (message(data={"n": 2}), message(type="memo")):
            with pytest.raises(IdempotencyConflict):
                await persistence.store_message(other)
        assert await persistence.get_messages(ROOM) == [message()]

    async def test_an_id_is_one_per_room_and_user(self, persistence: MessagePersistence) -> None:
        for one in (message(), message(user_id="ben"), message(user_id=None), message(room_id="other")):
            assert await persistence.store_message(one) == "stored"

    async def test_calls_of_one_moment_are_grouped(self, persistence: MessagePersistence, monkeypatch: pytest.MonkeyPatch) -> None:
        commits = 0
        write = persistence.database.write

        async def counting(work: Any, *arguments: Any) -> Any:
            nonlocal commits
            commits += 1
            return await write(work, *arguments)

        monkeypatch.setattr(persistence.database, "write", counting)
        outcomes = await asyncio.gather(*(persistence.store_message(message(number % 60)) for number in range(100)))
        assert (outcomes.count("stored"), outcomes.count("duplicate"), await persistence.count(ROOM)) == (60, 40, 60)
        assert commits <= 3

    async def test_many_at_once_say_what_became_of_each(self, persistence: MessagePersistence) -> None:
        await persistence.store_message(message(1))
        given = [message(1), message(2), message(2), message(1, data={"n": 7}), message(3)]
        assert await persistence.store_messages(given) == ["duplicate", "stored", "duplicate", "conflict", "stored"]
        assert await persistence.store_messages([]) == []
        outcomes = await persistence.store_messages(message(number) for number in range(1200))
        assert outcomes == ["stored"] + ["duplicate"] * 3 + ["stored"] * 1196
        assert await persistence.count(ROOM) == 1200

    async def test_a_batch_is_bounded_by_its_bytes(self, persistence: MessagePersistence) -> None:
        large = [message(number, data={"n": number, "text": "x" * 250_000}) for number in range(9)]
        assert await persistence.store_messages(large) == ["stored"] * 9
        assert numbers(await persistence.get_messages(ROOM)) == list(range(8, -1, -1))

    async def test_cancelling_leaves_it_usable(self, persistence: MessagePersistence) -> None:
        for _ in range(20):
            storing = asyncio.ensure_future(persistence.store_message(message()))
            await asyncio.sleep(0)
            storing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await storing
            reading = asyncio.ensure_future(persistence.get_messages(ROOM))
            await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
        assert await persistence.store_message(message()) in ("stored", "duplicate")
        assert await persistence.get_messages(ROOM) == [message()]


BAD: list[tuple[dict[str, Any], str]] = [
    ({"id": ""}, "id: "),
    ({"id": "x" * 129}, "id: "),
    ({"id": "a\0b"}, "id: "),
    ({"id": "\ud800"}, "id: "),
    ({"id": 5}, "id: "),
    ({"room_id": "a room"}, "room_id: "),
    ({"room_id": "user:\0"}, "room_id: "),
    ({"user_id": ""}, "user_id: "),
    ({"user_id": "a\0b"}, "user_id: "),
    ({"type": "no spaces"}, "type: "),
    ({"type": None}, "type: "),
    ({"timestamp": datetime(2026, 1, 1)}, "timestamp: "),
    ({"timestamp": 1_700_000_000}, "timestamp: "),
    ({"data": {"text": "a\0b"}}, "NUL"),
    ({"data": "\ud800"}, "data"),
    ({"data": float("nan")}, "number that JSON cannot express"),
    ({"data": 2**53 + 1}, "integer beyond"),
    ({"data": object()}, "object cannot be sent"),
]


@pytest.mark.parametrize(("given", "said"), BAD, ids=lambda value: ascii(value)[:30])
async def test_what_cannot_be_stored_is_refused_by_its_field(given: dict[str, Any], said: str) -> None:
    persistence = MessagePersistence(database={"url": "memory://"})
    with pytest.raises(ValidationError, match=said):
        await persistence.store_message(message(**given))
    with pytest.raises(ValidationError, match=f"message 1: .*{said}"):
        await persistence.store_messages([message(), message(**given)])
    assert not persistence.database.is_open


async def test_a_payload_has_a_limit() -> None:
    with pytest.raises(MessageTooLarge):
        await MessagePersistence(database={"url": "memory://"}).store_message(message(data="x" * 262_145))
    with pytest.raises(ValidationError, match="a Message is expected, not dict"):
        await MessagePersistence(database={"url": "memory://"}).store_message({"id": "m1"})  # type: ignore[arg-type]


class TestReading:
    @pytest.fixture(autouse=True)
    async def _store(self, persistence: MessagePersistence) -> None:
        await persistence.store_messages([message(number, type="memo" if number % 2 else "note") for number in range(1, 11)])
        await persistence.store_messages([message(99, room_id="other")])

    async def test_the_newest_come_first(self, persistence: MessagePersistence) -> None:
        assert numbers(await persistence.get_messages(ROOM, limit=3)) == [10, 9, 8]
        assert numbers(await persistence.get_messages(ROOM, limit=3, offset=8)) == [2, 1]
        assert numbers(await persistence.get_messages(ROOM)) == list(range(10, 0, -1))

    async def test_by_time(self, persistence: MessagePersistence) -> None:
        moment = START + timedelta(seconds=5)
        assert numbers(await persistence.get_messages(ROOM, before=moment)) == [4, 3, 2, 1]
        assert numbers(await persistence.get_messages(ROOM, after=moment)) == [10, 9, 8, 7, 6]
        assert numbers(await persistence.get_messages(ROOM, after=moment, limit=2, oldest_first=True)) == [6, 7]
        assert numbers(await persistence.get_messages(ROOM, after=moment, before=START + timedelta(seconds=8))) == [7, 6]

    async def test_by_a_message_forwards_and_backwards(self, persistence: MessagePersistence) -> None:
        pages, last = [], None
        while page := await persistence.get_messages(ROOM, limit=4, before=last):
            pages.append(numbers(page))
            last = page[-1]
        assert pages == [[10, 9, 8, 7], [6, 5, 4, 3], [2, 1]]
        pages, last = [], message(2)
        while page := await persistence.get_messages(ROOM, limit=4, after=last, oldest_first=True):
            pages.append(numbers(page))
            last = page[-1]
        assert pages == [[3, 4, 5, 6], [7, 8, 9, 10]]

    async def test_messages_of_one_millisecond_are_told_apart(self, persistence: MessagePersistence) -> None:
        same = [message(number, id=f"same{number}", room_id="busy", timestamp=START) for number in range(7)]
        await persistence.store_messages(same)
        page = await persistence.get_messages("busy", limit=3)
        rest = await persistence.get_messages("busy", before=page[-1])
        assert numbers(page + rest) == [6, 5, 4, 3, 2, 1, 0]
        assert await persistence.get_messages("busy", after=START) == await persistence.get_messages("busy", before=START) == []

    async def test_by_type(self, persistence: MessagePersistence) -> None:
        assert numbers(await persistence.get_messages(ROOM, type="memo", limit=3)) == [9, 7, 5]
        assert (await persistence.count(ROOM), await persistence.count(ROOM, type="memo"), await persistence.count("none")) == (10, 5, 0)

    async def test_by_a_position_of_the_log(self, persistence: MessagePersistence) -> None:
        await log(persistence, 1, 2, 3, 4, 5, room="logged")
        found = await persistence.get_messages("logged", before=Position("e1", 4), limit=2)
        assert [one.position for one in found] == [Position("e1", 3), Position("e1", 2)]
        assert numbers(await persistence.get_messages("logged", after=Position("e1", 4))) == [5]
        for gone in (Position("e1", 6), Position("e2", 1), Position("e1", 0)):
            with pytest.raises(UnrecoverablePosition):
                await persistence.get_messages("logged", after=gone)

    async def test_a_message_that_is_not_stored_is_no_cursor(self, persistence: MessagePersistence) -> None:
        for other in (message(11), message(5, user_id="ben"), message(99, room_id="other", id="m98")):
            with pytest.raises(UnrecoverablePosition, match="before: "):
                await persistence.get_messages(ROOM, before=other)

    async def test_messages_without_a_payload_are_left_out(self, persistence: MessagePersistence) -> None:
        await log(persistence, 1, 3, room="logged")
        await log(persistence, 2, room="logged", data=None)
        assert numbers(await persistence.get_messages("logged")) == [3, 1]
        assert await persistence.count("logged") == 2
        assert numbers(await persistence.get_messages("logged", after=Position("e1", 2))) == [3]

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({"limit": 0}, "limit: 0 was given; allowed is 1–1000"),
            ({"limit": 1001}, "limit: 1001"),
            ({"limit": "50"}, "limit: '50'"),
            ({"offset": -1}, "offset: -1"),
            ({"before": "m1"}, "before: a datetime, a Position or a Message is expected, not str"),
            ({"after": datetime(2026, 1, 1)}, "after: a datetime with a time zone"),
        ],
    )
    async def test_wrong_pages(self, persistence: MessagePersistence, given: dict[str, Any], said: str) -> None:
        with pytest.raises(ValidationError, match=said):
            await persistence.get_messages(ROOM, **given)

    async def test_a_wrong_room(self, persistence: MessagePersistence) -> None:
        for call in (persistence.get_messages, persistence.count):
            with pytest.raises(ValidationError, match="room_id: "):
                await call("a room\0")


async def poison(persistence: MessagePersistence) -> None:
    """From now on the database refuses rows of the id "poison"."""
    sqlite = ("CREATE TRIGGER poison BEFORE INSERT ON realtime_messages WHEN NEW.message_id = 'poison' BEGIN SELECT RAISE(ABORT, 'secret'); END",)
    postgresql = (
        "CREATE FUNCTION poison() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN IF NEW.message_id = 'poison' THEN RAISE data_exception USING MESSAGE = 'secret'; END IF; RETURN NEW; END $$",
        "CREATE TRIGGER poison BEFORE INSERT ON realtime_messages FOR EACH ROW EXECUTE FUNCTION poison()",
    )
    for statement in sqlite if persistence.database.dialect == "sqlite" else postgresql:
        await persistence.database.write(lambda connection: connection.execute(text(statement)))  # noqa: B023


class TestPoison:
    async def test_one_of_500_costs_exactly_itself(self, persistence: MessagePersistence, caplog: pytest.LogCaptureFixture) -> None:
        await poison(persistence)
        given = [message(number, id="poison" if number == 333 else f"m{number}", data={"n": number, "text": "hunter2"}) for number in range(500)]
        async with asyncio.timeout(5):
            outcomes = await persistence.store_messages(given)
        assert outcomes == ["dead" if number == 333 else "stored" for number in range(500)]
        assert await persistence.count(ROOM) == 499
        (dead,) = await persistence.dead_messages()
        assert (dead.id, dead.room_id, dead.user_id, dead.type, dead.timestamp) == ("poison", ROOM, "ann", "note", given[333].timestamp)
        assert msgspec.json.decode(dead.data or "") == {"n": 333, "text": "hunter2"}
        assert dead.buried.timestamp() == CLOCK_START
        assert dead.reason in ("SQLITE_CONSTRAINT_TRIGGER", "DataError (22000)")
        assert "hunter2" not in caplog.text and "among the dead" in caplog.text

    async def test_alone_it_is_refused_and_others_of_its_moment_are_not(self, persistence: MessagePersistence) -> None:
        await poison(persistence)
        outcomes = await asyncio.gather(
            persistence.store_message(message(1)),
            persistence.store_message(message(2, id="poison")),
            persistence.store_message(message(3)),
            return_exceptions=True,
        )
        assert outcomes[0] == outcomes[2] == "stored"
        assert isinstance(outcomes[1], ValidationError) and "secret" not in str(outcomes[1])
        assert [dead.id for dead in await persistence.dead_messages(ROOM)] == ["poison"]
        assert await persistence.dead_messages("other") == []

    async def test_what_got_past_the_edge(self, persistence: MessagePersistence) -> None:
        """NUL, which PostgreSQL refuses, and half of a surrogate pair, which no driver can send."""
        from aibos_realtime.storage.intake import Intake

        intake = Intake(persistence.database, ManualClock())
        rows = [to_row(message(number)) for number in range(500)]
        rows[100]["type"] = "a\0b"
        rows[200]["type"] = "a\ud800b"
        outcomes = await intake.add_all(rows)
        refused = [number for number, outcome in enumerate(outcomes) if outcome != "stored"]
        assert refused == ([200] if persistence.database.dialect == "sqlite" else [100, 200])
        found = {dead.id: dead.type for dead in await persistence.dead_messages()}
        assert found["m200"] == "a?b" and found.get("m100", "a\ufffdb") == "a\ufffdb"


class TestDataProtection:
    @pytest.fixture(autouse=True)
    async def _store(self, persistence: MessagePersistence) -> None:
        for room in ("tenant_1", "tenant_1:chat", "tenant_1:ops", "tenant_12", "tenant_1_x", "user:ann"):
            await log(persistence, 1, 2, 3, room=room)
            await persistence.store_message(message(4, room_id=room, user_id="ben"))
        await persistence.store_message(message(5, room_id="hall", user_id="ben"))

    async def export(self, persistence: MessagePersistence, **subject: str) -> list[str]:
        return [f"{one.room_id}/{one.user_id}/{one.id}" async for one in persistence.export(**subject)]

    async def test_a_room(self, persistence: MessagePersistence) -> None:
        expected = [f"tenant_1/ann/m{n}" for n in (1, 2, 3)] + ["tenant_1/ben/m4"]
        assert await self.export(persistence, room="tenant_1") == expected
        assert (await persistence.erase(room="tenant_1")).messages == 4
        assert await self.export(persistence, room="tenant_1") == []
        assert len(await self.export(persistence, room="tenant_12")) == 4

    async def test_a_tenant_is_its_room_and_those_named_after_it(self, persistence: MessagePersistence) -> None:
        found = await self.export(persistence, tenant="1")
        assert sorted({one.split("/")[0] for one in found}) == ["tenant_1", "tenant_1:chat", "tenant_1:ops"] and len(found) == 12
        assert (await persistence.erase(tenant="1")).messages == 12
        assert await self.export(persistence, tenant="1") == []
        assert [await persistence.count(room) for room in ("tenant_12", "tenant_1_x", "user:ann")] == [4, 4, 4]

    async def test_a_user_is_what_he_published_and_his_own_stream(self, persistence: MessagePersistence) -> None:
        found = await self.export(persistence, user="ann")
        assert len(found) == 3 * 6 + 1 == len(set(found)) and "user:ann/ben/m4" in found
        assert (await persistence.erase(user="ann")).messages == 19
        assert await self.export(persistence, user="ann") == []
        assert len(await self.export(persistence, user="ben")) == 6
        assert "ann" not in {row.user_id for row in await stored_rows(persistence)}

    async def test_the_log_stays_without_a_hole(self, persistence: MessagePersistence) -> None:
        await persistence.erase(room="tenant_1")
        rows = [row for row in await stored_rows(persistence) if row.room_id == "tenant_1"]
        assert [(row.epoch, row.log_offset) for row in rows] == [("e1", 1), ("e1", 2), ("e1", 3)]
        assert {(row.data, row.audience, row.user_id) for row in rows} == {(None, None, "")}
        assert await persistence.store_message(message(1, room_id="tenant_1")) == "stored", "its id is gone too"
        assert (await persistence.erase(room="tenant_1")).messages == 1, "repeating counts only what was there"

    async def test_his_id_goes_from_the_audiences_of_others(self, persistence: MessagePersistence) -> None:
        def audience(*users: str) -> str:
            return msgspec.json.encode(Audience(users=frozenset(users), exclude=frozenset({"ann"}))).decode()

        await log(persistence, 4, room="tenant_1", user_id="ben", audience=audience("ann", "annabel"), message_id="a1")
        await log(persistence, 5, room="tenant_1", user_id="ben", audience=audience("ann"), message_id="a2")
        await persistence.erase(user="ann")
        kept = [row.audience for row in await stored_rows(persistence) if row.audience is not None]
        decoded = [msgspec.json.decode(one, type=Audience) for one in kept]
        found = [(sorted(one.users or ()), sorted(one.exclude)) for one in decoded]
        assert found == [(["annabel"], []), ([], [])]
        assert decoded[1].users == frozenset(), "without its only user an event is for nobody, not for all"

    @pytest.mark.parametrize("user", ["exclude", "users", "where", "role__in", "admin", "id", "null"])
    async def test_an_id_that_is_also_a_word_of_audiences_changes_nobody_elses_rights(self, persistence: MessagePersistence, user: str) -> None:
        given = [
            Audience(exclude=frozenset({"bob"})),
            Audience(users=frozenset({"ann"})),
            Audience(where={"role__in": ["admin", "users"], "tenant_id": "id", "id__contains": "admin"}, filter="admin"),
        ]
        for number, one in enumerate(given, 4):
            await log(persistence, number, room="hall", user_id="ben", audience=msgspec.json.encode(one).decode(), message_id=f"a{number}")
        await persistence.erase(user=user)
        kept = [row.audience for row in await stored_rows(persistence) if row.audience is not None]
        assert [msgspec.json.decode(one, type=Audience) for one in kept] == given

    async def test_conditions_on_ids_forget_him_too(self, persistence: MessagePersistence) -> None:
        given: list[tuple[dict[str, object], dict[str, object]]] = [
            ({"id": "ann", "role": "ann"}, {"id": "", "role": "ann"}),
            ({"id__ne": "ann"}, {"id__ne": ""}),
            ({"id__in": ["ann", "bob"]}, {"id__in": ["bob"]}),
            ({"id__in": ["ann"]}, {"id__in": []}),
            ({"id__not_in": ["ann"]}, {"id__not_in": []}),
        ]
        for number, (where, _) in enumerate(given, 4):
            audience = msgspec.json.encode(Audience(where=where)).decode()
            await log(persistence, number, room="hall", user_id="ben", audience=audience, message_id=f"a{number}")
        await persistence.erase(user="ann")
        kept = [row.audience for row in await stored_rows(persistence) if row.audience is not None]
        assert [msgspec.json.decode(one, type=Audience).where for one in kept] == [after for _, after in given]

    async def test_dead_messages_too(self, persistence: MessagePersistence) -> None:
        await poison(persistence)
        for one in (("hall", "ann"), ("tenant_1:x", "ben"), ("tenant_1_x", "ben"), ("user:ann", None)):
            await persistence.store_messages([message(1, id="poison", room_id=one[0], user_id=one[1])])
        assert (await persistence.erase(tenant="1")).dead_messages == 1
        assert (await persistence.erase(user="ann")).dead_messages == 2
        assert [dead.room_id for dead in await persistence.dead_messages()] == ["tenant_1_x"]

    async def test_in_many_stretches(self, persistence: MessagePersistence, monkeypatch: pytest.MonkeyPatch) -> None:
        from aibos_realtime.storage import subjects

        for name in ("PAGE", "ROWS_AT_ONCE", "WINDOW"):
            monkeypatch.setattr(subjects, name, 2)
        for kind, name, count in (("room", "tenant_12", 4), ("user", "ann", 16), ("tenant", "1", 3)):
            found = await self.export(persistence, **{kind: name})
            assert len(found) == len(set(found)) == count
            assert (await persistence.erase(**{kind: name})).messages == count
            assert await self.export(persistence, **{kind: name}) == []

    async def test_as_json_lines(self, persistence: MessagePersistence) -> None:
        lines = [msgspec.json.decode(msgspec.json.encode(one)) async for one in persistence.export(room="hall")]
        assert lines == [
            {
                "id": "m5",
                "roomId": "hall",
                "type": "note",
                "timestamp": "2026-11-22T12:00:05Z",
                "userId": "ben",
                "data": {"n": 5},
                "position": None,
            }
        ]

    @pytest.mark.parametrize("subject", [{}, {"room": "a", "user": "b"}, {"user": ""}, {"tenant": "a\0"}, {"room": "a b"}])
    async def test_exactly_one_that_is_one(self, persistence: MessagePersistence, subject: dict[str, str]) -> None:
        with pytest.raises(ValidationError):
            await persistence.erase(**subject)
        with pytest.raises(ValidationError):
            await self.export(persistence, **subject)


class TestLife:
    async def test_it_opens_by_itself_and_stops_twice(self, store_url: str) -> None:
        persistence = MessagePersistence(database={"url": store_url})
        await asyncio.gather(*(persistence.store_message(message(number)) for number in range(5)))
        await persistence.stop()
        await persistence.stop()
        with pytest.raises(StoreUnavailable, match="stopped"):
            await persistence.get_messages(ROOM)
        async with persistence:
            await persistence.start()
            assert await persistence.count(ROOM) == 5

    async def test_stopping_stores_what_is_on_its_way(self, store_url: str) -> None:
        persistence = MessagePersistence(database={"url": store_url})
        await persistence.start()
        storing = [asyncio.ensure_future(persistence.store_message(message(number))) for number in range(700)]
        await asyncio.sleep(0)
        await persistence.stop()
        assert {one.result() for one in storing} == {"stored"}

    async def test_a_shared_database_is_left_open(self, store_url: str) -> None:
        async with Database(store_url) as database:
            async with MessagePersistence(database=database) as persistence:
                await persistence.store_message(message())
            assert database.is_open
            assert await database.read(lambda connection: connection.scalar(select(func.count()).select_from(messages))) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"database": {"ulr": "sqlite://"}}, "database.ulr: there is no such option; did you mean 'url'?"),
        ({"database": "sqlite://"}, "database: a text was given; allowed is a mapping of options"),
        ({"database": {"url": "mysql://ann:hunter2@db.example/x"}}, "database.url: 'mysql://…@db.example/x' was given; allowed are sqlite:///"),
        ({"database": {"pool_size": 0}}, "database.pool_size: 0 was given"),
        ({"database": {"statement_timeout": 0}}, "database.statement_timeout: 0 was given"),
        ({"retention": {"max_message": 1}}, "retention.max_message: there is no such option; did you mean 'max_messages'?"),
        ({"retention": {"duration": -1}}, "retention.duration: -1 was given"),
    ],
)
def test_misspelt_and_impossible_options(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MessagePersistence(**options)
    assert str(caught.value).startswith(said) and "hunter2" not in str(caught.value)


async def test_the_rooms_table_is_the_logs_alone(persistence: MessagePersistence) -> None:
    await persistence.store_message(message())
    assert await stored_rows(persistence, rooms) == [] == await stored_rows(persistence, dead_messages)
