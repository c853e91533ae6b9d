"""What a request passes before it comes to a route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from aibos_realtime import WebSocketAuth
from aibos_realtime.admin.access import Access
from aibos_realtime.admin.api.gate import BODY_SECONDS, Gate, encoded_path
from aibos_realtime.auth.operators import HttpOptions, Operators
from aibos_realtime.testing.clock import ManualClock
from tests.unit.admin.api.rig import KEY, SECRET, Rig, check_problem, running


class Passed:
    """A gate on a clock of its own, and what came through it."""

    def __init__(self, **options: Any) -> None:
        self.clock = ManualClock()
        http = HttpOptions(api_keys=[KEY], **options)
        operators = Operators(http, auth=WebSocketAuth(jwt_secret=SECRET, clock=self.clock))
        access = Access(operators, address_of=lambda scope: "192.0.2.1", penalty=lambda address: 0.0, clock=self.clock)
        self.gate = Gate(self._take, operations=None, access=access, options=http, clock=self.clock)  # type: ignore[arg-type]
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self.incoming: asyncio.Queue[Any] = asyncio.Queue()
        self.said: list[Any] = []

    async def _take(self, scope: Any, receive: Any, send: Any) -> None:
        self.scopes.append(scope)
        message = await receive()
        self.bodies.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(self, message: Any) -> None:
        self.said.append(message)

    async def ask(self, method: str = "POST", *headers: tuple[bytes, bytes], body: bytes | None = b"{}", key: str = KEY) -> tuple[int, Any]:
        """`body`: None: what is in `incoming` makes it up."""
        if body is not None:
            self.incoming.put_nowait({"type": "http.request", "body": body, "more_body": False})
        fields = [(b"x-api-key", key.encode()), (b"content-type", b"application/json"), *headers]
        scope = {"type": "http", "method": method, "path": "/api/v1/x", "headers": fields, "query_string": b""}
        await self.gate(scope, self.incoming.get, self.send)
        if not self.said:
            return 0, None
        start, end, self.said = self.said[0], self.said[1], []
        return start["status"], msgspec.json.decode(end["body"]) if end["body"] else dict(start["headers"])


async def test_a_body_is_read_whole_and_handed_on() -> None:
    passed = Passed()
    for part in (b'{"a":', b" [1,", b"2]}"):
        passed.incoming.put_nowait({"type": "http.request", "body": part, "more_body": part != b"2]}"})
    assert await passed.ask(body=None) == (200, {})
    assert passed.bodies == [b'{"a": [1,2]}']


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b'{"a": "\\u0000"}', b'{"\\u0000": 1}',
     b'{"a": 9007199254740993}', b"[" * 100_000, b"[" * 40 + b"]" * 40, b'{"a":' * 5000 + b"1" + b"}" * 5000, b"\xff\xfe", b"\xef\xbb\xbf{}",
     '{"a": 1}'.encode("utf-16"), b'{"a": 1} {"b": 2}', b'{"a": "\x00"}', b"{'a': 1}"],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
async def test_what_is_no_json_that_can_go_anywhere(body: bytes) -> None:
    passed = Passed()
    status, said = await passed.ask(body=body)
    assert (status, said["code"]) == (400, "bad_request") and not passed.bodies


async def test_a_body_is_bounded_before_and_while_it_is_read() -> None:
    passed = Passed(body_bytes=1000)
    status, said = await passed.ask("POST", (b"content-length", b"1001"), body=None)  # nothing of it is waited for
    assert (status, said["code"]) == (413, "message_too_large")
    assert (await passed.ask("POST", (b"content-length", b"9" * 400), body=None))[0] == 413
    for _ in range(3):
        passed.incoming.put_nowait({"type": "http.request", "body": b" " * 400, "more_body": True})
    assert (await passed.ask(body=None))[0] == 413
    assert (await passed.ask(body=b'"' + b"x" * 998 + b'"'))[0] == 200


async def test_a_body_has_its_time() -> None:
    passed = Passed()
    asking = asyncio.ensure_future(passed.ask(body=None))
    passed.incoming.put_nowait({"type": "http.request", "body": b"{", "more_body": True})
    await passed.clock.until_planned(BODY_SECONDS)
    await passed.clock.advance(BODY_SECONDS - 0.1)
    assert not asking.done()
    await passed.clock.advance(0.1)
    async with asyncio.timeout(5):
        status, said = await asking
    assert (status, said["code"], said["retryable"]) == (408, "timeout", True) and not passed.bodies


async def test_who_hangs_up_is_answered_nothing() -> None:
    passed = Passed()
    passed.incoming.put_nowait({"type": "http.disconnect"})
    assert await passed.ask(body=None) == (0, None) and not passed.bodies


@pytest.mark.parametrize(
    ("headers", "status"),
    [([(b"content-type", b"text/plain")], 415), ([(b"content-type", b"")], 415), ([(b"content-type", b"application/json; charset=latin-1")], 415),
     ([(b"content-encoding", b"gzip")], 415), ([(b"content-type", b"application/x-www-form-urlencoded")], 415),
     ([(b"content-type", b'Application/JSON; Charset="UTF-8"')], 200), ([(b"content-encoding", b"identity")], 200)],
)  # fmt: skip
async def test_what_kind_a_body_is(headers: list[tuple[bytes, bytes]], status: int) -> None:
    assert (await Passed().ask("POST", *headers))[0] == status


async def test_without_a_body_none_is_read() -> None:
    passed = Passed()
    for method in ("GET", "HEAD", "DELETE"):
        assert (await passed.ask(method, (b"content-type", b"text/plain"), body=None))[0] == 200
    assert passed.bodies == [b"", b"", b""] and [scope["method"] for scope in passed.scopes] == ["GET", "GET", "DELETE"]


async def test_who_is_not_known_is_told_before_his_body_is_read() -> None:
    passed = Passed()
    status, said = await passed.ask(body=None, key="x" * 40)
    assert (status, said["code"]) == (401, "not_authenticated")


async def test_the_pace_is_one_callers_own() -> None:
    passed = Passed(requests_per_second=2.0)
    auth = WebSocketAuth(jwt_secret=SECRET, clock=passed.clock)
    assert [(await passed.ask())[0] for _ in range(5)] == [200, 200, 200, 200, 429]
    status, said = await passed.ask()
    assert (said["code"], said["retryable"], said["retryAfter"]) == ("rate_limited", True, 0.5)
    other = (b"authorization", f"Bearer {auth.issue(user_id='ann')}".encode())
    scope = {"type": "http", "method": "GET", "path": "/api/v1/x", "headers": [other], "query_string": b""}
    await passed.gate(scope, passed.incoming.get, passed.send)
    assert passed.said[0]["status"] == 200
    passed.said = []
    await passed.clock.advance(0.5)
    assert (await passed.ask())[0] == 200


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/api/v1/rooms/a%2fb", "/api/v1/rooms/a%2Fb"),
        (b"/api/v1/%72ooms/a:b", "/api/v1/rooms/a%3Ab"),
        (b"/a/%ff?x=/", "/a/%FF"),
        (b"/a//b", "/a//b"),
    ],
)
def test_every_part_of_a_path_is_encoded_in_one_way(raw: bytes, path: str) -> None:
    assert encoded_path({"path": "/none", "raw_path": raw}) == path


def test_a_path_that_no_server_kept_as_it_was() -> None:
    assert encoded_path({"path": "/rooms/ü b"}) == "/rooms/%C3%BC%20b"


# — over the network —


async def test_a_body_in_chunks_is_bounded_too() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    async with running(http={"api_keys": [KEY], "body_bytes": 5000}) as rig:
        answer = await rig.http.post("/api/v1/publish", content=chunks(), headers=rig.fields("key") | {"Content-Type": "application/json"})
        check_problem(answer, 413, "message_too_large")
        assert (await rig.ask("POST", "/publish", {"room": "a", "event": "b"})).status_code == 200


async def test_the_wait_is_told_in_the_header_too() -> None:
    async with running(http={"api_keys": [KEY], "requests_per_second": 0.5}) as rig:
        answers = [await rig.ask("GET", "/rooms") for _ in range(2)]
        check_problem(answers[1], 429, "rate_limited")
        assert answers[1].headers["retry-after"] == "2" and answers[1].json()["retryAfter"] <= 2


async def test_many_hostile_requests_leave_the_server_well(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    for body in (b"[" * 200_000, b"{}" * 1000, b'{"items": ' + b"[" * 5000, b'{"data": "' + b"\\ud800" * 100 + b'"}', b"9" * 100_000):
        for path in ("/publish", "/batch", "/disconnect", "/queues/a/requeue", "/rooms/a/kick"):
            answer = await rig.ask("POST", path, body)
            assert 400 <= answer.status_code < 500, (path, body[:20])
    assert (await rig.ask("GET", "/rooms")).status_code == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
