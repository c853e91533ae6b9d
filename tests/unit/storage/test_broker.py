"""The two-tier log over a store in memory that fails when it is told to; the contract of all brokers is in tests/contracts/test_broker.py."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibos_realtime import IdempotencyConflict, Overloaded, Position, StoreUnavailable, UnrecoverablePosition, ValidationError
from aibos_realtime.backends.base import Audience, Batch, Draft, Key, LoggedEvent, Receipt, Stored
from aibos_realtime.metrics import Metrics
from aibos_realtime.storage.broker import StoredBroker
from aibos_realtime.testing.clock import ManualClock
from aibos_realtime.testing.store import MemoryStore
from tests.receiver import Recorder

_ids = itertools.count()


def draft(room: str = "lobby", data: bytes = b"1", **more: Any) -> Draft:
    return Draft(room, more.pop("event", "note"), data, more.pop("id", f"id{next(_ids)}"), **more)


@dataclass
class Bench:
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: ManualClock = field(default_factory=ManualClock)
    metrics: Metrics = field(default_factory=Metrics)
    receiver: Recorder = field(default_factory=Recorder)
    options: dict[str, int] = field(default_factory=dict)
    broker: StoredBroker = field(init=False)

    async def begin(self) -> None:
        """Start a server on the store, as after a restart."""
        self.broker = StoredBroker(self.store, metrics=self.metrics, clock=self.clock, **self.options)
        self.broker.attach(self.receiver)
        await self.broker.start()

    async def publish(self, *drafts: Draft) -> list[Receipt | BaseException]:
        return await asyncio.gather(*(self.broker.publish(one) for one in drafts), return_exceptions=True)

    def is_available(self) -> bool:
        return self.broker.is_available

    @property
    def delivered(self) -> list[LoggedEvent]:
        return self.receiver.delivered

    @property
    def watched(self) -> set[str]:
        return self.receiver.watched

    @property
    def offsets(self) -> list[int]:
        return [event.offset for event in self.delivered]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    await bench.begin()
    yield bench
    bench.store.gate.set()
    await bench.broker.stop()


# — group commit, then delivery —


async def test_nobody_sees_an_event_before_the_store_has_it(bench: Bench) -> None:
    bench.store.gate.clear()
    receipt = bench.broker.publish(draft())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not receipt.done() and bench.delivered == [] and (await bench.broker.position("lobby")).offset == 0
    bench.store.gate.set()
    assert (await receipt).position == await bench.broker.position("lobby")
    assert bench.offsets == [1] and len(bench.store.rows) == 1


async def test_what_comes_while_a_batch_is_on_its_way_is_the_next_batch(bench: Bench) -> None:
    bench.store.gate.clear()
    receipts = [bench.broker.publish(draft())]
    for _ in range(5):
        await asyncio.sleep(0)
    receipts += [bench.broker.publish(draft()) for _ in range(64)]
    bench.store.gate.set()
    positions = [(await receipt).position for receipt in receipts]
    assert bench.store.batches == [1, 64] and bench.metrics.commits == 2
    assert [position.offset for position in positions if position] == bench.offsets == list(range(1, 66))


async def test_a_publisher_who_no_longer_waits_harms_nobody(bench: Bench) -> None:
    bench.store.gate.clear()
    gone, waiting = bench.broker.publish(draft()), bench.broker.publish(draft())
    gone.cancel()
    bench.store.gate.set()
    assert (await waiting).position and bench.offsets == [1, 2], "its outcome is unknown to him, and here it was published"


async def test_a_fanout_that_fails_harms_neither_log_nor_publisher(bench: Bench) -> None:
    class Failing(Recorder):
        def deliver(self, event: LoggedEvent) -> None:
            raise RuntimeError("no socket takes it")

    bench.broker.attach(Failing())
    (receipt,) = await bench.publish(draft())
    assert isinstance(receipt, Receipt) and len(bench.store.rows) == 1


async def test_more_than_may_wait_is_refused_and_the_rest_goes_its_way() -> None:
    bench = Bench(options={"waiting": 3})
    await bench.begin()
    bench.store.gate.clear()
    receipts = [bench.broker.publish(draft()) for _ in range(5)]
    bench.store.gate.set()
    answers = await asyncio.gather(*receipts, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Receipt] * 3 + [Overloaded] * 2
    assert isinstance(answers[-1], Overloaded) and answers[-1].retryable
    assert bench.metrics.publishes_refused == 2 and bench.offsets == [1, 2, 3]
    (after,) = await bench.publish(draft())
    assert isinstance(after, Receipt), "there is room again"
    await bench.broker.stop()


async def test_bytes_that_wait_are_bounded_too_and_nothing_small_overtakes_what_was_refused() -> None:
    bench = Bench(options={"waiting_bytes": 100})
    await bench.begin()
    bench.store.gate.clear()
    receipts = [bench.broker.publish(draft(data=b"1" * size)) for size in (60, 60, 60, 1)]
    bench.store.gate.set()
    answers = await asyncio.gather(*receipts, return_exceptions=True)
    assert [type(answer) for answer in answers] == [Receipt, Receipt, Overloaded, Overloaded]
    await bench.broker.stop()


# — the same id, and what cannot be stored —


async def test_one_batch_with_everything_in_it(bench: Bench) -> None:
    """An old id, an id twice, one with other content, a poisoned event, and good ones: each gets its own answer, and no offset is wasted."""
    await bench.publish(draft(id="old", keyed=True, user_id="ann"))
    bench.store.poisoned = {"bad"}
    answers = await bench.publish(
        draft(id="a"),
        draft(id="old", keyed=True, user_id="ann"),
        draft(id="twice", keyed=True),
        draft(id="bad"),
        draft(id="twice", keyed=True),
        draft(id="twice", keyed=True, data=b"2"),
        draft(id="old", keyed=True, user_id="bob"),
        draft(id="b"),
    )
    receipts = [answer if isinstance(answer, Receipt) else None for answer in answers]
    epoch = bench.delivered[0].epoch
    assert receipts[1] == Receipt("old", "lobby", Position(epoch, 1), duplicate=True)
    assert receipts[2] and receipts[4] and receipts[4].duplicate and receipts[4].position == receipts[2].position
    assert isinstance(answers[3], ValidationError) and isinstance(answers[5], IdempotencyConflict)
    assert receipts[6] and not receipts[6].duplicate, "another user's id"
    assert sorted(event.id for event in bench.delivered) == ["a", "b", "old", "old", "twice"]
    assert bench.offsets == [1, 2, 3, 4, 5] == [row.offset for row in bench.store.rows]
    assert bench.metrics.publishes_refused == 1


@given(poisoned=st.sets(st.integers(0, 40), max_size=6), count=st.integers(1, 41))
def test_a_poisoned_event_costs_itself_alone(poisoned: set[int], count: int) -> None:
    async def run() -> None:
        bench = Bench()
        await bench.begin()
        bench.store.poisoned = {f"event_{number}" for number in poisoned}
        answers = await bench.publish(*(draft(id=f"event_{number}") for number in range(count)))
        assert [number for number, answer in enumerate(answers) if isinstance(answer, ValidationError)] == sorted(n for n in poisoned if n < count)
        good = [f"event_{number}" for number in range(count) if number not in poisoned]
        assert [event.id for event in bench.delivered] == good, "the others keep their order"
        assert bench.offsets == list(range(1, len(good) + 1))
        await bench.broker.stop()

    asyncio.run(run())


async def test_a_batch_is_bounded_in_bytes_as_well(bench: Bench) -> None:
    """Five hundred large events in one transaction took a slow disk longer than a statement may."""
    answers = await bench.publish(*(draft(data=b"1" * 256 * 1024) for _ in range(40)))
    assert all(isinstance(answer, Receipt) for answer in answers)
    assert bench.store.batches == [16, 16, 8] and bench.offsets == list(range(1, 41))


async def test_each_publisher_gets_an_error_of_his_own(bench: Bench) -> None:
    """One error raised by many tasks gathers the traces of them all."""
    bench.store.is_down = True
    first, second = await bench.publish(draft(), draft())
    assert isinstance(first, StoreUnavailable) and isinstance(second, StoreUnavailable) and first is not second


async def test_a_fault_of_the_stores_own_code_is_not_shown_to_publishers(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def fail(keys: Iterable[Key]) -> dict[Key, Stored]:
        raise KeyError("a table")

    bench.store.poisoned, bench.store.find = {"x"}, fail  # type: ignore[method-assign]
    (answer,) = await bench.publish(draft(id="x"))
    assert isinstance(answer, StoreUnavailable) and "table" not in str(answer)
    assert "the store failed in itself" in caplog.text and "KeyError" in caplog.text


async def test_an_id_that_stands_beside_the_log_is_a_conflict_and_no_event_without_a_place(bench: Bench) -> None:
    """`store_message` had taken the id: the publish was acknowledged as a duplicate at no position, and the event was never delivered."""
    find = bench.store.find

    async def find_beside(keys: Iterable[Key]) -> dict[Key, Stored]:
        return {key: Stored("note", b"1", None) for key in keys}

    bench.store.poisoned, bench.store.find = {"x"}, find_beside  # type: ignore[method-assign]
    (answer,) = await bench.publish(draft(id="x", keyed=True))
    assert isinstance(answer, IdempotencyConflict) and "beside" in str(answer)
    bench.store.find = find  # type: ignore[method-assign]


async def test_other_content_under_the_id_of_an_event_that_is_not_kept(bench: Bench) -> None:
    await bench.publish(draft(id="x", keyed=True, persist=False))
    other, same = await bench.publish(draft(id="x", keyed=True, data=b"2"), draft(id="x", keyed=True))
    assert isinstance(other, IdempotencyConflict) and isinstance(same, Receipt) and same.duplicate
    await bench.clock.advance(301)
    (answer,) = await bench.publish(draft(id="x", keyed=True, data=b"2"))
    assert isinstance(answer, Receipt) and answer.duplicate, "nobody knows its content any more"


async def test_a_clock_that_is_set_back_does_not_turn_the_log_round(bench: Bench) -> None:
    await bench.publish(draft())
    bench.clock.jump(-3600)
    await bench.publish(draft())
    assert bench.delivered[1].timestamp >= bench.delivered[0].timestamp


async def test_an_id_is_known_after_a_restart(bench: Bench) -> None:
    (first,) = await bench.publish(draft(id="x", keyed=True))
    await bench.broker.stop()
    await bench.begin()
    again, other = await bench.publish(draft(id="x", keyed=True), draft(id="x", keyed=True, data=b"2"))
    assert isinstance(first, Receipt) and again == Receipt("x", "lobby", first.position, duplicate=True)
    assert isinstance(other, IdempotencyConflict)


# — a store that fails —


async def test_while_the_store_is_down_publishing_is_refused_and_goes_on_afterwards(bench: Bench) -> None:
    await bench.publish(draft(id="before"))
    bench.store.is_down = True
    answers = await bench.publish(draft(), draft())
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 2 and not bench.is_available()
    (refused,) = await bench.publish(draft())
    assert isinstance(refused, StoreUnavailable) and refused.retryable
    await bench.clock.advance(3)
    assert not bench.is_available()
    bench.store.is_down = False
    await bench.clock.advance(1)
    await settled(bench)
    assert bench.is_available()
    await bench.publish(draft(id="after"))
    assert [(event.id, event.offset) for event in bench.delivered] == [("before", 1), ("after", 2)], "no offset was spent on what failed"


async def settled(bench: Bench) -> None:
    """The broker's look at the store runs in a task of its own."""
    async with asyncio.timeout(5):
        if bench.broker._writing is not None:
            await asyncio.wait((bench.broker._writing,))


