"""What is said when things go wrong, at every place where something is said: no token, no key, no password and no payload, at any level of the log.

Failures are forced in the application's own functions, in the store, and in configurations that cannot be right.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from aibos_realtime import RealtimeClient, RealtimeServer, Socket, User
from aibos_realtime.auth.authentication import AuthenticationOptions
from aibos_realtime.auth.keys import key_of_secret
from aibos_realtime.auth.operators import HttpOptions
from aibos_realtime.backends.redis.options import RedisOptions
from aibos_realtime.backends.redis.urls import read_url as read_redis_url
from aibos_realtime.backends.sql.options import DatabaseOptions
from aibos_realtime.backends.sql.urls import read_url
from aibos_realtime.config import RealtimeConfig
from aibos_realtime.pipeline.tracing import Tracing
from aibos_realtime.protocol.messages import SUBPROTOCOL, TokenRequest
from aibos_realtime.server import assembly
from tests.faults.processes import Process, Zygote
from tests.network.raw import SECRET, make_server, member, raw, request, text, upgraded
from tests.unit.auth.material import private_pem, rsa_key

PAYLOAD = "PAYLOAD-of-one-user-7731"
PASSWORD = "hunter2-of-the-operator"
KEY = "rk_a_key_that_only_these_tests_have_9x"
WEAK = "a-weak-one-of-24-letters"
SECRETS = (PAYLOAD, PASSWORD, KEY, SECRET, WEAK)


class Heard(logging.Handler):
    """Everything that is logged by anybody, as it would be written, traces included."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s %(args)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(self.format(record))


@pytest.fixture
def heard() -> Iterator[Heard]:
    root, handler = logging.getLogger(), Heard()
    before = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(handler)
    yield handler
    root.removeHandler(handler)
    root.setLevel(before)


def leaks(said: list[str], *tokens: str) -> list[str]:
    """The texts that hold a secret, or a part of a token that is worth something."""
    parts = [part for token in tokens for part in token.split(".") if len(part) > 20]
    return [one[:300] for one in said if any(secret in one for secret in (*SECRETS, *parts))]


def fail(*_: object) -> Any:
    raise ZeroDivisionError("on purpose")


async def fail_later(*_: object) -> Any:
    await asyncio.sleep(0)
    raise ZeroDivisionError("on purpose")


def failing_server(**options: Any) -> RealtimeServer:
    """One whose application fails wherever it is asked."""
    server = make_server(
        http={"api_keys": [KEY]},
        authentication={"jwt_secret": SECRET, "query_parameter": "token"},
        limits={"failed_authentications_per_minute": None},
        **options,
    )
    server.event("fail")(fail)
    server.event("fail.later")(fail_later)
    server.event("unsendable")(lambda socket, data: object())

    @server.event("typed")
    async def typed(socket: Socket, data: User) -> None:
        """A payload that does not fit."""

    server.broadcaster.filter("broken")(fail)
    server.on("disconnect", fail_later)
    server.auth.on_revoked(fail)
    return server


