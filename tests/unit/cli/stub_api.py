"""An HTTP API that answers what a test says, in reports as the real one gives them. The real one: `tests/network/test_operator_commands.py`."""

from __future__ import annotations

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qsl, urlsplit

from aibos_realtime.admin.reports import ActReport, ConnectionReport, EventReport, NodeReport, Report, RoomReport, Sample

JSON = "application/json"
PROBLEM = "application/problem+json"


class Asked(NamedTuple):
    """A request as it came. `path`: below /api/v1."""

    method: str
    path: str
    query: dict[str, str]
    fields: dict[str, str]
    body: Any


class Reply(NamedTuple):
    status: int
    body: bytes
    kind: str = JSON
    fields: tuple[tuple[str, str], ...] = ()


Answer = Report | dict[str, Any] | Reply | Callable[[Asked], Any]


class StubApi:
    """`answers`: by `GET /rooms`. `asked`: what was asked so far."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[Asked] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stub._handle(self)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = Thread(target=self._server.serve_forever, args=(0.01,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def _handle(self, request: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(request.path)
        content = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        path = parts.path.removeprefix("/api/v1")
        fields = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.command, path, dict(parse_qsl(parts.query)), fields, json.loads(content) if content else None)
        self.asked.append(asked)
        reply = _reply(self.answers.get(f"{asked.method} {path}", problem(404, "room_not_found", "There is no such room.")), asked)
        request.send_response(reply.status)
        for name, value in (("Content-Type", reply.kind), ("Content-Length", str(len(reply.body))), *reply.fields):
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(reply.body)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _reply(answer: Any, asked: Asked) -> Reply:
    if callable(answer):
        answer = answer(asked)
    if isinstance(answer, Reply):
        return answer
    return Reply(200, json.dumps(answer.to_wire() if isinstance(answer, Report) else answer).encode())


def problem(status: int, code: str, detail: str, **more: Any) -> Reply:
    """RFC 9457."""
    body = {"type": "about:blank", "title": code, "status": status, "detail": detail, "code": code, "retryable": False, **more}
    return Reply(status, json.dumps(body).encode(), PROBLEM)


# — reports —


def room(id: str, *, connections: int = 2, users: int = 1, position: dict[str, Any] | None = None, **more: Any) -> RoomReport:
    given = {"name": id, "type": "public", "max_users": None, "allow_guests": False, "created_at": 1_700_000_000.0, **more}
    return RoomReport(id=id, user_count=users, connection_count=connections, position=position, **given)


def connection(id: str, **more: Any) -> ConnectionReport:
    given = {
        "node": "web-1", "user_id": "user_1", "role": "user", "tenant_id": "1", "address": "10.0.0.7", "state": "open", "codec": "json",
        "connected_at": 1_700_000_000.0, "heard_at": 1_700_000_000.0, "expires_at": None, "rooms": ["tenant_1"], "room_count": 1, "outbox_bytes": 0,
        "user_agent": None, **more,
    }  # fmt: skip
    return ConnectionReport(id=id, **given)


def event(offset: int, *, room: str = "tenant_1", **more: Any) -> EventReport:
    return EventReport(
        event="invoice.created", room=room, offset=offset, id=f"id-{offset}", data={"n": offset}, timestamp="2025-11-23T12:00:00.000Z", **more
    )


def act(name: str, *, time: float = 1_700_000_000.0, **more: Any) -> ActReport:
    return ActReport(time=time, node="web-1", act=name, **more)


def samples(count: int, *, start: float = 1_700_000_000.0, events: int = 0, deliveries: int = 0) -> list[Sample]:
    """One a second, with so many events and deliveries each second."""
    return [
        Sample(
            time=start + number, connections=5, rooms=1, messages_in=number, events=events * number, deliveries=deliveries * number, bytes_in=0,
            bytes_out=0, latency_p50=None, latency_p99=None, loop_lag=0.0, cpu=0.0, memory=0,
        )
        for number in range(count)
    ]  # fmt: skip


def node(name: str, **more: Any) -> NodeReport:
    counts = {
        field: 0
        for field, info in NodeReport.model_fields.items()
        if info.is_required() and info.annotation in (int, float, int | None, float | None)
    }
    given = {"id": f"id-{name}", "name": name, "version": "1.2.3", "state": "ok", "close_codes": {}, "handshakes_refused": {}, **more}
    return NodeReport(**counts | given)