async def test_what_was_stored_without_an_answer_is_found_and_delivered(bench: Bench) -> None:
    bench.store.loses_answers = True
    (answer,) = await bench.publish(draft(id="x", keyed=True))
    bench.store.loses_answers = False
    assert isinstance(answer, Receipt) and not answer.duplicate
    assert [event.id for event in bench.delivered] == ["x"]
    again, following = await bench.publish(draft(id="x", keyed=True), draft())
    assert isinstance(again, Receipt) and again.duplicate and again.position and again.position.offset == 1
    assert isinstance(following, Receipt) and following.position and following.position.offset == 2
    assert bench.offsets == [1, 2]


async def test_a_connection_that_was_lost_while_nothing_happened_is_not_the_publishers_affair(bench: Bench) -> None:
    """The first commit on a dead connection fails, and a new one is there at once."""
    append, tries = bench.store.append, []

    async def fail_once(batch: Batch) -> None:
        tries.append(len(batch.events))
        if len(tries) == 1:
            raise StoreUnavailable()
        await append(batch)

    bench.store.append = fail_once  # type: ignore[method-assign]
    answers = await bench.publish(draft(), draft())
    assert [isinstance(answer, Receipt) for answer in answers] == [True, True] and bench.offsets == [1, 2]
    assert tries == [2, 2] and bench.metrics.commit_failures == 1


