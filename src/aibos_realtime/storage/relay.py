"""The relay: takes what waits in a database's outbox to the log, in order, and out of the outbox once the log has it.

At least once into the log, and once out of it: the row's id is the event's idempotency id. Only the server that writes the log relays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Self, TypeGuard

import msgspec
from msgspec import Raw

from ..backends.base import Audience, Draft, Receipt
from ..backends.supervision import keep_going
from ..clock import SYSTEM_CLOCK, Clock
from ..errors import MessageTooLarge, RealtimeError, RequestTimeout, StoreUnavailable, ValidationError
from ..logs import get_logger
from ..protocol.codec import MALFORMED, JsonCodec
from ..protocol.limits import BROADCAST_BYTES
from ..protocol.publishing import check_event, check_id, check_room

if TYPE_CHECKING:
    from types import TracebackType

    from ..backends.sql.database import Database
    from ..backends.sql.outbox import Waiting

logger = get_logger("aibos_realtime.outbox")

WINDOW = 128
"""Rows on their way at once: one or two commits of the log for all of them, and at most 32 MiB of data."""
PUBLISH_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
FIRST_DELAY, LONGEST_DELAY = 0.05, 5.0
"""Of the back-off while the log or the database takes nothing."""
FIRST_LOOK, LONGEST_LOOK = 0.005, 0.1
"""Until the next look at rows that an older transaction keeps back: nothing tells when it ends."""
POLL = {"sqlite": 0.1, "postgresql": 1.0}
"""Seconds between looks at an empty outbox. On SQLite they are how other processes' rows are found, on PostgreSQL they stand in for a lost notice.

