"""Where the nodes of the model meet, in memory: their register, the bus between them, what is kept of revocations, and the directory of rooms.

The directory and its teller are the product's own; under them is a `Shelf` instead of Redis. One line to all of it can fail (`Line`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from functools import partial
from inspect import isawaitable
from typing import Any, TypeVar, cast

from msgspec import Struct, json

from aibos_realtime.backends.bus import Handler
from aibos_realtime.backends.directory import Listener, PresentUser, RoomRecord
from aibos_realtime.backends.redis.directory import RedisDirectory
from aibos_realtime.backends.redis.housekeeping import STALE
from aibos_realtime.backends.redis.layout import Layout
from aibos_realtime.backends.redis.room_acts import CLEANED, Act, Reply, Step
from aibos_realtime.backends.redis.telling import Teller
from aibos_realtime.backends.revocations import Revoked
from aibos_realtime.errors import BrokerUnavailable
from aibos_realtime.protocol.messages import Member
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.testing.log_node import LogNode
from aibos_realtime.testing.shared_log import MemoryLog
from tests.model.shelf import Shelf

T = TypeVar("T")
R = TypeVar("R", bound=Struct)

BEAT, LIFE = 2.0, 10.0
"""Seconds between two signs of life of a node; seconds of silence after which it is taken for dead."""
PATIENCE = 1.0
"""Seconds for which somebody who asks over the bus waits for the answers."""


class Request(Struct):
    """An entry of the bus."""

    node: str
    request: Struct
    answers: list[Any]
    missing: set[str]
    done: asyncio.Event


class Meeting:
    """What is shared. The bus has an order, and `first` is the number of its oldest entry."""

    def __init__(self, log: MemoryLog, clock: ManualClock) -> None:
        self.log = log
        self.clock = clock
        self.shelf = Shelf(clock, self._notify)
        self.seen_at: dict[str, float] = {}
        self.gone: set[str] = set()
        """Nodes that died or left, and after which nobody has cleaned up yet."""
        self.revoked: dict[tuple[str, str], Revoked] = {}
        self.first = 0
        self.requests: list[Request] = []
        self.buses: list[MeetingBus] = []

    def _notify(self, room: str, payload: bytes) -> None:
        for node in self.log.nodes:
            node.tell_notice(room, payload)

    def fail_over(self, lost: int) -> None:
        self.shelf.fail_over(lost)

    def forget_all(self) -> None:
        self.shelf.forget_all()
        self.seen_at.clear()
        self.revoked.clear()
        self.first += len(self.requests)
        self.requests = []

    def wake(self) -> None:
        for bus in self.buses:
            bus.news.set()


class Line:
    """One node's connection to the meeting: it fails where that to the log fails."""

    def __init__(self, meeting: Meeting, link: LogNode) -> None:
        self.meeting = meeting
        self._link = link

    async def call(self, act: Callable[[], T]) -> T:
        for _ in range(self._link.turns()):
            await asyncio.sleep(0)
        if self._link.is_cut_off:
            raise BrokerUnavailable()
        await self.meeting.log.answer()
        if self._link.is_cut_off:
            raise BrokerUnavailable()
        result = act()
        for _ in range(self._link.turns()):
            await asyncio.sleep(0)
        if self._link.replies_lost:
            self._link.replies_lost -= 1
            raise BrokerUnavailable()
        return result


