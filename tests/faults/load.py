"""Load: several publishers and subscribers over a few rooms, from the first join to the last event that everybody has read."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aibos_realtime import Position, RealtimeClient, UnrecoverablePosition
from aibos_realtime.client.room import HistoryPage
from tests.faults.checker import Entry, History
from tests.faults.clients import PATIENCE, Moment, Publisher, Subscriber, make_client, read_history
from tests.faults.journal import Acknowledged, Delivered, Journal, Record, read_journals

BOUND_PUBLISHER, BOUND_SUBSCRIBER = "publisher-at-", "subscriber-at-"
"""How the names begin of those that belong to one node; its number follows."""


class Load:
    """Several of both over a few rooms. `url`: where they connect, perhaps by a proxy; `direct`: the servers themselves, for looking at the log.

    Several URLs are those of nodes: each client begins at another one and may go to any, but for one publisher and one subscriber per node that are
    `bound` to it. Entering it returns when the subscribers have joined and the publishers are running.
    """

    def __init__(
        self, folder: Path, url: str | Sequence[str], *, seed: int, direct: str | Sequence[str] | None = None, rooms: int = 3, serial: int = 3,
        pipelined: int = 2, careless: int = 1, subscribers: int = 2, wanderers: int = 1, pace: float = 0.01, **options: Any,
    ) -> None:  # fmt: skip
        self.folder = folder
        self.rooms = [f"room-{number}" for number in range(rooms)]
        self._urls = [url] if isinstance(url, str) else list(url)
        self._turns = count()
        self._direct = direct or self._urls
        self._chance = random.Random(seed)
        self._stop = asyncio.Event()
        self._options = {"heartbeat": {"interval": 5, "timeout": 6}, **options}
        self._tasks: list[asyncio.Task[None]] = []
        self._journals: list[Journal] = []
        self._alarm: tuple[Moment, Callable[[], None], asyncio.Event] | None = None
        self._pace = pace
        self.publishers = [self._make_publisher(f"serial-{n}", window=1) for n in range(serial)]
        self.publishers += [self._make_publisher(f"pipelined-{n}", window=16) for n in range(pipelined)]
        self.publishers += [self._make_publisher(f"careless-{n}", window=4, patience=0.1) for n in range(careless)]
        self.subscribers = [self._make_subscriber(f"subscriber-{n}") for n in range(subscribers)]
        self.wanderers = [self._make_subscriber(f"wanderer-{n}") for n in range(wanderers)]
        nodes = list(enumerate(self._urls)) if len(self._urls) > 1 else []
        self.bound = [
            (self._make_publisher(f"{BOUND_PUBLISHER}{n}", 1, url=at), self._make_subscriber(f"{BOUND_SUBSCRIBER}{n}", at)) for n, at in nodes
        ]
        self.publishers += [publisher for publisher, _ in self.bound]
        self.subscribers += [subscriber for _, subscriber in self.bound]

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(one.start() for one in (*self.subscribers, *self.wanderers)))
            await asyncio.gather(*(one.client.connect() for one in self.publishers))
            self._tasks = [asyncio.create_task(one.run(self._stop)) for one in self.publishers]
            self._tasks += [asyncio.create_task(one.wander(self._stop)) for one in self.wanderers]
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._close()

    async def until_flowing(self, count: int = 1) -> None:
        """Wait until every publisher that never gives up had so many acknowledgements from now on. Raises `AssertionError`."""
        await self._until_all("acknowledged", lambda one: one.until_acknowledged(count))

    async def until_refused(self, code: str) -> None:
        """Wait until every publisher that never gives up was refused with this code from now on. Raises `AssertionError`."""
        await self._until_all(f"refused with {code}", lambda one: one.until_refused(code))

    async def until_everywhere(self) -> None:
        """Wait until what is published at every node from now on has come to every node. Raises `AssertionError`."""
        publishers, subscribers = zip(*self.bound, strict=True)
        sent = {publisher.name: publisher.sent for publisher in publishers}
        await self._until_all("acknowledged", lambda one: one.until_acknowledged(1), publishers)
        waiting = [asyncio.ensure_future(one.until_given(name, after)) for one in subscribers for name, after in sent.items()]
        _, late = await asyncio.wait(waiting, timeout=PATIENCE)
        for task in late:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not late, f"after {PATIENCE:g} s not every node delivers what is published at every node"

    async def at_next(self, moment: Moment, act: Callable[[], None]) -> None:
        """Do something in the very moment in which anybody hears of the next acknowledgement, or delivery; returns afterwards."""
        self._alarm = moment, act, done = moment, act, asyncio.Event()
        async with asyncio.timeout(PATIENCE):
            await done.wait()

    def _notice(self, moment: Moment) -> None:
        if self._alarm is not None and self._alarm[0] == moment:
            (_, act, done), self._alarm = self._alarm, None
            act()
            done.set()

    async def settle(self) -> None:
        """End publishing, and wait until everything is answered and everybody has read to the end of the log.

        Who does not get there within the deadline is left as he is: the checker will say what he lacks.
        """
        self._stop.set()
        _, busy = await asyncio.wait(self._tasks, timeout=PATIENCE)
        assert not busy, f"{len(busy)} clients were not done {PATIENCE:g} s after the last fault; heard were {dict(self.errors)}"
        await asyncio.gather(*self._tasks)
        ends = await self._read_ends()
        waiting = [asyncio.ensure_future(one.until_at(ends)) for one in (*self.subscribers, *self.wanderers)]
        _, late = await asyncio.wait(waiting, timeout=PATIENCE / 2)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def read_log(self) -> list[Entry]:
        """The log of every room from its beginning, as the server tells it; of epochs that have ended, what is still there."""
        found: list[Entry] = []
        ended = self._find_epochs()
        async with make_client(self._direct, "reader", self._chance) as client:
            for room in self.rooms:
                place: Position | None = Position((await read_history(client, room, limit=1)).epoch, 0)
                ended[room].pop(place.epoch if place else "", None)
                while place is not None:
                    page = await read_history(client, room, limit=200, after=place)
                    found += _read_page(page)
                    place = page.events[-1].position if page.more and page.events else None
                for epoch, offset in ended[room].items():
                    found += await self._read_ended(client, room, Position(epoch, offset + 1))
        return found

    async def _read_ended(self, client: RealtimeClient, room: str, before: Position | None) -> list[Entry]:
        found: list[Entry] = []
        while before is not None:
            try:
                page = await read_history(client, room, limit=200, before=before)
            except UnrecoverablePosition:
                break
            found += _read_page(page)
            before = page.events[0].position if page.more and page.events else None
        return found

    def _find_epochs(self) -> dict[str, dict[str, int]]:
        """By room the epochs that anybody has written of, and the highest offset of each."""
        found: dict[str, dict[str, int]] = {room: {} for room in self.rooms}
        for journal in self._journals:
            journal.flush()
        for record in read_journals(self.folder):
            if isinstance(record, Acknowledged | Delivered):
                epochs = found[record.room]
                epochs[record.epoch] = max(record.offset, epochs.get(record.epoch, 0))
        return found

    def read_journals(self) -> list[Record]:
        """What everybody has written. After the load has ended."""
        return list(read_journals(self.folder))

    def history(self, log: list[Entry] | None, store: list[Entry] | None) -> History:
        """What the journals say, with log and store. After the load has ended."""
        return History(self.read_journals(), log, store)

    @property
    def acknowledged(self) -> int:
        """Publishes, by all publishers."""
        return sum(one.acknowledged for one in self.publishers)

    @property
    def errors(self) -> Counter[str]:
        """What publishers were refused with, by code."""
        return sum((one.errors for one in self.publishers), Counter())

    async def _until_all(self, what: str, wait: Callable[[Publisher], Coroutine[Any, Any, None]], whom: Sequence[Publisher] = ()) -> None:
        waiting = {asyncio.create_task(wait(one)): one.name for one in whom or self.publishers if not one.gives_up}
        _, late = await asyncio.wait(waiting, timeout=PATIENCE)
        for task in late:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        names = ", ".join(waiting[task] for task in late)
        assert not late, f"not {what} within {PATIENCE:g} s: {names}; acknowledged {self.acknowledged}, heard {dict(self.errors)}"

    async def _read_ends(self) -> dict[str, Position]:
        ends = {}
        async with make_client(self._direct, "reader", self._chance) as client:
            for room in self.rooms:
                page = await read_history(client, room, limit=1)
                ends[room] = (page.events[-1].position if page.events else None) or Position(page.epoch, 0)
        return ends

    async def _close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self._clients()))
        for journal in self._journals:
            journal.close()

    def _clients(self) -> list[RealtimeClient]:
        return [one.client for one in self.publishers] + [one.client for one in (*self.subscribers, *self.wanderers)]

    def _next_urls(self) -> str | list[str]:
        first = next(self._turns) % len(self._urls)
        return self._urls[0] if len(self._urls) == 1 else self._urls[first:] + self._urls[:first]

    def _make_publisher(self, name: str, window: int, patience: float | None = None, url: str | None = None) -> Publisher:
        client = make_client(url or self._next_urls(), name, self._chance, **self._options)
        return Publisher(
            name, client, self.rooms, self._journal(name), self._chance, window=window, pace=self._pace, patience=patience, notice=self._notice
        )

    def _make_subscriber(self, name: str, url: str | None = None) -> Subscriber:
        urls = url or self._next_urls()
        return Subscriber(name, urls, self.rooms, self._journal(name), self._chance, notice=self._notice, options=self._options)

    def _journal(self, name: str) -> Journal:
        self._journals.append(Journal(self.folder, name))
        return self._journals[-1]


def _read_page(page: HistoryPage) -> list[Entry]:
    return [Entry(page.room, page.epoch, event.offset, event.id) for event in page.events if event.offset is not None]
