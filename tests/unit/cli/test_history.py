"""`aibos-realtime history`: pages are put together, and printed as `listen` prints events."""

from __future__ import annotations

import json

import pytest

from aibos_realtime.admin.reports import HistoryReport
from aibos_realtime.cli import history as module
from aibos_realtime.cli.exits import ExitCode
from aibos_realtime.pipeline.history import HISTORY_LIMIT

from .conftest import Command
from .stub_api import Asked, StubApi, event, problem

KEPT = range(11, 811)
"""Offsets that the room still has."""


def pages(asked: Asked) -> HistoryReport:
    limit = min(int(asked.query["limit"]), 100)  # less than was asked for, as of large events
    if "after" in asked.query:
        found = [offset for offset in KEPT if offset > int(asked.query["after"].removeprefix("e:"))]
        page, more = found[:limit], len(found) > limit
    else:
        found = [offset for offset in KEPT if offset < int(asked.query.get("before", "e:9999").removeprefix("e:"))]
        page, more = found[-limit:], len(found) > limit
    return HistoryReport(room_id="tenant_1", epoch="e", events=[event(offset, user_id="user_1") for offset in page], more=more)


@pytest.fixture(autouse=True)
def _room(stub: StubApi) -> None:
    stub.answers["GET /rooms/tenant_1/history"] = pages


def offsets(out: str) -> list[int]:
    return [json.loads(line)["offset"] for line in out.splitlines()]


def test_the_last_ones(command: Command, stub: StubApi) -> None:
    ended = command("history", "tenant_1", "--limit", "2")
    first, second = ended.out.splitlines()
    assert ended.code == 0 and ended.err == "There are older ones: --limit, --all or --before.\n"
    assert first[19:] == '  tenant_1 809  invoice.created  {"n": 809}  user_1' and first.startswith("2025-11-23 ")
    assert " 810  " in second


def test_for_scripts_they_are_as_those_of_listen(command: Command) -> None:
    ended = command("history", "tenant_1", "--limit", "1", "--json")
    assert json.loads(ended.out) == {
        "room": "tenant_1", "event": "invoice.created", "offset": 810, "epoch": "e", "id": "id-810", "data": {"n": 810}, "userId": "user_1",
        "timestamp": "2025-11-23T12:00:00.000Z",
    }  # fmt: skip
    assert ended.err == ""


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], range(791, 811)),
        (["--limit", "750"], range(61, 811)),
        (["--all"], KEPT),
        (["--before", "e:14"], range(11, 14)),
        (["--before", "14", "--limit", "2"], range(12, 14)),
        (["--after", "700"], range(701, 721)),
        (["--after", "e:700", "--all"], range(701, 811)),
        (["--after", "500", "--limit", "250"], range(501, 751)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_pages_are_put_together_in_order(command: Command, stub: StubApi, words: list[str], wanted: range) -> None:
    ended = command("history", "tenant_1", "--json", *words)
    assert ended.code == 0 and offsets(ended.out) == list(wanted)
    assert all(int(asked.query["limit"]) <= HISTORY_LIMIT for asked in stub.asked) and module.PAGE == HISTORY_LIMIT


def test_nothing_is_there(command: Command, stub: StubApi) -> None:
    stub.answers["GET /rooms/tenant_1/history"] = HistoryReport(room_id="tenant_1", epoch="e", events=[], more=False)
    assert command("history", "tenant_1") == (0, "There are no events.\n", "")
    assert command("history", "tenant_1", "--after", "7") == (0, "There are no events there.\n", "")
    assert command("history", "tenant_1", "--json") == (0, "", "")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["a b"], ExitCode.NAME, "'a b'"),
        (["tenant_1", "--before", "1", "--after", "2"], ExitCode.USAGE, "--before and --after do not go together"),
        (["tenant_1", "--before", "e:"], ExitCode.USAGE, "--before: 'e:' was given; allowed is an offset, as 120, or EPOCH:OFFSET."),
        (["tenant_1", "--after", "-1"], ExitCode.USAGE, "--after: '-1' was given"),
        (["other", "--after", "x:7"], ExitCode.REFUSED, "This position is not in the log of the room."),
        ([], ExitCode.USAGE, "Missing argument 'ROOM'"),
    ],
)
def test_what_cannot_be_done_is_a_sentence(command: Command, stub: StubApi, words: list[str], code: ExitCode, says: str) -> None:
    stub.answers["GET /rooms/other/history"] = problem(410, "unrecoverable_position", "This position is not in the log of the room.")
    ended = command("history", *words)
    assert ended.code == code and ended.out == "" and says in ended.err
