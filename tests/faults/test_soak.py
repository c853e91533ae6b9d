"""The long run as a short one, and that its judge sees what is wrong. In full: `python -m tests.faults.soak --minutes 30`."""

from __future__ import annotations

import sqlite3
import time
from array import array
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.checker import Entry
from tests.faults.journal import Acknowledged, Attempt, Delivered, Joined, Journal, Record, Unknown
from tests.faults.nemesis import KINDS, PARTS, Fault, Plan, draw, kinds_for
from tests.faults.processes import TRACEBACK, Zygote
from tests.faults.server_program import SECRET
from tests.faults.soak import prove
from tests.faults.soak_judge import NEVER, Felt, Moments, check_rooms, judge_felt, judge_words, measure, read_moments, rows_of
from tests.faults.soak_memory import MB, MOST_GROWTH, Memory, Size
from tests.faults.soak_outbox import Application
from tests.faults.soak_outcome import Setting
from tests.faults.soak_program import SkewedClock, write_skew
from tests.faults.soak_site import PASSWORD
from tests.faults.soak_work import Effects

KINDS_OF_THE_SHORT_RUN = [
    "node: killed", "node: paused", "clock: ahead", "clock: behind", "worker: killed", "worker: paused", "redis: killed", "redis: subscribers killed",
    "postgresql: killed", "postgresql: paused", "line to redis: silent", "line to redis: replies cut", "line to postgresql: replies cut",
    "line to clients: cut",
]  # fmt: skip
SHORT = Setting(minutes=0.5, seed=20, interval=2.1, longest=3.0, quiet=2.0, rate=80.0, within=30.0, kinds=KINDS_OF_THE_SHORT_RUN)
"""`within`: the machine may be busy; how long things take is shown by the command."""


@pytest.mark.timeout(150)
async def test_nothing_is_lost_whatever_fails(zygote: Zygote, tmp_path: Path) -> None:
    told: list[str] = []
    outcome = await prove(zygote, tmp_path, SHORT, told.append)
    assert not outcome.complaints, "\n".join([*outcome.complaints, *told])
    assert outcome.faults >= 14 and len(outcome.table) == 14
    assert outcome.verdict.counts["acknowledged"] > 500 and len(outcome.effects.effects) > 50 and outcome.visits > 20 and outcome.transactions > 20


# What comes, and when.


