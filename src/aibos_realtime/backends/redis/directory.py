"""The directory of rooms in Redis: `backends.directory.Directory`. A room's keys lie together in its shard, and every change is one script.

What a node tells of its users goes through one `Teller` for each shard. `docs/explanation/nodes.md` describes the keys.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from functools import partial
from itertools import count, groupby
from typing import Any

from ...clock import SYSTEM_CLOCK, Clock
from ...errors import BrokerUnavailable, GuestsNotAllowed, RoomFull, RoomLimitExceeded, RoomNotFound
from ...logs import get_logger
from ...metrics import Metrics
from ...protocol.messages import Member
from ..directory import GUEST, Entered, Listener, PresentUser, RoomDraft, RoomRecord
from ..foreign import Foreign
from ..nodes import Nodes
from .client import Client
from .housekeeping import Housekeeping
from .layout import Layout
from .room_acts import FAREWELL, Act, Reply, Step, Word, check_text, draft_words, read_members, read_record, run_acts, user_words
from .room_places import RoomPlaces
from .room_reader import FOREIGN, RoomReader
from .telling import Teller, Volume

logger = get_logger("aibos_realtime.directory")

TEND = 5.0
"""Seconds between two looks at what there is to look after."""
LEAVE = 2.0
"""Seconds that a node which ends takes for telling so."""


class RedisDirectory:
    """See the port. `client` is opened and closed by its owner. `node`: this node's id; `nodes`: the register, to find what a dead one has left.

    `tend`: seconds between two looks at empty rooms, at what is left of dead nodes, and at whether what was told is still there.
    """

    def __init__(
        self,
        client: Client,
        layout: Layout,
        *,
        node: str,
        nodes: Nodes | None = None,
        tend: float = TEND,
        metrics: Metrics | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._client = client
        self._layout = layout
        self._node = node
        self._nodes = nodes
        self._every = tend
        self._clock = clock
        self._foreign = Foreign(metrics if metrics is not None else Metrics(), clock)
        self._reader = RoomReader(client, layout, self._foreign)
        self._places = RoomPlaces(client, layout, clock=clock) if layout.shards > 1 else None
        self._tellers: list[Teller] = []
        self._births = (f"{secrets.token_urlsafe(9)}-{number:x}" for number in count(1))
        self._tasks: set[asyncio.Task[None]] = set()
        self._tending: asyncio.Task[None] | None = None

    def attach(self, listener: Listener) -> None:
        self._listener = listener
        self._housekeeping = Housekeeping(
            self._client, self._layout, node=self._node, nodes=self._nodes, listener=listener, foreign=self._foreign, clock=self._clock
        )
        self._tellers = [
            Teller(
                partial(self._send, shard),
                listener=listener,
                began_anew=partial(self._began_anew, shard),
                name="the directory of rooms",
                clock=self._clock,
            )
            for shard in range(self._layout.shards)
        ]

    async def start(self) -> None:
        if self._tending is None:
            for teller in self._tellers:
                teller.start()
            self._tending = self._spawn(self._tend())

    async def stop(self) -> None:
        if self._tending is None:
            return
        self._tending = None
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(LEAVE):
                await asyncio.gather(*(self._take_back(shard) for shard, teller in enumerate(self._tellers) if teller.has_told))
        except (TimeoutError, BrokerUnavailable):
            logger.warning("the directory of rooms could not be told that this node ends: another node will find out")
        finally:
            await asyncio.gather(*(teller.stop() for teller in self._tellers))

    async def _take_back(self, shard: int) -> None:
        teller = self._tellers[shard]
        teller.leave_all()
        await teller.told()
        await self._send(shard, FAREWELL, [])

    async def _send(self, shard: int, step: Step, acts: Sequence[Act]) -> Reply:
        reply = await run_acts(self._client, self._layout, shard, self._node, step, acts)
        self._foreign.note(FOREIGN, reply.foreign)
        return reply

    def _teller(self, room_id: str) -> Teller:
        return self._tellers[self._layout.shard(room_id)]

    # — who is here —

    async def enter(self, draft: RoomDraft, user: PresentUser, *, create: bool, max_rooms: int | None) -> Entered:
        check_text("user id", user.id)
        reservation = ""
        while True:
            outcome, present = await self._enter(draft, user, create, max_rooms, reservation)
            word = outcome[0].decode()
            if word == "entered":
                user_count, flat = present
                room = read_record(draft.id, outcome[4:], user_count)
                assert room is not None
                members, foreign = read_members(flat)
                self._foreign.note(FOREIGN, foreign)
                return Entered(room, members if flat else None)
            if word != "reserve" or self._places is None:
                raise _refusal(word, outcome, max_rooms)
            reservation = await self._places.reserve(draft.id, max_rooms)

    async def _enter(self, draft: RoomDraft, user: PresentUser, create: bool, max_rooms: int | None, reservation: str) -> tuple[Any, Any]:
        teller = self._teller(draft.id)
        reply: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()
        role, who = user_words(user)
        words: list[Word] = ["enter", user.id, role, who, int(role == GUEST), int(create), self._limit(max_rooms)]
        words += draft_words(draft, next(self._births), reservation)

        def heard(outcome: Any) -> None:
            is_wanted = teller.end_of_entering(act, user.id)
            if outcome[0] != b"entered":
                return
            has_created, has_joined, since = outcome[1:4]
            room = read_record(draft.id, outcome[4:])
            assert room is not None
            if is_wanted:
                teller.here(room, user, int(since))
            else:
                teller.tell((draft.id, user.id), Volume.LOUD)
            if has_created:
                self._listener.room_created(room)
            if has_joined:
                self._listener.user_joined(draft.id, user.id)

        def failed() -> None:
            teller.end_of_entering(act, user.id)
            teller.tell((draft.id, user.id), Volume.NOTICE)

        act = Act(draft.id, words, heard=heard, failed=failed, reply=reply)
        teller.enter(act, user.id)
        try:
            return await reply
        except asyncio.CancelledError:
            if teller.end_of_entering(act, user.id):
                teller.tell((draft.id, user.id), Volume.LOUD)
            raise

    def leave(self, room_id: str, user_id: str) -> None:
        self._teller(room_id).gone(room_id, user_id)

    def renew(self, room_id: str, user: PresentUser) -> None:
        self._teller(room_id).renew(room_id, user)

    def count(self, room_id: str, sockets: int) -> None:
        self._teller(room_id).count(room_id, sockets)

    async def told(self, room_id: str) -> None:
        await self._teller(room_id).told()

    # — rooms —

    async def create(self, draft: RoomDraft, *, max_rooms: int | None) -> RoomRecord:
        check_text("name", draft.name)
        check_text("type", draft.type)
        reservation = ""
        while True:
            words = ["create", self._limit(max_rooms), *draft_words(draft, next(self._births), reservation)]
            outcome = await self._ask(draft.id, words, self._heard_of_creation)
            word = outcome[0].decode()
            if word in ("created", "there"):
                room = read_record(draft.id, outcome[2:], int(outcome[1]))
                assert room is not None
                return room
            if word != "reserve" or self._places is None:
                raise _refusal(word, outcome, max_rooms)
            reservation = await self._places.reserve(draft.id, max_rooms)

    def _heard_of_creation(self, room_id: str, outcome: Any) -> None:
        if outcome[0] == b"created" and (room := read_record(room_id, outcome[2:])) is not None:
            self._listener.room_created(room)

    async def destroy(self, room_id: str) -> str:
        outcome = await self._ask(room_id, ["destroy", self._window(room_id)], self._heard_of_end)
        if outcome[0] != b"destroyed":
            raise RoomNotFound()
        birth: str = outcome[1].decode()
        return birth

    def _heard_of_end(self, room_id: str, outcome: Any) -> None:
        if outcome[0] == b"destroyed":
            for user in outcome[3]:
                self._listener.user_left(room_id, user.decode(errors="replace"))
            self._listener.room_destroyed(room_id)
            if self._places is not None and outcome[2]:
                self._spawn(self._places.release(room_id, outcome[2].decode("latin-1")))

    async def _ask(self, room_id: str, words: Sequence[Word], heard: Any) -> Any:
        reply: asyncio.Future[tuple[Any, Any]] = asyncio.get_running_loop().create_future()
        self._teller(room_id).ask(Act(room_id, words, heard=partial(heard, room_id), reply=reply))
        return (await reply)[0]

    def _limit(self, max_rooms: int | None) -> str:
        """As the scripts take it: where rooms are on many servers, places are kept elsewhere."""
        if max_rooms is None:
            return ""
        return str(max_rooms) if self._places is None else "-"

    def _window(self, room_id: str) -> int:
        return int(self._listener.reach(room_id) * 1000)

    # — reading: what this node has to tell is told first —

    async def find(self, room_id: str) -> RoomRecord | None:
        await self.told(room_id)
        return (await self._reader.describe([room_id]))[0][0]

    async def has(self, room_id: str, user_id: str) -> bool:
        await self.told(room_id)
        return (await self._reader.describe([room_id], user_id))[0][1]

    async def page(self, prefix: str, limit: int, after: str | None) -> tuple[list[RoomRecord], str | None]:
        await asyncio.gather(*(teller.told() for teller in self._tellers))
        pages = await asyncio.gather(*(self._reader.names(shard, prefix, limit + 1, after) for shard in self._shards))
        names = sorted(name for page in pages for name in page)
        found: dict[str, RoomRecord] = {}
        for _, rooms in groupby(sorted(names[:limit], key=self._layout.shard), self._layout.shard):
            found |= {room.id: room for room, _ in await self._reader.describe(list(rooms)) if room is not None}
        return [found[name] for name in names[:limit] if name in found], names[limit - 1] if len(names) > limit else None

    async def members(self, room_id: str) -> list[Member]:
        await self.told(room_id)
        return await self._reader.members(room_id)

    async def reachable(self, room_id: str, within: float) -> list[PresentUser]:
        await self.told(room_id)
        return await self._reader.reachable(room_id, within)

    @property
    def _shards(self) -> range:
        return range(self._layout.shards)

    # — looking after it —

    def tell_again(self) -> None:
        for teller in self._tellers:
            if teller.has_told:
                teller.look()
        if self._places is not None:
            self._spawn(self._places.take_again([room_id for teller in self._tellers for room_id in teller.rooms]))

    async def clean_up(self, node: str) -> None:
        await self._housekeeping.clean_up(node)

    def _began_anew(self, shard: int) -> None:
        self._spawn(self._housekeeping.search(shard, self._tellers[shard]))

    async def _tend(self) -> None:
        timeout = self._listener.room_timeout
        every = self._every if timeout is None else min(self._every, timeout / 2)
        while True:
            await self._clock.sleep(every)
            for teller in self._tellers:
                if teller.has_told and teller.is_idle:
                    teller.look()
            try:
                await self.look_after()
            except BrokerUnavailable:
                continue
            except Exception:
                logger.exception("looking after the directory of rooms failed; it is tried again")

    async def look_after(self) -> None:
        """Have rooms go that were empty for too long, and what dead nodes have left."""
        timeout = self._listener.room_timeout
        async for room_id in self._housekeeping.look_after(timeout):
            words = ("expire", int((timeout or 0.0) * 1000), self._window(room_id))
            self._teller(room_id).ask(Act(room_id, words, heard=partial(self._heard_of_end, room_id)))
        await self._housekeeping.look_for_strangers()

    def _spawn(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _refusal(word: str, outcome: Sequence[Any], max_rooms: int | None) -> Exception:
    """Why an act on a room was not done."""
    if word == "missing":
        return RoomNotFound()
    if word == "guests":
        return GuestsNotAllowed()
    if word == "full":
        return RoomFull(f"The room has as many users as it may have: {outcome[1].decode()}.")
    return RoomLimitExceeded(f"All {max_rooms} rooms are taken.")