class MeetingBus:
    """See `backends.bus.Bus`: a stream that each node reads on from where it is, one request after the other."""

    def __init__(self, line: Line, node: str) -> None:
        self.node = node
        self.news = asyncio.Event()
        self._line = line
        self._meeting = line.meeting
        self._handlers: dict[type[Struct], Handler] = {}
        self._gap_callbacks: list[Callable[[], Any]] = []
        self._place = 0
        self._reading: asyncio.Task[None] | None = None

    def on(self, kind: type[R], handler: Callable[[R], Any | Awaitable[Any]]) -> None:
        self._handlers[kind] = handler

    def on_gap(self, callback: Callable[[], Any]) -> None:
        self._gap_callbacks.append(callback)

    async def start(self) -> None:
        self._place = self._meeting.first + len(self._meeting.requests)
        self._meeting.buses.append(self)
        self._reading = asyncio.get_running_loop().create_task(self._read(), name="model-bus")

    async def stop(self) -> None:
        if self in self._meeting.buses:
            self._meeting.buses.remove(self)
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def ask(self, request: Struct) -> list[Any]:
        entry = Request(self.node, request, [], set(), asyncio.Event())

        def send() -> None:
            entry.missing = set(self._meeting.seen_at) | {self.node}
            self._meeting.requests.append(entry)
            self._meeting.wake()

        try:
            await self._line.call(send)
        except BrokerUnavailable:
            await self._do(request)
            raise
        timer = self._meeting.clock.call_later(PATIENCE, entry.done.set)
        try:
            await entry.done.wait()
        finally:
            timer.cancel()
        return entry.answers

    async def _read(self) -> None:
        while True:
            try:
                entries = await self._line.call(self._take)
            except BrokerUnavailable:
                await self._meeting.clock.sleep(0.25)
                continue
            for entry in entries:
                answer = await self._do(entry.request)
                if entry.node != self.node:
                    try:
                        await self._line.call(partial(self._answer, entry, answer))
                    except BrokerUnavailable:
                        pass
                else:
                    self._answer(entry, answer)
            if not entries:
                self.news.clear()
                await self.news.wait()

    def _take(self) -> list[Request]:
        meeting = self._meeting
        if self._place < meeting.first:
            self._place = meeting.first
            for callback in self._gap_callbacks:
                asyncio.get_running_loop().create_task(_call(callback))
        found = meeting.requests[self._place - meeting.first :]
        self._place += len(found)
        return found

    def _answer(self, entry: Request, answer: Any) -> None:
        entry.answers.append(answer)
        entry.missing.discard(self.node)
        if not entry.missing:
            entry.done.set()

    async def _do(self, request: Struct) -> Any:
        copied = json.decode(json.encode(request), type=type(request))
        result = self._handlers[type(request)](copied)
        return json.decode(json.encode(await result if isawaitable(result) else result))


async def _call(callback: Callable[[], Any]) -> None:
    try:
        if isawaitable(result := callback()):
            await result
    except BrokerUnavailable:
        pass


class MeetingRevocations:
    """See `backends.revocations.RevocationStore`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def add(self, revoked: Iterable[Revoked]) -> None:
        given = list(revoked)
        kept = self._line.meeting.revoked

        def write() -> None:
            for one in given:
                before = kept.get((one.kind, one.name))
                kept[one.kind, one.name] = one if before is None or before.at < one.at else before

        await self._line.call(write)

    async def load(self) -> list[Revoked]:
        return await self._line.call(lambda: sorted(self._line.meeting.revoked.values(), key=lambda one: one.at))


class Registration:
    """Keeps one node alive in the register, and cleans up after those that are silent. `forgotten`: called where the register had lost this node."""

    def __init__(self, line: Line, node: str) -> None:
        self.forgotten: list[Callable[[], Any]] = []
        self.clean_up: Callable[[str], Awaitable[None]] | None = None
        self._line = line
        self._node = node
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._line.call(self._beat)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="model-register")

    async def stop(self, *, is_killed: bool = False) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if not is_killed:
            try:
                await self._line.call(self._leave)
            except BrokerUnavailable:
                pass

    async def _run(self) -> None:
        meeting = self._line.meeting
        while True:
            await meeting.clock.sleep(BEAT)
            try:
                if not await self._line.call(self._beat):
                    for callback in self.forgotten:
                        await _call(callback)
                for node in sorted(meeting.gone):
                    if self.clean_up is not None:
                        await self.clean_up(node)
                        meeting.gone.discard(node)
            except BrokerUnavailable:
                continue

    def _leave(self) -> None:
        if self._line.meeting.seen_at.pop(self._node, None) is not None:
            self._line.meeting.gone.add(self._node)

    def _beat(self) -> bool:
        """Whether the register knew this node."""
        seen_at, now = self._line.meeting.seen_at, self._line.meeting.clock.monotonic()
        was_known = self._node in seen_at
        seen_at[self._node] = now
        for node in [node for node, at in seen_at.items() if now - at >= LIFE]:
            del seen_at[node]
            self._line.meeting.gone.add(node)
        return was_known


class _Reader:
    """See `backends.redis.room_reader.RoomReader`."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._shelf = line.meeting.shelf

    async def describe(self, rooms: Sequence[str], user_id: str = "") -> list[tuple[RoomRecord | None, bool]]:
        return await self._line.call(lambda: [self._shelf.describe(room, user_id) for room in rooms])

    async def names(self, shard: int, prefix: str, limit: int, after: str | None) -> list[str]:
        return await self._line.call(lambda: self._shelf.names(prefix, limit, after))

    async def members(self, room_id: str) -> list[Member]:
        return await self._line.call(lambda: self._shelf.members(room_id))

    async def reachable(self, room_id: str, within: float) -> list[PresentUser]:
        return await self._line.call(lambda: self._shelf.reachable(room_id, within))


