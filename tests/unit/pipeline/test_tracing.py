"""Spans: which there are, what is below what, and that nothing is traced or imported where nobody set tracing up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from aibos_realtime import IdempotencyConflict, RealtimeError, RealtimeServer, ValidationError
from aibos_realtime.pipeline.fanout import Fanout
from aibos_realtime.pipeline.tracing import REMEMBERED, TracedFanout, Tracing, shown
from aibos_realtime.server import assembly, traces
from aibos_realtime.testing.clock import settle
from aibos_realtime.testing.server import MemoryServer, memory_server

OPEN: dict[str, Any] = {"permissions": {"*": ["read", "write"]}}


class Spans:
    """What was traced, oldest end first."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = provider or TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider.get_tracer("test"))

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def __str__(self) -> str:
        return "".join(span.to_json() for span in self._exporter.get_finished_spans())


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return {name.removeprefix("aibos_realtime."): value for name, value in (span.attributes or {}).items()}


def is_below(child: ReadableSpan, parent: ReadableSpan) -> bool:
    return child.parent is not None and parent.context is not None and child.parent.span_id == parent.context.span_id


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    spans = Spans()
    monkeypatch.setattr(assembly, "find_tracing", lambda: spans.tracing)
    return spans


@pytest.fixture
async def net(spans: Spans) -> AsyncIterator[MemoryServer]:
    async with memory_server(authorization=OPEN) as net:
        yield net


async def test_from_publish_to_the_write(net: MemoryServer, spans: Spans) -> None:
    ann, bob = await net.connect("ann"), await net.connect("bob")
    for one in (ann, bob):
        await one.request("join-room", "lobby")
    await ann.request("invoice.created", {"amount": "payload-of-ann"}, room="lobby")
    await bob.receive("invoice.created")
    (publish,), (deliver,) = spans.named("publish"), spans.named("deliver")
    assert publish.parent is None and is_below(deliver, publish)
    given = attributes(publish)
    assert (given["event"], given["offset"], given["duplicate"], given["messaging.destination.name"]) == ("invoice.created", 1, False, "lobby")
    assert (attributes(deliver)["deliveries"], attributes(deliver)["events"]) == (2, 1) and attributes(deliver)["bytes"] > 50
    assert "payload-of-ann" not in str(spans) and '"ann"' not in str(spans)


async def test_what_a_handler_publishes_is_below_it(net: MemoryServer, spans: Spans) -> None:
    @net.server.event("invoice.create")
    async def create(socket: Any, data: Any) -> Any:
        await asyncio.sleep(0)
        await net.server.broadcaster.broadcast_to_room("lobby", "invoice.created", data)
        return {"id": 7}

    ann = await net.connect("ann")
    await ann.request("join-room", "lobby")
    assert await ann.request("invoice.create", {}) == {"id": 7}
    (handle,), (publish,), (deliver,) = spans.named("handle invoice.create"), spans.named("publish"), spans.named("deliver")
    assert is_below(publish, handle) and is_below(deliver, publish) and handle.status.status_code is StatusCode.UNSET
    assert create.__name__ == "create"


async def test_handlers_that_are_plain_or_fail(net: MemoryServer, spans: Spans) -> None:
    @net.server.event("plain")
    def plain(socket: Any, data: Any) -> int:
        return 1

    @net.server.event("breaks")
    async def breaks(socket: Any, data: Any) -> None:
        raise ZeroDivisionError("secret-words")

    @net.server.event("refuses")
    def refuses(socket: Any, data: Any) -> None:
        raise ValidationError("secret-words")

    ann = await net.connect("ann")
    assert await ann.request("plain", {}) == 1
    for event in ("breaks", "refuses"):
        with pytest.raises(RealtimeError):
            await ann.request(event, {})
    (fine,), (broken,), (refused,) = spans.named("handle plain"), spans.named("handle breaks"), spans.named("handle refuses")
    assert fine.status.status_code is StatusCode.UNSET
    assert broken.status.status_code is StatusCode.ERROR and attributes(broken)["error.type"] == "ZeroDivisionError"
    assert refused.status.status_code is StatusCode.UNSET and attributes(refused)["error.type"] == "validation_failed"
    assert "secret-words" not in str(spans)


async def test_a_publish_that_fails_or_repeats_leaves_nothing_behind(net: MemoryServer, spans: Spans) -> None:
    broadcaster = net.server.broadcaster
    for data in (1, 2, 1):
        try:
            await broadcaster.broadcast_to_room("lobby", "note", data, idempotency_key="k")
        except IdempotencyConflict:
            pass
    await settle()
    first, conflict, again = map(attributes, spans.named("publish"))
    assert (first["duplicate"], again["duplicate"], conflict["error.type"]) == (False, True, "idempotency_conflict")
    assert len(spans.tracing._publishes) == 0


