"""That what was promised and not kept is seen: by figures made by hand, and by data that a Redis lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.checker import Verdict
from tests.faults.journal import Acknowledged, Attempt, Delivered, Record
from tests.faults.node_proof import Bench, Fault, Outcome, judge, measure_back
from tests.faults.redis_data import INTAKE, LAYOUT, connect, cut_tail, empty, flush, read_kept, start
from tests.servers.redis import running_redis

NEVER = float("inf")


async def do_nothing(bench: Bench) -> None:
    """A fault that is none."""


def outcome(*, acknowledged_after: float = 0.1, delivered_after: float = 0.1, slowest_refusal: float = 0.1, told: int = 0) -> Outcome:
    verdict = Verdict()
    verdict.counts["told of a gap"] = told
    return Outcome("nothing", verdict, acknowledged_after, delivered_after, slowest_refusal, [])


@pytest.mark.parametrize(
    ("found", "complaint"),
    [
        (outcome(), None),
        (outcome(acknowledged_after=2.1), "acknowledge"),
        (outcome(delivered_after=NEVER), "deliver"),
        (outcome(slowest_refusal=2.6), "heard of it after"),
        (outcome(told=1), "told 1 times"),
    ],
)
def test_what_was_not_kept_is_named(found: Outcome, complaint: str | None) -> None:
    complaints = judge(found, Fault(do_nothing), 1.0)
    assert (complaint is None and not complaints) or (complaint is not None and complaint in complaints[0])
    assert judge(found, Fault(do_nothing, back=NEVER, refusal=None, is_told=True), 1.0) == []


def test_a_verdict_that_is_not_clean_is_a_complaint() -> None:
    found = outcome()
    found.verdict.add("lost", "ann.1")
    assert "lost: 1" in judge(found, Fault(do_nothing, is_told=True), 4.0)[0]


def published(node: int, id: str, sent: float, acknowledged: float, offset: int) -> list[Record]:
    client = f"publisher-at-{node}"
    return [Attempt(client, "room", id, at=sent), Acknowledged(client, "room", id, "e1", offset, at=acknowledged)]


def test_back_is_the_slowest_node() -> None:
    before = [*published(0, "a.1", 1.0, 9.0, 1), *published(0, "a.2", 11.0, 12.0, 2), *published(1, "b.1", 9.0, 13.0, 3)]
    late = [Delivered(f"subscriber-at-{node}", "room", "e1", 1, "a.1", at=11.0) for node in range(2)]
    new = [Delivered("subscriber-at-0", "room", "e1", 2, "a.2", at=12.0), Delivered("subscriber-at-1", "room", "e1", 2, "a.2", at=14.0)]
    assert measure_back([*before, *late, *new], 10.0, 2) == (3.0, 4.0)
    assert measure_back([*before, *late, *new[:1]], 10.0, 2) == (3.0, NEVER)  # what was sent before the end proves nothing
    assert measure_back(published(0, "a.1", 1.0, 9.0, 1), 10.0, 1) == (NEVER, NEVER)


async def test_what_a_redis_has_and_loses(tmp_path: Path) -> None:
    with running_redis() as redis:
        with connect(redis) as client:
            client.hset(LAYOUT.of_room("room", "head"), "epoch", "e1")
            for offset in range(1, 101):
                client.xadd(LAYOUT.of_room("room", "log"), {"r": "{}", "t": offset}, id=f"{offset}-0")
                client.xadd(INTAKE, {"p": f"e1 {offset} 0", "m": "room", "r": "x" * 1000, "k": "1"})
        full = {("room", "e1", offset) for offset in range(1, 101)}
        redis.stop()
        assert read_kept(redis, ["room", "other"]) == read_kept(redis, None) == full
        cut_tail(redis, 10_000)
        rest = read_kept(redis, None)
        assert rest < full and ("room", "e1", 1) in rest and 5 <= len(full - rest) <= 15
        await start(redis)
        assert flush(redis, None) == rest
        assert flush(redis, ["room"]) == set()
        redis.stop()
        empty(redis)
        assert read_kept(redis, ["room"]) == set()