async def test_nothing_secret_is_said_when_everything_fails(heard: Heard, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(assembly, "find_tracing", lambda: Tracing(provider.get_tracer("test")))
    store = tmp_path / "realtime.db"
    server = failing_server(persistence={"database": {"url": f"sqlite:///{store}"}})
    asyncio.get_running_loop().set_debug(True)
    await server.start()
    try:
        said, tokens = await _use(server, store)
    finally:
        await server.stop(drain=0)
        asyncio.get_running_loop().set_debug(False)
    spans = [span.to_json() for span in exporter.get_finished_spans()]
    assert spans
    said += spans
    assert [one for one in heard.said if "on purpose" in one], "the failures are in the log"
    assert leaks(heard.said + said, *tokens) == []


async def _use(server: RealtimeServer, store: Path) -> tuple[list[str], list[str]]:
    """Have everything fail; returns what others than the owner of the data were told, and the tokens that were used."""
    good, other = server.auth.issue(user_id="ann", tenant_id="1"), server.auth.issue(user_id="eve", tenant_id="1")
    bad = good[:-4] + "AAAA"
    said: list[str] = []
    async with AsyncExitStack() as stack:
        for sent in (
            request(f"Authorization: Bearer {bad}"),
            request(line=f"GET /?token={bad} HTTP/1.1"),
            request(f"Cookie: token={good}", f"Authorization: Bearer {bad}", line="GET /other HTTP/1.1"),
            f"GET /api/v1/nodes?key={KEY} HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}x\r\n\r\n".encode(),
            f"GET /api/v1/{bad} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {bad}\r\n\r\n".encode(),
            f"NO HTTP {good}\r\n\r\n".encode(),
        ):
            connection = await stack.enter_async_context(raw(server.port))
            await connection.send(sent)
            said.append(str(await connection.response()))
        protocol = await stack.enter_async_context(upgraded(server.port, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}, bearer.{bad}"))
        said.append(str(await protocol.frame()))
        ann = await stack.enter_async_context(upgraded(server.port, f"Sec-WebSocket-Protocol: {SUBPROTOCOL}, bearer.{good}"))
        await ann.message("connected")
        eve = await stack.enter_async_context(member(server, "eve", "tenant_1"))
        for event in ("fail", "fail.later", "unsendable", "typed"):
            said.append(str(await ann.ask(event, {"secret": PAYLOAD})))
        said.append(str(await ann.ask("authenticate", other)))
        await server.broadcaster.broadcast_to_room("tenant_1", "x", PAYLOAD, filter="broken")
        for message in ({"event": "join-room", "data": {"roomId": PAYLOAD + "\0"}}, {"event": "x", "data": PAYLOAD, "room": "tenant_2"}):
            ann.write(text({**message, "ref": "r"}))
            said.append(str(await ann.message()))
        ann.write(text({"event": "x", "data": PAYLOAD, "room": "tenant_1", "id": "known", "ref": "one"}))
        ann.write(text({"event": "x", "data": PAYLOAD + "2", "room": "tenant_1", "id": "known", "ref": "two"}))
        said += [str(await ann.message()), str(await ann.message())]
        said += await _with_broken_store(ann, store)
        await server.auth.revoke(user_id="ann")
        said.append(str(await ann.frame()))
        headers = f"GET {{}} HTTP/1.1\r\nHost: a\r\nX-API-Key: {KEY}\r\n\r\n"
        reader = await stack.enter_async_context(raw(server.port))
        for path in ("/metrics", "/status", "/ready", "/api/v1/acts", "/api/v1/connections", "/api/v1/nodes", "/api/openapi.json"):
            await reader.send(headers.format(path).encode())
            answer = await reader.response()
            assert answer.status in (200, 503), path
            said.append(str(answer))
        said += [repr(one) for one in server.pool] + [str(one.headers) for one in server.pool]
        eve.reset()
    return said, [good, bad, other]


async def _with_broken_store(ann: Any, store: Path) -> list[str]:
    """The table is gone: whatever the database says of the statement, and of what was to be written, goes no further."""
    with sqlite3.connect(store) as session:
        session.execute("ALTER TABLE realtime_messages RENAME TO gone")
    said = [str(await ann.ask("x", PAYLOAD, room="tenant_1")), str(await ann.ask("history", {"roomId": "tenant_1", "limit": 300}))]
    with sqlite3.connect(store) as session:
        session.execute("ALTER TABLE gone RENAME TO realtime_messages")
    assert "gone" not in said[0] and "realtime_messages" not in said[0], "what the database said is no business of a client"
    return said[:1]


# — what is printed of an object —


def test_objects_do_not_show_their_secrets() -> None:
    config = {
        "authentication": {"jwt_secret": SECRET},
        "http": {"api_keys": [KEY]},
        "persistence": {"database": {"url": f"postgresql://u:{PASSWORD}@db/x"}},
        "queue": {"redis": {"url": f"redis://:{PASSWORD}@cache", "sentinel_password": PASSWORD}},
    }
    parsed = RealtimeConfig.parse("", config)
    server = make_server()
    shown = [
        parsed, AuthenticationOptions(jwt_secret=SECRET), HttpOptions(api_keys=(KEY,)), DatabaseOptions(url=f"postgresql://u:{PASSWORD}@db/x"),
        RedisOptions(url=f"redis://:{PASSWORD}@cache", sentinel_password=PASSWORD), read_url(f"postgresql://u:{PASSWORD}@db/x"),
        read_redis_url(f"redis://:{PASSWORD}@cache"), key_of_secret(SECRET, None), TokenRequest(PASSWORD), server, server.auth, server.config,
        server.queue, RealtimeClient("ws://localhost", token=PASSWORD), server.auth.options,
    ]  # fmt: skip
    assert leaks([text for one in shown for text in (repr(one), str(one), f"{one}", repr([one]))]) == []


# — configurations that are refused —

CASES: dict[str, tuple[dict[str, str], str]] = {
    # variables, TOML
    "a secret of 24 bytes": ({"JWT_SECRET": WEAK}, ""),
    "an empty secret": ({"JWT_SECRET": ""}, ""),
    "a secret of spaces": ({"JWT_SECRET": " " * 40}, ""),
    "a secret known from documentation": ({"JWT_SECRET": "your_jwt_secret"}, ""),
    "a private key as secret": ({"JWT_SECRET": private_pem(rsa_key())}, ""),
    "HMAC and RSA": ({"JWT_SECRET": SECRET}, '[authentication]\nalgorithms = ["HS256", "RS256"]'),
    "no algorithm": ({"JWT_SECRET": SECRET}, '[authentication]\nalgorithms = ["none"]'),
    "an empty list of algorithms": ({"JWT_SECRET": SECRET}, "[authentication]\nalgorithms = []"),
    "two keys": ({"JWT_SECRET": SECRET}, '[authentication]\njwks_url = "https://id.example/keys"'),
    "a private key as public one": ({}, f'[authentication]\npublic_key = """{private_pem(rsa_key())}"""'),
    "a key set with a password": ({}, f'[authentication]\njwks_url = "https://u:{PASSWORD}@id.example/keys"'),
    "a key set in a file": ({}, '[authentication]\njwks_url = "file:///etc/passwd"'),
    "an empty audience": ({"JWT_SECRET": SECRET}, '[authentication]\naudience = ""'),
    "every origin with credentials": ({"JWT_SECRET": SECRET}, '[cors]\norigin = "*"\ncredentials = true'),
    "an origin with a pattern": ({"JWT_SECRET": SECRET}, '[cors]\norigin = "https://*.example"'),
    "a short API key": ({"JWT_SECRET": SECRET, "REALTIME_API_KEYS": KEY[:20]}, ""),
    "an API key with a space": ({"JWT_SECRET": SECRET, "REALTIME_API_KEYS": KEY + " x"}, ""),
    "a port that is none": ({"JWT_SECRET": SECRET, "DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:99999/x"}, ""),
    "a password with a slash": ({"JWT_SECRET": SECRET, "DATABASE_URL": f"postgresql://u:{PASSWORD}/#@127.0.0.1/x"}, ""),
    "a scheme that is none": ({"JWT_SECRET": SECRET, "DATABASE_URL": f"mysql://u:{PASSWORD}@127.0.0.1/x"}, ""),
    "a Redis without a host": ({"JWT_SECRET": SECRET, "REDIS_URL": f"redis://:{PASSWORD}@:99999/x"}, ""),
    "a database that is not there": ({"JWT_SECRET": SECRET, "DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:9/x"}, ""),
    "a Redis that is not there": ({"JWT_SECRET": SECRET, "REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:9/0", "ENABLE_SCALING": "1"}, ""),
    "a secret in the wrong place": ({"JWT_SECRET": SECRET}, f'[http]\napi_key = "{KEY}"'),
    "no TOML": ({"JWT_SECRET": SECRET}, f'[http\napi_keys = ["{KEY}"'),
}


@pytest.mark.parametrize("words", [["serve", "--port", "0"], ["check"]], ids=["serve", "check"])
async def test_configurations_that_are_refused(zygote: Zygote, tmp_path: Path, words: list[str]) -> None:
    """Each ends with a status that is not 0, and one sentence that says which option it was, and nothing of what stood in it."""
    cases = []
    for number, (variables, toml) in enumerate(CASES.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "realtime.toml").write_text(toml)
        cases.append({"words": [*words, "--config", "realtime.toml"], "folder": str(folder), "variables": variables})
    command = await Process.start(zygote, "tests.attacks.command", {"cases": cases})
    assert await command.ended() == 0, command.lines
    ended = dict(zip(CASES, map(json.loads, command.lines), strict=True))
    assert [name for name, one in ended.items() if one["status"] <= 0] == []
    said = {name: one["lines"] for name, one in ended.items()}
    assert {name: lines for name, lines in said.items() if not lines or any("Traceback" in line for line in lines)} == {}
    private = private_pem(rsa_key()).splitlines()[1][:30]
    assert leaks([json.dumps(one) for one in said.items()], KEY) == [] and private not in str(said)
    if "serve" in words:
        assert {name: lines for name, lines in said.items() if len([line for line in lines if line.strip()]) > 3} == {}
