"""What one node has to tell one shard of the directory, and asks of it: everything of one moment in one step, one step at a time.

Who is here is kept on this side too. A pair of room and user that may have to be told anew is told as it is by then, so that doing so twice, or late,
changes nothing. Each step has a number, by which it is noticed that the shard has lost what it was told.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from enum import IntEnum
from typing import Any

from ...clock import Clock
from ...errors import BrokerUnavailable
from ...logs import get_logger
from ..directory import Listener, PresentUser, RoomRecord
from .room_acts import Act, Reply, Step, Word, draft_words, user_words

logger = get_logger("aibos_realtime.directory")

MAX_ACTS = 64
"""In one step, so that it holds up Redis for a few milliseconds at most."""
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 1.0

Pair = tuple[str, str]


class Volume(IntEnum):
    """Who hears of it when a pair is told anew and that changes something: nobody, the other nodes, or this node's callbacks too."""

    QUIET = 0
    NOTICE = 1
    LOUD = 2


class Here:
    """A room in which this node has somebody: as what the room is known, and the users as the scripts take them."""

    __slots__ = ("room", "users")

    def __init__(self, room: RoomRecord) -> None:
        self.room = room
        self.users: dict[str, tuple[str, bytes, int]] = {}
        """User → role, what is kept of him, ms since when he is here."""


