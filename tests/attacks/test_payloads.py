"""Data that breaks what it passes through: each is refused, or arrives and is stored as it was sent, and 100 good messages around it do as well.

Through events, names, ids, presence, cursors, filters and queues; the store is SQLite and PostgreSQL, whose batches one bad row would take along.
"""

from __future__ import annotations

import json
import sqlite3
from typing import Any
from urllib.parse import quote

import psycopg
import pytest

from tests.attacks.arena import Arena, Field
from tests.network.raw import Raw, frame, text

EVERYTHING = {"permissions": {"*": ["read", "write"]}}
QUIET = {"messages_per_second": None, "publishes_per_second": None}
STORE: dict[str, Any] = {"spare": 40}
"""Bounds of the arena: the database is a process on the same cores, and the server opens its connections to it at need."""

BAD_DATA = {
    "NUL": rb'"\u0000"',
    "NUL in a name": rb'{"\u0000":1}',
    "NUL, written otherwise": rb'["a","\u0000b"]',
    "half a surrogate": rb'"\ud800"',
    "the other half": rb'{"a":"\udfff"}',
    "halves in the wrong order": rb'"\udc00\ud800"',
    "64 KB of brackets": b"[" * 60_000,
    "64 KB of braces": b'{"":' * 14_000,
    "33 levels": b"[" * 33 + b"]" * 33,
    "5,000 digits": b"9" * 5000,
    "5,000 digits behind the point and an exponent": b"0." + b"9" * 5000 + b"e999",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "1e400": b"1e400",
    "-1e400": b"[-1e400]",
    "2^53 and 1": str(2**53 + 1).encode(),
    "2^64": str(2**64).encode(),
    "no JSON": b"{'a':1}",
    "a comment": b"1/**/",
    "a number with a zero before it": b"007",
    "a line feed in a text": b'"a\nb"',
}
ODD_DATA = {
    "__proto__": b'{"__proto__":{"admin":true}}',
    "constructor": b'{"constructor":{"prototype":{"admin":true}}}',
    "names of methods": b'{"toString":1,"then":2,"hasOwnProperty":3,"toJSON":4,"length":-1}',
    "names of Python": b'{"__class__":"X","__reduce__":["os.system",["id"]],"py/object":"x"}',
    "a member twice": b'{"a":1,"a":2}',
    "right to left, and nothing wide": '"\u202e\u200b\u2066x\ufeff"'.encode(),
    "letters upon letters": ('"' + "e" + "\u0301" * 2000 + '"').encode(),
    "no characters": '"\ufffe\uffff\U0010ffff"'.encode(),
    "line separators": '"\u2028\u2029\u0085"'.encode(),
    "SQL": b'"\'; DROP TABLE realtime_messages; --"',
    "SQL parameters": b'":1 $1 ?1 %s %(a)s @x {0}"',
    "a format": b'"{0.__class__.__init__.__globals__} %n%n%s %(secret)s ${jndi:ldap://127.0.0.1/x}"',
    "a template": b'"{{7*7}}${7*7}<%= 7*7 %>#{7*7}"',
    "a page": b'"<script>alert(1)</script><img src=x onerror=alert(1)>"',
    "escapes of a terminal": rb'"\u001b[2J\u001b]0;x\u0007\r\n"',
    "a formula": b"\"=cmd|' /C calc'!A0\"",
    "32 levels": b"[" * 32 + b"]" * 32,
    "the largest integers": f"[{2**53},{-(2**53)}]".encode(),
    "zeros": b"[-0,-0.0,0e0,1e-400]",
    "the largest number": b"1.7976931348623157e308",
    "10,000 members": ("{" + ",".join(f'"{number}":0' for number in range(6000)) + "}").encode(),
    "an empty name": b'{"":{"":""}}',
    "null": b"null",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    """The URL of a new database."""
    url: str = f"sqlite:///{tmp_path}/realtime.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    return url


def rows(url: str, room: str) -> list[tuple[str, str, str]]:
    """(message id, user id, data) of what is stored of a room, in order, read by nothing of ours."""
    query = "SELECT message_id, user_id, data FROM realtime_messages WHERE room_id = {} ORDER BY seq"
    if url.startswith("sqlite"):
        with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
            return connection.execute(query.format("?"), (room,)).fetchall()
    folder, name = url.rpartition("host=")[2], url.rpartition("/" if "?" not in url else "?")[0].rpartition("/")[2]
    with psycopg.connect(f"host={folder} dbname={name} user=postgres") as session:
        return session.execute(query.format("%s").encode(), (room,)).fetchall()


def on(url: str) -> dict[str, Any]:
    return {
        "persistence": {"database": {"url": url}},
        "queue": {"url": url, "queues": {"jobs": {}}},
        "http": {"requests_per_second": None},
        "authorization": EVERYTHING,
        "limits": QUIET,
    }


async def answers(connection: Raw, count: int) -> dict[int, dict[str, Any]]:
    """So many answers, by their ref; what has none is passed over."""
    found: dict[int, dict[str, Any]] = {}
    while len(found) < count:
        message = await connection.message()
        if "ref" in message:
            found[message["ref"]] = message
    return found


async def heard(connection: Raw, event: str, count: int) -> list[Any]:
    return [(await connection.message(event))["data"] for _ in range(count)]


async def test_data(arena: Arena, store: str) -> None:
    """Every bad row between 50 good messages and 50: in the room and in the store are all the good ones, and the odd ones as they were sent."""
    async with arena(f"{len(BAD_DATA | ODD_DATA)} kinds of data ({store[:8]})", **STORE, **on(store)) as field:
        async with field.member("bob", "desk") as bob, field.member("eve") as eve:
            expected: list[bytes] = []
            for name, data in (BAD_DATA | ODD_DATA).items():
                good = [text({"event": "x", "data": f"good {number}", "room": "desk", "ref": number}) for number in range(100)]
                hostile = frame(1, b'{"event":"x","data":' + data + b',"room":"desk","ref":100}')
                await eve.send(b"".join([*good[:50], hostile, *good[50:]]))
                found = await answers(eve, 101 if name not in NO_REF else 100)
                bad = found.pop(100, {"event": "error"})
                assert {one["event"] for one in found.values()} == {"ack"}, name
                assert (bad["event"] == "ack") is (name in ODD_DATA), (name, bad)
                texts = [f'"good {number}"'.encode() for number in range(100)]
                expected += texts[:50] + ([data] if name in ODD_DATA else []) + texts[50:]
                assert len(await heard(bob, "x", 101 if name in ODD_DATA else 100)) >= 100
            stored = [data for _, _, data in rows(store, "desk")]
            assert [json.loads(data) for data in stored] == [json.loads(data) for data in expected]
            assert stored == [data.decode() for data in expected], "as it was sent"
            page = (await bob.ask("history", {"roomId": "desk", "limit": 300}))["data"]["events"]
            assert [event["data"] for event in page] == [json.loads(data) for data in expected[-len(page) :]]


NO_REF = {name for name, data in BAD_DATA.items() if name in ("64 KB of brackets", "64 KB of braces")} | {
    "half a surrogate",
    "the other half",
    "halves in the wrong order",
    "NaN",
    "Infinity",
    "no JSON",
    "a comment",
    "a number with a zero before it",
    "a line feed in a text",
    "1e400",
    "-1e400",
    "5,000 digits",
    "5,000 digits behind the point and an exponent",
}
"""Whose message is none, so that nobody can say which it was."""

BAD_NAMES = {
    "NUL": "a\0b",
    "half a surrogate": "a\ud800",
    "300 bytes": "a" * 300,
    "129 characters": "a" * 129,
    "nothing": "",
    "a blank": "a b",
    "right to left": "tenant_1\u202e",
    "nothing wide": "tenant_1\u200b",
    "a look-alike": "t\u0435nant_1",
    "composed": "tenant_1\u0301",
    "SQL": "a'; DROP TABLE realtime_messages; --",
    "a format": "{0.__class__}%s",
    "a template": "{{7*7}}",
    "a glob": "tenant_*",
    "a page": "<script>",
    "a line feed": "a\nb",
    "backslashes": "..\\..\\a",
    "percent": "%2e%2e%2fa",
}
ODD_NAMES = ["__proto__", "constructor", "prototype", "toString", "then", "..", "../..", "/", "//a", "-", "--", ".", "@", ":", "a" * 128, "null", "0"]


async def test_names(arena: Arena, store: str) -> None:
    """Names of rooms and events, and ids: the same, and what is allowed is a name like any other, also where it means something to others."""
    async with arena(f"{len(BAD_NAMES)} bad and {len(ODD_NAMES)} odd names ({store[:8]})", **STORE, **on(store)) as field:
        for name in BAD_NAMES.values():
            async with field.member("eve") as eve:
                await _refused_everywhere(eve, name)
        async with field.member("bob", "desk", *ODD_NAMES) as bob, field.member("eve") as eve:
            for name in ODD_NAMES:
                assert (await eve.ask("x", {"name": name}, room=name, id=name))["event"] == "ack", name
                assert (await bob.message("x"))["room"] == name
                assert (await eve.ask(name, {"name": name}, room="desk"))["event"] == "ack", name
                assert (await bob.message(name))["data"] == {"name": name}
                assert rows(store, name) == [(name, "eve", json.dumps({"name": name}, separators=(", ", ": ")))], name
                assert [one["data"] for one in (await eve.ask("history", {"roomId": name}))["data"]["events"]] == [{"name": name}]
            assert len(rows(store, "desk")) == len(ODD_NAMES)


async def _refused_everywhere(eve: Raw, name: str) -> None:
    rows: list[tuple[str, Any, dict[str, Any]]] = [
        ("join-room", name, {}),
        ("join-room", {"roomId": name, "recover": {"epoch": name, "offset": 1}}, {}),
        ("history", {"roomId": name}, {}),
        ("presence", name, {}),
        ("x", 1, {"room": name}),
        (name, 1, {"room": "desk"}),
    ]
    for event, data, members in rows:
        eve.say(event, data, ref=1, **members)
        eve.say("ping", ref=2)
        answer = await eve.message()
        assert answer["event"] == "error" and answer["data"]["code"] == "bad_request", (name, event, answer)
        assert (await eve.message("pong"))["ref"] == 2


async def test_ids_refs_and_people(arena: Arena, store: str) -> None:
    """An id and a user's name may hold any letter: they are stored by parameters, and come back as they are."""
    people = [
        "O'Hara",
        "a; DROP TABLE x",
        "%s %(a)s {0}",
        "__proto__",
        "\u0639\u0644\u064a",
        "\U0001f600" * 30,
        "user:ann",
        "all",
        "*",
        "a/../b",
        "<b>",
    ]
    bad = ["a\0", "", "x" * 129, "a\nb", "a\x7f", "\ud800"]
    async with arena(f"ids and people ({store[:8]})", attackers=len(people), **STORE, **on(store)) as field:
        async with field.member("bob", "desk") as bob:
            for person in people:
                async with field.member(person, "desk") as one:
                    members = (await bob.ask("presence", "desk"))["data"]["members"]
                    assert sorted(member["userId"] for member in members) == sorted(["bob", person])
                    assert (await one.ask("x", person, room="desk", id=person))["data"]["id"] == person
                    got = await bob.message("x")
                    assert (got["id"], got["userId"], got["data"]) == (person, person, person)
                    one.say("ping", ref=person[:64])
                    assert (await one.message("pong"))["ref"] == person[:64]
                    for wrong in bad:
                        one.say("x", 1, room="desk", id=wrong, ref=7)
                        assert (await one.message("error"))["data"]["code"] == "bad_request", wrong
                await field.until(lambda figures: figures["connections"] == 2)
            assert [row[:2] for row in rows(store, "desk")] == [(person, person) for person in people]


async def test_cursors(arena: Arena, store: str) -> None:
    """Positions that nobody was given are refused, whatever they hold; a rewind of -1 read a room from its beginning, past every limit."""
    epochs = ["x", "", "x" * 50_000, "\u202e", "'; --", "%s{}", "\U0001f600", "*", "0-0", "(", "+"]
    offsets = [-1, 0, 1, 3, 2**53, -(2**53)]
    async with arena(f"cursors ({store[:8]})", **STORE, **on(store)) as field, field.member("eve", "desk") as eve:
        for number in range(5):
            await eve.ask("x", number, room="desk")
        top = (await eve.ask("join-room", "desk"))["data"]
        codes = set()
        for epoch in [*epochs, top["epoch"]]:
            for offset in offsets:
                for way in ("before", "after"):
                    answer = await eve.ask("history", {"roomId": "desk", "limit": 2, way: {"epoch": epoch, "offset": offset}})
                    codes.add(answer["data"].get("code"))
                    assert len(answer["data"].get("events", [])) <= 2
                joined = await eve.ask("join-room", {"roomId": "desk", "recover": {"epoch": epoch, "offset": offset}})
                assert joined["event"] == "joined-room"
                assert joined["data"]["recovered"] is (epoch == top["epoch"] and 0 <= offset <= top["offset"]), (epoch, offset)
        assert codes == {None, "unrecoverable_position"}
        for rewind in (-1, -5, -(2**53)):
            eve.say("join-room", {"roomId": "desk", "rewind": rewind}, ref=1)
            eve.say("ping", ref=2)
            while (answer := await eve.message()).get("ref") != 1:
                assert "offset" not in answer or answer["room"] == "desk"
            assert answer["data"]["code"] == "bad_request"
            assert (await eve.message())["ref"] == 2, "nothing comes for it"
        for wrong in ({"limit": 0}, {"limit": 301}, {"limit": -1}, {"limit": 2**53}, {"limit": "1"}, {"before": {"epoch": "x", "offset": 2**53 + 1}}):
            assert (await eve.ask("history", {"roomId": "desk", **wrong}))["data"]["code"] == "bad_request", wrong


async def test_http(arena: Arena, store: str) -> None:
    """The same through the HTTP API, with filters and the queue: every answer is the asker's mistake or a good one, and none is the server's."""
    async with arena(f"hostile requests to the API ({store[:8]})", api=True, **STORE, **on(store)) as field:
        token = field.token("op", role="operator")
        async with field.member("bob", "desk") as bob:
            for name, data in (BAD_DATA | ODD_DATA).items():
                body = b'{"room":"desk","event":"x","data":' + data + b"}"
                status = (await field.http("POST", "/api/v1/publish", body, token=token)).status
                assert status in ((200,) if name in ODD_DATA else (400, 422)), (name, status)
            assert len(await heard(bob, "x", len(ODD_DATA))) == len(rows(store, "desk")) == len(ODD_DATA)
            await _filters(field, token, bob)
            for name in [*BAD_NAMES.values(), *ODD_NAMES]:
                for path in _paths(name):
                    status = (await field.http("GET", f"/api/v1{path}", token=token)).status
                    assert status in (200, 400, 404, 410, 422), (path, status)
                for path, posted in (("/queues/jobs/requeue", {"ids": [name]}), ("/publish", {"room": "desk", "event": "y", "idempotencyKey": name})):
                    content = json.dumps(posted).encode()
                    assert (await field.http("POST", f"/api/v1{path}", content, token=token)).status in (200, 400, 422), (path, name)
            assert (await bob.ask("ping"))["event"] == "pong"


def _paths(name: str) -> list[str]:
    part = quote(name, safe="", errors="surrogatepass")
    return [
        f"/rooms/{part}", f"/rooms/{part}/history?before={part}", f"/rooms/user:{part}/history?before=x:999999999999999",
        f"/connections/{part}", f"/connections?search={part}&userId={part}", f"/acts?userId={part}", f"/queues/{part}/dead",
        f"/queues/jobs/dead?before={part}", "/queues/jobs/dead?before=99999999999999999999", f"/rooms?prefix={part}&cursor={part}",
    ]  # fmt: skip


async def _filters(field: Field, token: str, bob: Raw) -> None:
    """A filter is a condition on users, never an attribute of an object or a piece of a program."""
    refused: list[Any] = [{"__class__": 1}, {"id__regex": ".*"}, {"id____class__": 1}, {"claims__email": "x"}, {"id__in": "bob"}, "no_such_filter"]
    odd: list[Any] = [{"id": "'; --"}, {"id__in": ["bob", {"a": 1}, None]}, {"role__ne": None}, {"to_wire": 1}, {"email": {"__proto__": 1}}]
    odd += [{"role__in": [[[1]]]}, {"id__gt": "a"}]
    for number, one in enumerate(refused + odd):
        status = (await field.http("POST", "/api/v1/publish", {"room": "desk", "event": "z", "data": number, "filter": one}, token=token)).status
        assert status in ((422,) if one in refused else (200, 422)), one
    good = await field.http("POST", "/api/v1/publish", {"room": "desk", "event": "z", "data": "good", "filter": {"id": "bob"}}, token=token)
    assert good.status == 200
    while (await bob.message("z"))["data"] != "good":
        pass
