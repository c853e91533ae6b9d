"""A server of its own for the tests of the HTTP API, on a real port, and those who ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import httpx

from aibos_realtime import RealtimeServer

SECRET = "only-for-the-tests-of-the-http-api"
KEY = "rk_only_for_the_tests_of_the_http_api"
ROLES = {"manager": {"tenant_{tenant_id}": ["read", "write", "manage"]}, "overseer": {"*": ["manage"]}}
OPTIONS: dict[str, Any] = {
    "host": "127.0.0.1", "port": 0, "authentication": {"jwt_secret": SECRET}, "persistence": {"database": {"url": "memory://"}},
    "queue": {"url": "memory://"}, "http": {"api_keys": [KEY], "requests_per_second": None},
    "authorization": {"permissions": {"tenant_{tenant_id}": ["read", "write"]}, "roles": ROLES},
}  # fmt: skip


class Rig:
    """`ask("GET", "/rooms", by="operator")`: by `None`, `"key"`, a role (of tenant 1), or a whole token."""

    def __init__(self, server: RealtimeServer) -> None:
        self.server = server
        self.base = f"http://127.0.0.1:{server.port}"
        self.http = httpx.AsyncClient(base_url=self.base, timeout=10.0, trust_env=False, verify=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.http.aclose()

    def fields(self, by: str | None) -> dict[str, str]:
        if by is None:
            return {}
        if by == "key":
            return {"X-API-Key": KEY}
        token = by if "." in by else self.server.auth.issue(user_id=f"{by}_1", role=by, tenant_id="1")
        return {"Authorization": f"Bearer {token}"}

    async def ask(
        self, method: str, path: str, body: Any = None, *, by: str | None = "key", headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """`body`: JSON, or bytes as they are."""
        if isinstance(body, bytes):
            more["content"], headers = body, {"Content-Type": "application/json"} | (headers or {})
        elif body is not None:
            more["json"] = body
        return await self.http.request(method, f"/api/v1{path}", headers=self.fields(by) | (headers or {}), **more)

    async def publish(self, room: str = "tenant_1", event: str = "invoice.created", data: Any = None, **members: Any) -> Any:
        return (await self.ask("POST", "/publish", {"room": room, "event": event, "data": data} | members)).json()


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[Rig]:
    """`options`: of the server; a group is taken as a whole."""
    server = RealtimeServer(**OPTIONS | options)
    async with server, Rig(server) as rig:
        try:
            yield rig
        finally:
            await rig.http.aclose()
            await server.stop(drain=0)


def check_problem(answer: httpx.Response, status: int, code: str) -> Any:
    """An answer that is a problem, as every error is; its body."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["type"], body["status"], body["code"]) == ("about:blank", status, code) and body["title"] and body["detail"]
    assert isinstance(body["retryable"], bool)
    return body
