"""Pages of history: what a user may see of a room's log, by rising offset."""

from __future__ import annotations

from ..auth.user import User
from ..backends.base import Broker, LoggedEvent
from ..protocol.messages import HistoryRequest, Position
from .filters import Filters

HISTORY_LIMIT = 300
PAGE = 50
"""Events that are read at once, at least: some of them may be for others."""
HISTORY_BYTES = 512 * 1024
"""Of data on one page of history; a page ends early rather than being larger."""


async def read_visible(broker: Broker, filters: Filters, request: HistoryRequest, user: User | None) -> tuple[str, list[LoggedEvent], bool]:
    """(epoch, up to `limit` events for this user, whether there may be more).

    Hidden events are read over: a client pages from the events that it sees, and a page without any would leave it nowhere.
    """
    room_id, limit, before, after = request.room_id, request.limit, request.before, request.after
    page_size = max(limit, PAGE)
    found: list[LoggedEvent] = []
    while True:
        if after is not None:
            page = await broker.read_after(room_id, after, page_size)
        else:
            page = await broker.read_before(room_id, before, page_size)
        visible = [event for event in page.events if filters.admits(event.audience, user)]
        found = found + visible if after is not None else visible + found
        if len(found) > limit or not page.more:
            cut = _within_bytes(found[:limit]) if after is not None else _within_bytes(found[-limit:][::-1])[::-1]
            return page.epoch, cut, page.more or len(found) > len(cut)
        if after is not None:
            after = Position(page.epoch, page.last)
        else:
            before = Position(page.epoch, page.first)


def _within_bytes(events: list[LoggedEvent]) -> list[LoggedEvent]:
    """The first events whose data fit `HISTORY_BYTES` together; at least one."""
    total = 0
    for number, event in enumerate(events):
        total += len(event.data)
        if total > HISTORY_BYTES and number:
            return events[:number]
    return events
