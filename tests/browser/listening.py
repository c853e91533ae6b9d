"""Pages that listen: a client in Chromium which writes down what its callbacks get, and the verdict on what they got."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from aibos_realtime import RealtimeClient
from aibos_realtime.client.room import Receipt

LISTENER = Path(__file__).parent / "listener.js"
PATIENCE = 15_000.0
"""Milliseconds for a page to come to something."""


class Listener:
    """A page of the server with `listener.js` in it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    @classmethod
    async def open(cls, page: Page, address: str, token: str, *rooms: str, wait: bool = True, **options: Any) -> Listener:
        """`address`: `http://…` of the server. `options`: of the client. Returns when every room is joined; `wait=False`: at once."""
        await page.goto(f"{address}/client.js")  # any page of the server that a browser may keep
        await page.evaluate("(wanted) => { window.wanted = wanted; }", {"token": token, "rooms": rooms, "options": options})
        await page.add_script_tag(path=LISTENER, type="module")
        listener = cls(page)
        if wait:
            await listener.until("document.title === 'Listening'")
        return listener

    async def until(self, condition: str, argument: Any = None) -> None:
        """Wait until an expression of JavaScript is true in the page; `argument`: what it knows as `wanted`."""
        try:
            await self.page.wait_for_function(
                f"(wanted) => ({condition})", arg=argument, timeout=PATIENCE, polling=50
            )  # not by frames, which a hidden page does not draw
        except Exception as error:
            seen = await self.seen()
            summary = {**seen, "events": f"{len(seen.get('events', []))} events"}
            raise AssertionError(f"{condition} did not come true; the page has seen {summary}") from error

    async def seen(self) -> dict[str, Any]:
        """What the page wrote down: `events`, `life`, `errors`, `resyncs`, and the client's `state`."""
        found: dict[str, Any] = await self.page.evaluate("() => ({...window.seen, state: window.client?.state})")
        return found

    async def hear_all(self, receipts: Sequence[Receipt], room: str) -> None:
        """Wait for the last of what was published to a room, and judge: every event exactly once and in order, and no word of a gap."""
        last = receipts[-1].id
        await self.until("seen.events.some(({id}) => id === wanted)", last)
        seen = await self.seen()
        heard = [event["id"] for event in seen["events"] if event["room"] == room]
        published = [receipt.id for receipt in receipts]
        doubled = {id: times for id, times in Counter(heard).items() if times > 1}
        missed = [id for id in published if id not in set(heard)]
        assert (doubled, missed, seen["resyncs"]) == ({}, [], []), f"doubled {doubled}, missed {missed}, resync {seen['resyncs']}"
        assert heard == published, "out of order"
        offsets = [event["offset"] for event in seen["events"] if event["room"] == room]
        assert offsets == sorted(offsets)


class Publisher:
    """Somebody who goes on publishing, whatever happens to the server. `receipts`: of what was acknowledged, by position."""

    def __init__(self, client: RealtimeClient, room: str) -> None:
        self.receipts: list[Receipt] = []
        self._client = client
        self._room = room
        self._number = 0

    async def publish(self, count: int) -> None:
        """So many events, one after the other, each acknowledged."""
        for _ in range(count):
            self._number += 1
            self.receipts.append(await self._client.send_message("tick", {"n": self._number}, room=self._room, timeout=30))