async def test_events_of_one_turn_are_one_write_that_names_them_all(net: MemoryServer, spans: Spans) -> None:
    ann = await net.connect("ann")
    await ann.request("join-room", "lobby")
    await net.server.broadcaster.broadcast_many([{"room": "lobby", "event": "note", "data": number} for number in range(3)])
    await ann.receive("note")
    publishes, (deliver,) = spans.named("publish"), spans.named("deliver")
    assert len(publishes) == 3 and is_below(deliver, publishes[0]) and len(deliver.links) == 2 and attributes(deliver)["deliveries"] == 3


async def test_whose_stream_it_is_is_not_told(net: MemoryServer, spans: Spans) -> None:
    await net.connect("hildegard")
    await net.server.broadcaster.broadcast_to_user("hildegard", "note", 1)
    await net.server.broadcaster.broadcast_to_all("note", 1)
    await settle()
    assert [attributes(span)["messaging.destination.name"] for span in spans.named("publish")] == ["user:*", "all"]
    assert "hildegard" not in str(spans) and (shown("lobby"), shown("user:x"), shown("all")) == ("lobby", "user:*", "all")


async def test_what_is_not_sampled_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    spans = Spans(TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
    monkeypatch.setattr(assembly, "find_tracing", lambda: spans.tracing)
    async with memory_server(authorization=OPEN) as net:
        await net.server.broadcaster.broadcast_to_room("lobby", "note", 1)
        assert len(spans.tracing._publishes) == 0 and str(spans) == ""


def test_publishes_whose_events_never_come_are_forgotten() -> None:
    tracing = Tracing(trace.NoOpTracer())
    for number in range(REMEMBERED + 5):
        tracing.remember("lobby", str(number), trace.INVALID_SPAN)
    assert len(tracing._publishes) == REMEMBERED and tracing.take("lobby", "4") is None and tracing.take("lobby", "5") is not None


async def test_work_of_the_http_api_goes_on_with_the_trace_of_its_caller(spans: Spans) -> None:
    seen: list[int] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(trace.get_current_span().get_span_context().trace_id)

    traced = spans.tracing.app(app)
    scope: dict[str, Any] = {"headers": [(b"traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), (b"x", b"\xff")]}
    await traced(scope, None, None)  # type: ignore[arg-type]
    await traced({"headers": [(b"traceparent", b"nonsense")]}, None, None)  # type: ignore[arg-type]
    assert seen == [0x0AF7651916CD43DD8448EB211C80319C, 0] and not trace.get_current_span().get_span_context().is_valid


async def test_a_publish_over_http_is_below_the_span_of_its_caller(spans: Spans) -> None:
    key = "rk_0123456789abcdef0123456789abcdef"
    options: dict[str, Any] = {"authentication": {"jwt_secret": "k7Qz-0pLr5Tn2Wx8" * 3}, "persistence": {"database": {"url": "memory://"}}}
    async with RealtimeServer(host="127.0.0.1", port=0, http={"api_keys": [key]}, **options) as server:
        headers = {"x-api-key": key, "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        async with httpx.AsyncClient(base_url=server.url.replace("ws", "http", 1), headers=headers, timeout=20) as http:
            answer = await http.post("/api/v1/publish", json={"room": "lobby", "event": "note", "data": 1})
        assert answer.status_code == 200, answer.text
        await settle()
    (publish,), (deliver,) = spans.named("publish"), spans.named("deliver")
    assert publish.parent is not None and (publish.parent.trace_id, publish.parent.span_id) == (
        0x0AF7651916CD43DD8448EB211C80319C,
        0xB7AD6B7169203331,
    )
    assert is_below(deliver, publish)


# — whether —


def test_it_is_on_where_the_application_has_a_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    assert traces.find_tracing() is None
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(shutdown_on_exit=False))
    assert traces.find_tracing() is not None
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "redis, aibos_realtime")
    assert traces.find_tracing() is None
    monkeypatch.delenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS")
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", trace.NoOpTracerProvider())
    assert traces.find_tracing() is None


async def test_off_it_is_the_plain_parts() -> None:
    async with memory_server() as net:
        parts = net.server._parts
        assert parts.tracing is None and type(parts.fanout) is Fanout is not TracedFanout and parts.sending.broker is parts.broker


def test_off_nothing_of_it_is_imported() -> None:
    code = (
        "import sys; from aibos_realtime import RealtimeServer; RealtimeServer(authentication={'jwt_secret': 'x' * 32}); "
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
