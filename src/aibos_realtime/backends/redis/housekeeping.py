"""What there is to look after in the directory of rooms: what dead nodes have left, empty rooms that are due, what this node is wrongly kept for.

Any node does it, and several at a time may: each change is made and told once.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from ...clock import Clock
from ...errors import BrokerUnavailable
from ...logs import get_logger
from ..directory import Listener
from ..foreign import Foreign
from ..nodes import Nodes
from .client import Client
from .layout import Layout
from .room_acts import CLEANED, Act, Word, is_room, present_key, run_acts, split_pair
from .room_reader import FOREIGN
from .script import load_script
from .telling import Teller

logger = get_logger("aibos_realtime.directory")

STALE = 30.0
"""Seconds after which a node that told something and is not in the register is cleaned up after, should nobody have done so."""
REMEMBERED = 3600.0
"""Seconds for which it is known that a node was cleaned up after, should it come back."""
PAGE = 100
RETRY = 1.0

_DUE = load_script("rooms_due")
_NODE = re.compile(rb"[A-Za-z0-9_.-]{1,64}")


class Housekeeping:
    """Raises `BrokerUnavailable`."""

    def __init__(self, client: Client, layout: Layout, *, node: str, nodes: Nodes | None, listener: Listener, foreign: Foreign, clock: Clock) -> None:
        self._client = client
        self._layout = layout
        self._node = node
        self._nodes = nodes
        self._listener = listener
        self._foreign = foreign
        self._clock = clock
        self._told: set[str] = set()
        self._strangers: dict[str, float] = {}

    async def clean_up(self, node: str) -> None:
        """See `Directory.clean_up`. It ends, even if the node lives and tells again at the same time."""
        for shard in range(self._layout.shards):
            is_marked = False
            async for entries in self._told_by(shard, node):
                pairs = [pair for pair in map(split_pair, entries) if pair is not None]
                if len(pairs) < len(entries):
                    self._foreign.note(FOREIGN, len(entries) - len(pairs))
                    wrong = [entry for entry in entries if split_pair(entry) is None]
                    await self._client.command("SREM", present_key(self._layout, shard, node), *wrong)
                acts = [self._removal(*pair) for pair in pairs]
                acts += [Act(room_id, ("sockets", 0)) for room_id in dict.fromkeys(room_id for room_id, _ in pairs)]
                await self._take_back(shard, node, acts)  # the mark goes with it: a fail-over that loses the one loses the other
                is_marked = True
            if not is_marked:
                await self._take_back(shard, node, [])

    async def _take_back(self, shard: int, node: str, acts: list[Act]) -> None:
        reply = await run_acts(self._client, self._layout, shard, node, CLEANED, acts)
        self._foreign.note(FOREIGN, reply.foreign)
        for act, outcome in zip(acts, reply.outcomes, strict=True):
            if act.heard is not None:
                act.heard(outcome)

    def _removal(self, room_id: str, user_id: str) -> Act:
        words: list[Word] = ["remove", 1, user_id, int(self._listener.reach(room_id) * 1000)]
        return Act(room_id, words, heard=partial(self._removed, room_id, user_id))

    def _removed(self, room_id: str, user_id: str, outcome: Any) -> None:
        if outcome == 1:
            self._listener.user_left(room_id, user_id)

    async def search(self, shard: int, teller: Teller) -> None:
        """Find what a shard holds of this node and should not: it may have lost what it was told last."""
        while True:
            try:
                async for entries in self._told_by(shard, self._node):
                    for pair in map(split_pair, entries):
                        if pair is not None and not teller.is_here(*pair):
                            teller.correct(pair)
            except BrokerUnavailable:
                await self._clock.sleep(RETRY)
            else:
                return

    async def _told_by(self, shard: int, node: str) -> AsyncIterator[list[bytes]]:
        """Pages of the pairs that a node has told. What it tells meanwhile may be missing."""
        cursor = b"0"
        while True:
            cursor, entries = await self._client.command("SSCAN", present_key(self._layout, shard, node), cursor, "COUNT", PAGE)
            if entries:
                yield entries
            if cursor == b"0":
                return

    async def look_after(self, timeout: float | None) -> AsyncIterator[str]:
        """Rooms that may have been empty for `timeout` seconds; and see which nodes have told something."""
        told: set[str] = set()
        for shard in range(self._layout.shards):
            keys = [self._layout.of_shard(shard, name) for name in ("empty", "told")]
            due, nodes, now = await self._client.run(_DUE, keys, ["" if timeout is None else int(timeout * 1000)])
            for name in due:
                room_id = name.decode("latin-1")
                if is_room(room_id) and self._layout.shard(room_id) == shard:
                    yield room_id
                else:
                    self._foreign.note(FOREIGN)
                    await self._client.command("ZREM", keys[0], name)
            for id, number in zip(nodes[::2], nodes[1::2], strict=True):
                is_cleaned = number.startswith(b"cleaned ")
                if not _NODE.fullmatch(id) or (is_cleaned and _is_before(number[8:], int(now) - REMEMBERED * 1000)):
                    await self._client.command("HDEL", keys[1], id)
                elif not is_cleaned:
                    told.add(id.decode())
        self._told = told

    async def look_for_strangers(self) -> None:
        """Clean up after nodes that have told something, and have not been in the register for a while."""
        if self._nodes is None:
            return
        known = {record.id for record in await self._nodes.list()} | {self._node}
        now = self._clock.monotonic()
        self._strangers = {id: self._strangers.get(id, now) for id in self._told - known}
        for id, since in list(self._strangers.items()):
            if now - since >= STALE:
                logger.warning("something is left of a node that is gone: this node cleans up after it")
                await self.clean_up(id)


def _is_before(text: bytes, ms: float) -> bool:
    return not text.isdigit() or len(text) > 16 or int(text) < ms
