"""Several nodes over one log in memory, and what must hold of everything that they were told, whatever went wrong."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

from aibos_realtime import Position
from aibos_realtime.backends.base import Ack, Draft, LoggedEvent, Receipt
from aibos_realtime.metrics import Metrics
from aibos_realtime.storage.drain import Drainer
from aibos_realtime.storage.shared_broker import SharedBroker
from aibos_realtime.testing.clock import ManualClock, settle
from aibos_realtime.testing.shared_log import MemoryLog
from aibos_realtime.testing.store import MemoryStore

Told = LoggedEvent | Position
"""What a node was told of a room: an event, or to go on from a position."""


class Watcher:
    """A receiver that writes down what it is told, room by room. See `backends.base.Receiver`."""

    def __init__(self) -> None:
        self.watched: set[str] = set()
        self.told: dict[str, list[Told]] = {}
        self.volatile: list[LoggedEvent] = []

    def deliver(self, event: LoggedEvent) -> None:
        self.told.setdefault(event.room, []).append(event)

    def deliver_volatile(self, event: LoggedEvent) -> None:
        self.volatile.append(event)

    def resync(self, room: str, position: Position) -> None:
        self.told.setdefault(room, []).append(position)

    def is_watched(self, room: str) -> bool:
        return room in self.watched

    def events(self, room: str) -> list[LoggedEvent]:
        return [told for told in self.told.get(room, []) if isinstance(told, LoggedEvent)]

    def resyncs(self, room: str) -> list[Position]:
        return [told for told in self.told.get(room, []) if isinstance(told, Position)]


class Node:
    """One node: its connections, its broker, and what it was told."""

    def __init__(self, log: MemoryLog, name: str, store: MemoryStore | None, clock: ManualClock, ack: Ack) -> None:
        self.link = log.node(name)
        self.metrics = Metrics()
        self.watcher = Watcher()
        self.broker = SharedBroker(self.link, store=store, ack=ack, metrics=self.metrics, clock=clock)
        self.broker.attach(self.watcher)

    async def watch(self, *rooms: str) -> list[Position]:
        """Have rooms delivered; where each stands, from which what is told of it goes on."""
        self.watcher.watched |= set(rooms)
        positions = await asyncio.gather(*(self.broker.position(room) for room in rooms))
        for room, position in zip(rooms, positions, strict=True):
            self.watcher.told.setdefault(room, []).insert(0, position)
        return list(positions)


class FreeLease:
    """See `backends.intake.Lease`; always free."""

    ttl = 5.0

    async def hold(self) -> bool:
        return True

    async def release(self) -> None: ...


class Nodes:
    """Nodes over one log. `has_store`: and a drainer with a store."""

    def __init__(self, count: int = 2, *, has_store: bool = False, shards: int = 1, max_waiting: int = 100_000, ack: Ack = "queued") -> None:
        self.clock = ManualClock()
        self.log = MemoryLog(clock=self.clock, shards=shards, has_store=has_store, max_waiting=max_waiting)
        self.store = MemoryStore() if has_store else None
        self.nodes = [Node(self.log, f"node{number}", self.store, self.clock, ack) for number in range(count)]
        self.drainer = (
            Drainer(self.log.intake, self.store, FreeLease(), on_era=self.nodes[0].link.enter_era, clock=self.clock) if self.store else None
        )
        self.published: list[tuple[Node, Draft, asyncio.Future[Receipt]]] = []
        self.failed_over_at = 0.0
        self._ids = itertools.count(1)

    def __getitem__(self, number: int) -> Node:
        return self.nodes[number % len(self.nodes)]

    async def __aenter__(self) -> Nodes:
        if self.drainer is not None:
            await self.drainer.start()
        for node in self.nodes:
            await node.broker.start()
        await settle()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Everything ends, also while the log does not answer."""
        self.log.is_hung = False
        stopping = [asyncio.ensure_future(node.broker.stop()) for node in self.nodes]
        if self.drainer is not None:
            stopping.append(asyncio.ensure_future(self.drainer.stop()))
        await settle()
        await self.clock.advance(10)
        await asyncio.wait_for(asyncio.gather(*stopping), 5)
        await settle()
        assert [receipt for _, _, receipt in self.published if not receipt.done()] == [], "a publisher waits for ever"

    def draft(self, room: str = "lobby", data: bytes = b"1", **more: Any) -> Draft:
        return Draft(room, "note", data, more.pop("id", "") or f"id{next(self._ids)}", **more)

    def publish(self, number: int = 0, room: str = "lobby", **more: Any) -> asyncio.Future[Receipt]:
        """Publish on a node, waiting for nothing."""
        node, draft = self[number], self.draft(room, **more)
        receipt = node.broker.publish(draft)
        receipt.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.published.append((node, draft, receipt))
        return receipt

    async def publish_all(self, times: int, number: int = 0, room: str = "lobby", **more: Any) -> list[Position]:
        """Publish, and return the positions when everybody who hears was told."""
        receipts = [self.publish(number, room, **more) for _ in range(times)]
        await settle()
        return [position for receipt in receipts if (position := receipt.result().position) is not None]

    async def be_quiet(self, seconds: float = 15.0) -> None:
        """No more faults, and time to get over those that there were."""
        self.log.is_down = self.log.is_hung = False
        for node in self.nodes:
            node.link.is_cut_off = node.link.is_deaf = False
            node.link.replies_lost = 0
            node.link.fate = None
        await self.clock.advance(seconds)

    def receipts(self) -> Iterable[tuple[Node, Draft, Receipt]]:
        """Of what was acknowledged, in the order of the calls."""
        for node, draft, receipt in self.published:
            if receipt.done() and not receipt.cancelled() and receipt.exception() is None:
                yield node, draft, receipt.result()

    # — what must hold —

    def check(self, rooms: Iterable[str], *, is_lossless: bool = False) -> None:
        """Everything that holds after a quiet while. `is_lossless`: the log lost nothing, so that nobody may be told of a loss either."""
        contents: dict[tuple[str, str, int], str] = {}
        for room in rooms:
            for node in self.nodes:
                if room in node.watcher.watched:
                    self._check_told(node, room, contents)
                    if is_lossless:
                        assert node.watcher.resyncs(room)[1:] == [], f"{node.link.name} was told of a loss in {room}, and there was none"
        self._check_receipts(contents)
        for row in self.store.rows if self.store is not None else ():
            assert contents.setdefault((row.room, row.epoch, row.offset), row.id) == row.id, "the store has another event at a position"
            assert not row.id.startswith("again-"), "an id has two positions"

    def _check_told(self, node: Node, room: str, contents: dict[tuple[str, str, int], str]) -> None:
        """Events rise by one, from what was told first or at a loss; and the last of them is the last of the log."""
        name = node.link.name
        at: Position | None = None
        seen: set[tuple[str, int]] = set()
        for told in node.watcher.told[room]:
            if isinstance(told, Position):
                at = told
                continue
            assert at is not None and (told.epoch, told.offset) == (at.epoch, at.offset + 1), f"{name} got {told.offset} of {told.epoch} after {at}"
            assert (told.epoch, told.offset) not in seen, f"{name} got {told.offset} of {room} twice"
            seen.add((told.epoch, told.offset))
            key = (room, told.epoch, told.offset)
            assert contents.setdefault(key, told.id) == told.id, f"{name} got another event at {key}"
            at = Position(told.epoch, told.offset)
        head = self.log.head(room)
        assert head is not None and at == Position(head.epoch, head.offset), f"{name} stands at {at} of {room}, and the log at {head}"

    def _check_receipts(self, contents: dict[tuple[str, str, int], str]) -> None:
        last: dict[tuple[str, str, str], int] = {}
        for node, draft, receipt in self.receipts():
            position = receipt.position
            assert position is not None
            key = (draft.room, position.epoch, position.offset)
            assert contents.setdefault(key, draft.id) == draft.id, "a receipt names the position of another event"
            if receipt.duplicate:
                continue
            line = (node.link.name, draft.room, position.epoch)
            assert position.offset > last.get(line, 0), "one publisher's order was lost"
            last[line] = position.offset