async def test_what_is_published_while_the_outcome_is_looked_up_waits_for_it(bench: Bench) -> None:
    """Only a store that does not tell has publishers refused: looking takes a few milliseconds, and is nobody's affair."""
    heads, looking, go = bench.store.heads, asyncio.Event(), asyncio.Event()

    async def look_slowly(rooms: Iterable[str]) -> dict[str, Position]:
        looking.set()
        await go.wait()
        return await heads(rooms)

    bench.store.heads = look_slowly  # type: ignore[method-assign]
    bench.store.loses_answers = True
    first = bench.broker.publish(draft(id="first"))
    await looking.wait()
    bench.store.loses_answers = False
    second = bench.broker.publish(draft(id="second"))
    assert not second.done() and bench.is_available()
    go.set()
    assert [(await receipt).position for receipt in (first, second)] == [Position(bench.delivered[0].epoch, offset) for offset in (1, 2)]
    assert [event.id for event in bench.delivered] == ["first", "second"]


async def test_nothing_overtakes_what_a_failing_store_has_refused(bench: Bench) -> None:
    """A batch that is being sorted out because of a poisoned event, when the store goes: what stands behind must not be stored either."""
    bench.store.poisoned = {"bad"}
    append, tries = bench.store.append, []

    async def fail_at_a_half(batch: Batch) -> None:
        tries.append([event.id for event in batch.events])
        if "a" in tries[-1] and len(tries[-1]) == 2:
            raise StoreUnavailable()
        await append(batch)

    bench.store.append = fail_at_a_half  # type: ignore[method-assign]
    answers = await bench.publish(draft(id="a"), draft(id="b"), draft(id="c"), draft(id="bad"))
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 4
    assert tries == [["a", "b", "c", "bad"], ["a", "b"], ["a", "b"]] and bench.delivered == []


