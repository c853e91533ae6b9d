"""The way into one shard: what waits, what goes together, and what happens to the rest when something goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from aibos_realtime import BrokerUnavailable, Overloaded, Position
from aibos_realtime.backends.base import Draft, Receipt
from aibos_realtime.metrics import Metrics
from aibos_realtime.storage import lane as module
from aibos_realtime.storage.lane import Lane, Submission
from aibos_realtime.testing.clock import settle


class Rig:
    """A lane whose batches wait at a gate, are written down and answered; `fails` says of one what it raises."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.lane = Lane(3, self._append, self.metrics)
        self.batches: list[list[bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fails: BaseException | None = None
        self.leaves_open = False

    async def _append(self, shard: int, batch: Sequence[Submission]) -> None:
        assert shard == 3
        self.batches.append([draft.data for draft, _ in batch])
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        for draft, receipt in batch:
            if not receipt.done() and not self.leaves_open:
                receipt.set_result(Receipt(draft.id, draft.room, Position("e", 1)))

    def submit(self, data: bytes = b"1") -> asyncio.Future[Receipt]:
        receipt: asyncio.Future[Receipt] = asyncio.get_running_loop().create_future()
        receipt.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.lane.submit(Submission(Draft("lobby", "note", data, "id"), receipt))
        return receipt


def kinds(receipts: list[asyncio.Future[Receipt]]) -> list[Any]:
    return [type(receipt.exception() or receipt.result()) if receipt.done() else None for receipt in receipts]


async def test_what_comes_while_one_batch_is_on_its_way_makes_the_next() -> None:
    rig = Rig()
    rig.gate.clear()
    receipts = [rig.submit(b"%d" % number) for number in range(3)]
    await settle()
    receipts += [rig.submit(b"%d" % number) for number in range(3, 6)]
    rig.gate.set()
    await rig.lane.drain()
    assert rig.batches == [[b"0", b"1", b"2"], [b"3", b"4", b"5"]] and kinds(receipts) == [Receipt] * 6


async def test_a_batch_is_bounded_in_events_and_bytes() -> None:
    rig = Rig()
    for data in (b"1" * 600_000, b"2" * 600_000, b"3" * 600_000, *([b"4"] * 700)):
        rig.submit(data)
    await rig.lane.drain()
    assert [len(batch) for batch in rig.batches] == [2, 128, 128, 128, 128, 128, 61]


async def test_what_waits_is_bounded_in_events_and_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_WAITING", 10)
    monkeypatch.setattr(module, "MAX_WAITING_BYTES", 100)
    for data, fit in ((b"1", 10), (b"1" * 40, 3)):
        rig = Rig()
        receipts = [rig.submit(data) for _ in range(12)]
        assert kinds(receipts) == [None] * fit + [Overloaded] * (12 - fit) and rig.metrics.publishes_refused == 12 - fit
        await rig.lane.drain()
        assert kinds([rig.submit(data)]) == [None], "there is room again"
        await rig.lane.drain()


async def test_an_error_is_everybodys_who_waits_and_no_later_one() -> None:
    rig = Rig()
    rig.gate.clear()
    receipts = [rig.submit()]
    await settle()
    receipts += [rig.submit() for _ in range(600)]
    rig.fails = BrokerUnavailable("gone")
    rig.gate.set()
    await rig.lane.drain()
    assert kinds(receipts) == [BrokerUnavailable] * 601 and len(rig.batches) == 1
    errors = {id(receipt.exception()) for receipt in receipts}
    assert len(errors) == 601, "each has its own"
    rig.fails = None
    later = rig.submit()
    await rig.lane.drain()
    assert kinds([later]) == [Receipt]


async def test_receipts_that_a_batch_leaves_open_are_not_the_lanes() -> None:
    """They wait for the store."""
    rig = Rig()
    rig.leaves_open = True
    receipt = rig.submit()
    await rig.lane.drain()
    assert not receipt.done()


async def test_stopping_refuses_what_waits_and_what_is_on_its_way() -> None:
    rig = Rig()
    rig.gate.clear()
    receipts = [rig.submit() for _ in range(600)]
    await settle()
    await rig.lane.stop(BrokerUnavailable("stopped"))
    assert kinds(receipts) == [BrokerUnavailable] * 600
    await rig.lane.drain()
    await rig.lane.stop(BrokerUnavailable("stopped"))