class _Housekeeping:
    """See `backends.redis.housekeeping.Housekeeping`."""

    def __init__(self, line: Line, node: str, listener: Listener) -> None:
        self._line = line
        self._node = node
        self._listener = listener
        self._strangers: dict[str, float] = {}

    async def clean_up(self, node: str) -> None:
        shelf = self._line.meeting.shelf
        pairs = await self._line.call(lambda: sorted(shelf.present.get(node, ())))
        if not pairs:
            await self._line.call(lambda: shelf.write(node, CLEANED, []))
        else:
            acts = [Act(room, ["remove", 1, user, int(self._listener.reach(room) * 1000)]) for room, user in pairs]
            acts += [Act(room, ("sockets", 0)) for room in dict.fromkeys(room for room, _ in pairs)]
            reply = await self._line.call(lambda: shelf.write(node, CLEANED, acts))
            for (room, user), outcome in zip(pairs, reply.outcomes, strict=False):
                if outcome == 1:
                    self._listener.user_left(room, user)

    async def search(self, shard: int, teller: Teller) -> None:
        while True:
            try:
                pairs = await self._line.call(lambda: sorted(self._line.meeting.shelf.present.get(self._node, ())))
            except BrokerUnavailable:
                await self._line.meeting.clock.sleep(1.0)
                continue
            for pair in pairs:
                if not teller.is_here(*pair):
                    teller.correct(pair)
            return

    async def look_after(self, timeout: float | None) -> AsyncIterator[str]:
        for room in await self._line.call(lambda: self._line.meeting.shelf.due(timeout)):
            yield room

    async def look_for_strangers(self) -> None:
        """Who told something and is not in the register: nobody cleaned up after him, since the register was lost with him in it."""
        meeting, now = self._line.meeting, self._line.meeting.clock.monotonic()
        told = {node for node, number in meeting.shelf.told.items() if not number.startswith("cleaned")}
        found = await self._line.call(lambda: sorted(told - {*meeting.seen_at} - {self._node}))
        self._strangers = {node: self._strangers.get(node, now) for node in found}
        for node, since in self._strangers.items():
            if now - since >= STALE:
                await self.clean_up(node)


class MeetingDirectory(RedisDirectory):
    """The product's directory, over a shelf."""

    def __init__(self, line: Line, node: str) -> None:
        super().__init__(cast(Any, None), Layout("model", 1), node=node, clock=line.meeting.clock)
        self._line = line
        self._reader = cast(Any, _Reader(line))

    def attach(self, listener: Listener) -> None:
        super().attach(listener)
        self._housekeeping = cast(Any, _Housekeeping(self._line, self._node, listener))

    async def _send(self, shard: int, step: Step, acts: Sequence[Act]) -> Reply:
        return await self._line.call(lambda: self._line.meeting.shelf.write(self._node, step, acts))
