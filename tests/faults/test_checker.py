"""Every verdict is seen to fire on a history made by hand, and a clean history with one event tampered with is never called clean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.checker import FAULTS, Entry, History, Place, Verdict, check
from tests.faults.journal import Acknowledged, Attempt, Delivered, Joined, Journal, Left, Record, Refused, Told, Unknown, read_journals

ROOM, EPOCH = "room", "e1"


def sent(number: int, *, publisher: str = "ann", epoch: str = EPOCH, offset: int | None = None) -> list[Record]:
    """An event, its attempt and its acknowledgement."""
    id = f"{publisher}.{number}"
    return [Attempt(publisher, ROOM, id), Acknowledged(publisher, ROOM, id, epoch, number if offset is None else offset)]


def read(number: int, *, client: str = "bob", id: str | None = None, epoch: str = EPOCH, offset: int | None = None) -> Delivered:
    return Delivered(client, ROOM, epoch, number if offset is None else offset, id or f"ann.{number}")


def joined(client: str = "bob", epoch: str = EPOCH, offset: int = 0) -> Joined:
    return Joined(client, ROOM, epoch, offset)


def entries(*numbers: int, epoch: str = EPOCH) -> list[Entry]:
    return [Entry(ROOM, epoch, number, f"ann.{number}") for number in numbers]


def published(*numbers: int) -> list[Record]:
    return [record for number in numbers for record in sent(number)]


def judge(*records: Record, log: list[Entry] | None = None, store: list[Entry] | None = None) -> Verdict:
    return check(History(list(records), log, store))


def test_a_clean_run() -> None:
    verdict = judge(*published(1, 2, 3), joined(), read(1), read(2), read(3), log=entries(1, 2, 3), store=entries(1, 2, 3))
    assert verdict.is_clean, str(verdict)
    assert verdict.counts["acknowledged"] == verdict.counts["delivered"] == 3
    assert "lost 0, silent gap 0, duplicate 0, inversion 0; store = log = what was read" in str(verdict)


@pytest.mark.parametrize(("have", "part"), [((2, 3), "before"), ((1, 3), "between"), ((1, 2), "after"), ((), "after")])
def test_lost_and_a_silent_gap(have: tuple[int, ...], part: str) -> None:
    verdict = judge(*published(1, 2, 3), joined(), *map(read, have))
    missing = 3 - len(have)
    assert verdict.faults == {"lost": missing, "silent gap": missing}
    assert verdict.counts[f"lost {part}"] == missing
    assert f"{part} what it read" in verdict.examples["lost"][0]


def test_what_came_before_the_join_and_after_the_leaving_is_not_lost() -> None:
    assert judge(*published(1, 2, 3), joined(offset=1), read(2), Left("bob", ROOM)).is_clean


def test_a_gap_that_was_told_is_not_silent_but_lost() -> None:
    verdict = judge(*published(1, 2, 3), joined(), read(1), Told("bob", ROOM, EPOCH, 2), read(3))
    assert verdict.faults == {"lost": 1} and verdict.counts["told of a gap"] == 1


def test_a_gap_after_a_told_one_is_silent() -> None:
    verdict = judge(*published(1, 2, 3, 4), joined(), read(1), Told("bob", ROOM, EPOCH, 2), read(4))
    assert verdict.faults == {"lost": 2, "silent gap": 1}


def test_a_new_epoch_that_nobody_told_of() -> None:
    records: list[Record] = [*published(1, 2), *sent(3, epoch="e2", offset=1), joined(), read(1), read(2), read(3, epoch="e2", offset=1)]
    assert judge(*records).faults == {"silent gap": 1}
    records.insert(-1, Told("bob", ROOM, "e2", 0))
    assert judge(*records).is_clean
    records.insert(-1, Told("bob", ROOM, None, None))
    assert judge(*records).is_clean


def test_an_epoch_that_a_subscriber_never_saw() -> None:
    records: list[Record] = [*published(1), *sent(2, epoch="e2", offset=1), joined(), read(1)]
    assert judge(*records).faults == {"lost": 1, "silent gap": 1}


def test_a_loss_that_was_announced_is_none_where_that_is_allowed() -> None:
    records = [*published(1, 2, 3, 4), joined(), read(1), Told("bob", ROOM, EPOCH, 2), read(3), read(4)]
    verdict = check(History(records, may_announce=True))
    assert verdict.is_clean and verdict.counts["announced"] == 1, str(verdict)


def test_a_loss_after_or_before_what_was_announced_is_one() -> None:
    records = [*published(1, 2, 3, 4, 5), joined(), read(2), Told("bob", ROOM, EPOCH, 3), read(4)]
    verdict = check(History(records, may_announce=True))
    assert verdict.faults == {"lost": 2, "silent gap": 2} and verdict.counts["announced"] == 1, str(verdict)


def test_a_loss_that_was_announced_too_late_is_one() -> None:
    records = [*published(1, 2, 3), joined(), read(1), read(3), Told("bob", ROOM, EPOCH, 3)]
    assert check(History(records, may_announce=True)).faults["lost"] == 1


def test_a_loss_up_to_an_unknown_place_ends_with_the_next_event() -> None:
    records: list[Record] = [*published(1, 2, 3, 4), joined(), read(1), Told("bob", ROOM, None, None), read(3)]
    assert check(History(records, may_announce=True)).faults == {"lost": 1, "silent gap": 1}
    del records[-1]
    assert check(History(records, may_announce=True)).is_clean


def lost_with_redis(room: str, place: Place) -> bool:
    return place[0] == "e1"


def test_what_may_be_gone_from_log_and_store() -> None:
    records = [*published(1, 2), *sent(3, epoch="e2", offset=1), joined(), read(1), Told("bob", ROOM, "e2", 0), read(3, epoch="e2", offset=1)]
    kept = [Entry(ROOM, "e2", 1, "ann.3")]
    verdict = check(History(records, kept, kept, may_announce=True, may_lack=lost_with_redis))
    assert verdict.is_clean and verdict.counts["gone"] == 2 and verdict.counts["announced"] == 1, str(verdict)
    assert check(History(records, kept, kept, may_announce=True)).faults == {"unlogged": 2, "unstored": 2}
    assert check(History(records, [], [], may_announce=True, may_lack=lost_with_redis)).faults == {"unlogged": 1, "unstored": 1}


def test_published_again_since_the_first_place_is_gone() -> None:
    attempt, unknown = Attempt("ann", ROOM, "ann.1"), Unknown("ann", ROOM, "ann.1", "unavailable")
    first: list[Record] = [attempt, unknown, joined(), read(1), Told("bob", ROOM, "e2", 0)]
    records: list[Record] = [*first, *sent(1, epoch="e2")]
    assert check(History(records, may_announce=True, may_lack=lost_with_redis)).is_clean
    assert check(History(records, may_announce=True)).faults == {"silent gap": 1, "moved": 1}
    records += [read(1, epoch="e2")]
    verdict = check(History(records, may_announce=True, may_lack=lost_with_redis))
    assert verdict.is_clean and verdict.counts["given again"] == 1, str(verdict)
    records += [read(1, epoch="e2")]
    assert check(History(records, may_announce=True, may_lack=lost_with_redis)).faults == {"duplicate": 1}


def test_an_unacknowledged_event_that_others_read_is_a_silent_gap_and_not_lost() -> None:
    attempt, unknown = Attempt("ann", ROOM, "ann.2"), Unknown("ann", ROOM, "ann.2", "timeout")
    verdict = judge(*published(1), attempt, unknown, joined(), read(1), read(2), joined("cid"), read(1, client="cid"))
    assert verdict.faults == {"silent gap": 1}
    assert verdict.counts["unknown"] == verdict.counts["of these read"] == 1


def test_duplicates_at_the_callback() -> None:
    assert judge(*published(1, 2), joined(), read(1), read(2), read(2)).faults == {"duplicate": 1}
    again = read(3, id="ann.2")
    assert judge(*published(1, 2), joined(), read(1), read(2), again).faults == {"duplicate": 1, "moved": 1}


def test_inversions() -> None:
    assert judge(*published(1, 2, 3), joined(), read(1), read(3), read(2)).faults == {"inversion": 1, "disorder": 1}


def test_one_publisher_s_order() -> None:
    records: list[Record] = [*sent(1, offset=2), *sent(2, offset=1), joined(), read(2, offset=1), read(1, offset=2)]
    assert judge(*records).faults == {"disorder": 1}
    again = Attempt("ann", ROOM, "ann.1")  # sent again by the application, after the other
    assert judge(again, *records).is_clean


def test_what_was_given_up_may_come_late_where_that_is_allowed() -> None:
    given_up: list[Record] = [Attempt("ann", ROOM, "ann.1"), Unknown("ann", ROOM, "ann.1", "timeout")]
    records = [*given_up, *sent(2, offset=1), joined(), read(2, offset=1), read(1, offset=2)]
    assert judge(*records).faults == {"disorder": 1}
    assert check(History(records, may_be_late=True)).is_clean
    records += [Acknowledged("ann", ROOM, "ann.1", EPOCH, 2)]
    assert check(History(records, may_be_late=True)).faults == {"disorder": 1}


def test_read_and_never_sent() -> None:
    assert judge(*published(1), joined(), read(1), read(2)).faults == {"unexpected": 1}


def test_read_although_refused_for_good() -> None:
    refused = Refused("ann", ROOM, "ann.2", "permission_denied")
    assert judge(*published(1), Attempt("ann", ROOM, "ann.2"), refused, joined(), read(1), read(2)).faults == {"refused": 1}


def test_acknowledged_at_another_place_than_where_it_is() -> None:
    verdict = judge(Attempt("ann", ROOM, "ann.1"), Acknowledged("ann", ROOM, "ann.1", EPOCH, 2), joined(), read(1))
    assert verdict.faults == {"silent gap": 1, "moved": 1}
    twice: list[Record] = [*published(1), Acknowledged("ann", ROOM, "ann.1", EPOCH, 2)]
    assert judge(*twice).faults["moved"] == 1


def test_one_place_for_two_events() -> None:
    assert judge(*published(1), *sent(2, offset=1), joined(), read(1)).faults["reused"] == 1


def test_acknowledged_or_read_and_not_in_the_log() -> None:
    assert judge(*published(1, 2), joined(), read(1), read(2), log=entries(1)).faults == {"unlogged": 1}


def test_in_the_log_and_read_by_nobody() -> None:
    unheard: list[Record] = [Attempt("ann", ROOM, "ann.2"), Unknown("ann", ROOM, "ann.2", "timeout")]
    assert judge(*published(1), *unheard, joined(), read(1), log=entries(1, 2)).faults == {"silent gap": 1, "unread": 1}


def test_not_in_the_store() -> None:
    records: list[Record] = [*published(1, 2, 3), joined(), read(1), read(2), read(3)]
    assert judge(*records, log=entries(1, 2, 3), store=entries(1, 3)).faults == {"unstored": 1, "hole": 1}
    assert judge(*records, log=entries(1, 2, 3), store=entries(1, 2)).faults == {"unstored": 1}


def test_in_the_store_alone() -> None:
    records = [*published(1), Attempt("ann", ROOM, "ann.2"), joined(), read(1)]
    assert judge(*records, log=entries(1), store=entries(1, 2)).faults == {"unlogged row": 1, "silent gap": 1}


def test_stored_twice() -> None:
    store = [*entries(1, 2), Entry(ROOM, EPOCH, 3, "ann.2")]
    faults = judge(*published(1, 2), joined(), read(1), read(2), log=entries(1, 2), store=store).faults
    assert faults["stored twice"] == 1


def test_rooms_are_judged_apart() -> None:
    there: list[Record] = [Attempt("ann", "other", "ann.9"), Acknowledged("ann", "other", "ann.9", EPOCH, 1), Joined("bob", "other", EPOCH, 0)]
    verdict = judge(*published(1), joined(), read(1), *there)
    assert verdict.faults == {"lost": 1, "silent gap": 1}
    assert verdict.examples["lost"][0].startswith("other: ")


def test_a_verdict_shows_a_few_of_many() -> None:
    verdict = judge(*published(*range(1, 100)), joined())
    assert verdict.faults["lost"] == 99 and len(verdict.examples["lost"]) == 5
    assert "lost: 99" in str(verdict)


def test_journals_are_read_back(tmp_path: Path) -> None:
    records = [*sent(1), joined(), read(1), Told("bob", ROOM, None, None), Left("bob", ROOM), Refused("ann", ROOM, "x", "no")]
    with Journal(tmp_path, "bob") as journal:
        for record in records:
            journal.write(record)
    assert list(read_journals(tmp_path)) == records


def test_an_attempt_is_in_the_file_at_once(tmp_path: Path) -> None:
    with Journal(tmp_path, "ann") as journal:
        journal.write(Attempt("ann", ROOM, "ann.1"), flush=True)
        assert [type(record) for record in read_journals(tmp_path)] == [Attempt]


@dataclass
class Run:
    """A clean run, and the one event of it that is to be tampered with."""

    history: History
    number: int
    """Of the event, counted from 1."""
    place: int
    """Where in `records` a subscriber read it."""


@st.composite
def runs(draw: st.DrawFn) -> Run:
    events = draw(st.integers(2, 12))
    publishers = draw(st.lists(st.sampled_from(["ann", "abe", "ada"]), min_size=events, max_size=events))
    ids = [f"{publisher}.{number}" for number, publisher in enumerate(publishers, 1)]
    records: list[Record] = []
    for number, (publisher, id) in enumerate(zip(publishers, ids, strict=True), 1):
        records += [Attempt(publisher, ROOM, id), Acknowledged(publisher, ROOM, id, EPOCH, number)]
    subscribers = draw(st.integers(1, 3))
    for subscriber in range(subscribers):
        start = draw(st.integers(0, events - 1)) if subscriber else 0
        client = f"subscriber-{subscriber}"
        records.append(joined(client, offset=start))
        records += [Delivered(client, ROOM, EPOCH, number, ids[number - 1]) for number in range(start + 1, events + 1)]
    full = [Entry(ROOM, EPOCH, number, id) for number, id in enumerate(ids, 1)]
    reads = [place for place, record in enumerate(records) if isinstance(record, Delivered)]
    place = draw(st.sampled_from(reads))
    record = records[place]
    assert isinstance(record, Delivered)
    return Run(History(records, list(full), list(full)), record.offset, place)


@given(runs())
def test_an_untouched_run_is_clean(run: Run) -> None:
    assert check(run.history).is_clean


def drop_a_read(run: Run) -> None:
    del run.history.records[run.place]


def repeat_a_read(run: Run) -> None:
    run.history.records.append(run.history.records[run.place])


def read_late(run: Run) -> None:
    records = run.history.records
    record = records.pop(run.place)
    assert isinstance(record, Delivered)
    later = [place for place, one in enumerate(records) if isinstance(one, Delivered) and one.client == record.client and one.offset > record.offset]
    if later:
        records.insert(later[-1] + 1, record)


def invent_a_read(run: Run) -> None:
    record = run.history.records[run.place]
    assert isinstance(record, Delivered)
    run.history.records[run.place] = msgspec.structs.replace(record, id="nobody.1")


def drop_a_row(run: Run) -> None:
    assert run.history.store is not None
    del run.history.store[run.number - 1]


def drop_from_the_log(run: Run) -> None:
    assert run.history.log is not None
    del run.history.log[run.number - 1]


def store_twice(run: Run) -> None:
    assert run.history.store is not None
    run.history.store.append(Entry(ROOM, EPOCH, len(run.history.store) + 1, run.history.store[run.number - 1].id))


def move_an_acknowledgement(run: Run) -> None:
    records = run.history.records
    place, record = next((p, r) for p, r in enumerate(records) if isinstance(r, Acknowledged) and r.offset == run.number)
    records[place] = msgspec.structs.replace(record, offset=record.offset + 100)


TAMPERING: dict[str, tuple[Callable[[Run], None], set[str]]] = {
    "drop a read": (drop_a_read, {"lost", "silent gap"}),
    "repeat a read": (repeat_a_read, {"duplicate"}),
    "read late": (read_late, {"inversion", "lost"}),
    "invent a read": (invent_a_read, {"unexpected"}),
    "drop a row": (drop_a_row, {"unstored"}),
    "drop from the log": (drop_from_the_log, {"unlogged"}),
    "store twice": (store_twice, {"stored twice"}),
    "move an acknowledgement": (move_an_acknowledgement, {"moved"}),
}


@pytest.mark.parametrize("name", TAMPERING)
@given(data=st.data())
def test_one_event_tampered_with_is_named(name: str, data: st.DataObject) -> None:
    run = data.draw(runs())
    tamper, named = TAMPERING[name]
    tamper(run)
    verdict = check(run.history)
    assert named & verdict.faults.keys(), verdict
    assert verdict.faults.keys() <= FAULTS.keys()
