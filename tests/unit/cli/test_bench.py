"""`aibos-realtime bench`: what may be asked for, and how it is shared out. With real servers: `tests/network/test_bench.py`."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime.auth.authentication import WebSocketAuth
from aibos_realtime.cli import bench as module
from aibos_realtime.cli.bench import check_descriptors, choose_processes, default_rate, find_duration, make_layout, make_plans
from aibos_realtime.cli.bench_target import Tokens
from aibos_realtime.cli.exits import ExitCode, Failure
from aibos_realtime.load.layout import Layout
from aibos_realtime.load.plan import Place, Scenario

from .bench_reports import settings
from .conftest import SECRET, Command

PLACE = Place("localhost", 3001, "/", False, ["127.0.0.1"])


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["banana"], 2, "'banana' is not one of"),
        (["request", "--rooms", "3"], 2, "--rooms goes with fanout, connect and idle, not with request."),
        (["request", "--room", "a"], 2, "--room goes with fanout, connect and idle, not with request."),
        (["idle", "--publishers", "3"], 2, "--publishers goes with fanout, not with idle."),
        (["connect", "--data", "1"], 2, "--data goes with request, not with connect."),
        (["--event", "invoice.approve"], 2, "--event goes with request, not with fanout."),
        (["--rooms", "2", "--room", "a"], 2, "--room names the rooms, and so says how many"),
        (["--members", "101"], 2, "--members: 101 were asked for, of 100 clients: raise --clients."),
        (["--publishers", "101"], 2, "--publishers: 101 were asked for, of 100 clients: raise --clients."),
        (["connect", "--rate", "5", "--duration", "19"], 2, "--duration: 100 clients at 5 a second need 20 s, and 19 were given."),
        (["--clients", "0"], 2, "--clients"),
        (["--rate", "-1"], 2, "--rate"),
        (["--room", "no room"], 4, "room name is not valid"),
        (["request", "--event", "join-room"], 4, "has a meaning of its own"),
        (["request", "--event", "a", "--data", "{"], 3, "is not JSON"),
        (["--save", "no/such/folder.json"], 2, "--save: no/such/folder.json cannot be written: No such file or directory."),
        (["--url", "banana"], 6, "There is no token for this server"),
        (["--url", "banana", "--token", "a"], 2, "--url: no scheme was given"),
        (["--url", "ws://127.0.0.1:1", "--token", "a"], 5, "Nothing listens at 127.0.0.1:1"),
        (["--url", "ws://nowhere.invalid", "--token", "a"], 5, "The host of nowhere.invalid:80 is not known"),
        ([], 6, "no demo runs in this folder"),
    ],
)
def test_a_mistake_is_a_sentence_before_anything_begins(command: Command, words: list[str], code: int, says: str) -> None:
    ended = command("bench", *words)
    assert (ended.code, ended.out) == (code, "") and says in ended.err and "Traceback" not in ended.err


class TestLayout:
    def test_by_default_one_room_with_everybody_and_ten_publishers(self) -> None:
        assert make_layout(Scenario.FANOUT, 100, 1, None, None) == Layout(100, 1, 100, 10)

    def test_each_room_has_a_publisher(self) -> None:
        assert make_layout(Scenario.FANOUT, 100, 25, None, None) == Layout(100, 25, 4, 25)
        assert make_layout(Scenario.FANOUT, 4, 10, None, None) == Layout(4, 10, 1, 4), "as far as there are clients"

    def test_in_a_request_everybody_sends_and_nobody_joins(self) -> None:
        assert make_layout(Scenario.REQUEST, 30, 1, None, None) == Layout(30, 0, 0, 30)

    def test_to_open_and_to_be_idle_nobody_sends(self) -> None:
        assert make_layout(Scenario.IDLE, 30, 3, None, None).senders == make_layout(Scenario.CONNECT, 30, 3, 20, None).senders == 0

    def test_the_rate_is_what_a_server_allows_unless_it_is_told_otherwise(self) -> None:
        assert default_rate(Scenario.FANOUT, 10) == 100.0 and default_rate(Scenario.REQUEST, 30) == 300.0
        assert default_rate(Scenario.CONNECT, 0) == default_rate(Scenario.IDLE, 0) == 0.0

    def test_it_lasts_ten_seconds_and_to_open_as_long_as_the_rate_takes_besides(self) -> None:
        assert find_duration(Scenario.FANOUT, 2000, 100.0, None) == find_duration(Scenario.CONNECT, 2000, 0.0, None) == 10.0
        assert find_duration(Scenario.CONNECT, 2000, 100.0, None) == 30.0 and find_duration(Scenario.CONNECT, 2000, 100.0, 20.0) == 20.0


class TestProcesses:
    @pytest.mark.parametrize(("clients", "cores", "count"), [(1, 1, 1), (100, 64, 1), (2001, 8, 2), (100_000, 8, 4), (100_000, 1, 1)])
    def test_half_of_the_cores_at_most(self, clients: int, cores: int, count: int) -> None:
        assert choose_processes(clients, cores) == count

    def test_open_files_are_counted_before_it_begins(self) -> None:
        check_descriptors(1000, 1032)
        check_descriptors(10**6, resource.RLIM_INFINITY)
        with pytest.raises(Failure, match=r"1,001 connections need 1,033 open files, and this user may have 1,032 in each process: raise") as failed:
            check_descriptors(1001, 1032)
        assert failed.value.code is ExitCode.USAGE

    def test_too_many_for_this_user(self, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (100, 100))
        ended = command("bench", "--clients", "200", "--token", "a")
        assert ended.code == 2 and "share the connections among more --processes" in ended.err


class TestPlans:
    def plans(self, tokens: Tokens, **more: Any) -> list[Any]:
        given = settings(**{"clients": 5, "rooms": ["bench:r:0", "bench:r:1"], "members": 2, "senders": 2, "processes": 2, **more})
        return make_plans(given, Layout(5, 2, 2, 2), tokens, PLACE, None, 1234)

    def test_clients_are_dealt_out_like_cards(self) -> None:
        first, second = self.plans(Tokens("r", "token_1", None, 60.0))
        assert [one.rooms for one in first.clients] == [[0], [1], []] and [one.rooms for one in second.clients] == [[0], [1]]
        assert [one.sender for one in first.clients] == [0, 1, None] and [one.sender for one in second.clients] == [None, None]
        assert (first.first, second.first, first.every, second.every) == (0, 1, 2, 2)
        assert first.base == second.base == 1234 and first.senders == second.senders == 2

    def test_each_has_a_token_of_its_own_where_there_is_a_secret(self) -> None:
        auth = WebSocketAuth(jwt_secret=SECRET)
        found = [auth.identify_now(one.token) for plan in self.plans(Tokens("r", None, auth, 60.0)) for one in plan.clients]
        users = [one.user for one in found if one is not None]
        assert [user.id for user in users] == [f"bench-r-{number}" for number in (0, 2, 4, 1, 3)]
        assert [user.role for user in users] == ["service", "service", "user", "user", "user"]
        assert [user.tenant_id for user in users] == ["bench-r-0", "bench-r-1", None, "bench-r-0", "bench-r-1"]

    def test_a_token_that_was_given_is_everybodys(self) -> None:
        assert {one.token for plan in self.plans(Tokens("r", "token_1", None, 60.0)) for one in plan.clients} == {"token_1"}


def test_the_file_for_the_result_is_tried_first(command: Command, tmp_path: Path) -> None:
    ended = command("bench", "--url", "ws://127.0.0.1:1", "--token", "a", "--save", "result.json")
    assert ended.code == 5 and (tmp_path / "result.json").read_text() == ""


def test_scenarios_are_described(command: Command) -> None:
    ended = command("bench", "--help")
    assert ended.code == 0 and all(f"\n  {scenario}  " in ended.out for scenario in Scenario) and module.__doc__
