"""`outbox.publish`: what it refuses before anything is executed, and how it is called. What it promises: tests/contracts/test_outbox.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from aibos_realtime import ConfigurationError, MessageTooLarge, ProtocolError, ValidationError, outbox, where
from aibos_realtime.backends.sql.database import Database

KIB_256 = 256 * 1024


@pytest.fixture
async def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/realtime.db"
    async with Database(url):
        return url


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


@pytest.fixture
def statements(engine: Engine) -> list[str]:
    """What the engine has executed."""
    found: list[str] = []
    event.listen(engine, "before_cursor_execute", lambda connection, cursor, statement, *rest: found.append(statement))
    return found


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"room": "a b"}, ProtocolError, "room name"),
    ({"room": ""}, ProtocolError, "room name"),
    ({"room": "user:"}, ValidationError, "^room: "),
    ({"room": "user:a\0b"}, ValidationError, "^room: "),
    ({"room": "user:" + "x" * 129}, ValidationError, "^room: "),
    ({"event": "a b"}, ProtocolError, "event name"),
    ({"event": "joined-room"}, ValidationError, "reserved"),
    ({"id": ""}, ValidationError, "^id: "),
    ({"id": "x" * 129}, ValidationError, "^id: "),
    ({"id": "a\0b"}, ValidationError, "^id: "),
    ({"data": "x" * (KIB_256 - 1)}, MessageTooLarge, "262144"),
    ({"data": object()}, ValidationError, "cannot be sent"),
    ({"data": "a\0b"}, ValidationError, "NUL"),
    ({"data": "\ud800"}, ValidationError, "cannot be sent"),
    ({"data": 2**53 + 1}, ValidationError, "2\\^53"),
    ({"data": float("nan")}, ValidationError, "cannot express"),
    ({"exclude": "ann"}, ValidationError, "^exclude: "),
    ({"exclude": [5]}, ValidationError, "^exclude: "),
    ({"exclude": ["\ud800"]}, ValidationError, "^filter, exclude: "),
    ({"exclude": [f"{number:0128}" for number in range(3000)]}, ValidationError, "at most 256 KiB"),
    ({"filter": lambda user: True}, ConfigurationError, "^filter: a function .* only a server knows; use where"),
    ({"filter": {"role": "admin"}}, ConfigurationError, "^filter: .* not dict"),
    ({"filter": where(role="\0")}, ValidationError, "^filter, exclude: "),
    ({"filter": where(role=object())}, ValidationError, "^filter, exclude: "),
]


@pytest.mark.parametrize(("given", "error", "match"), WRONG, ids=range(len(WRONG)))
def test_what_is_refused_before_anything_is_executed(given: dict[str, Any], error: type[Exception], match: str, engine: Engine) -> None:
    with Session(engine) as session:
        with pytest.raises(error, match=match):
            outbox.publish(session, **({"room": "lobby", "event": "note"} | given))
        assert not session.in_transaction()


def test_the_limits_themselves_are_allowed(engine: Engine, statements: list[str]) -> None:
    with Session(engine) as session:
        outbox.publish(session, "user:" + "x" * 128, "x" * 128, "x" * (KIB_256 - 2), id="x" * 128)
        assert [statement.split(" ")[0] for statement in statements] == ["INSERT"]


@pytest.mark.parametrize("wrong", [None, "sqlite:///x.db", object(), Session])
def test_what_is_no_session(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="a Session, AsyncSession, Connection or AsyncConnection of SQLAlchemy is expected, not "):
        outbox.publish(wrong, "lobby", "note")


def test_a_database_of_another_kind(engine: Engine, statements: list[str]) -> None:
    engine.dialect.name = "oracle"
    with Session(engine) as session, pytest.raises(ConfigurationError, match="connected to oracle"):
        outbox.publish(session, "lobby", "note")
    assert statements == []


def test_each_event_has_an_id_of_its_own(engine: Engine) -> None:
    with Session(engine) as session:
        assert len({outbox.publish(session, "lobby", "note") for _ in range(100)}) == 100
        assert outbox.publish(session, "lobby", "note", id="mine") == "mine"


async def test_an_asynchronous_session_executes_when_awaited_and_checks_at_once(url: str, statements: list[str]) -> None:
    engine = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"))
    event.listen(engine.sync_engine, "before_cursor_execute", lambda connection, cursor, statement, *rest: statements.append(statement))
    async with AsyncSession(engine) as session:
        with pytest.raises(ProtocolError):
            outbox.publish(session, "a b", "note")  # type: ignore[unused-coroutine]
        pending = outbox.publish(session, "lobby", "note", id="mine")
        assert statements == []
        assert await pending == "mine" and len(statements) == 1
    await engine.dispose()


async def test_scoped_sessions(url: str, engine: Engine) -> None:
    scoped = scoped_session(sessionmaker(engine))
    assert outbox.publish(scoped, "lobby", "note", id="mine") == "mine" and scoped().in_transaction()
    scoped.remove()
    asynchronous = create_async_engine(url.replace("sqlite:", "sqlite+aiosqlite:"))
    async_scoped = async_scoped_session(async_sessionmaker(asynchronous), scopefunc=lambda: 1)
    assert await outbox.publish(async_scoped, "lobby", "note", id="mine") == "mine" and async_scoped().in_transaction()
    await async_scoped.remove()
    await asynchronous.dispose()


def test_a_session_with_a_bind_for_each_table(engine: Engine, statements: list[str]) -> None:
    """The database is the one that the session has for the outbox's table, as for any other."""
    from aibos_realtime.backends.sql.schema import outbox as table

    with Session(binds={table: engine}) as session:
        outbox.publish(session, "lobby", "note")
        session.commit()
    assert len(statements) == 1