class Teller:
    """`send(step, acts)` has acts done; `listener` hears of users; `began_anew` is called when the shard had forgotten."""

    def __init__(
        self, send: Callable[[Step, Sequence[Act]], Awaitable[Reply]], *, listener: Listener, began_anew: Callable[[], None], name: str, clock: Clock
    ) -> None:
        self.rooms: dict[str, Here] = {}
        self._send = send
        self._listener = listener
        self._began_anew = began_anew
        self._name = name
        self._clock = clock
        self._entering: dict[Pair, set[Act]] = {}
        """Acts by which somebody comes, and of which it is not known yet whether he may."""
        self._unsaid: dict[Pair, Volume] = {}
        self._sockets: dict[str, int] = {}
        self._recounted: dict[str, None] = {}
        self._asked: deque[Act] = deque()
        self._waiting: list[asyncio.Future[None]] = []
        """Of those who wait until all up to now has been told."""
        self._number = 0
        self._answered, self._found = "0", ""
        self._is_open = False
        self._running: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._pause = 0.0

    @property
    def is_idle(self) -> bool:
        return self._running is None

    @property
    def has_told(self) -> bool:
        """Whether there is something that the shard could lose."""
        return bool(self.rooms) or self._number > 0

    def start(self) -> None:
        """Begin to tell."""
        self._is_open = True

    # — what there is to tell —

    def enter(self, act: Act, user_id: str) -> None:
        """Ask whether a user may come."""
        self._entering.setdefault((act.room, user_id), set()).add(act)
        self.ask(act)

    def end_of_entering(self, act: Act, user_id: str) -> bool:
        """It is known now, or never will be. False: he has gone meanwhile."""
        pair = (act.room, user_id)
        acts = self._entering.get(pair, set())
        if act not in acts:
            return False
        acts.remove(act)
        if not acts:
            del self._entering[pair]
        return True

    def here(self, room: RoomRecord, user: PresentUser, since: int) -> None:
        """A user is here, and the shard knows it. `since`: ms."""
        found = self.rooms.get(room.id)
        if found is None:
            found = self.rooms[room.id] = Here(room)
        found.room = room
        found.users[user.id] = (*user_words(user), since)

    def is_here(self, room_id: str, user_id: str) -> bool:
        found = self.rooms.get(room_id)
        return found is not None and user_id in found.users

    def gone(self, room_id: str, user_id: str) -> None:
        """A user is no longer here, and nobody waits for him to come."""
        self._entering.pop((room_id, user_id), None)
        found = self.rooms.get(room_id)
        if found is not None and found.users.pop(user_id, None) is not None and not found.users:
            del self.rooms[room_id]
        self.tell((room_id, user_id), Volume.LOUD)

    def renew(self, room_id: str, user: PresentUser) -> None:
        found = self.rooms.get(room_id)
        told = found.users.get(user.id) if found is not None else None
        words = user_words(user)
        if found is not None and told is not None and told[:2] != words:
            found.users[user.id] = (*words, told[2])
            self.tell((room_id, user.id), Volume.QUIET)

    def count(self, room_id: str, sockets: int) -> None:
        """How many sockets of this node are in a room."""
        if sockets == self._sockets.get(room_id, 0):
            return
        if sockets:
            self._sockets[room_id] = sockets
        else:
            del self._sockets[room_id]
        self._recounted[room_id] = None
        self._begin()

    def tell(self, pair: Pair, volume: Volume) -> None:
        """Tell how it is with a room and a user by now."""
        self._unsaid[pair] = max(volume, self._unsaid.get(pair, volume))
        self._begin()

    def correct(self, pair: Pair) -> None:
        """The shard has somebody of this node in a room who is not: he goes, and its sockets are counted anew."""
        self._recounted[pair[0]] = None
        self.tell(pair, Volume.QUIET)

    def ask(self, act: Act) -> None:
        """Have something done, after everything before it."""
        if not self._is_open:
            _fail(act, BrokerUnavailable("The node does not run: it takes part between its start and its stop."))
            return
        self._asked.append(act)
        self._news.set()
        self._begin()

    def look(self) -> None:
        """See whether the shard still knows what it was told."""
        self.ask(Act("", ()))

    def leave_all(self) -> None:
        """Nobody is here any more."""
        for room_id, found in list(self.rooms.items()):
            for user_id in list(found.users):
                self.gone(room_id, user_id)
        for room_id in list(self._sockets):
            self.count(room_id, 0)

    async def told(self) -> None:
        """Wait until everything up to now has been told, or could not be."""
        if self._running is not None:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiting)
            await waiting

    async def stop(self) -> None:
        """Tell nothing more."""
        self._is_open = False
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        for act in self._asked:
            _fail(act, BrokerUnavailable())
        for forgotten in (self._asked, self._unsaid, self._recounted, self._entering):
            forgotten.clear()
        self._number, self._answered, self._found = 0, "0", ""

    # — telling —

    def _begin(self) -> None:
        if self._running is None and self._is_open:
            self._running = asyncio.get_running_loop().create_task(self._run(), name="directory-teller")

    async def _run(self) -> None:
        me = asyncio.current_task()
        try:
            while acts := self._next_acts():
                answered = self._waiting if self._is_all_taken else []
                self._waiting = [] if self._is_all_taken else self._waiting
                self._number += 1
                number = str(self._number)
                try:
                    reply = await self._send(Step(number, self._answered, self._found), acts)
                except Exception as error:
                    if not isinstance(error, BrokerUnavailable):
                        logger.exception("%s cannot be told something, and is told again", self._name)
                    self._failed(acts, error if isinstance(error, BrokerUnavailable) else BrokerUnavailable())
                    _finish(answered)
                    await self._wait_for_better(error)
                except asyncio.CancelledError:
                    self._failed(acts, BrokerUnavailable())
                    raise
                else:
                    self._heard(acts, reply, number)
                    _finish(answered)
        finally:
            _finish(self._waiting)
            if self._running is me:
                self._running = None

    @property
    def _is_all_taken(self) -> bool:
        return not (self._unsaid or self._asked or self._recounted)

    def _next_acts(self) -> list[Act]:
        acts = [self._pair_act(pair, self._unsaid.pop(pair)) for pair in list(self._unsaid)[:MAX_ACTS]]
        while self._asked and not self._unsaid and len(acts) < MAX_ACTS:
            act = self._asked.popleft()
            if act.reply is None or not act.reply.done():  # who gave up before it was sent asks for nothing
                acts.append(act)
        if not self._unsaid and not self._asked:
            acts += [self._sockets_act(room_id) for room_id in list(self._recounted)[:MAX_ACTS]]
        return acts

    def _pair_act(self, pair: Pair, volume: Volume) -> Act:
        room_id, user_id = pair
        found = self.rooms.get(room_id)
        told = found.users.get(user_id) if found is not None else None
        loud = int(volume > Volume.QUIET)
        if found is None or told is None:
            words: list[Word] = ["remove", loud, user_id, int(self._listener.reach(room_id) * 1000)]
        else:
            role, who, since = told
            words = ["put", loud, user_id, role, who, since, *draft_words(found.room, found.room.birth)]

        def heard(outcome: Any) -> None:
            if told is None:
                if outcome == 1 and volume is Volume.LOUD:
                    self._listener.user_left(room_id, user_id)
                return
            has_joined, birth = outcome
            if has_joined == 1 and volume is Volume.LOUD:
                self._listener.user_joined(room_id, user_id)
            if not self._listener.user_is_in(room_id, user_id, birth.decode(errors="replace")):
                self.tell(pair, Volume.QUIET)

        def failed() -> None:
            self._unsaid[pair] = max(volume, self._unsaid.get(pair, volume))

        return Act(room_id, words, heard=heard, failed=failed)

    def _sockets_act(self, room_id: str) -> Act:
        del self._recounted[room_id]

        def failed() -> None:
            self._recounted[room_id] = None

        return Act(room_id, ("sockets", self._sockets.get(room_id, 0)), failed=failed)

    def _failed(self, acts: list[Act], error: BrokerUnavailable) -> None:
        for act in acts:
            if act.failed is not None:
                act.failed()
            _fail(act, error)

    def _heard(self, acts: list[Act], reply: Reply, number: str) -> None:
        if self._pause:
            self._pause = 0.0
            logger.info("%s is told again", self._name)
        for act, outcome in zip(acts, reply.outcomes, strict=True):
            try:
                if act.heard is not None:
                    act.heard(outcome)
            except Exception:
                logger.exception("what the directory of rooms said could not be followed")
            if act.reply is not None and not act.reply.done():
                act.reply.set_result((outcome, reply.entered.get(act.room)))
        self._answered, self._found = number, number if reply.is_known else reply.last
        if not reply.is_known:
            self._tell_all(Volume.LOUD if reply.last.startswith("cleaned") else Volume.QUIET)

    def _tell_all(self, volume: Volume) -> None:
        """The shard had lost what it was told. `LOUD`: others took this node for dead, and told everybody."""
        logger.warning("%s had forgotten what this node told it, which is told again", self._name)
        for room_id, found in self.rooms.items():
            for user_id in found.users:
                self.tell((room_id, user_id), volume)
        self._recounted |= dict.fromkeys([*self._sockets, *self.rooms])
        self._began_anew()

    async def _wait_for_better(self, error: Exception) -> None:
        """A pause, cut short where somebody asks for something."""
        if not self._pause:
            logger.warning("%s cannot be told who is here: %s", self._name, error)
        self._pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, 2 * self._pause))
        self._news.clear()
        waiting = [asyncio.ensure_future(self._clock.sleep(self._pause)), asyncio.ensure_future(self._news.wait())]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waiting:
                one.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


def _finish(waiting: list[asyncio.Future[None]]) -> None:
    for one in waiting:
        if not one.done():
            one.set_result(None)
    waiting.clear()


def _fail(act: Act, error: BrokerUnavailable) -> None:
    if act.reply is not None and not act.reply.done():
        copy = BrokerUnavailable(str(error))
        copy.__cause__ = error.__cause__
        act.reply.set_exception(copy)