A look was measured at 0.18 ms of CPU on SQLite and 0.6 ms on PostgreSQL.
"""

_codec = JsonCodec()


class Backlog(NamedTuple):
    """How many events wait in the outbox, and for how many seconds the oldest has."""

    waiting: int
    oldest_age: float


class Relay:
    """Publishes the events that callers left in `database` with `outbox.publish`.

    `publish` gives a draft its position: `Broker.publish`, or what wraps it. It must keep the order of its calls, and fail together: when one is
    refused with a retryable error, so are those of the same room that were called before this was known. The order here hangs on that.

    A retryable error ends in a longer wait and another try, and nothing overtakes. Any other `RealtimeError` is the event's own fault: it goes to
    the dead messages with its reason, and the rest goes on. `poll`: seconds between looks at an empty outbox; None is `POLL`. `is_ours`: whether this
    one of several relays has to do it at present; where two do it for a moment, the ids make it once.
    """

    def __init__(
        self,
        database: Database,
        publish: Callable[[Draft], Awaitable[Receipt]],
        *,
        clock: Clock = SYSTEM_CLOCK,
        window: int = WINDOW,
        poll: float | None = None,
        is_ours: Callable[[], bool] = lambda: True,
    ) -> None:
        self._database = database
        self._publish = publish
        self._clock = clock
        self._window = window
        self._poll = POLL[database.dialect] if poll is None else poll
        self._is_ours = is_ours
        self._bell = asyncio.Event()
        self._turn = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._taken: set[int] = set()
        """Rows that the log has taken, and that may still be in the outbox: the log knows an id for minutes, a database may be away for longer."""
        self.relayed = 0
        """Events that the log has taken."""
        self.dead = 0
        """Events that it never will."""
        self.failures = 0
        """Tries that ended in a wait."""

    async def start(self) -> None:
        """Begin to relay in the background; returns at once. The database is open. Idempotent."""
        if not self._tasks:
            loop = asyncio.get_running_loop()
            self._bell, self._turn = asyncio.Event(), asyncio.Lock()  # of this loop: the last start may have been in another one
            self._tasks = [
                loop.create_task(keep_going(self._keep_listening, "outbox-listen", clock=self._clock), name="outbox-listen"),
                loop.create_task(keep_going(self._keep_relaying, "outbox-relay", clock=self._clock), name="outbox-relay"),
            ]

    async def stop(self) -> None:
        """Let the events that are on their way arrive, within `STOP_TIMEOUT` seconds, and end. Idempotent. Cancelling ends at once."""
        tasks, self._tasks = self._tasks, []
        try:
            async with asyncio.timeout(STOP_TIMEOUT), self._turn:
                _cancel(tasks)
        except TimeoutError:
            logger.warning("the outbox's events on their way did not arrive in time; they will be sent again under the same ids")
        finally:
            _cancel(tasks)
        if tasks:
            await asyncio.wait(tasks)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def backlog(self) -> Backlog:
        """What waits at present. Raises `StoreUnavailable`. Cancelling is safe."""
        from ..backends.sql.outbox import measure

        waiting, oldest = await self._database.read(measure)
        return Backlog(waiting, max(0.0, self._clock.now() - oldest / 1000) if oldest is not None else 0.0)

    # — the loop —

    async def _keep_relaying(self) -> None:
        delay, look = FIRST_DELAY, FIRST_LOOK
        while True:
            try:
                async with self._turn:
                    is_empty, is_held = await self._relay()
            except Exception as error:
                self.failures += 1
                if delay == FIRST_DELAY:
                    logger.warning("the outbox waits: %s", error, exc_info=None if isinstance(error, RealtimeError) else error)
                await self._clock.sleep(delay)
                delay = min(2 * delay, LONGEST_DELAY)
                continue
            delay = FIRST_DELAY
            look = min(2 * look, LONGEST_LOOK) if is_held else FIRST_LOOK
            if is_empty:
                await self._rest(look if is_held else self._poll)

    async def _rest(self, delay: float) -> None:
        """Until there may be new rows."""
        if not self._bell.is_set():
            timer = self._clock.call_later(delay, self._bell.set)
            try:
                await self._bell.wait()
            finally:
                timer.cancel()
        self._bell.clear()  # before the next look: a ring during it must count

    async def _keep_listening(self) -> None:
        from ..backends.sql.outbox import listen

        delay = FIRST_DELAY
        while True:
            since = self._clock.monotonic()
            try:
                await listen(self._database, self._bell.set)
            except Exception as error:
                if self._clock.monotonic() - since > LONGEST_DELAY:
                    delay = FIRST_DELAY
                if delay == FIRST_DELAY:
                    logger.warning("no notices of new events in the outbox, which is looked at every %g s: %s", self._poll, error)
            await self._clock.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    # — one window —

    async def _relay(self) -> tuple[bool, bool]:
        """Relay the next rows. Returns whether there were none, and whether some are kept back. Raises what stands in the way."""
        from ..backends.sql.outbox import clear, read

        if not self._is_ours():
            return True, False
        window = await self._database.read(read, self._window)
        relayed = [row.seq for row in window.rows if row.seq in self._taken]
        self._taken = set(relayed)
        if not window.rows:
            return True, window.is_held
        dead: list[tuple[Waiting, str]] = []
        trouble: BaseException | None = None
        for row, error in await self._publish_all([row for row in window.rows if row.seq not in self._taken]):
            if error is None:
                relayed.append(row.seq)
                self._taken.add(row.seq)
            elif _is_final(error):
                dead.append((row, f"{error.code}: {error}"))
            else:
                trouble = trouble or error
        if relayed or dead:
            await self._database.write(clear, relayed, dead, int(self._clock.now() * 1000))
        self.relayed += len(relayed)
        self.dead += len(dead)
        for row, reason in dead:
            logger.error("an event for the room %r left the outbox for the dead messages: %s", row.room, reason)
        if trouble is not None:
            raise trouble
        return False, False

    async def _publish_all(self, rows: Sequence[Waiting]) -> list[tuple[Waiting, BaseException | None]]:
        """Publish rows at once, in their order, but none after one that is refused on the spot for the time being. Each with its error, or None."""
        calls: list[tuple[Waiting, asyncio.Future[Receipt]]] = []
        for row in rows:
            call = self._call(row)
            call.add_done_callback(_look_at_error)
            calls.append((row, call))
            if call.done() and (error := _error_of(call)) is not None and not _is_final(error):
                break
        if calls:
            await asyncio.wait([call for _, call in calls], timeout=PUBLISH_TIMEOUT)
        return [(row, _error_of(call)) for row, call in calls]

    def _call(self, row: Waiting) -> asyncio.Future[Receipt]:
        try:
            return asyncio.ensure_future(self._publish(_draft_of(row)))
        except Exception as error:
            failed: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
            failed.set_exception(error)
            return failed


def _draft_of(row: Waiting) -> Draft:
    """A row as a draft. It is checked once more: whoever may write to the table need not have used `outbox.publish`. Raises `RealtimeError`."""
    check_room(row.room)
    check_event(row.event)
    check_id("id", row.id)
    data = row.data.encode()
    if len(data) > BROADCAST_BYTES:
        raise MessageTooLarge(f"The data has {len(data)} bytes; at most {BROADCAST_BYTES} are sent to a room.")
    _codec.value(Raw(data))
    try:
        audience = msgspec.json.decode(row.audience, type=Audience) if row.audience is not None else None
    except MALFORMED:
        raise ValidationError("The audience is not one.") from None
    return Draft(row.room, row.event, data, row.id, audience=audience, keyed=True, persist=row.persist)


def _is_final(error: BaseException) -> TypeGuard[RealtimeError]:
    """Whether another try would end in the same way."""
    return isinstance(error, RealtimeError) and not error.retryable


def _error_of(call: asyncio.Future[Receipt]) -> BaseException | None:
    if not call.done():
        return RequestTimeout("The log did not answer in time.")
    return StoreUnavailable("The log was closed.") if call.cancelled() else call.exception()


def _look_at_error(call: asyncio.Future[Receipt]) -> None:
    """So that nobody complains of an error that came too late to be looked at."""
    if not call.cancelled():
        call.exception()


def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
