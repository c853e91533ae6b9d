"""Traces by OpenTelemetry: a span for each publish, each handler, and the write of an event to this node's members, which follows its publish.

Imported only where an application has set tracing up (`server.traces`): then these parts take the place of the plain ones, which know nothing of it.
No span names a user, and none has a payload.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from inspect import isawaitable
from typing import Any, cast

from opentelemetry import context, propagate, trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, Tracer

from ..backends.base import Broker, Draft, LoggedEvent, Receipt
from ..errors import RealtimeError
from ..protocol.limits import ALL, is_own_stream
from ..transport.asgi import Receive, Scope, Send
from .fanout import Fanout
from .routing import Router

REMEMBERED = 10_000
"""Publishes whose events have not been written yet."""
SYSTEM = "aibos_realtime"

App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Tracing:
    """One server's spans. `tracer`: where they go."""

    def __init__(self, tracer: Tracer) -> None:
        self.tracer = tracer
        self._publishes: OrderedDict[tuple[str, str], SpanContext] = OrderedDict()

    def begin(self, name: str, kind: SpanKind, room: str | None = None, **attributes: str | int) -> Span:
        """A span that is not the current one yet."""
        given: dict[str, str | int] = {"messaging.system": SYSTEM, "messaging.operation.name": name.partition(" ")[0]}
        if room is not None:
            given["messaging.destination.name"] = shown(room)
        return self.tracer.start_span(name, kind=kind, attributes=given | {f"{SYSTEM}.{key}": value for key, value in attributes.items()})

    def remember(self, room: str, id: str, span: Span) -> None:
        """The event of this id is that of a publish."""
        self._publishes[room, id] = span.get_span_context()
        if len(self._publishes) > REMEMBERED:
            self._publishes.popitem(last=False)

    def take(self, room: str, id: str) -> SpanContext | None:
        """The publish of an event, if it was here; it is forgotten."""
        return self._publishes.pop((room, id), None)

    def broker(self, broker: Broker) -> Broker:
        """A broker, traced."""
        return cast(Broker, TracedBroker(broker, self))

    def fanout(self, **parts: Any) -> Fanout:
        """A fan-out of these parts, traced."""
        fanout = TracedFanout(**parts)
        fanout.tracing = self
        return fanout

    def router(self) -> Router:
        """Routes, traced."""
        router = TracedRouter()
        router.tracing = self
        return router

    def app(self, app: App) -> App:
        """An ASGI app whose work goes on with the trace that its caller names (`traceparent`)."""

        async def traced(scope: Scope, receive: Receive, send: Send) -> None:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            token = context.attach(propagate.extract(headers))
            try:
                await app(scope, receive, send)
            finally:
                context.detach(token)

        return traced


class TracedBroker:
    """A broker whose publishes are spans: from the call to the position. Everything else is the broker's own."""

    def __init__(self, broker: Broker, tracing: Tracing) -> None:
        self._broker = broker
        self._tracing = tracing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def publish(self, draft: Draft) -> asyncio.Future[Receipt]:
        span = self._tracing.begin("publish", SpanKind.PRODUCER, draft.room, event=draft.event, bytes=len(draft.data))
        if not span.is_recording():
            return self._broker.publish(draft)
        self._tracing.remember(draft.room, draft.id, span)
        receipt = self._broker.publish(draft)
        receipt.add_done_callback(partial(self._end, span, draft))
        return receipt

    def _end(self, span: Span, draft: Draft, receipt: asyncio.Future[Receipt]) -> None:
        error = asyncio.CancelledError() if receipt.cancelled() else receipt.exception()
        if error is not None:
            fail(span, error)
            self._tracing.take(draft.room, draft.id)
        else:
            done = receipt.result()
            if done.duplicate:
                self._tracing.take(draft.room, draft.id)
            span.set_attribute(f"{SYSTEM}.duplicate", done.duplicate)
            if done.position is not None:
                span.set_attribute(f"{SYSTEM}.offset", done.position.offset)
        span.end()


class TracedFanout(Fanout):
    """A fan-out that is a span below the publish of its first event, if that was on this node; the publishes of others are linked."""

    tracing: Tracing

    def _send(self, room_id: str, events: list[LoggedEvent]) -> None:
        publishes = [found for event in events if (found := self.tracing.take(room_id, event.id)) is not None]
        if not publishes:
            super()._send(room_id, events)
            return
        metrics = self._metrics
        deliveries, written = metrics.deliveries, metrics.bytes_out
        span = self.tracing.tracer.start_span(
            "deliver",
            trace.set_span_in_context(NonRecordingSpan(publishes[0])),
            SpanKind.CONSUMER,
            {"messaging.system": SYSTEM, "messaging.operation.name": "deliver", "messaging.destination.name": shown(room_id)},
            [Link(one) for one in publishes[1:]],
        )
        try:
            super()._send(room_id, events)
        finally:
            span.set_attribute(f"{SYSTEM}.events", len(events))
            span.set_attribute(f"{SYSTEM}.deliveries", metrics.deliveries - deliveries)
            span.set_attribute(f"{SYSTEM}.bytes", metrics.bytes_out - written)
            span.end()


class TracedRouter(Router):
    """Routes whose handlers are spans; what they publish is below them."""

    tracing: Tracing

    def add(self, event: str, handler: Callable[..., Any], payload: Any = None) -> None:
        super().add(event, self._traced(event, handler) if callable(handler) else handler, payload)

    def _traced(self, event: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(handler)
        def traced(*arguments: Any) -> Any:
            span = self.tracing.begin(f"handle {event}", SpanKind.CONSUMER, event=event)
            try:
                with trace.use_span(span, record_exception=False, set_status_on_exception=False):
                    result = handler(*arguments)
            except BaseException as error:
                fail(span, error)
                span.end()
                raise
            if isawaitable(result):
                return finish(span, result)
            span.end()
            return result

        return traced


async def finish(span: Span, result: Awaitable[Any]) -> Any:
    """The rest of a handler, with its span as the current one."""
    try:
        with trace.use_span(span, record_exception=False, set_status_on_exception=False):
            return await result
    except BaseException as error:
        fail(span, error)
        raise
    finally:
        span.end()


def fail(span: Span, error: BaseException) -> None:
    """What went wrong, by its kind alone: its words may hold what is nobody's business. What a client caused is no failure of the span."""
    if isinstance(error, RealtimeError):
        span.set_attribute("error.type", error.code)
    else:
        span.set_attribute("error.type", type(error).__qualname__)
        span.set_status(StatusCode.ERROR)


def shown(room: str) -> str:
    """A room's id; of a user's own stream not whose."""
    return room if room == ALL or not is_own_stream(room) else "user:*"
