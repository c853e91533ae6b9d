"""For the tests of the outbox: sessions of every kind on a database, and a log that writes down what it is given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from aibos_realtime import outbox
from aibos_realtime.backends.base import Draft, Receipt
from aibos_realtime.protocol.messages import Position

PATIENCE = 10.0
KINDS = ("Session", "Connection", "AsyncSession", "AsyncConnection")

Publish = Callable[..., Awaitable[str]]


def url_for(url: str, kind: str) -> str:
    """The database's URL with the driver of an application: sqlite3, psycopg, aiosqlite, asyncpg."""
    dialect, _, rest = url.partition("://")
    drivers = {"sqlite": "aiosqlite", "postgresql": "asyncpg"} if kind.startswith("Async") else {"sqlite": "pysqlite", "postgresql": "psycopg"}
    return f"{dialect}+{drivers[dialect]}://{rest}"


class Application:
    """An application's own sessions on a database; `transaction()` begins one and gives what publishes in it."""

    def __init__(self, url: str, kind: str) -> None:
        self.kind = kind
        self.is_async = kind.startswith("Async")
        self.engine: Any = create_async_engine(url_for(url, kind)) if self.is_async else create_engine(url_for(url, kind))

    async def begin(self) -> Any:
        """A session or connection, as SQLAlchemy gives it, before its first statement."""
        if self.kind == "Session":
            return Session(self.engine)
        if self.kind == "AsyncSession":
            return AsyncSession(self.engine)
        connection = self.engine.connect()
        return await connection if self.is_async else connection

    async def call(self, result: Any) -> Any:
        """What a method of the session returned, awaited where it has to be."""
        return await result if self.is_async else result

    @asynccontextmanager
    async def transaction(self, *, commit: bool = True) -> AsyncIterator[tuple[Any, Publish]]:
        """Publish in one transaction, which then is committed or rolled back."""
        session = await self.begin()

        async def publish(*given: Any, **options: Any) -> str:
            return str(await self.call(outbox.publish(session, *given, **options)))

        try:
            yield session, publish
            await self.call(session.commit() if commit else session.rollback())
        finally:
            await self.call(session.close())

    async def publish(self, *given: Any, **options: Any) -> str:
        """One event in a transaction of its own."""
        async with self.transaction() as (_, publish):
            return await publish(*given, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self.call(self.engine.dispose())


class WritingLog:
    """Takes every draft, or what `answer` says of it, and keeps those that it took."""

    def __init__(self, answer: Callable[[Draft], BaseException | None] = lambda draft: None) -> None:
        self.drafts: list[Draft] = []
        self.answer = answer
        self._came = asyncio.Event()

    def publish(self, draft: Draft) -> asyncio.Future[Receipt]:
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        error = self.answer(draft)
        if error is not None:
            receipt.set_exception(error)
            return receipt
        self.drafts.append(draft)
        receipt.set_result(Receipt(draft.id, draft.room, Position("e", len(self.drafts))))
        self._came.set()
        return receipt

    @property
    def events(self) -> list[str]:
        return [draft.event for draft in self.drafts]

    async def until(self, event: str) -> list[str]:
        """The names of all events so far, once one of this name is there."""
        async with asyncio.timeout(PATIENCE):
            while event not in self.events:
                self._came.clear()
                await self._came.wait()
        return self.events
