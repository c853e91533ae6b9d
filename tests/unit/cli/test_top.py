"""`aibos-realtime top`: what it makes of the nodes' samples, how it draws them, and how it lives on a terminal."""

from __future__ import annotations

import io
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from aibos_realtime.admin.reports import NodeReport, RoomPage, Sample
from aibos_realtime.cli import top as module
from aibos_realtime.cli.api import Api, Credential
from aibos_realtime.cli.exits import ExitCode
from aibos_realtime.cli.top import Look, Observer, Rates, curve, rates_of
from aibos_realtime.cli.top_screen import draw, draw_curve, facts, node_rows
from tests.network.processes import Process

from .conftest import Command
from .stub_api import Asked, StubApi, act, node, problem, room, samples
from .terminal import Terminal


def web_1(**more: Any) -> NodeReport:
    """A node with 100 events and 2,000 deliveries a second."""
    given = {"connections": 12, "max_connections": 100, "latency_p99": 0.0031, "loop_lag": 0.002, "memory": 64_000_000, "cpu": 0.25, **more}
    return node("web-1", **{"samples": samples(20, events=100, deliveries=2000), **given})


@pytest.fixture(autouse=True)
def _two_nodes(stub: StubApi) -> None:
    stub.answers["GET /nodes"] = {"nodes": [web_1().to_wire(), node("web-2", state="draining", gaps_lost=2).to_wire()]}
    stub.answers["GET /rooms"] = RoomPage(rooms=[room("quiet", connections=1), room("busy", connections=9)], cursor=None)
    stub.answers["GET /acts"] = {"acts": [act("kick", user_id="user_\x1b[2J1", room_id="busy", by="user:boss").to_wire()]}


class TestRates:
    def test_are_the_average_of_the_last_seconds(self) -> None:
        assert rates_of(samples(60, events=100, deliveries=2000)) == Rates(100.0, 2000.0, 1.0)
        burst = [*samples(10), *samples(2, start=1_700_000_010.0, events=50)]
        assert rates_of(burst).events == 10.0

    def test_need_two_samples(self) -> None:
        assert rates_of([]) == rates_of(samples(1)) == Rates()

    def test_the_curve_is_of_all_nodes_up_to_the_second_that_each_has_told_of(self) -> None:
        early, late = samples(4, events=10), samples(6, events=1)
        assert curve([early, late], "events") == [11.0, 11.0, 11.0]
        assert curve([early, []], "events") == [10.0, 10.0, 10.0]
        assert curve([], "events") == curve([samples(1)], "events") == []

    def test_the_curve_is_no_longer_than_a_minute_and_a_pause_is_zero(self) -> None:
        assert len(curve([samples(100, events=1)], "events")) == module.KEPT
        paused = [*samples(2, events=5), *samples(2, start=1_700_000_004.0, events=5)]
        assert curve([paused], "events")[:3] == [5.0, 0.0, 0.0]


