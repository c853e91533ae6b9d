"""`aibos-realtime listen`: the events of rooms as they come, over every loss of the connection, until it is stopped."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RealtimeError
from .events import Shown
from .exits import ExitCode, Failure
from .output import err, note, out
from .publish import check_names
from .target import Target, TokenOption, UrlOption, connect_once, find_target

if TYPE_CHECKING:
    from ..client.room import RoomEvents
    from ..protocol.client_notices import Resynced
    from ..protocol.messages import Event

NOTICES = ("user.joined", "user.left")


def listen(
    rooms: Annotated[list[str], typer.Argument(metavar="ROOM", help="Rooms, for example tenant_123.", show_default=False)],
    rewind: Annotated[int | None, typer.Option(min=1, help="First the last N events of each room, as far as they are kept.", metavar="N")] = None,
    presence: Annotated[bool, typer.Option("--presence", help="Also who comes and goes.")] = False,
    count: Annotated[int | None, typer.Option(min=1, help="Stop after N events.", metavar="N")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Print the events of rooms as they come, until Ctrl-C.

    It reconnects by itself, and gets what it missed. Where that cannot be had it says so: on stderr, and with --json as an event `resync`.
    """
    check_names(*(("room", room) for room in rooms))
    target = find_target(url, token)
    listener = Listener(target, list(dict.fromkeys(rooms)), rewind=rewind, presence=presence, count=count, as_json=as_json)
    asyncio.run(listener.run())


class Listener:
    """One run of `listen`."""

    def __init__(self, target: Target, rooms: list[str], *, rewind: int | None, presence: bool, count: int | None, as_json: bool) -> None:
        self._target = target
        self._rooms = rooms
        self._rewind = rewind
        self._presence = presence
        self._left = count
        self._as_json = as_json
        self._complaint = ""
        self._is_closing = False
        self._client = target.client(reconnect_interval=1.0)

    async def run(self) -> None:
        """Until SIGINT, SIGTERM or enough events. Raises `Failure`."""
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stopping.set)
        work = asyncio.ensure_future(self._work())
        try:
            await _first_of(work, stopping.wait())
            if work.done():
                work.result()
        except RealtimeError as error:
            raise self._target.explain(error, self._client.user) from None
        finally:
            self._is_closing = True
            # From here on a further Ctrl-C ends it at once.
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            await self._client.close()

    async def _work(self) -> None:
        client = self._client
        await connect_once(client)
        client.on("resync", self._tell_resync)
        client.on("room-closed", self._tell_room_closed)
        client.on("disconnect", self._tell_disconnect)
        client.on("reconnect", self._tell_reconnect)
        client.on("error", self._tell_error)
        size = max(1000, 2 * (self._rewind or 0))
        following = [asyncio.ensure_future(self._follow(client.events(room, size=size))) for room in self._rooms]
        try:
            for room in self._rooms:
                await client.join_room(room, rewind=self._rewind, presence=self._presence)
            note(f"listening to {', '.join(self._rooms)} on {_without_query(self._target.url)}; Ctrl-C ends")
            while self._left != 0 and following:
                done, _ = await asyncio.wait(following, return_when=asyncio.FIRST_COMPLETED)
                following = [task for task in following if task not in done]
                for task in done:
                    task.result()
        finally:
            for task in following:
                task.cancel()
            await asyncio.gather(*following, return_exceptions=True)
        if self._left != 0:
            raise Failure("The server has closed every room that was listened to: nothing more will come.", ExitCode.REFUSED)

    async def _follow(self, events: RoomEvents) -> None:
        """Print the events of one room until it is left or enough were printed."""
        async for event in events:
            if self._left == 0:
                return
            self._show(event)
            if self._left is not None and event.event not in NOTICES:
                self._left -= 1
                if self._left == 0:
                    return

    def _show(self, event: Event) -> None:
        time = event.timestamp
        shown = Shown(event.room, event.event, event.offset, event.epoch, event.id, event.data, event.user_id, time)
        out.json(shown.to_json()) if self._as_json else out.line(*shown.parts(f"{time.astimezone():%H:%M:%S}" if time else " " * 8))

    async def _tell_resync(self, notice: Resynced) -> None:
        if notice.room not in self._rooms:
            return
        # What came before it waits in the iterators: their tasks have their turn first.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        position = notice.position
        if self._as_json:
            data = {"epoch": position.epoch, "offset": position.offset} if position is not None else None
            out.json({"room": notice.room, "event": "resync", "data": data})
        err.line((f"{notice.room}: resynced. Events may be missing here: what was missed is no longer kept by the server", "yellow"))

    def _tell_room_closed(self, data: Any) -> None:
        err.line((f"{data.get('roomId')}: closed by the server ({data.get('reason')})", "yellow"))

    def _tell_disconnect(self, reason: str) -> None:
        if not self._is_closing:
            note(f"{reason.rstrip('.')}; connecting again …")

    def _tell_reconnect(self, attempts: int) -> None:
        self._complaint = ""
        note("connected again")

    def _tell_error(self, error: RealtimeError) -> None:
        """Each trouble once, however often it is tried again."""
        if str(error) != self._complaint:
            self._complaint = str(error)
            note(str(error))


async def _first_of(work: asyncio.Future[None], other: Coroutine[Any, Any, Any]) -> None:
    waiting = asyncio.ensure_future(other)
    try:
        await asyncio.wait((work, waiting), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _without_query(url: str) -> str:
    """The URL as it may be shown: without a password and without what follows `?`, where a token may stand."""
    from ..client.options import name_server, parse_url

    return f"{parse_url('url', url).partition('://')[0]}://{name_server(url)}"
