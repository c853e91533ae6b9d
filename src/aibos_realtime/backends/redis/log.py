"""The log that nodes share, in Redis: `backends.shared_log.SharedLog`. Per room a head, and a stream of its newest events; per shard what waits for
the store.

Every write is one script, and is sent once. `docs/explanation/nodes.md` describes the keys.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, cast

from ...metrics import Metrics
from ...protocol.messages import Position
from ..base import LoggedEvent
from ..foreign import Foreign
from ..shared_log import Append, Appended, End, Listener, Remembered, Stretch
from . import records
from .client import Client
from .layout import CLUSTER_SHARDS, Layout
from .script import load_script
from .subscriber import Subscriber

IDEMPOTENCY_WINDOW = 300
HEAD_LIFE = 30 * 86_400
"""Seconds after its last event for which a room's epoch is known."""
MAX_WAITING = 100_000
"""Events of one shard that may wait for the store; then publishing is refused."""
READ_BYTES = 1024 * 1024

SETTLING = 1.0
"""Seconds after a start or a fail-over in which nodes say what they saw, before the log goes on where it is."""
MOST_TELLING = 64
"""Calls that may be on their way with volatile events; past them such events are dropped."""

_APPEND = load_script("append", "log_common")
_END = load_script("end", "log_common")
_BEGIN = load_script("begin", "log_common")
_HEADS = load_script("heads", "log_common")
_READ = load_script("read", "log_common")
_AGE = load_script("age", "log_common")
_COMMITTED = load_script("committed", "log_common")
_TELL = load_script("tell")