class TestLooking:
    def test_samples_are_asked_for_once(self, stub: StubApi) -> None:
        since: list[float] = []

        def answer(asked: Asked) -> dict[str, Any]:
            since.append(float(asked.query["since"]))
            every = samples(20 + len(since), events=100)
            return {"nodes": [web_1(samples=[one for one in every if one.time > since[-1]]).to_wire()]}

        stub.answers["GET /nodes"] = answer
        observer = Observer(Api(stub.url, Credential("token_a", "--token")))
        looks = [observer.look() for _ in range(7)]
        assert since == [0.0, *(1_700_000_020.0 + number for number in range(6))]
        assert len(looks[-1].events) == 26 and set(looks[-1].events) == {100.0}
        assert [asked.path for asked in stub.asked].count("/rooms") == 2, "not with every look"

    def test_a_node_that_has_gone_is_forgotten(self, stub: StubApi) -> None:
        observer = Observer(Api(stub.url, Credential("token_a", "--token")))
        assert set(observer.look().rates) == {"id-web-1", "id-web-2"}
        stub.answers["GET /nodes"] = {"nodes": [node("web-2").to_wire()]}
        look = observer.look()
        assert set(look.rates) == {"id-web-2"} and look.events == []

    def test_a_node_that_is_silent_is_shown_for_a_while(self, stub: StubApi, monkeypatch: pytest.MonkeyPatch) -> None:
        observer = Observer(Api(stub.url, Credential("token_a", "--token")))
        assert observer.look().silent == []
        stub.answers["GET /nodes"] = {"nodes": [web_1().to_wire()]}
        seen = observer.look()
        assert [one.name for one in seen.silent] == ["web-2"] and seen.to_json()["silent"] == ["web-2"]
        assert [cell[0] for cell in node_rows(seen, wide=True)[2][:2]] == ["web-2", "silent"]
        assert "nodes 1   silent 1" in "".join(part if isinstance(part, str) else part[0] for part in facts(seen)[0])
        monkeypatch.setattr(module, "REMEMBERED", 0.0)
        assert observer.look().silent == []

    def test_a_node_that_was_started_anew_is_not_silent(self, stub: StubApi) -> None:
        observer = Observer(Api(stub.url, Credential("token_a", "--token")))
        observer.look()
        stub.answers["GET /nodes"] = {"nodes": [web_1(id="another life").to_wire(), node("web-2").to_wire()]}
        assert observer.look().silent == []

    def test_rooms_are_the_busiest_first(self, stub: StubApi) -> None:
        assert [one.id for one in Observer(Api(stub.url, Credential("token_a", "--token"))).look().rooms] == ["busy", "quiet"]


def look(nodes: int = 2, rooms: int = 3) -> Look:
    reports = [web_1(), *(node(f"node-{number}", samples=[]) for number in range(nodes - 1))]
    rates = {one.id: rates_of(one.samples) for one in reports}
    found = [room(f"room_{number}") for number in range(rooms)]
    return Look(1_700_000_000.0, reports, [], rates, found, False, [act("connect", user_id="ann")], [1.0, 8.0], [0.0, 0.0])


def drawn(seen: Look, width: int, height: int, trouble: str = "") -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(draw(seen, trouble, "http://localhost:3001", width, height))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in shown.splitlines()]


class TestDrawing:
    @pytest.mark.parametrize(("width", "height"), [(200, 60), (130, 40), (100, 30), (80, 24), (40, 12), (20, 5)])
    @pytest.mark.parametrize(("nodes", "rooms"), [(1, 0), (3, 5), (50, 200)])
    def test_it_fits_every_terminal(self, width: int, height: int, nodes: int, rooms: int) -> None:
        lines = drawn(look(nodes, rooms), width, height)
        assert all(len(line) <= width for line in lines)
        assert len(lines) <= max(height, 14), lines

    def test_what_is_there(self) -> None:
        shown = "\n".join(drawn(look(), 160, 40))
        assert "aibos-realtime top  q ends  http://localhost:3001  " in shown
        assert "connections 12   rooms 3   events 100/s   deliveries 2000/s   nodes 2" in shown
        for text in ("web-1", "12/100", "3.1 ms", "25%", "64 MB", "busiest rooms", "room_0", "newest acts", "connect", "ann", "▂█"):
            assert text in shown

    def test_trouble_is_shown_with_what_was_known_last(self) -> None:
        shown = "\n".join(drawn(look(), 160, 40, "Nothing listens at localhost:3001."))
        assert "Nothing listens at localhost:3001." in shown and "web-1" in shown

    def test_a_curve(self) -> None:
        assert draw_curve([0, 4, 8], 10) == "▁▅█" and draw_curve([0, 4, 8], 2) == "▅█"
        assert draw_curve([0, 0], 10) == "▁▁" and draw_curve([], 10) == "" and draw_curve([1], 0) == ""
        assert draw_curve([0, 8], 9, "_#") == "_#"


