"""`outbox.publish`: an event in the caller's own SQLAlchemy transaction. It is delivered if and only if that commits.

Here is the caller's side alone: the event is checked and becomes a row. A server at the same database relays it (`relay`).
"""

from __future__ import annotations

import secrets
from collections.abc import Coroutine, Iterable
from typing import Any, overload

from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from ..backends.base import Audience, Draft
from ..backends.sql.outbox import insert
from ..clock import SYSTEM_CLOCK
from ..errors import ConfigurationError
from ..protocol.conditions import Where
from ..protocol.limits import BROADCAST_BYTES
from ..protocol.publishing import check_audience, check_event, check_id, check_room, encode_data, excluded

__all__ = ["publish"]

Immediate = Session | Connection | scoped_session[Any]
Awaited = AsyncSession | AsyncConnection | async_scoped_session[Any]


@overload
def publish(
    session: Immediate,
    room: str,
    event: str,
    data: Any = None,
    *,
    filter: Where | str | None = None,
    exclude: Iterable[str] = (),
    id: str | None = None,
    persist: bool = True,
) -> str: ...


@overload
def publish(
    session: Awaited,
    room: str,
    event: str,
    data: Any = None,
    *,
    filter: Where | str | None = None,
    exclude: Iterable[str] = (),
    id: str | None = None,
    persist: bool = True,
) -> Coroutine[Any, Any, str]: ...


def publish(
    session: Immediate | Awaited,
    room: str,
    event: str,
    data: Any = None,
    *,
    filter: Where | str | None = None,
    exclude: Iterable[str] = (),
    id: str | None = None,
    persist: bool = True,
) -> str | Coroutine[Any, Any, str]:
    """Send an event to the members of a room, as part of a transaction: `publish(session, …)`, or `await publish(async_session, …)`.

    Called as the session's own `execute` is: with a `Session` or `Connection` it is done when it returns; with an `AsyncSession` or
    `AsyncConnection` it has to be awaited. It executes one INSERT and commits nothing. Returns the event's id.

    `room`: a room, `user:<id>` for one user, or `all`. `filter`: `where(...)` or the name of a filter that the server has registered. `exclude`:
    user ids. `id`: of the event, 1–128 characters; what is published in a room under the same id within 5 minutes is published once. By default
    each call has its own. `persist=False`: a position, but no payload in the store. Data is at most 256 KiB of JSON.

    Raises, before anything is executed, what `EventBroadcaster.broadcast_to_room` raises: `ProtocolError` (names), `ValidationError` (data, ids),
    `MessageTooLarge`; and `ConfigurationError` for a filter or a session that cannot be used. Executing raises `ConfigurationError` where the
    table is missing, else what the session's `execute` raises. Cancelling leaves the transaction to whoever rolls it back.
    """
    check_room(room)
    check_event(event)
    if id is not None:
        check_id("id", id)
    draft = Draft(
        room,
        event,
        encode_data(data, BROADCAST_BYTES),
        id or secrets.token_urlsafe(12),  # no counter: a process that forks would count twice
        audience=_audience(filter, exclude),
        keyed=True,
        persist=persist,
    )
    timestamp = int(SYSTEM_CLOCK.now() * 1000)
    if isinstance(session, scoped_session | async_scoped_session):
        session = session()
    if isinstance(session, Session | Connection):
        insert(session, draft, timestamp)
        return draft.id
    if isinstance(session, AsyncSession | AsyncConnection):
        return _insert(session, draft, timestamp)
    raise ConfigurationError(
        f"outbox.publish: a Session, AsyncSession, Connection or AsyncConnection of SQLAlchemy is expected, not {type(session).__name__}"
    )


async def _insert(session: AsyncSession | AsyncConnection, draft: Draft, timestamp: int) -> str:
    await session.run_sync(insert, draft, timestamp)
    return draft.id


def _audience(filter: object, exclude: Iterable[str]) -> Audience | None:
    but = excluded(exclude)
    if isinstance(filter, Where):
        audience = Audience(where=dict(filter), exclude=but)
    elif isinstance(filter, str):
        audience = Audience(filter=filter, exclude=but)
    elif callable(filter):
        raise ConfigurationError(
            "filter: a function is decided for the users present, whom only a server knows; use where(…), or the name of a filter registered there"
        )
    elif filter is not None:
        raise ConfigurationError(f"filter: where(…) or a registered name is expected, not {type(filter).__name__}")
    else:
        audience = Audience(exclude=but)
    check_audience(audience)
    return audience if audience != Audience() else None