async def test_a_store_that_stays_full_refuses_after_two_tries(bench: Bench) -> None:
    append, tries = bench.store.append, []

    async def is_full(batch: Batch) -> None:
        tries.append(len(batch.events))
        raise StoreUnavailable("The database log.db is full: try again later.")

    bench.store.append = is_full  # type: ignore[method-assign]
    (answer,) = await bench.publish(draft())
    assert isinstance(answer, StoreUnavailable) and tries == [1, 1] and bench.is_available()
    bench.store.append = append  # type: ignore[method-assign]
    await bench.publish(draft())
    assert bench.offsets == [1]


async def test_an_answer_lost_together_with_the_connection(bench: Bench) -> None:
    """Stored, but the store cannot be asked at once: nothing is taken until it can, and then the event comes out first."""
    store = bench.store
    store.gate.clear()
    receipt = bench.broker.publish(draft(id="x"))
    store.loses_answers = True
    store.gate.set()
    heads = store.heads

    async def unreachable(rooms: Any) -> dict[str, Position]:
        raise StoreUnavailable()

    store.heads = unreachable  # type: ignore[method-assign]
    with pytest.raises(StoreUnavailable):
        await receipt
    store.loses_answers = False
    assert bench.delivered == [] and not bench.is_available()
    store.heads = heads  # type: ignore[method-assign]
    await bench.clock.advance(1)
    await settled(bench)
    await bench.publish(draft(id="y"))
    assert [(event.id, event.offset) for event in bench.delivered] == [("x", 1), ("y", 2)]


async def test_stopping_stores_what_waits(bench: Bench) -> None:
    receipts = [bench.broker.publish(draft()) for _ in range(3)]
    await bench.broker.stop()
    assert [(await receipt).position for receipt in receipts] and len(bench.store.rows) == 3
    (late,) = await bench.publish(draft())
    assert isinstance(late, StoreUnavailable) and "does not run" in str(late)


# — two tiers —


async def test_after_a_restart_the_log_goes_on_and_everything_is_recovered_from_the_store(bench: Bench) -> None:
    await bench.publish(*(draft() for _ in range(5)))
    before = list(bench.delivered)
    await bench.broker.stop()
    await bench.begin()
    top = await bench.broker.position("lobby")
    assert top == Position(before[0].epoch, 5)
    page = await bench.broker.read_after("lobby", Position(top.epoch, 2), 10)
    assert page.events == before[2:] and not page.more
    await bench.publish(draft())
    assert bench.offsets[-1] == 6
    page = await bench.broker.read_after("lobby", Position(top.epoch, 0), 3)
    assert ([event.offset for event in page.events], page.more, page.last) == ([1, 2, 3], True, 3)
    page = await bench.broker.read_after("lobby", Position(top.epoch, 4), 10)
    assert [event.offset for event in page.events] == [5, 6]