class TestTheCommand:
    def test_once(self, command: Command) -> None:
        ended = command("top", "--once")
        assert (ended.code, ended.err) == (0, "") and "\x1b" not in ended.out
        assert "connections 12   rooms 2   events 100/s   deliveries 2000/s   nodes 2\n" in ended.out
        assert "gaps lost 2\n" in ended.out and "user_\\u001b[2J1, in busy, on web-1, by user:boss\n" in ended.out

    def test_once_for_scripts(self, command: Command) -> None:
        found = json.loads(command("top", "--once", "--json").out)
        assert found["totals"] == {"connections": 12, "rooms": 2, "moreRooms": False, "eventsRate": 100.0, "deliveriesRate": 2000.0}
        assert [(one["name"], one["state"], one["eventsRate"]) for one in found["nodes"]] == [("web-1", "ok", 100.0), ("web-2", "draining", None)]
        assert found["rooms"][0]["id"] == "busy" and found["acts"][0]["by"] == "user:boss" and "samples" not in found["nodes"][0]

    def test_it_needs_a_terminal(self, command: Command, stub: StubApi) -> None:
        ended = command("top")
        assert ended.code == ExitCode.USAGE and "top draws on a terminal: add --once or --json." in ended.err and stub.asked == []

    def test_at_first_the_server_has_to_be_there(self, command: Command, stub: StubApi) -> None:
        stub.answers["GET /nodes"] = problem(403, "permission_denied", "This is for operators.")
        ended = command("top", "--json")
        assert ended.code == ExitCode.PERMISSION and "This is for operators. Use a token with a role" in ended.err and ended.out == ""

    def test_for_scripts_it_goes_on_while_the_server_is_away(self, folder: Path, stub: StubApi) -> None:
        nodes = stub.answers["GET /nodes"]
        with Process(folder, "top", "--json", REALTIME_URL=stub.url, REALTIME_TOKEN="token_a") as process:
            process.wait_for('"nodes"')
            stub.answers["GET /nodes"] = problem(503, "unavailable", "The server stops.")
            assert json.loads(process.wait_for('"error"'))["error"] == "The server stops."
            stub.answers["GET /nodes"] = nodes
            process.wait_for('"nodes"', sum('"nodes"' in line for line in process.lines) + 1)
            assert process.end(signal.SIGTERM) == 0 and process.error_lines == []

    def test_a_token_that_is_refused_meanwhile_ends_it(self, folder: Path, stub: StubApi) -> None:
        with Process(folder, "top", "--json", REALTIME_URL=stub.url, REALTIME_TOKEN="token_a") as process:
            process.wait_for('"nodes"')
            stub.answers["GET /nodes"] = problem(401, "authentication_failed", "The token is not valid.")
            process.wait_for("The token is not valid. Is it whole")
            assert process.end(None) == ExitCode.TOKEN


class TestOnATerminal:
    def test_it_draws_again_shows_trouble_and_ends_with_q(self, folder: Path, stub: StubApi) -> None:
        nodes = stub.answers["GET /nodes"]
        with Terminal(folder, "top", REALTIME_URL=stub.url, REALTIME_TOKEN="token_a") as terminal:
            shown = terminal.wait_for("q ends", count=2)
            assert "web-1" in shown and "busy" in shown and "\x1b[?1049h" in shown
            assert terminal.settings() != terminal.before, "what is typed is not shown"
            stub.answers["GET /nodes"] = problem(503, "unavailable", "The server stops.")
            terminal.wait_for("The server stops.")
            stub.answers["GET /nodes"] = nodes
            terminal.forget()
            terminal.wait_for("q ends")
            terminal.press("xq")
            code, shown = terminal.end(None)
            assert code == 0 and "\x1b[?25h" in shown and "\x1b[?1049l" in shown and "Traceback" not in shown
            assert terminal.settings() == terminal.before

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_signal_ends_it(self, folder: Path, stub: StubApi, number: int) -> None:
        with Terminal(folder, "top", columns=80, lines=24, REALTIME_URL=stub.url, REALTIME_TOKEN="token_a") as terminal:
            terminal.wait_for("q ends")
            code, shown = terminal.end(number)
            assert code == 0 and "\x1b[?1049l" in shown and "Traceback" not in shown
            assert terminal.settings() == terminal.before


def test_the_reports_have_what_is_drawn() -> None:
    assert {"events", "deliveries", "messages_in", "time"} <= Sample.model_fields.keys()
