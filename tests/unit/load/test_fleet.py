"""The clients of a load process against a server that is wrong on purpose: whatever it does wrong is seen, and nothing else is."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from aibos_realtime.load import fleet as module
from aibos_realtime.load import opening
from aibos_realtime.load.fleet import Fleet
from aibos_realtime.load.histogram import Histogram, HistogramRecord
from aibos_realtime.load.judge import Verdict
from aibos_realtime.load.layout import Layout
from aibos_realtime.load.plan import ClientPlan, Opened, Place, Plan, Report, Scenario

from .faulty_server import FaultyServer

HEAD_START = 20_000


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUIET", 0.1)
    monkeypatch.setattr(module, "LONGEST_QUIET", 0.4)
    monkeypatch.setattr(opening, "PAUSE", 0.02)
    monkeypatch.setattr(opening, "STALLED", 0.2)


def plan_for(place: Place, scenario: Scenario = Scenario.FANOUT, *, clients: int = 4, rooms: int = 1, senders: int = 2, **more: Any) -> Plan:
    layout = Layout(clients, rooms, clients // max(1, rooms), senders)
    numbers = layout.sender_numbers
    own = [ClientPlan(f"token_{number}", joined, numbers.get(number)) for number, joined in enumerate(layout.memberships)]
    given: dict[str, Any] = {
        "scenario": scenario, "place": place, "codec": "json", "clients": own, "rooms": [f"room_{number}" for number in range(rooms)],
        "senders": senders, "rate": 200.0, "payload": 150, "duration": 0.25, "event": "ping", "run": "run_1", "base": time.monotonic_ns(),
        "first": 0, "every": 1, **more,
    }  # fmt: skip
    return Plan(**given)


async def run(plan: Plan, meanwhile: Callable[[Fleet], object] = lambda _: None) -> tuple[Opened, Report]:
    fleet = Fleet(plan)
    try:
        opened = await fleet.open()
        if not opened.problem:
            meanwhile(fleet)
            await fleet.run(fleet.tally.now() + HEAD_START)
        return opened, fleet.report()
    finally:
        await fleet.close()


def judge(report: Report) -> Verdict:
    verdict = Verdict()
    for record in report.rooms.values():
        verdict.judge([record])
    return verdict


def count(record: HistogramRecord) -> int:
    return Histogram().add(record).count


class TestFanout:
    async def test_a_server_that_does_right_is_clean(self) -> None:
        async with FaultyServer() as server:
            opened, report = await run(plan_for(server.place, clients=6, rooms=2, senders=3))
        verdict = judge(report)
        assert opened.problem == "" and report.opened == report.present == 6
        assert report.sent == report.answered == 50 and verdict.is_clean and verdict.count == verdict.expected == 150
        assert (count(report.delivery), count(report.answer), count(report.opening), count(report.late)) == (150, 50, 6, 50)
        assert set(server.tokens) == {f"Bearer token_{number}" for number in range(6)}

    async def test_the_payload_is_as_large_as_was_asked_for(self) -> None:
        async with FaultyServer() as server:
            await run(plan_for(server.place, payload=300))
            published = [message for message in server.received if message["event"] == "bench"]
        assert published and {len(json.dumps(message["data"], separators=(",", ":"))) for message in published} == {300}

    @pytest.mark.parametrize(
        ("route", "found"),
        [
            (lambda member, event: [] if (member, event["offset"]) == (1, 7) else [event], {"lost": 1}),
            (lambda member, event: [] if event["offset"] >= 45 else [event], {"lost": 4 * 6}),
            (lambda member, event: [event] * (2 if (member, event["offset"]) == (2, 9) else 1), {"doubled": 1}),
            (lambda member, event: [event | {"data": event["data"] | {"n": 99}} if (member, event["offset"]) == (3, 5) else event], {"altered": 1}),
        ],
        ids=["one is dropped", "the last are dropped", "one comes twice", "one is changed"],
    )  # fmt: skip
    async def test_what_the_server_does_wrong_is_seen(self, route: Any, found: dict[str, int]) -> None:
        async with FaultyServer(route) as server:
            _, report = await run(plan_for(server.place))
        verdict = judge(report)
        shown = {name: getattr(verdict, name) for name in ("lost", "doubled", "reordered", "altered")}
        assert {name: number for name, number in shown.items() if number} == found and not verdict.is_clean

    async def test_two_that_change_places_are_seen(self) -> None:
        kept: list[dict[str, Any]] = []

        def swap(member: int, event: dict[str, Any]) -> list[dict[str, Any]]:
            if member == 1 and event["offset"] == 10:
                kept.append(event)
                return []
            return [event, kept.pop()] if member == 1 and kept else [event]

        async with FaultyServer(swap) as server:
            _, report = await run(plan_for(server.place))
        verdict = judge(report)
        assert (verdict.lost, verdict.reordered, verdict.doubled) == (0, 1, 0)

    async def test_a_refused_publish_is_counted_and_expected_of_nobody(self) -> None:
        def answer(message: dict[str, Any]) -> dict[str, Any] | None:
            if message["event"] == "bench" and message["data"]["n"] % 5 == 0:
                return {"event": "error", "data": {"code": "rate_limited", "message": "Too many.", "retryable": True, "retryAfter": 0.1}}
            return None

        async with FaultyServer(answer=answer) as server:
            _, report = await run(plan_for(server.place))
        assert report.errors == {"rate_limited": 10} and report.words["rate_limited"] == ["Too many."] and report.answered == 40
        assert judge(report).is_clean and judge(report).count == 4 * 40

    async def test_a_publish_without_an_answer_is_counted_and_accuses_nobody(self) -> None:
        async with FaultyServer(answer=lambda message: {} if message["event"] == "bench" and message["data"]["n"] == 3 else None) as server:
            _, report = await run(plan_for(server.place))
        assert report.unanswered == 2 and judge(report).is_clean

    async def test_as_fast_as_answered_without_a_rate(self) -> None:
        async with FaultyServer() as server:
            _, report = await run(plan_for(server.place, rate=0.0))
        assert report.answered > 50 and report.answered == report.sent and judge(report).is_clean
        assert count(report.late) == 0

    async def test_who_loses_the_connection_comes_back_and_recovers(self) -> None:
        def cut(member: int, event: dict[str, Any]) -> list[dict[str, Any]]:
            if member == 3 and event["offset"] == 5:
                server.connections[3].transport.abort()
            return [event]

        async with FaultyServer(cut) as server:
            _, report = await run(plan_for(server.place, senders=1, duration=1.5, rate=40.0))
        verdict = judge(report)
        assert report.closes == {"1006": 1} and report.reconnects == 1 and report.present == 4
        assert verdict.is_clean and verdict.announced == 0 and verdict.count == verdict.expected

    async def test_who_comes_back_to_less_is_told_and_that_is_no_loss(self) -> None:
        def cut(member: int, event: dict[str, Any]) -> list[dict[str, Any]]:
            if member == 3 and event["offset"] == 5:
                server.connections[3].transport.abort()
            return [event]

        async with FaultyServer(cut, recovers=False) as server:
            _, report = await run(plan_for(server.place, senders=1, duration=1.5, rate=40.0))
        verdict = judge(report)
        assert report.resyncs == 1 and verdict.is_clean and verdict.announced == 1 and verdict.count < verdict.expected

    async def test_it_can_be_stopped(self) -> None:
        async with FaultyServer() as server:
            plan = plan_for(server.place, duration=60.0)
            async with asyncio.timeout(10):
                _, report = await run(plan, lambda fleet: asyncio.get_running_loop().call_later(0.2, fleet.stop))
        assert 0 < report.answered < 200 and report.seconds < 10 and judge(report).is_clean


class TestOpening:
    async def test_a_server_that_asks_for_patience_is_obeyed(self) -> None:
        def refuse(attempt: int) -> tuple[int, dict[str, str], str] | None:
            return (429, {"Retry-After": "0"}, "Too many handshakes from this address.") if attempt % 3 == 0 else None

        async with FaultyServer(refuse=refuse) as server:
            opened, report = await run(plan_for(server.place, clients=30))
        assert opened.problem == "" and report.opened == 30 and report.refusals["429"] >= 10
        assert report.words["429"] == [f"{server_name(server)} answered 429: Too many handshakes from this address."]

    async def test_it_waits_as_long_as_it_is_told_to(self) -> None:
        async with FaultyServer(refuse=lambda attempt: (429, {"Retry-After": "1"}, "Later.") if attempt == 1 else None) as server:
            _, report = await run(plan_for(server.place, Scenario.IDLE, clients=1, senders=0, duration=0.1))
            assert report.opening_seconds >= 1.0 and server.attempts == 2

    async def test_where_nobody_more_is_let_in_it_ends(self) -> None:
        async with FaultyServer(refuse=lambda attempt: (503, {}, "All connections are taken.") if attempt > 5 else None) as server:
            opened, report = await run(plan_for(server.place, clients=10))
        assert opened.kind == "503" and "All connections are taken." in opened.problem and report.opened == 5 and report.sent == 0

    async def test_a_token_that_is_no_good_ends_it_at_once(self) -> None:
        async with FaultyServer(refuse=lambda _: (401, {}, "The token is not valid.")) as server:
            opened, _ = await run(plan_for(server.place, clients=200))
            assert opened.kind == "401" and "token_" not in opened.problem and server.attempts <= opening.WIDEST

    async def test_a_room_that_may_not_be_joined_ends_it(self) -> None:
        denied = {"event": "permission_denied", "data": {"code": "permission_denied", "resource": "room_0", "action": "read", "message": "No."}}
        async with FaultyServer(answer=lambda message: denied if message["event"] == "join-room" else None) as server:
            opened, _ = await run(plan_for(server.place))
        assert (opened.kind, opened.problem) == ("permission_denied", "No.")

    async def test_nobody_there(self) -> None:
        opened, _ = await run(plan_for(Place("127.0.0.1", 1, "/", False, ["127.0.0.1"])))
        assert opened.kind == "network" and "No connection to 127.0.0.1:1: Connection refused." in opened.problem

    async def test_something_else_that_listens(self) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-other\r\n\r\n")
            await reader.read()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as other:
            opened, _ = await run(plan_for(Place("127.0.0.1", other.sockets[0].getsockname()[1], "/", False, ["127.0.0.1"])))
        assert "answered 0: check the URL" in opened.problem

    async def test_each_at_its_turn(self) -> None:
        async with FaultyServer(refuse=lambda attempt: (429, {"Retry-After": "0"}, "Later.") if attempt == 2 else None) as server:
            plan = plan_for(server.place, Scenario.CONNECT, clients=20, senders=0, rate=100.0, duration=10.0)
            opened, report = await run(plan)
        assert opened.problem == "" and report.opened == 20 and report.refusals == {"429": 1}
        assert count(report.opening) == count(report.late) == 20 and report.opening_seconds >= 0.19

    async def test_at_the_end_of_its_time_it_has_as_many_as_there_are(self) -> None:
        async with FaultyServer(refuse=lambda attempt: (429, {}, "Later.") if attempt > 5 else None) as server:
            _, report = await run(plan_for(server.place, Scenario.CONNECT, clients=20, senders=0, rate=0.0, duration=0.5))
        assert report.opened == report.present == 5 and report.refusals["429"] >= 15


class TestRequests:
    async def test_each_is_answered(self) -> None:
        async with FaultyServer() as server:
            _, report = await run(plan_for(server.place, Scenario.REQUEST, rooms=0, senders=4))
        assert report.sent == report.answered == count(report.answer) == 50 and report.rooms == {}

    async def test_data_of_the_users_own(self) -> None:
        async with FaultyServer() as server:
            await run(plan_for(server.place, Scenario.REQUEST, rooms=0, senders=4, event="invoice.approve", data={"id": 1}, rate=0.0))
        assert {message["event"] for message in server.received} == {"invoice.approve"}
        assert all(message["data"] == {"id": 1} for message in server.received)

    async def test_a_pause_of_the_server_is_in_every_latency_that_it_caused(self) -> None:
        """Coordinated omission: what was due while the server slept waited for it, though it was sent later."""

        def answer(message: dict[str, Any]) -> dict[str, Any] | None:
            if message["data"]["n"] == 5:
                end = time.monotonic() + 0.3
                while time.monotonic() < end:  # blocks this very loop, and so the clients too
                    pass
            return None

        async with FaultyServer(answer=answer) as server:
            _, report = await run(plan_for(server.place, Scenario.REQUEST, clients=1, rooms=0, senders=1, rate=100.0, duration=0.6))
        slow = sum(number for end, number in Histogram().add(report.answer).bars() if end > 0.05)
        assert report.answered == 60 and slow >= 20, "of thirty that were due during the pause"


class TestIdle:
    async def test_who_is_cut_off_is_counted(self) -> None:
        async with FaultyServer() as server:
            plan = plan_for(server.place, Scenario.IDLE, senders=0, duration=0.2)
            loop = asyncio.get_running_loop()
            closing: list[asyncio.Task[None]] = []

            async def end() -> None:
                await server.connections[0].close(4503, "revoked")

            _, report = await run(plan, lambda _: loop.call_later(0.05, lambda: closing.append(loop.create_task(end()))))
            await asyncio.gather(*closing)
        assert report.closes == {"4503": 1} and report.words["4503"] == ["revoked"] and report.present == 3


def server_name(server: FaultyServer) -> str:
    return f"127.0.0.1:{server.attempts and server.connections[0].local_address[1]}"
