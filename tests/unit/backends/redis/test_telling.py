"""What a node tells of its users, against a shard that fails, loses replies and forgets: in the end it holds exactly who is here."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from aibos_realtime import BrokerUnavailable
from aibos_realtime.backends.directory import PresentUser, RoomRecord
from aibos_realtime.backends.redis import telling as module
from aibos_realtime.backends.redis.room_acts import Act, Reply, Step
from aibos_realtime.backends.redis.telling import Teller, Volume
from aibos_realtime.testing.clock import ManualClock, settle
from tests.cluster.directories import Heard

ROOM = RoomRecord("a", "a", "room", None, False, 0.0, "birth")


class Shard:
    """Does what the script does, as far as pairs and sockets go. `mood`: what happens to the next call."""

    def __init__(self) -> None:
        self.pairs: set[tuple[str, str]] = set()
        self.sockets: dict[str, int] = {}
        self.told = ""
        self.calls: list[int] = []
        self.mood = "good"
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, step: Step, acts: Sequence[Act]) -> Reply:
        mood = self.mood
        await self.gate.wait()
        if mood == "away":
            raise BrokerUnavailable("away")
        if mood == "broken":
            raise ValueError("a mistake of ours")
        self.calls.append(len(acts))
        last = self.told
        is_known = last == step.found or (last.isdigit() and int(last) >= int(step.answered))
        if is_known:
            self.told = step.number
        outcomes = [self._do(act) for act in acts]
        if mood == "cut":
            raise BrokerUnavailable("cut")
        return Reply(last, is_known, 0, outcomes, {})

    def _do(self, act: Act) -> Any:
        match act.words:
            case ["put", _, str(user), *_]:
                is_new = (act.room, user) not in self.pairs
                self.pairs.add((act.room, user))
                return [int(is_new), b"birth"]
            case ["remove", _, str(user), _]:
                is_there = (act.room, user) in self.pairs
                self.pairs.discard((act.room, user))
                return int(is_there)
            case ["sockets", int(count)]:
                self.sockets.pop(act.room, None)
                if count:
                    self.sockets[act.room] = count
                return 1
            case ["enter", str(user)]:
                self.pairs.add((act.room, user))
                return "entered"
        return None


class Rig:
    """A teller over such a shard."""

    def __init__(self) -> None:
        self.shard = Shard()
        self.clock = ManualClock()
        self.heard = Heard()
        self.anew = 0
        self.teller = Teller(self.shard.send, listener=self.heard, began_anew=self._note, name="the shard", clock=self.clock)
        self.teller.start()

    def _note(self) -> None:
        self.anew += 1

    def here(self, user: str, room: RoomRecord = ROOM) -> None:
        """As after entering, without the act itself."""
        self.teller.here(room, PresentUser(user, "user"), 5)
        self.shard.pairs.add((room.id, user))

    def enter(self, user: str) -> asyncio.Future[Any]:
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def heard(outcome: Any) -> None:
            if self.teller.end_of_entering(act, user):
                self.teller.here(ROOM, PresentUser(user, "user"), 5)
            else:
                self.teller.tell(("a", user), Volume.LOUD)

        def failed() -> None:
            self.teller.end_of_entering(act, user)
            self.teller.tell(("a", user), Volume.NOTICE)

        act = Act("a", ("enter", user), heard=heard, failed=failed, reply=reply)
        self.teller.enter(act, user)
        return reply

    @property
    def users(self) -> set[tuple[str, str]]:
        return {(room_id, user) for room_id, found in self.teller.rooms.items() for user in found.users}


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    rig = Rig()
    yield rig
    await rig.teller.stop()


async def test_everything_of_one_moment_goes_together(rig: Rig) -> None:
    for number in range(30):
        rig.here(f"user_{number}")
    for number in range(30):
        rig.teller.gone("a", f"user_{number}")
    rig.teller.count("a", 5)
    await rig.teller.told()
    assert rig.shard.calls == [31] and rig.shard.pairs == set() and rig.shard.sockets == {"a": 5}
    assert len(rig.heard.all) == 30 and rig.teller.is_idle


async def test_a_step_is_bounded(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ACTS", 10)
    for number in range(25):
        rig.here(f"user_{number}")
        rig.teller.gone("a", f"user_{number}")
    await rig.teller.told()
    assert rig.shard.calls == [10, 10, 5]


async def test_what_could_not_be_told_is_told_later(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.here("ann")
    rig.shard.mood = "away"
    rig.teller.gone("a", "ann")
    await rig.teller.told()
    assert rig.shard.pairs == {("a", "ann")} and not rig.teller.is_idle
    await rig.clock.advance(5.0)
    rig.shard.mood = "good"
    await rig.clock.advance(module.LONGEST_PAUSE)
    await rig.teller.told()
    assert rig.shard.pairs == set() and rig.heard.all == [("left", "a", "ann")]
    assert [record.message for record in caplog.records] == ["the shard cannot be told who is here: away"]


async def test_a_mistake_of_our_own_ends_nothing(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.here("ann")
    rig.shard.mood = "broken"
    rig.teller.gone("a", "ann")
    with pytest.raises(BrokerUnavailable):
        await rig.enter("bob")
    rig.shard.mood = "good"
    await rig.clock.advance(1.0)
    await rig.teller.told()
    assert rig.shard.pairs == set() and "a mistake of ours" in caplog.text


async def test_a_reply_that_was_cut_changes_nothing_the_second_time(rig: Rig) -> None:
    rig.here("ann")
    rig.shard.mood = "cut"
    rig.teller.gone("a", "ann")
    await settle()
    rig.shard.mood = "good"
    await rig.clock.advance(1.0)
    await rig.teller.told()
    assert rig.shard.pairs == set() and rig.heard.all == [] and rig.anew == 0, "whether it was told is unknown, and nobody hears it twice"


async def test_who_asks_is_answered_at_once_also_in_a_pause(rig: Rig) -> None:
    rig.shard.mood = "away"
    with pytest.raises(BrokerUnavailable):
        await rig.enter("ann")
    rig.shard.mood = "good"
    assert (await rig.enter("bob"))[0] == "entered"
    assert rig.users == rig.shard.pairs == {("a", "bob")}, "and what failed was taken back"


async def test_who_goes_while_it_is_asked_whether_he_may_come(rig: Rig) -> None:
    rig.shard.gate.clear()
    reply = rig.enter("ann")
    await settle()
    reply.cancel()
    rig.teller.gone("a", "ann")
    rig.shard.gate.set()
    await rig.teller.told()
    assert rig.users == rig.shard.pairs == set()


async def test_a_shard_that_forgot_is_told_again(rig: Rig) -> None:
    rig.here("ann")
    rig.here("bob", RoomRecord("b", "b", "room", None, False, 0.0, "birth"))
    rig.teller.count("a", 1)
    await rig.teller.told()
    for told, expected in (("", []), ("cleaned 123", [("joined", "a", "ann"), ("joined", "b", "bob")])):
        rig.shard.pairs, rig.shard.sockets, rig.shard.told = set(), {}, told
        rig.teller.look()
        await rig.teller.told()
        await rig.teller.told()
        assert rig.shard.pairs == {("a", "ann"), ("b", "bob")} and rig.shard.sockets == {"a": 1} and rig.heard.all == expected
    assert rig.anew == 2


async def test_who_is_in_a_life_that_is_over_is_told_once_more(rig: Rig) -> None:
    rig.here("ann")
    rig.heard.ended = {"birth"}
    rig.teller.tell(("a", "ann"), Volume.QUIET)
    while len(rig.shard.calls) < 2:
        await settle()
    rig.heard.ended = set()
    await rig.teller.told()
    assert rig.shard.calls == [1] * len(rig.shard.calls) and rig.heard.births == {("a", "ann"): "birth"}
    assert rig.teller.is_idle and rig.shard.pairs == {("a", "ann")} and rig.heard.all == []


async def test_after_the_end_nothing_is_told(rig: Rig) -> None:
    rig.shard.gate.clear()
    waiting = rig.enter("ann")
    await settle()
    behind = rig.enter("bob")
    await rig.teller.stop()
    for reply in (waiting, behind, rig.enter("eve")):
        with pytest.raises(BrokerUnavailable):
            await reply
    rig.teller.gone("a", "ann")
    assert rig.teller.is_idle and not rig.teller.has_told


@pytest.mark.parametrize("seed", range(30))
async def test_in_the_end_the_shard_holds_who_is_here(rig: Rig, seed: int) -> None:
    """Comings and goings in any order, under failures, cut replies, a memory that is lost, and joins that are given up."""
    choose = random.Random(seed)
    replies: list[asyncio.Future[Any]] = []
    for _ in range(300):
        user = f"user_{choose.randrange(5)}"
        what = choose.random()
        if what < 0.35:
            replies.append(rig.enter(user))
        elif what < 0.6:
            rig.teller.gone("a", user)
        elif what < 0.7 and replies:
            choose.choice(replies).cancel()
            rig.teller.gone("a", user)
        elif what < 0.8:
            rig.shard.mood = choose.choice(["good", "good", "away", "cut"])
        elif what < 0.83:
            rig.shard.pairs, rig.shard.told = set(), choose.choice(["", "cleaned 1"])
        else:
            await rig.clock.advance(choose.choice([0.0, 0.05, 0.5]))
        if choose.random() < 0.3:
            await settle(choose.randrange(3))
    rig.shard.mood = "good"
    await asyncio.gather(*replies, return_exceptions=True)
    await rig.clock.advance(5.0)
    rig.teller.look()
    await rig.teller.told()
    await rig.teller.told()
    assert rig.shard.pairs == rig.users