async def test_an_epoch_told_for_a_room_without_events_holds_across_a_restart(bench: Bench) -> None:
    top = await bench.broker.position("quiet")
    await bench.broker.stop()
    await bench.begin()
    assert await bench.broker.position("quiet") == top
    await bench.publish(draft("quiet"))
    page = await bench.broker.read_after("quiet", top, 10)
    assert [event.offset for event in page.events] == [1]


async def test_what_retention_took_away_cannot_be_recovered(bench: Bench) -> None:
    await bench.publish(*(draft(history_size=2) for _ in range(6)))
    epoch = bench.delivered[0].epoch
    bench.store.rows = [row for row in bench.store.rows if row.offset > 3]
    with pytest.raises(UnrecoverablePosition):
        await bench.broker.read_after("lobby", Position(epoch, 2), 10)
    assert [event.offset for event in (await bench.broker.read_after("lobby", Position(epoch, 3), 10)).events] == [4, 5, 6]
    bench.store.rows = []
    with pytest.raises(UnrecoverablePosition):
        await bench.broker.read_after("lobby", Position(epoch, 3), 10)


async def test_an_event_that_is_kept_in_no_store_leaves_no_hole(bench: Bench) -> None:
    """`persist=False`: recovered as long as memory has it; afterwards its place is passed over, and what is around it comes."""
    audience = Audience(exclude=frozenset({"eve"}))
    await bench.publish(draft(id="a"), draft(id="b", persist=False, audience=audience, keyed=True, data=b'"secret"'), draft(id="c"))
    assert [event.id for event in bench.delivered] == ["a", "b", "c"]
    epoch = bench.delivered[0].epoch
    assert [event.id for event in (await bench.broker.read_after("lobby", Position(epoch, 0), 10)).events] == ["a", "b", "c"]
    assert [event.id for event in (await bench.broker.read_before("lobby", None, 10)).events] == ["a", "b", "c"]
    hollow = bench.store.rows[1]
    assert (hollow.data, hollow.audience) == (b"", None)
    await bench.clock.advance(301)
    page = await bench.broker.read_after("lobby", Position(epoch, 0), 2)
    assert ([event.id for event in page.events], page.last, page.more) == (["a"], 2, True)
    page = await bench.broker.read_after("lobby", Position(epoch, 1), 1)
    assert (page.events, page.last, page.more) == ([], 2, True)
    await bench.publish(draft(id="d"), draft(id="e", persist=False))
    page = await bench.broker.read_after("lobby", Position(epoch, 0), 10)
    assert [event.id for event in page.events] == ["a", "c", "d", "e"], "a page that begins in the store has from memory what is there alone"
    page = await bench.broker.read_before("lobby", Position(epoch, 4), 2)
    assert ([event.id for event in page.events], page.first, page.more) == (["c"], 2, True)
    (again,) = await bench.publish(draft(id="b", keyed=True))
    assert isinstance(again, Receipt) and again.duplicate and again.position and again.position.offset == 2


async def test_what_the_store_has_but_nobody_was_told_yet_is_not_read(bench: Bench) -> None:
    """A page read while a batch is just committed must not reach beyond it: those events come live, and would come twice."""
    await bench.publish(draft(history_ttl=1.0), draft(history_ttl=1.0))
    await bench.clock.advance(2)
    last = bench.store.rows[-1]
    bench.store.rows.append(LoggedEvent("lobby", "note", b"1", "ahead", last.epoch, 3, last.timestamp))
    page = await bench.broker.read_after("lobby", Position(last.epoch, 0), 10)
    assert (page.last, page.more) == (2, False)


async def test_history_reaches_into_the_store_and_into_earlier_epochs(bench: Bench) -> None:
    await bench.publish(*(draft(history_size=2) for _ in range(5)))
    old = bench.delivered[0].epoch
    page = await bench.broker.read_before("lobby", None, 4)
    assert ([event.offset for event in page.events], page.more) == ([2, 3, 4, 5], True)
    await bench.broker.forget(["lobby"])
    assert (await bench.broker.position("lobby")).epoch == old, "memory has events of it"
    await bench.clock.advance(301)
    await bench.broker.forget(["lobby"])
    await bench.publish(draft())
    assert bench.delivered[-1].epoch != old and bench.offsets[-1] == 1
    page = await bench.broker.read_before("lobby", Position(old, 3), 10)
    assert [(event.epoch, event.offset) for event in page.events] == [(old, 1), (old, 2)]
    with pytest.raises(UnrecoverablePosition):
        await bench.broker.read_before("lobby", Position("never", 3), 10)


