"""What every store of events promises (`backends.base.EventStore`), against each of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime import Position
from aibos_realtime.backends.base import Audience, Batch, EventStore, LoggedEvent, Refused, Stored
from aibos_realtime.backends.sql.database import Database
from aibos_realtime.backends.sql.events import SqlEventStore
from aibos_realtime.testing.store import MemoryStore


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventStore]:
    url = request.getfixturevalue("postgres_url") if request.param == "postgresql" else f"sqlite:///{tmp_path / 'log.db'}"
    database = Database(url)
    store: EventStore = MemoryStore() if request.param == "memory" else SqlEventStore(database)
    await store.open()
    yield store
    await store.close()
    await database.close()


def event(offset: int, room: str = "lobby", **more: Any) -> LoggedEvent:
    return LoggedEvent(
        room,
        more.pop("event", "note"),
        more.pop("data", b'{"n":1}'),
        more.pop("id", f"id{offset}"),
        more.pop("epoch", "e1"),
        offset,
        1_700_000_000_000 + offset,
        **more,
    )


async def append(store: EventStore, *events: LoggedEvent, hollow: frozenset[int] = frozenset()) -> None:
    await store.append(Batch(list(events), hollow, {one.room: Position(one.epoch, one.offset) for one in events}))


async def test_what_was_stored_comes_back_as_it_was(store: EventStore) -> None:
    rich = event(
        2,
        data='{"name":"Ærø 🚢","deep":[[1.5e3,null]]}'.encode(),
        user_id="ann",
        audience=Audience(where={"role__in": ["a", "b"]}, filter="f", users=frozenset({"u"}), exclude=frozenset({"x", "y"})),
    )
    await append(store, event(1), rich, event(3))
    assert await store.read_after("lobby", Position("e1", 0), 10) == [event(1), rich, event(3)]
    assert await store.read_after("lobby", Position("e1", 1), 1) == [rich]
    assert await store.read_before("lobby", Position("e1", 3), 10) == [event(1), rich]
    assert await store.read_before("lobby", Position("e1", 4), 2) == [rich, event(3)]
    assert await store.read_after("lobby", Position("e2", 0), 10) == [] == await store.read_after("other", Position("e1", 0), 10)


async def test_the_ends_of_rooms_are_those_of_the_last_batch_and_survive_opening_again(store: EventStore) -> None:
    epoch, ends = await store.open() if isinstance(store, MemoryStore) else await reopen(store)
    assert ends == {} and epoch
    await append(store, event(1), event(1, "other"), event(2))
    await append(store, event(3))
    assert await store.heads(["lobby", "other", "unknown"]) == {"lobby": Position("e1", 3), "other": Position("e1", 1)}
    assert await reopen(store) == (epoch, {"lobby": Position("e1", 3), "other": Position("e1", 1)})


async def test_the_ends_of_many_rooms_are_read_in_pages(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aibos_realtime.backends.sql.events.ROOMS_AT_ONCE", 3)
    for count in (3, 7):
        await append(store, *(event(1, f"room{number}", id=f"{count}", epoch=f"e{count}") for number in range(count)))
        assert (await reopen(store))[1] == {f"room{number}": Position(f"e{count}", 1) for number in range(count)}


async def reopen(store: EventStore) -> tuple[str, dict[str, Position]]:
    await store.close()
    return await store.open()


@pytest.mark.parametrize("wrong", [event(9, id="id1"), event(1, id="new"), event(9, "new", data=b'"\\ud800"')], ids=["id", "position", "surrogate"])
async def test_a_batch_with_one_bad_row_leaves_nothing(store: EventStore, wrong: LoggedEvent) -> None:
    await append(store, event(1))
    if wrong.room == "new" or (wrong.offset == 1 and isinstance(store, MemoryStore)):
        if isinstance(store, MemoryStore):
            store.poisoned = {wrong.id}
        else:
            wrong = event(9, "new", id="id\ud800")
    with pytest.raises(Refused):
        await append(store, event(2), wrong, event(3))
    assert [row.offset for row in await store.read_after("lobby", Position("e1", 0), 10)] == [1]
    assert await store.heads(["lobby", "new"]) == {"lobby": Position("e1", 1)}
    await append(store, event(2))


async def test_ids_are_unique_for_a_room_and_a_user(store: EventStore) -> None:
    await append(store, event(1, id="x"), event(2, id="x", user_id="ann"), event(1, "other", id="x"))
    found = await store.find([("lobby", "", "x"), ("lobby", "ann", "x"), ("lobby", "bob", "x"), ("lobby", "", "y")])
    assert found == {
        ("lobby", "", "x"): Stored("note", b'{"n":1}', Position("e1", 1)),
        ("lobby", "ann", "x"): Stored("note", b'{"n":1}', Position("e1", 2)),
    }
    many = [("lobby", "", f"z{number}") for number in range(1000)] + [("other", "", "x")]
    assert list(await store.find(many)) == [("other", "", "x")]
    assert await store.find([]) == {}


async def test_a_payload_that_is_not_kept_leaves_its_place(store: EventStore) -> None:
    await append(store, event(1), event(2, audience=Audience(exclude=frozenset({"eve"}))), hollow=frozenset({1}))
    assert await store.read_after("lobby", Position("e1", 0), 10) == [event(1), event(2, data=b"")]
    assert (await store.find([("lobby", "", "id2")]))[("lobby", "", "id2")] == Stored("note", None, Position("e1", 2))


async def test_forgetting_the_ends_of_rooms(store: EventStore) -> None:
    await append(store, event(1), event(1, "other"))
    await store.forget(["lobby", "unknown"], "fresh")
    assert await reopen(store) == ("fresh", {"other": Position("e1", 1)})