class RedisLog:
    """See the port. `has_store`: what is appended waits for a store too. `node`: this node's id, for what it hears of itself."""

    def __init__(
        self, client: Client, *, prefix: str, node: str, has_store: bool, max_waiting: int = MAX_WAITING, metrics: Metrics | None = None
    ) -> None:
        self.client = client
        self.layout = Layout(prefix, CLUSTER_SHARDS if client.is_cluster else 1)
        self.shards = self.layout.shards
        self.shard = self.layout.shard
        self._node = node
        self._limit = str(max_waiting) if has_store else ""
        self._metrics = metrics or Metrics()
        self._foreign = Foreign(self._metrics, client.clock)
        self._listener: Listener | None = None
        self._subscriber = Subscriber(
            client, on_message=self._heard, on_subscribed=self._subscribed, on_lost=self._lost, metrics=self._metrics, clock=client.clock
        )
        self._shard_of_channel: dict[str, tuple[str, int]] = {}
        self.wanted = asyncio.Event()
        """Set when a publisher waits for the store, once `hear_wanted` was called."""
        self._volatile: dict[int, list[bytes | str]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def is_connected(self) -> bool:
        return self._subscriber.is_connected

    def attach(self, listener: Listener) -> None:
        self._listener = listener

    async def start(self) -> None:
        layout = self.layout
        for shard in range(self.shards):
            for kind, name in (("probe", f"probe:{self._node}"), ("committed", "committed")):
                self._shard_of_channel[layout.of_shard(shard, name)] = (kind, shard)
        await self._subscriber.start()
        for channel, (kind, _) in self._shard_of_channel.items():
            if kind == "probe" or self._limit:
                _ignore(self._subscriber.subscribe(channel))

    def hear_wanted(self) -> None:
        """Begin to hear of publishers who wait for the store. Idempotent."""
        for shard in range(self.shards):
            channel = self.layout.of_shard(shard, "waker")
            if channel not in self._shard_of_channel:
                self._shard_of_channel[channel] = ("waker", shard)
                _ignore(self._subscriber.subscribe(channel))

    async def stop(self) -> None:
        await self._subscriber.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # — writing —

    async def append(self, shard: int, events: Sequence[Append], *, is_awaited: bool) -> list[Appended]:
        layout = self.layout
        keys = [layout.of_shard(shard, "intake"), layout.of_shard(shard, "state")]
        waker = layout.of_shard(shard, "waker") if is_awaited else ""
        words: list[str | bytes | int] = [self._limit, IDEMPOTENCY_WINDOW, HEAD_LIFE, waker]
        digests: list[str | None] = []
        for draft, timestamp, seen in ((event.draft, event.timestamp, event.seen) for event in events):
            room = draft.room
            record = records.encode_or_none(draft)
            if record is None:
                digests.append(None)
                continue
            digest = _digest_of(draft.event, draft.data) if draft.keyed else ""
            digests.append(digest)
            keys += (layout.of_room(room, "head"), layout.of_room(room, "log"), layout.of_id(room, draft.user_id or "", draft.id))
            words += (
                layout.of_room(room, "room"), room, record, timestamp, "" if draft.ephemeral else max(0, draft.history_size),
                int(min(max(0.0, draft.history_ttl), HEAD_LIFE) * 1000), digest, 1 if draft.persist else 0, _seen(seen),
            )  # fmt: skip
        foreign, life, *replies = await self.client.run(_APPEND, keys, words)
        self._foreign.note("a key of the log", foreign)
        outcomes = iter(replies)
        return [Appended("refused") if digest is None else _outcome(next(outcomes), digest, life.decode()) for digest in digests]

    async def age(self, shard: int) -> float:
        return cast(int, await self.client.run(_AGE, [self.layout.of_shard(shard, "state")], ())) / 1000

    async def end(self, room: str, seen: Sequence[Position], *, is_settled: bool = False) -> End:
        words = (_seen(seen), int(SETTLING * 1000), 1 if is_settled else 0)
        status, *rest = await self.client.run(_END, self._keys(room), words)
        if status == b"ends":
            return End(_position(rest))
        if status == b"doubt":
            return End(_position(rest[1:]), doubt=rest[0] / 1000)
        self._foreign.note("a key of a room's log", rest[0])
        return End()

    async def begin(self, room: str, epoch: str, seen: Sequence[Position], ids: Sequence[Remembered]) -> Position:
        keys = self._keys(room)
        words: list[str | int] = [epoch, _seen(seen), HEAD_LIFE, IDEMPOTENCY_WINDOW]
        for known in ids:
            keys.append(self.layout.of_id(room, known.user_id, known.id))
            digest = _digest_of(known.event, known.data) if known.data is not None else "-"
            words.append(f"{known.position.epoch} {known.position.offset}  {digest}")
        return _position(await self.client.run(_BEGIN, keys, words))

    async def enter_era(self, era: str) -> None:
        await asyncio.gather(*(self.client.command("HSET", self.layout.of_shard(shard, "state"), "era", era) for shard in range(self.shards)))

    # — reading —

    async def heads(self, shard: int, rooms: Sequence[str]) -> list[Position | None]:
        replies = await self.client.run(_HEADS, [self.layout.of_room(room, "head") for room in rooms], ())
        return [_position(reply) if reply else None for reply in replies]

    async def read_after(self, room: str, after: Position, limit: int) -> Stretch:
        head, entries, _ = await self._read(room, "after", after.epoch, str(after.offset), limit + 1)
        if head is None or head.epoch != after.epoch:
            return Stretch(head, [])
        at = entries.pop(0) if entries and entries[0].offset == after.offset else None
        events = _unbroken(entries, after.offset + 1, 1)[:limit]
        return Stretch(head, events, after.offset + 1, after.offset + len(events), at.id if at else None)

    async def read_before(self, room: str, before: int | None, limit: int) -> Stretch:
        head, entries, is_cut = await self._read(room, "before", "", "" if before is None else str(before), limit)
        if head is None:
            return Stretch(None, [])
        end = head.offset + 1 if before is None else min(before, head.offset + 1)
        events = _unbroken(entries, end - 1, -1)[::-1]
        return Stretch(head, events, end - len(events), end - 1, is_cut=is_cut) if events else Stretch(head, [])

    async def _read(self, room: str, direction: str, epoch: str, offset: str, limit: int) -> tuple[Position | None, list[LoggedEvent], bool]:
        _, *keys = self._keys(room)
        reply = await self.client.run(_READ, keys, (direction, epoch, offset, limit, READ_BYTES + records.MAX_BYTES, records.MAX_BYTES))
        if not reply:
            return None, [], False
        head = _position(reply)
        entries = [records.decode_entry(fields, room, head, id) for id, fields in reply[3:]]
        found = [event for event in entries if event is not None]
        self._foreign.note("an entry of a room's log", len(entries) - len(found))
        return head, found, bool(reply[2])

    def _keys(self, room: str) -> list[str]:
        layout = self.layout
        return [layout.of_shard(layout.shard(room), "state"), layout.of_room(room, "head"), layout.of_room(room, "log")]

    async def committed(self, shard: int) -> tuple[str, str]:
        life, entry = await self.client.run(_COMMITTED, [self.layout.of_shard(shard, name) for name in ("stored", "state")], ())
        return life.decode("latin-1"), entry.decode("latin-1")

    # — hearing —

    def follow(self, room: str) -> asyncio.Future[None]:
        return self._subscriber.subscribe(self.layout.of_room(room, "room"))

    def unfollow(self, room: str) -> None:
        self._subscriber.unsubscribe(self.layout.of_room(room, "room"))

    def reconnect(self) -> None:
        self._subscriber.reconnect()

    async def probe(self, shard: int, token: str) -> bool:
        channel = self.layout.of_shard(shard, f"probe:{self._node}")
        return cast(int, await self.client.run(_TELL, [self.layout.of_shard(shard, "probe")], (channel, token))) > 0

    def send_volatile(self, event: LoggedEvent) -> None:
        message = records.encode_volatile(event, self._node)
        if message is None:
            return
        shard = self.shard(event.room)
        if not self._volatile:
            asyncio.get_running_loop().call_soon(self._send_volatile)
        words = self._volatile.setdefault(shard, [])
        words += (self.layout.of_room(event.room, "room"), message)

    def _send_volatile(self) -> None:
        waiting, self._volatile = self._volatile, {}
        for shard, words in waiting.items():
            if len(self._tasks) >= MOST_TELLING:
                self._metrics.volatile_dropped += len(words) // 2
                continue
            task = asyncio.get_running_loop().create_task(self.client.run(_TELL, [self.layout.of_shard(shard, "tell")], words))
            self._tasks.add(task)
            task.add_done_callback(self._volatile_sent)

    def _volatile_sent(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._metrics.volatile_dropped += 1

    def _heard(self, channel: str, message: bytes) -> None:
        listener = self._listener
        assert listener is not None
        kind = message[:1]
        if (own := self._shard_of_channel.get(channel)) is not None:
            if own[0] == "waker":
                self.wanted.set()
                return
            text = message.decode("latin-1")
            if own[0] == "probe":
                listener.heard_probe(own[1], text)
            else:
                life, _, entry = text.partition(" ")
                listener.heard_committed(own[1], life, entry)
            return
        room = self.layout.room_of(channel)
        if kind == records.EVENT:
            event = records.decode_event(message, room)
            if event is not None:
                listener.heard(event)
                return
        elif kind == records.NOTICE:
            listener.heard_notice(room, message[1:])
            return
        elif kind == records.VOLATILE and (sent := records.decode_volatile(message, room)) is not None:
            if sent[0] != self._node:
                listener.heard_volatile(sent[1])
            return
        self._foreign.note("a message on a room's channel")

    def _subscribed(self, channels: Sequence[str]) -> None:
        if self._listener is not None:
            self._listener.followed([self.layout.room_of(channel) for channel in channels if channel not in self._shard_of_channel])

    def _lost(self) -> None:
        if self._listener is not None:
            self._listener.interrupted()


def _outcome(reply: list[Any], digest: str, life: str) -> Appended:
    status, *rest = reply
    if status == b"appended":
        return Appended("appended", _position(rest), rest[2].decode(), life)
    if status == b"again":
        epoch, offset, entry, first = rest[0].decode().split(" ")
        return Appended("again", Position(epoch, int(offset)), entry, life, is_same=first in (digest, "-"))
    return Appended("begin" if status == b"begin" else "full")


def _position(reply: Sequence[Any]) -> Position:
    return Position(reply[0].decode(), int(reply[1]))


def _seen(positions: Sequence[Position]) -> str:
    return " ".join(f"{position.epoch} {position.offset}" for position in positions)


def _unbroken(events: Sequence[LoggedEvent], first: int, step: int) -> list[LoggedEvent]:
    """Those from the front whose offsets follow on one another, from `first` on."""
    count = next((number for number, event in enumerate(events) if event.offset != first + number * step), len(events))
    return list(events[:count])


def _digest_of(event: str, data: bytes) -> str:
    return blake2b(event.encode() + b"\0" + data, digest_size=12).hexdigest()


def _ignore(future: asyncio.Future[None]) -> None:
    """Nobody waits for this one."""
    future.add_done_callback(lambda done: None if done.cancelled() else done.exception())