# — forgetting —


async def test_forgetting_a_room_changes_the_epoch_of_all_that_begin(bench: Bench) -> None:
    await bench.publish(draft("a"), draft("b"))
    await bench.clock.advance(301)
    epoch = bench.delivered[0].epoch
    bench.watched.add("b")
    await bench.broker.forget(["a", "b", "unknown"])
    assert list(bench.store.ends) == ["b"] and (await bench.broker.position("b")).epoch == epoch
    fresh = await bench.broker.position("a")
    assert fresh.epoch != epoch and fresh.offset == 0
    with pytest.raises(UnrecoverablePosition):
        await bench.broker.read_after("a", Position(epoch, 0), 10)
    await bench.broker.stop()
    await bench.begin()
    assert await bench.broker.position("a") == fresh


async def test_what_is_erased_is_gone_from_memory_too_and_leaves_its_place(bench: Bench) -> None:
    await bench.publish(draft(id="a", user_id="ann"), draft(id="b", user_id="bob"), draft(id="c", user_id="ann", persist=False))
    epoch = bench.delivered[0].epoch
    await bench.broker.erase(lambda event: event.user_id == "ann")
    page = await bench.broker.read_after("lobby", Position(epoch, 0), 10)
    assert ([event.id for event in page.events], page.last, page.more) == (["b"], 3, False)
    page = await bench.broker.read_before("lobby", None, 2)
    assert ([event.id for event in page.events], page.first, page.more) == (["b"], 2, True)
    await bench.publish(draft(id="d"))
    assert bench.offsets[-1] == 4


# — any sequence, with crashes —

STEP = st.one_of(
    st.tuples(st.just("publish"), st.lists(st.sampled_from(["a", "b", "c", "d", "poison", ""]), min_size=1, max_size=5)),
    st.tuples(st.sampled_from(["crash", "down", "lose", "recover", "wait"]), st.just([""])),
)


@given(steps=st.lists(STEP, max_size=25))
def test_whatever_fails_what_was_acknowledged_is_there_once_and_in_order(steps: list[tuple[str, list[str]]]) -> None:
    asyncio.run(_run(steps))


async def _run(steps: list[tuple[str, list[str]]]) -> None:
    bench = Bench()
    await bench.begin()
    bench.store.poisoned = {"poison"}
    acknowledged: dict[str, int] = {}
    for what, ids in steps:
        if what == "publish":
            drafts = [draft(id=one or f"id{next(_ids)}", keyed=bool(one), history_size=3) for one in ids]
            for one, answer in zip(drafts, await bench.publish(*drafts), strict=True):
                if isinstance(answer, Receipt):
                    assert answer.position is not None
                    assert acknowledged.setdefault(one.id, answer.position.offset) == answer.position.offset
                else:
                    assert isinstance(answer, StoreUnavailable | ValidationError), answer
        elif what == "crash":  # what was in memory is gone; the members come back, and recover what they missed
            if not bench.store.is_down:
                for timer in bench.broker._timers.values():
                    timer.cancel()
                await bench.begin()
                known = {event.id for event in bench.delivered}
                bench.receiver.delivered += [row for row in bench.store.rows if row.id not in known]
        elif what == "wait":
            await bench.clock.advance(1)
            await settled(bench)
        else:
            bench.store.is_down = what == "down"
            bench.store.loses_answers = what == "lose"
    bench.store.is_down = bench.store.loses_answers = False
    await bench.clock.advance(1)
    await settled(bench)
    await bench.publish(draft(id="last"))
    rows = bench.store.rows
    assert [row.offset for row in rows] == list(range(1, len(rows) + 1)) and len({row.epoch for row in rows}) == 1
    assert {row.id: row.offset for row in rows}.items() >= acknowledged.items()
    assert len({row.id for row in rows}) == len(rows)
    assert sorted(bench.offsets) == [row.offset for row in rows], "what is stored was seen, each event once"
    await bench.broker.stop()
