"""`aibos-realtime history`: what was published to a room, as far as it is kept. It asks the HTTP API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from .events import Shown
from .exits import ExitCode, Failure
from .output import note, out, show_time
from .publish import check_names
from .target import ApiKeyOption, TokenOption, UrlOption

if TYPE_CHECKING:
    from ..admin.reports import EventReport, HistoryReport
    from .api import Api

PAGE = 300
"""Events that a server gives at most at once."""


def history(
    room: Annotated[str, typer.Argument(metavar="ROOM", help="The room, for example tenant_123.", show_default=False)],
    limit: Annotated[int, typer.Option(min=1, help="How many at most: the last ones, with --after the first ones.", metavar="N")] = 20,
    all: Annotated[bool, typer.Option("--all", help="As many as there are.")] = False,
    before: Annotated[str | None, typer.Option(help="Only what came before this position, an offset or EPOCH:OFFSET.", metavar="POSITION")] = None,
    after: Annotated[str | None, typer.Option(help="Only what came after this position.", metavar="POSITION")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    url: UrlOption = None,
    token: TokenOption = None,
    api_key: ApiKeyOption = None,
) -> None:
    """Print the events of a room, the oldest first.

    Operators may read every room, others those that they may manage. An offset alone means one of the present epoch.

    \b
    aibos-realtime history tenant_123 --limit 5
    aibos-realtime history tenant_123 --after 120 --all --json
    """
    from .api import find_api

    check_names(("room", room))
    if before is not None and after is not None:
        raise Failure("--before and --after do not go together: leave one of them away.", ExitCode.USAGE)
    _check_position(("--before", before), ("--after", after))
    reader = Reader(find_api(url, token, api_key), room)
    wanted = None if all else limit
    if after is not None:
        events, has_more = reader.read_after(after, wanted), False
    else:
        found, has_more = reader.read_before(before, wanted)
        events = iter(found)
    is_empty = True
    for event in events:
        _print(event, reader.epoch, as_json)
        is_empty = False
    if is_empty and not as_json:
        out.line("There are no events." if before is None and after is None else "There are no events there.")
    if has_more and not as_json:
        note("There are older ones: --limit, --all or --before.")


def _check_position(*positions: tuple[str, str | None]) -> None:
    for option, position in positions:
        offset = position.rpartition(":")[2] if position is not None else "0"
        if not (offset.isascii() and offset.isdecimal()):
            raise Failure(f"{option}: {position!r} was given; allowed is an offset, as 120, or EPOCH:OFFSET.", ExitCode.USAGE)


class Reader:
    """A room's events, page by page. `epoch`: of what was read last."""

    def __init__(self, api: Api, room: str) -> None:
        self._api = api
        self._room = room
        self.epoch = ""

    def read_before(self, position: str | None, limit: int | None) -> tuple[list[EventReport], bool]:
        """The last `limit` events (None: all) before a position (None: the end), and whether there are older ones. Raises `Failure`."""
        before = self._full(position)
        pages: list[list[EventReport]] = []
        count = 0
        while True:
            page = self._page(limit=PAGE if limit is None else min(PAGE, limit - count), before=before)
            pages.append(page.events)
            count += len(page.events)
            if not page.more or not page.events or (limit is not None and count >= limit):
                return [event for events in reversed(pages) for event in events], page.more and bool(page.events)
            before = f"{page.epoch}:{page.events[0].offset}"

    def read_after(self, position: str, limit: int | None) -> Iterator[EventReport]:
        """The first `limit` events (None: all) after a position. Raises `Failure`."""
        return islice(self._follow(position, PAGE if limit is None else min(PAGE, limit)), limit)

    def _follow(self, position: str, page_size: int) -> Iterator[EventReport]:
        after = self._full(position)
        while True:
            page = self._page(limit=page_size, after=after)
            yield from page.events
            if not page.more or not page.events:
                return
            after = f"{page.epoch}:{page.events[-1].offset}"

    def _full(self, position: str | None) -> str | None:
        """With the epoch; where it was not said, the present one."""
        if position is None or ":" in position:
            return position
        return f"{self._page(limit=1).epoch}:{position}"

    def _page(self, *, limit: int, before: str | None = None, after: str | None = None) -> HistoryReport:
        from ..admin.reports import HistoryReport
        from .api import quoted

        page = self._api.get(f"/rooms/{quoted(self._room)}/history", HistoryReport, limit=limit, before=before, after=after)
        self.epoch = page.epoch
        return page


def _print(event: EventReport, epoch: str, as_json: bool) -> None:
    try:
        time = datetime.fromisoformat(event.timestamp)
    except ValueError:
        time = None
    shown = Shown(event.room, event.event, event.offset, epoch, event.id, event.data, event.user_id, time)
    if as_json:
        out.json(shown.to_json())
    else:
        out.line(*shown.parts(show_time(event.timestamp)))