def test_the_same_seed_draws_the_same_faults() -> None:
    first, again, other = (draw(seed, 1800, interval=5, longest=9, kinds=list(KINDS)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(first) >= 300 and {plan.kind for plan in first} == set(KINDS)
    assert all(plan.at < later.at for plan, later in zip(first, first[1:], strict=False)) and first[-1].at < 1800
    assert all(0 < plan.seconds <= 9 and plan.number < PARTS[KINDS[plan.kind].part] for plan in first)
    assert 30 < sum(plan.at + plan.seconds > later.at for plan, later in zip(first, first[1:], strict=False)) < 150


def test_a_file_as_the_store_has_no_faults_of_postgresql() -> None:
    assert {KINDS[name].part for name in kinds_for("postgresql")} - {KINDS[name].part for name in kinds_for("sqlite")} == {
        "postgresql",
        "line to postgresql",
    }


def test_a_clock_is_off_as_a_file_says(tmp_path: Path) -> None:
    write_skew(tmp_path / "skew", 0.0)
    clock = SkewedClock(tmp_path / "skew")
    for skew in (0.0, 60.0, -60.0):
        write_skew(tmp_path / "skew", skew)
        assert abs(clock.now() - time.time() - skew) < 1
        assert abs(clock.monotonic() - time.monotonic()) < 1


# The judge.


def make_fault(began: float, healed: float, kind: str = "node: killed", complaint: str | None = None) -> Fault:
    return Fault(Plan(began, kind, 0, healed - began, 1), began, healed, complaint)


def test_what_was_felt_of_a_fault() -> None:
    moments = Moments(array("d", [9.0, 10.5, 12.5]))
    for node, (acknowledged, sent) in enumerate([(12.1, 12.0), (13.0, 11.9)]):
        moments.acknowledgements[f"publisher-at-{node}"] = array("d", [9.0, acknowledged])
        moments.deliveries[f"subscriber-at-{node}"] = array("d", [12.2, 14.0]), array("d", [sent, 13.0])
    [felt] = measure([make_fault(10.0, 12.0)], moments, 2)
    assert (felt.refused, felt.acknowledged, felt.delivered, felt.is_alone) == (0.5, 1.0, 2.0, True)
    [quiet] = measure([make_fault(10.0, 10.4)], moments, 2)
    assert quiet.refused is None
    [never] = measure([make_fault(10.0, 20.0)], moments, 2)
    assert never.acknowledged == never.delivered == NEVER


@pytest.mark.parametrize(("began", "is_alone"), [(15.0, True), (13.5, False), (11.0, False)])
def test_a_fault_before_all_is_well_again_makes_neither_alone(began: float, is_alone: bool) -> None:
    moments = Moments()
    moments.acknowledgements["publisher-at-0"] = array("d", [12.5, 16.5])
    moments.deliveries["subscriber-at-0"] = array("d", [14.0, 17.0]), array("d", [12.5, 16.6])
    first, second = measure([make_fault(10.0, 12.0), make_fault(began, began + 1, "redis: killed")], moments, 1)
    assert first.is_alone == second.is_alone == is_alone
    assert rows_of([first, second])["node: killed"]["alone"] == float(is_alone)


def test_what_was_not_as_promised_is_named() -> None:
    alone = Felt(make_fault(1.0, 2.0), None, 0.1, 3.0, is_alone=True)
    assert judge_felt([alone], 4.0) == []
    assert "not every node was back within 2 s, but after 3.0 s" in judge_felt([alone], 2.0)[0]
    assert judge_felt([replace(alone, is_alone=False)], 2.0) == []
    assert judge_felt([replace(alone, is_alone=False, delivered=NEVER)], 2.0)
    assert "it fell" in judge_felt([Felt(make_fault(1.0, 2.0, complaint="it fell"), None, 0.1, 0.1)], 4.0)[0]


@pytest.mark.parametrize("words", [SECRET, f"redis://soak:{PASSWORD}@host", "token eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.x"])
def test_a_secret_in_what_was_said_is_named_and_not_shown(words: str) -> None:
    [complaint] = judge_words({"node-0": ["listening", f"what of {words}?"], "node-1": ["listening"]})
    assert "node-0 told a secret" in complaint and words not in complaint


def test_a_traceback_is_shown() -> None:
    [complaint] = judge_words({"worker-1": ["took 1 1 1.0", TRACEBACK + ":", "  it fell"]})
    assert "worker-1 wrote 1 traceback" in complaint and "it fell" in complaint


def write_run(folder: Path, records: list[Record]) -> None:
    for client in {record.client for record in records}:
        with Journal(folder, client) as journal:
            for record in records:
                if record.client == client:
                    journal.write(record)


def publish(room: str, offset: int, at: float) -> list[Record]:
    id = f"{room}.{offset}"
    return [
        Attempt("publisher-at-0", room, id, at=at),
        Unknown("publisher-at-0", room, id, "unavailable", at=at + 0.1),
        Acknowledged("publisher-at-0", room, id, "e1", offset, at=at + 0.2),
        Delivered("subscriber-at-0", room, "e1", offset, id, at=at + 0.3),
    ]


def test_rooms_are_judged_one_by_one_as_all_at_once(tmp_path: Path) -> None:
    rooms = ["room-1", "room-11"]
    records = [record for room in rooms for record in (Joined("subscriber-at-0", room, "e1", 0), *publish(room, 1, 1.0), *publish(room, 2, 2.0))]
    records.remove(next(record for record in records if isinstance(record, Delivered) and record.id == "room-11.2"))
    write_run(tmp_path, records)
    log = [Entry(room, "e1", offset, f"{room}.{offset}") for room in rooms for offset in (1, 2)]
    assert check_rooms(tmp_path, rooms[:1], log, log[:2]).is_clean
    verdict = check_rooms(tmp_path, rooms, log, log)
    assert verdict.counts["sent"] == 4 and verdict.faults["lost"] == 1 and "room-11.2" in verdict.examples["lost"][0]
    moments = read_moments(tmp_path, rooms)
    assert list(moments.refusals) == [1.1, 1.1, 2.1, 2.1]
    assert [list(times) for times in moments.deliveries["subscriber-at-0"]] == [[1.3, 1.3, 2.3], [1.0, 1.0, 2.0]]


def test_what_became_of_messages_of_the_queue() -> None:
    assert Effects({"a"}, {"a"}, 0, 3).complaints == []
    missing, invented, left = Effects({"a", "b"}, {"b", "c"}, 1, 0).complaints
    assert "1 messages were acknowledged and had no effect, such as a" in missing and "nobody was told of, such as c" in invented and "left" in left


@pytest.mark.parametrize(
    ("told", "complaint"),
    [
        (["application-0.1", "application-0.2", "serial-0.1"], ""),
        (["application-0.2"], "application-0.1 was committed, and room was not told"),
        (["application-0.1", "application-0.2", "application-0.3"], "room was told of application-0.3, which was not committed"),
        (["application-0.2", "application-0.1"], "told of application-0.1 after application-0.2"),
    ],
)
async def test_what_an_application_committed_is_what_was_told(tmp_path: Path, told: list[str], complaint: str) -> None:
    with sqlite3.connect(tmp_path / "own.db") as own:
        own.execute("CREATE TABLE soak_orders (id TEXT PRIMARY KEY, room TEXT)")
        own.executemany("INSERT INTO soak_orders VALUES (?, 'room')", [("application-0.1",), ("application-0.2",)])
    own.close()
    application = Application(f"sqlite:///{tmp_path}/own.db", tmp_path, ["room"], rate=1, seed=1)
    found = await application.judge([Entry("room", "e1", offset, id) for offset, id in enumerate(told, 1)])
    await application.close()
    assert application.committed == 2 and complaint in "".join(found) and bool(found) == bool(complaint)


def test_a_node_that_grew_is_named() -> None:
    size = Size(100 * MB, 30)
    memory = Memory([], beginning=[size, size], end=[size, replace(size, bytes=size.bytes + MOST_GROWTH)])
    assert memory.complaints == []
    memory.end = [Size(size.bytes + MOST_GROWTH + 1, 100)]
    assert len(memory.complaints) == 2
