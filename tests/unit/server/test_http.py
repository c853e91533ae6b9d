"""What the HTTP side answers to anybody: one word."""

from __future__ import annotations

from typing import Any

import pytest

from aibos_realtime.auth.origin import OriginPolicy
from aibos_realtime.server.http import HttpApp


class Caller:
    def __init__(self, ready: bool = True, word: str = "ok", **cors: Any) -> None:
        self.app = HttpApp(status=lambda: (ready, word), websocket_paths=("/", "/ws"), origins=OriginPolicy(cors or None))

    async def ask(self, path: str, method: str = "GET", *headers: tuple[bytes, bytes], root: str = "") -> tuple[int, bytes, dict[bytes, bytes]]:
        said: list[Any] = []

        async def send(message: Any) -> None:
            said.append(message)

        async def receive() -> Any:
            raise AssertionError("no body is read")

        scope = {"type": "http", "path": path, "method": method, "headers": [(b"host", b"a.example"), *headers], "root_path": root, "scheme": "http"}
        await self.app(scope, receive, send)
        return said[0]["status"], said[1]["body"], dict(said[0]["headers"])


async def test_alive_and_ready() -> None:
    for path in ("/health", "/ready", "/status"):
        status, body, headers = await Caller().ask(path)
        assert (status, body, headers[b"cache-control"]) == (200, b'{"status":"ok"}', b"no-store")


async def test_draining_is_alive_and_not_ready() -> None:
    caller = Caller(False, "draining")
    assert (await caller.ask("/health"))[:2] == (200, b'{"status":"ok"}')
    assert (await caller.ask("/ready"))[:2] == (503, b'{"status":"draining"}')
    assert (await caller.ask("/status"))[:2] == (200, b'{"status":"draining"}')


@pytest.mark.parametrize(("path", "method", "status"), [("/x", "GET", 404), ("/ws", "GET", 426), ("/", "GET", 426), ("/health", "POST", 405)])
async def test_other_paths_and_methods(path: str, method: str, status: int) -> None:
    found, body, headers = await Caller().ask(path, method)
    assert found == status and b'"message"' in body and int(headers[b"content-length"]) == len(body)


async def test_a_head_has_no_body_and_says_how_long_it_would_be() -> None:
    status, body, headers = await Caller().ask("/health", "HEAD")
    assert (status, body, headers[b"content-length"]) == (200, b"", b"15")


async def test_mounted_under_a_path() -> None:
    assert (await Caller().ask("/realtime/health", root="/realtime"))[0] == 200


async def test_cors_from_the_same_list() -> None:
    caller = Caller(origin=["https://app.example.com"], credentials=True)
    _, _, headers = await caller.ask("/health", "GET", (b"origin", b"https://app.example.com"))
    assert headers[b"access-control-allow-origin"] == b"https://app.example.com"
    status, _, headers = await caller.ask("/health", "OPTIONS", (b"origin", b"https://app.example.com"))
    assert status == 204 and b"access-control-allow-methods" in headers
    _, _, headers = await caller.ask("/health", "GET", (b"origin", b"https://evil.example"))
    assert b"access-control-allow-origin" not in headers
